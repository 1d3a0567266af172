"""Runs in titans-pytorch's environment: its memory and ours, on the same weights, by turns.

Prints one JSON object. `same` first compares outputs and outer gradients in float64 in its
paper-equal setting (`chunk_size=1, batch_size=chunk`); `time` measures CPU seconds of one thread,
each turn all of them once; `memory` the growth of this process's peak while one of them does one
pass.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from titans_pytorch import MemoryMLP, NeuralMemory
from torch import Tensor

from cupel.models.memory import bias, retention
from cupel.models.memory.chunk import Gates, Rule, begin, run
from cupel.models.memory.net import Net

# How titans-pytorch cuts a sequence: tokens of one update (and gate), tokens of one anchor.
MODES: dict[str, Callable[[int], dict[str, Any]]] = {
    "paper": lambda chunk: {"chunk_size": 1, "batch_size": chunk},
    "chunk gates": lambda chunk: {"chunk_size": chunk, "batch_size": chunk},
    "default": lambda chunk: {"chunk_size": chunk},
}


def peer(mode: str, *, width: int, chunk: int, depth: int) -> NeuralMemory:
    """The same weights for every mode."""
    torch.manual_seed(1)
    return NeuralMemory(
        dim=width,
        model=MemoryMLP(width, depth=depth, expansion_factor=2.0),
        mem_model_norm_add_residual=False,
        **MODES[mode](chunk),
    )


def ours(memory: NeuralMemory, x_BTC: Tensor, *, width: int, chunk: int) -> Tensor:
    """cupel's chunk form with that memory's projections, gates and first weights."""
    rule = Rule(
        Net("gelu"), bias.L2(2 / width), retention.L2Retention(), chunk=chunk, momentum=True
    )
    seen = memory.store_norm(x_BTC)
    q = memory.to_queries(memory.retrieve_norm(x_BTC))
    decay = memory.to_decay_factor(seen).squeeze(-1)
    eta = memory.to_momentum(seen)[0].squeeze(-1)
    gates = Gates(
        F.logsigmoid(-decay),
        memory.adaptive_step_transform(memory.to_adaptive_step(seen)),
        F.logsigmoid(eta),
    )
    first = [w.expand(len(x_BTC), *w.shape[1:]) for w in memory.memory_model_parameters]
    y_BTC, _ = run(rule, q, memory.to_keys(seen), memory.to_values(seen), gates, begin(rule, first))
    return y_BTC


def loop(memory: NeuralMemory, x_BTC: Tensor, *, width: int, chunk: int) -> Tensor:
    """The same by hand, one token after the other, for a memory of one layer."""
    seen = memory.store_norm(x_BTC)
    q = memory.to_queries(memory.retrieve_norm(x_BTC))
    k, v = memory.to_keys(seen), memory.to_values(seen)
    keep = 1 - memory.to_decay_factor(seen).sigmoid()
    eta = memory.to_momentum(seen)[0].sigmoid()
    theta = memory.adaptive_step_transform(memory.to_adaptive_step(seen))[..., None, None]
    W = memory.memory_model_parameters[0].expand(len(x_BTC), width, width)
    anchor, S, outputs = W, torch.zeros_like(W), []
    for t in range(x_BTC.shape[1]):
        if t % chunk == 0:
            anchor = W
        error = (k[:, t, None] @ anchor).squeeze(1) - v[:, t]
        grad = (2 / width) * k[:, t, :, None] * error[:, None, :]
        S = eta[:, t, None] * S - theta[:, t] * grad
        W = keep[:, t, None] * W + S
        outputs.append((q[:, t, None] @ W).squeeze(1))
    return torch.stack(outputs, 1)


def passes(call: Callable[[Tensor], Tensor], x_BTC: Tensor, *, backward: bool) -> None:
    if not backward:
        with torch.no_grad():
            call(x_BTC)
        return
    call(x_BTC).square().mean().backward()


def same(*, width: int, chunk: int, depth: int, length: int) -> dict[str, float]:
    """The largest differences of outputs, and of outer gradients relative to their size."""
    torch.set_default_dtype(torch.float64)
    memory = peer("paper", width=width, chunk=chunk, depth=depth)
    x_BTC = torch.randn(2, length, width, generator=torch.Generator().manual_seed(2))
    found = []
    for call in (
        lambda x: memory(x)[0],
        lambda x: ours(memory, x, width=width, chunk=chunk),
    ):
        memory.zero_grad()
        given = x_BTC.clone().requires_grad_()
        y = call(given)
        (y * torch.cos(torch.arange(y.numel()).view_as(y))).sum().backward()
        grads = [given.grad, *(p.grad for p in memory.parameters() if p.grad is not None)]
        found.append((y.detach(), [g.clone() for g in grads]))
    torch.set_default_dtype(torch.float32)
    (y, grads), (mine, own) = found
    assert len(grads) == len(own), "not the same parameters have a gradient"
    worst = max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))
        for a, b in zip(grads, own, strict=True)
    )
    return {"outputs": float((y - mine).abs().max()), "gradients": worst}


def timed(given: argparse.Namespace) -> dict[str, list[float]]:
    """CPU milliseconds of each, a list over turns."""
    x_BTC = torch.randn(2, given.length, given.width, generator=torch.Generator().manual_seed(2))
    calls: dict[str, Callable[[Tensor], Tensor]] = {}
    for mode in given.against:
        memory = peer(mode, width=given.width, chunk=given.chunk, depth=given.depth)
        calls[mode] = lambda x, memory=memory: memory(x)[0]
    memory = peer("paper", width=given.width, chunk=given.chunk, depth=given.depth)
    calls["cupel"] = lambda x: ours(memory, x, width=given.width, chunk=given.chunk)
    if given.depth == 1:
        calls["token by token"] = lambda x: loop(memory, x, width=given.width, chunk=given.chunk)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(given.turns + 1):
        for name, call in calls.items():
            begun = time.process_time()
            passes(call, x_BTC, backward=given.backward)
            if turn:  # the first one warms
                found[name].append(1e3 * (time.process_time() - begun))
    return found


def extra(given: argparse.Namespace) -> float:
    """MB by which the peak grows in one pass of the one thing that this process runs."""
    (name,) = given.against
    mode = "paper" if name == "cupel" else name
    memory = peer(mode, width=given.width, chunk=given.chunk, depth=given.depth)
    x_BTC = torch.randn(2, given.length, given.width)
    call: Callable[[Tensor], Tensor] = (
        (lambda x: ours(memory, x, width=given.width, chunk=given.chunk))
        if name == "cupel"
        else (lambda x: memory(x)[0])
    )
    passes(call, x_BTC[:, : 2 * given.chunk], backward=given.backward)  # libraries are loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passes(call, x_BTC, backward=given.backward)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("same", "time", "memory"))
    for name, value in (("width", 64), ("chunk", 64), ("depth", 1), ("length", 1024), ("turns", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--against", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "same":
        size = {"width": given.width, "chunk": given.chunk, "depth": given.depth}
        found: Any = same(length=given.length, **size)
    elif given.what == "time":
        taken = timed(given)
        found = {name: {"ms": statistics.median(ms), "all": ms} for name, ms in taken.items()}
    else:
        found = {"mb": extra(given)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
