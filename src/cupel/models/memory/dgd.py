"""Delta gradient descent: a step that also takes out what the weights said of this input before.

Plain gradient descent on a layer `y = x W` goes to the minimiser of
`<y, grad> + ||W - W_t||^2 / (2 eta)`. With half the squared error to `u = -grad` in place of the
inner product the minimiser is

    W (I - eta' x x^T) - eta' grad (x) x,    eta' = eta / (1 + eta ||x||^2)

(Nested Learning, arXiv 2512.24695, equations 56 and 57, as the paper writes W, of outputs by
inputs). The paper prints `eta' = eta / (1 + eta)`, which is this for inputs of norm one and for no
others. Its NeurIPS version (equation 28) erases without a step size, `form="unit"`:
`W (I - x x^T) - eta grad (x) x`.

Legend: N sequences, T tokens, I and O a layer's input and output widths; `…` is any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cupel.models.memory.chunk import erased
from cupel.models.memory.recurrence import mixture
from cupel.tags import implements

FORMS = ("proximal", "unit")


@implements("nl.v1:eq57")
def step_size(eta: Tensor | float, x_I: Tensor) -> Tensor:
    """`eta' = eta / (1 + eta ||x||^2)`, (…): the step of which 57 is the exact minimiser of 56."""
    return eta / (1 + eta * x_I.square().sum(-1))


@implements("nl.v1:eq56")
def proximal_loss(
    weight_IO: Tensor, before_IO: Tensor, x_TI: Tensor, grad_TO: Tensor, eta: float
) -> Tensor:
    """`1/2 sum_t ||x_t W + grad_t||^2 + ||W - W_t||^2 / (2 eta)`: what a step of DGD minimises."""
    error = x_TI @ weight_IO + grad_TO
    return 0.5 * error.square().sum() + (weight_IO - before_IO).square().sum() / (2 * eta)


@implements("nl.v1:eq57")
def dgd(
    weight_IO: Tensor,
    x_I: Tensor,
    grad_O: Tensor,
    eta: Tensor | float,
    *,
    form: str = "proximal",
) -> Tensor:
    """The weights behind one token: (…, I, O) for inputs (…, I) and gradients at outputs (…, O).

    `form="unit"` erases all that the weights had at an input of norm one, whatever eta is; with
    inputs of a norm above the root of two it diverges.
    """
    assert form in FORMS, form
    said_O = torch.matmul(x_I.unsqueeze(-2), weight_IO).squeeze(-2)
    if form == "unit":
        return weight_IO - _outer(x_I, said_O + _last(eta) * grad_O)
    return weight_IO - _outer(x_I, _last(step_size(eta, x_I)) * (said_O + grad_O))


@implements("nl.v1:eq56")
def proximal(weight_IO: Tensor, x_TI: Tensor, grad_TO: Tensor, eta: float) -> Tensor:
    """The minimiser of 56 for T tokens at once; `dgd` is this for one.

    Solves a system of the smaller of I and T: `W - X^T (I / eta + X X^T)^-1 (X W + grad)`.
    """
    tokens, width = x_TI.shape[-2:]
    error_TO = x_TI @ weight_IO + grad_TO
    fewer = tokens <= width  # no mutant: both systems have the same solution
    count = tokens if fewer else width
    eye = torch.eye(count).to(x_TI)  # no mutant: gradients are of the same type
    if fewer:
        system = x_TI @ x_TI.mT + eye / eta
        return weight_IO - torch.matmul(x_TI.mT, torch.linalg.solve(system, error_TO))
    system = x_TI.mT @ x_TI + eye / eta
    moved: Tensor = torch.linalg.solve(system, x_TI.mT @ error_TO)
    return weight_IO - moved


@implements("nl.v1:eq57")
def swept(
    weight_NIO: Tensor,
    x_NTI: Tensor,
    grad_NTO: Tensor,
    eta_NT: Tensor,
    *,
    form: str = "proximal",
) -> Tensor:
    """The weights behind T steps of `dgd`, one token after the other, by one triangular system.

    The gradients are given, as they are where all of a chunk are taken at its start.
    """
    assert form in FORMS, form
    # What is erased weighs step * erase: eta' in one form, one in the other.
    step_NT = step_size(eta_NT, x_NTI) if form == "proximal" else eta_NT
    erase_NT = torch.ones_like(step_NT) if form == "proximal" else 1 / step_NT
    mix = mixture(torch.zeros_like(step_NT), step_NT)
    values_NTO = erased(x_NTI, grad_NTO, mix, erase_NT, weight_NIO)
    return weight_NIO - x_NTI.mT @ (step_NT.unsqueeze(-1) * values_NTO)


def _outer(x_I: Tensor, values_O: Tensor) -> Tensor:
    return x_I.unsqueeze(-1) * values_O.unsqueeze(-2)


def _last(eta: Tensor | float) -> Tensor | float:
    return eta.unsqueeze(-1) if isinstance(eta, Tensor) else eta
