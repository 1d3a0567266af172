"""Retention: how a memory's weights follow from what has been added up, and what that forgets.

Every rule here is mirror descent. A dual variable A adds up decayed gradients, `A_t = keep_t
A_{t-1} - theta_t grad`, and the weights are `W = primal(A)`. With plain l_2 retention both are the
same. In a chunk the gradients are those at its start, reads follow the linear form from its start
(MIRAS, equation 28), and `primal` is taken at its end; `lag` takes it after a chunk's first token
as well (equations 30 to 32). With chunks of one token each rule is exact.

Legend: N sequences (times heads), I and O a layer's input and output widths.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cupel.tags import implements


class Retention(Protocol):
    """From the dual variable to weights and back."""

    linear: bool  # weights and dual variable are the same
    lag: bool  # also taken after the first token of a chunk

    def primal(self, dual_NIO: Tensor) -> Tensor:
        """The weights for a dual variable."""
        ...

    def dual(self, weight_NIO: Tensor) -> Tensor:
        """A dual variable of which these are the weights."""
        ...


class L2Retention:
    """`||W - W_{t-1}||^2`, local, and `||W||^2`, global: a step of gradient descent with decay.

    Local retention alone is a gate of one.
    """

    linear, lag = True, False

    def primal(self, dual_NIO: Tensor) -> Tensor:
        return dual_NIO

    def dual(self, weight_NIO: Tensor) -> Tensor:
        return weight_NIO


class LqPaper:
    """`W = A / ||A||_q^(q-2)`, as MIRAS prints it (equations 24 and 25; Moneta has q = 4).

    The norm is that of each layer's matrix. Of degree 3 - q in A: with q = 4 a small A makes large
    weights, hence `eps`, and a dual variable that must not begin at zero. For q = 2 it is the
    identity.
    """

    linear, lag = False, False

    def __init__(self, q: float = 4.0, *, eps: float = 1e-6) -> None:
        assert q > 1, q
        self.q, self.eps = q, eps

    @implements("miras.v1:eq24")
    def primal(self, dual_NIO: Tensor) -> Tensor:
        return dual_NIO / (_norm(dual_NIO, self.q) + self.eps).pow(self.q - 2)

    def dual(self, weight_NIO: Tensor) -> Tensor:
        """Of degree 1 / (3 - q): there is none for q = 3."""
        assert self.q != 3, "l_q retention as printed has no inverse for q = 3"
        size = _norm(weight_NIO, self.q)
        return weight_NIO * size.pow((self.q - 2) / (3 - self.q))


class LqMirror:
    """`argmin_W <W, -A> + ||W||_q^2 / (2 (q-1))`: what the printed map of l_q retention should be.

    `W = (q-1) sign(A) |A|^(p-1) / ||A||_p^(p-2)` with `1/p + 1/q = 1`, 1 < q <= 2.
    """

    linear, lag = False, False

    def __init__(self, q: float = 1.5, *, eps: float = 1e-12) -> None:
        assert 1 < q <= 2, q
        self.q, self.p, self.eps = q, q / (q - 1), eps

    @implements("miras.v1:eq23a")
    def primal(self, dual_NIO: Tensor) -> Tensor:
        size = (dual_NIO.square() + self.eps).sqrt()
        total = _norm(dual_NIO, self.p).pow(self.p - 2)
        return (self.q - 1) * dual_NIO * size.pow(self.p - 2) / (total + self.eps)

    def dual(self, weight_NIO: Tensor) -> Tensor:
        """The gradient of the regulariser: `sign(W) |W|^(q-1) ||W||_q^(2-q) / (q-1)`."""
        size = (weight_NIO.square() + self.eps).sqrt()
        total = _norm(weight_NIO, self.q).pow(2 - self.q)
        return weight_NIO * size.pow(self.q - 2) * total / (self.q - 1)


class KLRetention:
    """`W = c Softmax(A)`: a distribution over the inputs of each output (Memora), or over all
    entries.

    Source: MIRAS, equations 19 to 21 and 27. `over="outputs"` keeps the weights that lead to one
    output on a simplex of their own; `over="all"` is the l_1 norm of the whole matrix, as printed.
    `total` is c; None for as many as there are weights in a distribution, which are one on average.
    """

    linear = False

    def __init__(
        self, total: float | None = None, *, over: str = "outputs", lag: bool = True
    ) -> None:
        assert over in ("outputs", "all"), over
        self.total, self.over, self.lag = total, over, lag

    @implements(
        "miras.v1:eq18", "miras.v1:eq19", "miras.v1:eq20", "miras.v1:eq21", "miras.v1:eq27"
    )  # fmt: skip
    def primal(self, dual_NIO: Tensor) -> Tensor:
        total = self._total(dual_NIO)
        if self.over == "outputs":
            return total * torch.softmax(dual_NIO, -2)
        return total * torch.softmax(dual_NIO.flatten(-2), -1).view_as(dual_NIO)

    def dual(self, weight_NIO: Tensor) -> Tensor:
        share_NIO = weight_NIO / self._total(weight_NIO)
        return share_NIO.clamp_min(torch.finfo(weight_NIO.dtype).tiny).log()

    def _total(self, weight_NIO: Tensor) -> float:
        if self.total is not None:
            return self.total
        into, out = weight_NIO.shape[-2:]
        return into if self.over == "outputs" else into * out


class ElasticNet:
    """Soft thresholding: `W = sign(A) max(|A| - gamma, 0)` (MIRAS, equations 22 and 23)."""

    linear, lag = False, False

    def __init__(self, gamma: float = 0.01) -> None:
        assert gamma >= 0, gamma
        self.gamma = gamma

    @implements("miras.v1:eq22", "miras.v1:eq23")
    def primal(self, dual_NIO: Tensor) -> Tensor:
        return dual_NIO.sign() * (dual_NIO.abs() - self.gamma).clamp_min(0)

    def dual(self, weight_NIO: Tensor) -> Tensor:
        return weight_NIO + self.gamma * weight_NIO.sign()


class SigmoidBregman:
    """Mirror descent by the entropy of a coin: `W = sigmoid(A)`, entries in (0, 1) (Variant 5)."""

    linear, lag = False, False

    @implements("miras.v1:eq23b")
    def primal(self, dual_NIO: Tensor) -> Tensor:
        return torch.sigmoid(dual_NIO)

    def dual(self, weight_NIO: Tensor) -> Tensor:
        tiny = torch.finfo(weight_NIO.dtype).tiny
        return weight_NIO.clamp_min(tiny).log() - (1 - weight_NIO).clamp_min(tiny).log()


def _norm(found_NIO: Tensor, power: float) -> Tensor:
    """The l_power norm of each matrix, (N, 1, 1), differentiable at zero."""
    total = (found_NIO.square() + 1e-24).pow(power / 2).sum((-2, -1), keepdim=True)
    return total.pow(1 / power)
