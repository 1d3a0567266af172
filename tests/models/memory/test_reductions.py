"""Named memories are the recurrences that they are named after, written here once more by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.chunk import Gates, begin, run
from cupel.models.memory.neural import MemoryLayer, NeuralMemory, rule
from cupel.models.memory.settings import NAMED, MemorySettings

CLOSE = {"rtol": 1e-10, "atol": 1e-11}
T, D = 21, 6
Step = Callable[[Tensor, Tensor, Tensor, dict[str, float]], Tensor]


def named(name: str, **changes: Any) -> MemorySettings:
    return NAMED[name].model_validate(changes)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reads(settings: MemorySettings, **gate: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs of a matrix memory of one head, and what went in."""
    q, k = F.normalize(drawn(T, D, seed=1), dim=-1), F.normalize(drawn(T, D, seed=2), dim=-1)
    v, first = drawn(T, D, seed=3), torch.zeros(1, D, D, dtype=torch.float64)
    if settings.first == "learned":
        first = drawn(1, D, D, seed=4)
    found = rule(settings)
    y, _ = run(
        found,
        q[None],
        k[None],
        v[None],
        Gates(**{n: g[None] for n, g in gate.items()}),
        begin(found, [first]),
    )
    return y[0], {"q": q, "k": k, "v": v, "first": first[0]}


def by_hand(given: dict[str, Tensor], step: Callable[[int, Tensor], Tensor]) -> Tensor:
    """`M` as in the papers, values by keys: y = M q."""
    M, found = given["first"].T, []
    for t in range(T):
        M = step(t, M)
        found.append(M @ given["q"][t])
    return torch.stack(found)


ONE = torch.ones(T, dtype=torch.float64)
KEEP = torch.rand(T, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
RATE = torch.rand(T, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
EYE = torch.eye(D, dtype=torch.float64)


def adding(given: dict[str, Tensor], keep: Tensor, t: int, M: Tensor) -> Tensor:
    return keep[t] * M + torch.outer(given["v"][t], given["k"][t])


def replacing(given: dict[str, Tensor], keep: Tensor, t: int, M: Tensor) -> Tensor:
    k, v = given["k"][t], given["v"][t]
    return keep[t] * M @ (EYE - RATE[t] * torch.outer(k, k)) + RATE[t] * torch.outer(v, k)


@pytest.mark.equation("miras.v1:eq8", kind="oracle")
@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_linear_attention_and_retnet(chunk: int) -> None:
    for name, keep in (("linear-attention", ONE), ("retnet", 0.9 * ONE)):
        y, given = reads(named(name, chunk=chunk), log_keep=keep.log(), theta=ONE)
        torch.testing.assert_close(y, by_hand(given, partial(adding, given, keep)), **CLOSE)
    # … and linear attention is attention without a softmax
    y, given = reads(named("linear-attention"), log_keep=ONE.log(), theta=ONE)
    torch.testing.assert_close(y, (given["q"] @ given["k"].T).tril() @ given["v"], **CLOSE)


@pytest.mark.equation("titans.v1:eq34", kind="oracle")
@pytest.mark.equation("miras.v1:eq9", kind="oracle")
@pytest.mark.equation("nl.v1:eq92", kind="oracle")
@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_deltanet_and_gated_deltanet(chunk: int) -> None:
    for name, keep in (("deltanet", ONE), ("gated-deltanet", KEEP)):
        y, given = reads(named(name, chunk=chunk), log_keep=keep.log(), theta=RATE)
        torch.testing.assert_close(y, by_hand(given, partial(replacing, given, keep)), **CLOSE)


@pytest.mark.equation("titans.v1:eq8", kind="oracle")
@pytest.mark.parametrize("keep", [ONE, KEEP], ids=["eq 8", "and decay"])
def test_titans_without_momentum_and_chunk_one_is_the_online_delta_rule(keep: Tensor) -> None:
    """With eta = 0: M_t = (1 - alpha) M - theta 2 (M k - v) k^T, both on the old M."""
    y, given = reads(named("ttt", chunk=1), log_keep=keep.log(), theta=0.5 * RATE)
    k, v = given["k"], given["v"]
    step = lambda t, M: keep[t] * M - RATE[t] * torch.outer(M @ k[t] - v[t], k[t])  # noqa: E731
    torch.testing.assert_close(y, by_hand(given, step), **CLOSE)


@pytest.mark.equation("titans.v1:eq9", kind="oracle")
@pytest.mark.equation("titans.v1:eq10", kind="oracle")
@pytest.mark.equation("titans.v1:eq13", kind="oracle")
@pytest.mark.equation("titans.v1:eq14", kind="oracle")
@pytest.mark.parametrize("keep", [ONE, KEEP], ids=["eq 9 and 10", "eq 13 and 14"])
def test_titans_linear_memory_by_hand(keep: Tensor) -> None:
    eta = torch.rand(T, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    y, given = reads(
        named("titans-linear", chunk=1), log_keep=keep.log(), theta=0.2 * RATE, log_eta=eta.log()
    )
    k, v = given["k"], given["v"]
    S = torch.zeros(D, D, dtype=torch.float64)

    def step(t: int, M: Tensor) -> Tensor:
        nonlocal S
        S = eta[t] * S - 0.4 * RATE[t] * torch.outer(M @ k[t] - v[t], k[t])
        return keep[t] * M + S

    torch.testing.assert_close(y, by_hand(given, step), **CLOSE)


@pytest.mark.equation("titans.v1:eq16", kind="oracle")
@pytest.mark.equation("titans.v1:eq17", kind="oracle")
def test_a_chunk_of_titans_takes_its_gradients_at_the_chunks_start() -> None:
    """Equation 16: beta_t M_0 - sum_i theta_i (beta_t / beta_i) grad l(M_0; x_i)."""
    chunk = 7
    y, given = reads(named("ttt", chunk=chunk), log_keep=KEEP.log(), theta=0.3 * RATE)
    k, v, q = given["k"], given["v"], given["q"]
    anchor, found = given["first"].T, []
    for start in range(0, T, chunk):
        beta = 1.0
        betas, grads = [], []
        for t in range(start, start + chunk):
            beta = beta * float(KEEP[t])
            betas.append(beta)
            grads.append(2 * torch.outer(anchor @ k[t] - v[t], k[t]))
            M = beta * anchor
            for i, (b, g) in enumerate(zip(betas, grads, strict=True)):
                M = M - 0.3 * RATE[start + i] * (beta / b) * g
            found.append(M @ q[t])
        anchor = M
    torch.testing.assert_close(y, torch.stack(found), **CLOSE)


@pytest.mark.equation("titans.v1:eq15", kind="value")
def test_reading_changes_nothing() -> None:
    """M* reads without an update: other queries leave the state as it is."""
    found = rule(named("titans-linear", chunk=4))
    k, v = F.normalize(drawn(1, T, D), dim=-1), drawn(1, T, D, seed=1)
    gates = Gates(KEEP.log()[None], 0.2 * RATE[None], KEEP.log()[None])
    first = begin(found, [drawn(1, D, D, seed=2)])
    one, other = (run(found, drawn(1, T, D, seed=s), k, v, gates, first)[1] for s in (3, 4))
    assert torch.equal(one.weights[0], other.weights[0])
    y, after = run(found, k, k, v, gates, first)
    torch.testing.assert_close(y[:, -1:], k[:, -1:] @ after.weights[0], **CLOSE)


@pytest.mark.equation("titans.v1:eq11", kind="oracle")
@pytest.mark.parametrize("conv_on", ["projected", "silu"])
def test_keys_and_values_are_projected_convolved_and_activated(conv_on: str) -> None:
    settings = MemorySettings.model_validate({"conv": 3, "conv_on": conv_on})
    memory = NeuralMemory(8, 2, settings).double()
    x = drawn(2, 5, 8)
    parts, tail = memory.projections(x, None)
    weight, kernel = memory.projections.maps.weight, memory.projections.conv.weight[:, 0]
    wanted = x @ weight.T
    wanted = wanted if conv_on == "projected" else F.silu(wanted)
    padded = torch.cat((torch.zeros(2, 2, 24, dtype=torch.float64), wanted), 1)
    mixed = sum(padded[:, n : n + 5] * kernel[:, n] for n in range(3))
    mixed = F.silu(mixed) if conv_on == "projected" else mixed
    torch.testing.assert_close(torch.cat(parts, -1), mixed, **CLOSE)
    assert tail is not None
    assert torch.equal(tail, wanted[:, -2:])


@pytest.mark.equation("titans.v1:eq13", kind="value")
@pytest.mark.equation("titans.v1:eq14", kind="value")
def test_gates_begin_where_they_are_said_to_and_stay_in_range() -> None:
    settings = MemorySettings.model_validate({"step_max": 0.4, "momentum": "token"})
    layer = MemoryLayer(8, 2, settings).double()
    gates = layer.gate(drawn(2, 5, 8), torch.float64)
    torch.testing.assert_close(gates.log_keep.exp(), torch.full((4, 5), 0.99, dtype=torch.float64))
    # 0.2 of 0.4, and of that 1 - eta
    torch.testing.assert_close(gates.theta, torch.full((4, 5), 0.04, dtype=torch.float64))
    assert gates.log_eta is not None
    torch.testing.assert_close(gates.log_eta.exp(), torch.full((4, 5), 0.5, dtype=torch.float64))
    for parameter in layer.gates.parameters():
        torch.nn.init.normal_(parameter)
    x = drawn(2, 5, 8)
    decay = layer.gates["decay"]
    alpha = torch.sigmoid(x @ decay.maps[0].weight.T + decay.offset).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(layer.gate(x, torch.float64).log_keep, (1 - alpha).log(), **CLOSE)
    eta, share = (
        torch.sigmoid(x @ gate.maps[0].weight.T + gate.offset).transpose(1, 2).flatten(0, 1)
        for gate in (layer.gates["momentum"], layer.gates["step"])
    )
    theta = layer.gate(x, torch.float64).theta
    torch.testing.assert_close(theta, 0.4 * share * (1 - eta), **CLOSE)
    plain = MemoryLayer(8, 2, settings.model_copy(update={"damped": False})).double()
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(plain.gate(x, torch.float64).theta, 0.4 * share, **CLOSE)
    gates = layer.gate(1e3 * x, torch.float64)
    assert (gates.log_keep <= 0).all()
    assert ((gates.theta >= 0) & (gates.theta <= 0.4)).all()


@pytest.mark.parametrize(("step", "momentum"), [("token", "channel"), ("channel", "token")])
def test_gates_of_tokens_and_channels_meet(step: str, momentum: str) -> None:
    settings = MemorySettings.model_validate({"step": step, "momentum": momentum})
    layer = MemoryLayer(8, 2, settings).double()
    for parameter in layer.gates.parameters():
        torch.nn.init.normal_(parameter)
    gates = layer.gate(drawn(2, 5, 8), torch.float64)
    assert gates.log_eta is not None
    eta = gates.log_eta.exp()
    layer.settings = settings.model_copy(update={"damped": False})
    plain = layer.gate(drawn(2, 5, 8), torch.float64).theta
    wanted = plain.unsqueeze(-1) * (1 - eta) if step == "token" else plain * (1 - eta)[..., None]
    torch.testing.assert_close(gates.theta, wanted, **CLOSE)


@pytest.mark.equation("titans.v1:eq13", kind="value")
@pytest.mark.equation("titans.v1:eq14", kind="value")
def test_gates_that_are_not_there_are_one_and_thresholds_have_an_end() -> None:
    settings = MemorySettings.model_validate(
        {"decay": "none", "step": "none", "momentum": "none", "bias": {"kind": "huber"}}
    )
    layer = MemoryLayer(8, 2, settings)
    torch.nn.init.normal_(layer.gates["threshold"].maps[0].weight)
    x = drawn(3, 5, 8).float()
    gates = layer.gate(x, torch.float64)
    assert torch.equal(gates.log_keep, torch.zeros(6, 5, dtype=torch.float64))
    assert torch.equal(gates.theta, torch.ones(6, 5, dtype=torch.float64))
    assert gates.log_eta is None
    logits = layer.gates["threshold"](x).double()
    wanted = 4 * 4**0.5 / (1 + (-logits).exp())
    assert gates.threshold is not None
    assert gates.threshold.dtype == torch.float64
    torch.testing.assert_close(gates.threshold, wanted, **CLOSE)


@pytest.mark.parametrize("name", NAMED)
def test_every_point_is_valid(name: str) -> None:
    named(name)


def test_a_huber_memory_with_a_large_threshold_is_the_squared_error() -> None:
    """delta → infinity: Yaad's printed l_2 side is twice that of `Huber`, which has a half."""
    given = {"log_keep": KEEP.log(), "theta": 0.1 * RATE, "threshold": 1e6 * ONE}
    plain = {"depth": 1, "momentum": "none", "chunk": 4}
    y, _ = reads(MemorySettings.model_validate({**plain, "bias": {"kind": "huber"}}), **given)
    wanted, _ = reads(MemorySettings.model_validate(plain), log_keep=KEEP.log(), theta=0.1 * RATE)
    torch.testing.assert_close(y, wanted, **CLOSE)


def test_l2_of_moneta_is_plain_gradient_descent() -> None:
    """p = 2 and q = 2."""
    plain = {"depth": 1, "momentum": "none", "chunk": 4}
    moneta = {
        **plain,
        "bias": {"kind": "lp", "p": 2.0, "smooth": "exact"},
        "retention": {"kind": "lq", "q": 2.0},
    }
    gate = {"log_keep": KEEP.log(), "theta": 0.1 * RATE}
    y, _ = reads(MemorySettings.model_validate(moneta), **gate)
    wanted, _ = reads(MemorySettings.model_validate(plain), **gate)
    torch.testing.assert_close(y, wanted, **CLOSE)
