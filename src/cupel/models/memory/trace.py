"""What memories do with a sequence, token by token: how large they are, and what they learn.

Tokens are given one by one, which is what one call computes (`MemoryLM.extend`), so this is the
model as it is used, and costs about 3 ms a token and layer. Nothing is drawn or changed.

Legend: L layers with a memory, H heads, T tokens, N sequences times heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cupel.models.memory.chunk import Fast, Gates, Rule, surprise
from cupel.models.memory.hope import SelfModifying
from cupel.models.memory.neural import NeuralMemory

if TYPE_CHECKING:
    from cupel.models.memory.model import MemoryLM


class Write(NamedTuple):
    """What is about to be written into a memory."""

    rule: Rule
    k_NTI: Tensor
    v_NTO: Tensor
    gates: Gates
    fast: Fast


@torch.no_grad()
def trace(model: MemoryLM, tokens_T: Tensor) -> dict[str, Tensor]:
    """Of each layer's memory behind each token, as means over heads, (L, T) each:

    `norm` (Frobenius, all its weights), `surprise` (Frobenius norm of the loss's gradient at the
    token, before it is written), `decay` (alpha), `step` (theta), and `momentum` (eta) where all
    have one. Empty without memories.
    """
    layers = {
        n: found
        for n, block in enumerate(model.blocks)
        for found in block.modules()
        if isinstance(found, NeuralMemory | SelfModifying)
    }
    if not layers:
        return {}
    state, rows = None, []
    with _watched(layers) as writes:
        for token in tokens_T:
            _, state = model.extend(token.view(1, 1), state)
            # The last write of a call is the token's: the first call begins with persistent ones.
            rows.append({n: _measured(writes[n]) for n in layers})
            for n in layers:
                fast = state.layers[n].fast
                assert fast is not None
                rows[-1][n]["norm"] = _norm(fast.weights).mean()
    names = [name for name in rows[0][min(layers)] if all(name in row for row in rows[0].values())]
    return {
        name: torch.stack([torch.stack([row[n][name] for row in rows]) for n in layers])
        for name in names
    }


@contextmanager
def _watched(layers: dict[int, NeuralMemory | SelfModifying]) -> Iterator[dict[int, Write]]:
    """What each layer's memory was last given to write."""
    writes: dict[int, Write] = {}

    def keep(n: int, module: NeuralMemory | SelfModifying) -> None:
        def watch(rule: Rule, k: Tensor, v: Tensor, gates: Gates, fast: Fast) -> None:
            writes[n] = Write(rule, k, v, gates, fast)

        module.watch = watch

    try:
        for n, module in layers.items():
            keep(n, module)
        yield writes
    finally:
        for module in layers.values():
            module.watch = None


def _surprise(write: Write) -> Tensor:
    """Norm of each token's gradient of the loss, at the weights of its chunk: (N, T)."""
    rule, anchor = write.rule, write.fast.anchor
    out, tape = rule.net.forward(write.k_NTI, anchor)
    error = rule.bias.gradient(out, write.v_NTO, write.gates.threshold)
    return surprise(tape.inputs, rule.net.deltas(error, tape, anchor)).sqrt()


def _measured(write: Write) -> dict[str, Tensor]:
    gates = write.gates
    found = {
        "norm": torch.zeros(()),
        "surprise": _surprise(write).mean(),
        "decay": -torch.expm1(gates.log_keep).mean(),
        "step": gates.theta.mean(),
    }
    if gates.log_eta is not None:
        found["momentum"] = gates.log_eta.exp().mean()
    return found


def _norm(weights: list[Tensor]) -> Tensor:
    """(N,)"""
    return torch.stack([weight.square().sum((1, 2)) for weight in weights]).sum(0).sqrt()
