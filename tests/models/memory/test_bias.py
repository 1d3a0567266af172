"""Attentional biases: each gradient is that of its loss, and limits are what they should be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cupel.models.memory import bias
from cupel.models.memory.net import ACTIVATIONS, Net

EXACT = {"rtol": 1e-10, "atol": 1e-11}


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    out, value = torch.randn(2, 3, 4, 5, generator=made, dtype=torch.float64)
    return out, value, 0.5 + torch.rand(3, 4, generator=made, dtype=torch.float64) * 3


def by_autograd(found: bias.Bias, out: Tensor, value: Tensor, threshold: Tensor) -> Tensor:
    return torch.func.grad(lambda x: found.loss(x, value, threshold).sum())(out)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(bias.L2(2.0), marks=pytest.mark.equation("titans.v1:eq12", kind="gradient")),
        pytest.param(bias.L2(0.4), marks=pytest.mark.equation("titans.v1:eq17", kind="gradient")),
        pytest.param(bias.Dot(), marks=pytest.mark.equation("miras.v1:eq8", kind="gradient")),
        pytest.param(
            bias.Lp(3.0, smooth="exact"),
            marks=pytest.mark.equation("miras.v1:eq10", kind="gradient"),
        ),
        bias.Lp(1.0, smooth="exact"),
        pytest.param(
            bias.HuberCoordinate(),
            marks=[
                pytest.mark.equation("miras.v1:eq13", kind="gradient"),
                pytest.mark.equation("miras.v1:eq14", kind="gradient"),
            ],
        ),
        pytest.param(
            bias.HuberNorm(), marks=pytest.mark.equation("miras.v1:eq15", kind="gradient")
        ),
        pytest.param(
            bias.ValueShift(0.3), marks=pytest.mark.equation("miras.v1:eq17", kind="gradient")
        ),
    ],
    ids=lambda b: f"{type(b).__name__}-{vars(b)}",
)
def test_the_gradient_is_that_of_the_loss(found: bias.Bias) -> None:
    out, value, threshold = drawn()
    torch.testing.assert_close(
        found.gradient(out, value, threshold), by_autograd(found, out, value, threshold), **EXACT
    )


@pytest.mark.equation("titans.v1:eq12", kind="value")
def test_the_squared_error_is_a_sum_without_a_half() -> None:
    out, value = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 4.0]]])
    assert float(bias.L2().loss(out, value)) == 1 + 4
    assert bias.L2().gradient(out, value).tolist() == [[[2.0, -4.0]]]


@pytest.mark.equation("titans.v1:eq17", kind="oracle")
def test_a_chunk_of_linear_memory_has_the_gradient_that_closes() -> None:
    """sum_i theta_i b_i grad l(W_0; k_i, v_i) = 2 (W_0 K - V) Theta B K^T, columns as printed."""
    made = torch.Generator().manual_seed(1)
    W, K, V = (torch.randn(4, n, generator=made, dtype=torch.float64) for n in (3, 6, 6))
    W = torch.randn(4, 3, generator=made, dtype=torch.float64)
    K = torch.randn(3, 6, generator=made, dtype=torch.float64)
    weights = torch.rand(6, generator=made, dtype=torch.float64)
    total = torch.func.grad(lambda w: (weights * (w @ K - V).square().sum(0)).sum())(W)
    # Ours are rows: x W with W^T of the paper.
    delta = bias.L2().gradient((K.T @ W.T)[None], V.T[None])[0]
    torch.testing.assert_close(delta.T @ torch.diag(weights) @ K.T, total, **EXACT)
    # As printed Theta B, b x b, stands left of a d x b matrix: there is no such product.
    with pytest.raises(RuntimeError):
        torch.diag(weights) @ (W @ K - V) @ K.T


@pytest.mark.equation("miras.v1:eq11", kind="value")
@pytest.mark.equation("miras.v1:eq12", kind="value")
@pytest.mark.equation("miras.v1:eq25", kind="value")
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_the_printed_lp_gradient(p: float) -> None:
    out = torch.tensor([[[1.5, -0.7, 2.0]]], dtype=torch.float64)
    value = torch.zeros_like(out)
    found = bias.Lp(p, sharpness=1e3, eps=1e-12).gradient(out, value)
    torch.testing.assert_close(found, p * out.sign() * out.abs() ** (p - 1))


@pytest.mark.equation("miras.v1:eq11", kind="value")
@pytest.mark.equation("miras.v1:eq12", kind="value")
@pytest.mark.equation("miras.v1:eq25", kind="value")
@pytest.mark.parametrize("p", [1.0, 2.5, 3.0])
def test_the_printed_lp_gradient_where_it_is_smooth(p: float) -> None:
    """p tanh(a r) |r|^(p-1) with |r| = sqrt(r^2 + eps), of errors of about the size of both."""
    out, value, _ = drawn(3)
    found = bias.Lp(p, sharpness=0.7, eps=0.3).gradient(out, value)
    wanted = [
        p * math.tanh(0.7 * (o - v)) * math.hypot(o - v, math.sqrt(0.3)) ** (p - 1)
        for o, v in zip(out.flatten().tolist(), value.flatten().tolist(), strict=True)
    ]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.equation("miras.v1:eq11", kind="value")
def test_the_smooth_sign_is_steep_but_finite_at_zero() -> None:
    zero = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    found = bias.Lp(1.0, sharpness=7.0, eps=1e-6).gradient(zero, torch.zeros_like(zero))
    (slope,) = torch.autograd.grad(found.sum(), zero)
    torch.testing.assert_close(slope, torch.full_like(zero, 7.0))


@pytest.mark.equation("miras.v1:eq16", kind="value")
@pytest.mark.equation("miras.v1:eq26", kind="value")
def test_the_mixture_jumps_where_it_is_printed_to() -> None:
    value, limit = torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    found = bias.HuberMixture(sharpness=1e3)
    near, far = torch.full_like(value, 0.999), torch.full_like(value, 1.001)
    assert float(found.gradient(near, value, limit)) == pytest.approx(2 * 0.999)
    assert float(found.gradient(far, value, limit)) == pytest.approx(1.0)
    norm = bias.HuberNorm()
    assert float(norm.gradient(near, value, limit)) == pytest.approx(0.999)
    assert float(norm.gradient(far, value, limit)) == pytest.approx(1.0)


@pytest.mark.equation("miras.v1:eq16", kind="oracle")
@pytest.mark.equation("miras.v1:eq26", kind="oracle")
def test_the_mixture_is_the_gradient_of_each_side_by_itself() -> None:
    found, (out, value, threshold) = bias.HuberMixture(sharpness=1e4), drawn(2)
    torch.testing.assert_close(
        found.gradient(out, value, threshold),
        by_autograd(found, out, value, threshold),
        rtol=1e-3,  # |r| is sqrt(r^2 + 1e-6)
        atol=1e-3,
    )


@pytest.mark.equation("miras.v1:eq15", kind="value")
@pytest.mark.parametrize("found", [bias.HuberCoordinate(), bias.HuberNorm()])
def test_a_large_threshold_leaves_the_squared_error(found: bias.Bias) -> None:
    out, value, threshold = drawn()
    torch.testing.assert_close(
        found.gradient(out, value, 1e6 * threshold), bias.L2(1.0).gradient(out, value), **EXACT
    )


@pytest.mark.equation("miras.v1:eq17", kind="oracle")
def test_no_shift_of_a_value_is_worse_than_the_worst_case() -> None:
    found, (out, value, _) = bias.ValueShift(0.3), drawn()
    worst = found.loss(out, value)
    made = torch.Generator().manual_seed(5)
    for _ in range(200):
        move = torch.nn.functional.normalize(
            torch.randn(out.shape, generator=made, dtype=torch.float64), dim=-1
        )
        assert (0.5 * (out - value - 0.3 * move).square().sum(-1) <= worst + 1e-12).all()
    along = torch.nn.functional.normalize(value - out, dim=-1)
    reached = 0.5 * (out - value - 0.3 * along).square().sum(-1)
    torch.testing.assert_close(reached, worst, **EXACT)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_activations_are_their_derivatives(name: str) -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    value, slope = ACTIVATIONS[name](z)
    torch.testing.assert_close(Net(name).value(z), value, **EXACT)
    wanted = torch.func.grad(lambda x: Net(name).value(x).sum())(z)
    torch.testing.assert_close(slope[z != 0], wanted[z != 0], **EXACT)
