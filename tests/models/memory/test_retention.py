"""Retention: each map is the minimiser that it stands for, and its dual leads back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cupel.models.memory import retention

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def minimum(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """By L-BFGS in float64."""
    x = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [x], lr=1, max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        found = loss(x)
        found.backward()
        return found

    for _ in range(5):
        search.step(closure)
    return x.detach()


@pytest.mark.parametrize(
    "found",
    [
        retention.L2Retention(),
        retention.LqPaper(4.0, eps=1e-15),
        retention.LqPaper(2.5, eps=1e-15),
        retention.LqMirror(1.5),
        retention.LqMirror(2.0),
        retention.SigmoidBregman(),
        retention.ElasticNet(0.1),
    ],
    ids=lambda r: f"{type(r).__name__}-{vars(r)}",
)
def test_the_dual_of_weights_leads_back_to_them(found: retention.Retention) -> None:
    weight = drawn(2, 4, 3)
    if isinstance(found, retention.SigmoidBregman):
        weight = weight.sigmoid()
    torch.testing.assert_close(found.primal(found.dual(weight)), weight, rtol=1e-6, atol=1e-8)


@pytest.mark.equation("miras.v1:eq23a", kind="oracle")
@pytest.mark.parametrize("q", [1.3, 1.5, 1.9, 2.0])
def test_the_lq_mirror_map_is_the_argmin(q: float) -> None:
    dual = drawn(1, 3, 2)

    def objective(weight: Tensor) -> Tensor:
        # ||W||_q^2 with |w| smoothed so little that the search can pass zero
        total = (weight.square() + 1e-24).pow(q / 2).sum().pow(2 / q)
        return -(weight * dual).sum() + total / (2 * (q - 1))

    found = retention.LqMirror(q, eps=1e-24).primal(dual)
    best = minimum(objective, found + 0.1 * drawn(1, 3, 2, seed=1))
    torch.testing.assert_close(found, best, rtol=1e-5, atol=1e-6)


@pytest.mark.equation("miras.v1:eq24", kind="value")
def test_the_printed_lq_map_by_hand() -> None:
    dual = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)
    norm4 = (3**4 + 4**4) ** 0.25
    torch.testing.assert_close(retention.LqPaper(4.0, eps=0).primal(dual), dual / norm4**2)


@pytest.mark.equation("miras.v1:eq24", kind="value")
@pytest.mark.equation("miras.v1:eq23a", kind="value")
def test_small_numbers_that_keep_the_lq_maps_from_dividing_by_zero() -> None:
    dual = torch.tensor([[[2.0]]], dtype=torch.float64)
    printed = retention.LqPaper(4.0, eps=0.5).primal(dual)
    assert float(printed) == pytest.approx(2 / (2 + 0.5) ** 2)
    # q = 3/2, p = 3: (q - 1) A |A| / (||A||_3 + eps), |A| = sqrt(A^2 + eps)
    mirror = retention.LqMirror(1.5, eps=0.5).primal(dual)
    assert float(mirror) == pytest.approx(0.5 * 2 * 4.5**0.5 / (2 + 0.5))


@pytest.mark.equation("miras.v1:eq24", kind="oracle")
def test_the_printed_lq_map_is_not_the_argmin_but_for_two() -> None:
    dual = drawn(1, 3, 2)
    same = retention.LqPaper(2.0, eps=0).primal(dual)
    torch.testing.assert_close(same, retention.LqMirror(2.0).primal(dual), **EXACT)
    # with p = q / (q - 1) in the printed place, as for 1 < q <= 2
    q = 1.5
    printed = retention.LqPaper(q / (q - 1), eps=0).primal(dual)
    assert (printed - retention.LqMirror(q).primal(dual)).abs().max() > 0.1


@pytest.mark.equation("miras.v1:eq24", kind="value")
def test_the_printed_map_with_four_makes_large_weights_of_small_sums() -> None:
    found, dual = retention.LqPaper(4.0, eps=0), drawn(1, 3, 2)
    torch.testing.assert_close(found.primal(dual / 100), 100 * found.primal(dual), **EXACT)


@pytest.mark.equation("miras.v1:eq19", kind="oracle")
@pytest.mark.equation("miras.v1:eq20", kind="oracle")
@pytest.mark.equation("miras.v1:eq21", kind="oracle")
@pytest.mark.parametrize("set_total", [2.0, None])
@pytest.mark.parametrize("over", ["outputs", "all"])
def test_the_softmax_step_is_the_argmin_on_the_simplex(over: str, set_total: float | None) -> None:
    """argmin <W, g> + KL(W, W_0) / eta + (negative entropy) / alpha, sums of W being c."""
    total, eta, alpha = set_total or {"outputs": 4, "all": 12}[over], 0.7, 1.3
    weight = total * torch.softmax(
        drawn(1, 4, 3).flatten(1) if over == "all" else drawn(1, 4, 3), 1
    )
    weight = weight.view(1, 4, 3)
    grad = drawn(1, 4, 3, seed=2)
    keep = (1 / eta) / (1 / eta + 1 / alpha)
    step = 1 / (1 / eta + 1 / alpha)
    rule = retention.KLRetention(set_total, over=over)
    found = rule.primal(keep * rule.dual(weight) - step * grad)

    def on_simplex(z: Tensor) -> Tensor:
        weights = z.exp()
        return total * weights / weights.sum(1 if over == "outputs" else (1, 2), keepdim=True)

    def objective(z: Tensor) -> Tensor:
        w = on_simplex(z)
        kl = (w * (w / weight).log()).sum()
        return (w * grad).sum() + kl / eta + (w * w.log()).sum() / alpha

    best = on_simplex(minimum(objective, drawn(1, 4, 3, seed=3)))
    torch.testing.assert_close(found, best, rtol=1e-6, atol=1e-7)


@pytest.mark.equation("miras.v1:eq18", kind="value")
@pytest.mark.equation("miras.v1:eq27", kind="value")
@pytest.mark.parametrize("over", ["outputs", "all"])
def test_without_forgetting_the_softmax_step_is_multiplicative_weights(over: str) -> None:
    """Equation 18 with f(t) = t log t: g is the exponential, and zeta makes the sum right."""
    total, dims = 1.7, (1,) if over == "outputs" else (1, 2)
    rule, weight = retention.KLRetention(total, over=over), drawn(1, 4, 3).exp()
    weight = total * weight / weight.sum(dims, keepdim=True)
    grad = drawn(1, 4, 3, seed=2)
    wanted = weight * (-0.3 * grad).exp()
    wanted = total * wanted / wanted.sum(dims, keepdim=True)
    torch.testing.assert_close(rule.primal(rule.dual(weight) - 0.3 * grad), wanted, **EXACT)
    assert (rule.primal(drawn(1, 4, 3)).sum(dims) - total).abs().max() < 1e-12


@pytest.mark.parametrize(("over", "total"), [("outputs", 4), ("all", 12)])
def test_without_a_total_the_weights_of_a_distribution_are_one_on_average(
    over: str, total: int
) -> None:
    rule, dual = retention.KLRetention(None, over=over), drawn(2, 4, 3)
    weight = rule.primal(dual)
    torch.testing.assert_close(weight, retention.KLRetention(total, over=over).primal(dual))
    assert (weight.mean((1,) if over == "outputs" else (1, 2)) - 1).abs().max() < 1e-12
    torch.testing.assert_close(rule.primal(rule.dual(weight)), weight, **EXACT)


@pytest.mark.equation("miras.v1:eq22", kind="oracle")
@pytest.mark.equation("miras.v1:eq23", kind="oracle")
def test_soft_thresholding_is_the_proximal_step_of_the_elastic_net() -> None:
    """argmin 1/2 ||W - A||^2 + gamma ||W||_1, entry by entry, against a fine grid."""
    gamma = 0.25
    dual = drawn(1, 4, 3)
    found = retention.ElasticNet(gamma).primal(dual)
    grid = torch.linspace(-4, 4, 160_001, dtype=torch.float64)
    for a, w in zip(dual.flatten(), found.flatten(), strict=True):
        cost = 0.5 * (grid - a).square() + gamma * grid.abs()
        assert float((grid[cost.argmin()] - w).abs()) <= 5.1e-5
    assert (found == 0).any()


@pytest.mark.equation("miras.v1:eq23b", kind="oracle")
def test_the_sigmoid_map_is_the_argmin_with_the_entropy_of_a_coin() -> None:
    dual = drawn(1, 3, 2)
    found = retention.SigmoidBregman().primal(dual)
    grid = torch.linspace(1e-6, 1 - 1e-6, 400_001, dtype=torch.float64)
    entropy = grid * grid.log() + (1 - grid) * (1 - grid).log()
    for a, w in zip(dual.flatten(), found.flatten(), strict=True):
        assert float((grid[(entropy - a * grid).argmin()] - w).abs()) < 5e-6
