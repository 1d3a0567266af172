"""Delta gradient descent is the minimiser that it claims to be, with its step size alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cupel.models.memory.dgd import dgd, proximal, proximal_loss, step_size, swept

WIDTH, OUT, ETA = 4, 3, 0.7
# float64; a system of four unknowns
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def minimiser(weight: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """Of equation 56, from its normal equations."""
    system = x.mT @ x + torch.eye(WIDTH, dtype=torch.float64) / ETA
    return torch.linalg.solve(system, weight / ETA - x.mT @ grad)


@pytest.mark.equation("nl.v1:eq57", kind="value")
def test_a_step_by_hand() -> None:
    # x = (1, 2): norm squared 5, eta' = 0.5 / 3.5 = 1/7; x W = 1·3 + 2·1 = 5, plus the gradient 2.
    found = dgd(torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, 2.0]), torch.tensor([2.0]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[3 - 7 / 7], [1 - 14 / 7]]))


@pytest.mark.equation("nl.v1:eq56", kind="oracle")
@pytest.mark.equation("nl.v1:eq57", kind="oracle")
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_the_closed_form_is_the_minimiser(tokens: int) -> None:
    weight, x, grad = drawn(WIDTH, OUT), drawn(tokens, WIDTH, seed=1), drawn(tokens, OUT, seed=2)
    wanted = minimiser(weight, x, grad)
    torch.testing.assert_close(proximal(weight, x, grad, ETA), wanted, **CLOSE)
    if tokens == 1:
        torch.testing.assert_close(dgd(weight, x[0], grad[0], ETA), wanted, **CLOSE)


@pytest.mark.equation("nl.v1:eq56", kind="oracle")
def test_the_minimiser_is_that_of_the_printed_loss() -> None:
    weight, x, grad = drawn(WIDTH, OUT), drawn(1, WIDTH, seed=1), drawn(1, OUT, seed=2)
    found = weight.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [found],
        max_iter=200,
        tolerance_grad=1e-13,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        value = proximal_loss(found, weight, x, grad, ETA)
        value.backward()
        return value

    search.step(loss)
    # A search stops at the root of what a float64 tells of a quadratic's minimum.
    torch.testing.assert_close(
        found.detach(), dgd(weight, x[0], grad[0], ETA), rtol=1e-7, atol=1e-7
    )


@pytest.mark.equation("nl.v1:eq57", kind="claim")
def test_the_printed_step_size_holds_for_norm_one_only() -> None:
    weight, grad = drawn(WIDTH, OUT), drawn(OUT, seed=2)
    printed = ETA / (1 + ETA)
    for norm in (1.0, 2.0):
        x = norm * torch.nn.functional.normalize(drawn(WIDTH, seed=1), dim=-1)
        wanted = minimiser(weight, x[None], grad[None])
        literal = weight - printed * torch.outer(x, x @ weight + grad)
        torch.testing.assert_close(dgd(weight, x, grad, ETA), wanted, **CLOSE)
        assert torch.allclose(literal, wanted, atol=1e-12) == (norm == 1.0)
        assert (abs(step_size(ETA, x) - printed) < 1e-15) == (norm == 1.0)


@pytest.mark.equation("nl.v1:eq57", kind="value")
def test_the_unit_form_forgets_all_that_was_there() -> None:
    x = torch.nn.functional.normalize(drawn(WIDTH, seed=1), dim=-1)
    weight, grad = drawn(WIDTH, OUT), drawn(OUT, seed=2)
    found = dgd(weight, x, grad, ETA, form="unit")
    eye = torch.eye(WIDTH, dtype=torch.float64)
    wanted = (weight.T @ (eye - torch.outer(x, x)) - ETA * torch.outer(grad, x)).T
    torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(x @ found, -ETA * grad, **CLOSE)


@pytest.mark.equation("nl.v1:eq57", kind="oracle")
@pytest.mark.parametrize("form", ["proximal", "unit"])
def test_many_steps_by_one_system(form: str) -> None:
    x = 0.5 * drawn(2, 11, WIDTH)
    eta = 0.1 + drawn(2, 11, seed=3).sigmoid()
    grad, weight = drawn(2, 11, OUT, seed=1), drawn(2, WIDTH, OUT, seed=2)
    inputs = [one.requires_grad_() for one in (x, eta, grad, weight)]
    wanted = weight
    for t in range(11):
        wanted = dgd(wanted, x[:, t], grad[:, t], eta[:, t], form=form)
    found = swept(weight, x, grad, eta, form=form)
    torch.testing.assert_close(found, wanted, **CLOSE)
    mine, theirs = (torch.autograd.grad(w.sin().sum(), inputs) for w in (found, wanted))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
