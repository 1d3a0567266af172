"""Memories at the ends of their range: gates at 0 and 1, long sequences, few bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory import bias, retention
from cupel.models.memory.chunk import Gates, Rule, begin, run
from cupel.models.memory.model import MemoryLM
from cupel.models.memory.net import Net
from cupel.models.memory.neural import MemoryLayer
from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import MemoryModelSettings, MemorySettings

D = 8
PLAIN = Rule(Net(), bias.L2(), retention.L2Retention(), chunk=16, momentum=True)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k = (F.normalize(drawn(1, length, D, seed=s), dim=-1) for s in (1, 2))
    return q, k, drawn(1, length, D, seed=3)


@pytest.mark.parametrize("keep", [0.0, 1e-8, 1.0])
@pytest.mark.parametrize("eta", [0.0, 1e-8, 0.9])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.slow
def test_gates_at_their_ends_over_8192_tokens(keep: float, eta: float, depth: int) -> None:
    q, k, v = inputs(8192)
    one = torch.ones(1, 8192, dtype=torch.float64)
    theta = (0.002 * one).requires_grad_()  # larger ones diverge with momentum and no decay
    gates = Gates((keep * one).log(), theta, (eta * one).log())
    weights = [0.3 * drawn(1, D, D, seed=n) for n in range(depth)]
    y, last = run(PLAIN, q, k, v, gates, begin(PLAIN, weights))
    y.square().mean().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(weight).all() for weight in last.weights)
    assert theta.grad is not None
    assert torch.isfinite(theta.grad).all()


def test_a_gate_of_zero_forgets_everything() -> None:
    q, k, v = inputs(40)
    keep, one = torch.ones(1, 40, dtype=torch.float64), torch.ones(1, 40, dtype=torch.float64)
    keep[0, 21] = 0.0
    eta = 0.5 * one
    eta[0, 21] = 0.0
    found = []
    for seed in (5, 6):
        other = v.clone()
        other[:, :16] = drawn(1, 16, D, seed=seed)
        # the anchor of the chunk that holds token 21 still knows the past: its writes are left out
        theta = 0.1 * one
        theta[:, 16:32] = 0.0
        gates = Gates(keep.log(), theta, eta.log())
        found.append(run(PLAIN, q, k, other, gates, begin(PLAIN, [drawn(1, D, D)]))[0])
    assert not torch.allclose(found[0][:, :21], found[1][:, :21])
    assert torch.equal(found[0][:, 21:], found[1][:, 21:])


def test_a_key_repeated_within_a_chunk_overshoots_and_the_delta_rule_does_not() -> None:
    """Writes at one anchor add up: b of them move b times too far (theta 2 |k|^2 b > 2)."""
    k = F.normalize(drawn(1, 1, D), dim=-1).expand(1, 16, D)
    v = drawn(1, 1, D, seed=1).expand(1, 16, D)
    one = torch.ones(1, 16, dtype=torch.float64)
    first = [torch.zeros(1, D, D, dtype=torch.float64)]
    rule = Rule(Net(), bias.L2(), retention.L2Retention(), chunk=16)
    y, _ = run(rule, k, k, v, Gates(one.log(), 0.25 * one), begin(rule, first))
    assert float((y[:, -1] - v[:, -1]).norm() / v[:, -1].norm()) == pytest.approx(0.5 * 16 - 1)
    delta = Rule(Net(), bias.Dot(), retention.L2Retention(), chunk=16, erase="keep")
    y, _ = run(delta, k, k, v, Gates(one.log(), 0.5 * one), begin(delta, first))
    assert float((y[:, -1] - v[:, -1]).norm() / v[:, -1].norm()) == pytest.approx(0.5**16)


def test_a_key_repeated_for_long_is_learned_where_momentum_takes_from_the_step() -> None:
    """Numbers in text made a memory grow to infinity: its step gates were at a half of 1 / b."""
    count, chunk, eta = 320, 16, torch.tensor(0.77, dtype=torch.float64)
    k = F.normalize(drawn(1, 1, D), dim=-1).expand(1, count, D)
    v = drawn(1, 1, D, seed=1).expand(1, count, D)
    one = torch.ones(1, count, dtype=torch.float64)
    missed = {}
    for damped in (True, False):
        first = [torch.zeros(1, D, D, dtype=torch.float64)]
        theta = 0.5 / chunk * one * (1 - eta if damped else 1)
        y, _ = run(PLAIN, k, k, v, Gates(one.log(), theta, eta.log() * one), begin(PLAIN, first))
        missed[damped] = float((y - v)[:, -1].norm() / v[:, -1].norm())
    assert missed[True] < 1e-3
    assert missed[False] > 1e3


@pytest.mark.parametrize("chunk", [1, 16])
def test_a_memory_of_layers_stays_small_by_a_bound_on_its_gradients(chunk: int) -> None:
    """Steps of a half at keys that are nearly alike, which no damping of momentum bears."""
    k = F.normalize(drawn(1, 1, D) + 0.1 * drawn(1, 400, D, seed=5), dim=-1)
    v = 3 * drawn(1, 400, D, seed=1)
    one = torch.ones(1, 400, dtype=torch.float64)
    gates = Gates(one.log(), 0.5 * one, (0.5 * one).log())
    weights = [drawn(1, D, 16, seed=6), drawn(1, 16, D, seed=7)]
    rule = replace(PLAIN, net=Net("identity"), chunk=chunk)
    y, _ = run(rule, k, k, v, gates, begin(rule, weights))
    assert not y.abs().max() < 1e9
    bounded = replace(rule, most=4 * D**0.5)
    y, fast = run(bounded, k, k, v, gates, begin(bounded, weights))
    assert y.isfinite().all()
    # A surprise moves weights by theta / (1 - eta) times its bound in the end.
    for weight, first in zip(fast.weights, weights, strict=True):
        assert (weight - first).norm() <= 400 * 0.5 / 0.5 * 4 * D**0.5


@pytest.mark.equation("titans.v1:eq34", kind="claim")
def test_the_delta_rule_never_makes_a_memory_larger() -> None:
    """alpha (I - beta k k^T) with |k| = 1 and gates in [0, 1] has no eigenvalue above one."""
    k = F.normalize(drawn(D, seed=3), dim=0)
    for alpha in (0.0, 0.5, 1.0):
        for beta in (0.0, 0.5, 1.0):
            step = alpha * (torch.eye(D, dtype=torch.float64) - beta * torch.outer(k, k))
            assert torch.linalg.eigvalsh(step).abs().max() <= 1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_layer_of_few_bits_keeps_its_memory_in_float32(dtype: torch.dtype) -> None:
    settings = MemorySettings.model_validate({"depth": 2, "chunk": 8})
    torch.manual_seed(1)
    layer = MemoryLayer(16, 2, settings)
    x = torch.randn(2, 30, 16)
    wanted, _ = layer(x)
    for name, parameter in layer.named_parameters():
        if not name.startswith("first"):
            parameter.data = parameter.data.to(dtype)
    y, state = layer(x.to(dtype))
    assert y.dtype == dtype
    assert state.fast is not None
    assert {weight.dtype for weight in state.fast.weights} == {torch.float32}
    # bfloat16 has 8 bits: 2^-8 of each product, a few of them behind each other
    assert float((y.float() - wanted).detach().norm() / wanted.detach().norm()) < 0.05


@pytest.mark.slow
def test_outer_gradients_are_right_to_second_order() -> None:
    q, k, v = inputs(7)
    one = torch.ones(1, 7, dtype=torch.float64)

    def outputs(k: Tensor, v: Tensor, z: Tensor, weight: Tensor, deep: Tensor) -> Tensor:
        rule = Rule(
            Net("gelu", norm=True), bias.L2(), retention.L2Retention(), chunk=3, momentum=True
        )
        gates = Gates(F.logsigmoid(z), 0.2 * one, F.logsigmoid(z - 1))
        return run(rule, q, k, v, gates, begin(rule, [weight, deep]))[0]

    given = [k, v, drawn(1, 7, seed=5), drawn(1, D, 4, seed=6), drawn(1, 4, D, seed=7)]
    given = [one.detach().requires_grad_() for one in given]
    assert torch.autograd.gradcheck(outputs, given, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("mixer", "memory"),
    [
        *((mixer, "titans") for mixer in ("lmm", "mac", "mag", "mal", "hope", "hope-attention")),
        *(("lmm", name) for name in POINTS if name != "titans"),
    ],
)
def test_memories_stay_in_float32_where_the_rest_has_fewer_bits(
    mixer: str, memory: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocabulary": 16, "layers": 1, "width": 32, "heads": 2}
    given = {"mixer": mixer, "memory": {"kind": memory}, **size}
    model = MemoryLM(MemoryModelSettings.model_validate(given))
    with torch.autocast("cpu", dtype):
        logits_BTV, state = model.extend(torch.randint(0, 16, (2, 40)))
    assert logits_BTV.isfinite().all()
    learned = {
        name: value.dtype
        for name, value in state.state_dict().items()
        if "weights" in name or "anchor" in name or "momentum" in name or "dual" in name
    }
    assert learned
    assert set(learned.values()) == {torch.float32}
