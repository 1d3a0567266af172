"""Gates as matrices: products of any stretch, for gates anywhere between 0 and 1."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cupel.models.memory.recurrence import before, decays, mixture, products

GATES = st.lists(st.sampled_from([0.0, 1e-30, 1e-8, 0.3, 0.5, 0.999, 1.0]), min_size=1, max_size=12)


def gates(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.equation("titans.v1:eq16", kind="value")
@given(GATES)
def test_decays_are_the_products_of_each_stretch(values: list[float]) -> None:
    found = decays(gates(values).log())
    for t in range(len(values)):
        for j in range(len(values)):
            wanted = 0.0 if j > t else float(gates(values[j + 1 : t + 1]).prod())
            assert float(found[t, j]) == pytest.approx(wanted, rel=1e-12)
    for t, product in enumerate(products(gates(values).log())):
        assert float(product) == pytest.approx(float(gates(values[: t + 1]).prod()), rel=1e-12)


@pytest.mark.equation("titans.v1:eq8", kind="value")
@pytest.mark.equation("titans.v1:eq9", kind="value")
@pytest.mark.equation("titans.v1:eq10", kind="value")
@pytest.mark.equation("titans.v1:eq13", kind="value")
@pytest.mark.equation("titans.v1:eq14", kind="value")
@pytest.mark.equation("titans.v1:eq18", kind="value")
@pytest.mark.equation("miras.v1:eq28", kind="value")
@given(st.integers(0, 10_000), st.integers(1, 10), st.booleans())
def test_the_mixture_is_the_recurrence_unrolled(seed: int, length: int, momentum: bool) -> None:
    made = torch.Generator().manual_seed(seed)
    keep, eta, theta, u = torch.rand(4, length, generator=made, dtype=torch.float64)
    weight, push = 0.7, -0.4
    mix = mixture(keep.log(), theta, eta.log() if momentum else None)
    held, pushed = weight, push if momentum else 0.0
    for t in range(length):
        assert_row(before(mix), t, u, weight, push, held)
        pushed = (float(eta[t]) * pushed if momentum else 0.0) - float(theta[t] * u[t])
        held = float(keep[t]) * held + pushed
        assert_row(mix, t, u, weight, push, held)
    if momentum:
        assert mix.kept is not None
        assert mix.last_momentum is not None
        assert float(mix.last_momentum * push - mix.kept @ u) == pytest.approx(pushed, abs=1e-12)


def assert_row(mix, t, u, weight, push, wanted) -> None:  # type: ignore[no-untyped-def]
    found = mix.start[t] * weight - mix.writes[t] @ u
    if mix.inertia is not None:
        found = found + mix.inertia[t] * push
    assert float(found) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.equation("titans.v1:eq13", kind="value")
def test_two_tokens_by_hand() -> None:
    # W_1 = .5 W_0 + S_1, S_1 = .25 S_0 - 2 u_1; W_2 = .8 W_1 + S_2, S_2 = .5 S_1 - 3 u_2
    mix = mixture(gates([0.5, 0.8]).log(), gates([2.0, 3.0]), gates([0.25, 0.5]).log())
    torch.testing.assert_close(mix.start, gates([0.5, 0.4]))
    torch.testing.assert_close(mix.inertia, gates([0.25, 0.25 * 0.8 + 0.125]))
    torch.testing.assert_close(mix.writes, torch.stack([gates([2.0, 0.0]), gates([2 * 1.3, 3.0])]))
    torch.testing.assert_close(mix.last_momentum, torch.tensor(0.125, dtype=torch.float64))
    torch.testing.assert_close(mix.kept, gates([1.0, 3.0]))


@pytest.mark.parametrize("value", [-1e4, -50.0, 50.0, 1e4])
def test_gates_at_their_ends_have_finite_values_and_gradients(value: float) -> None:
    z = torch.full((64,), value, requires_grad=True)
    log = torch.nn.functional.logsigmoid(z)
    mix = mixture(log, torch.ones(64), log)
    total = mix.writes.sum() + mix.start.sum() + sum(p.sum() for p in mix[2:] if p is not None)
    total.backward()
    assert torch.isfinite(total)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_a_small_gate_does_not_make_the_next_ones_inexact() -> None:
    log = torch.full((64,), -1e-4)
    log[3] = -1e4
    found, exact = decays(log), decays(log.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
