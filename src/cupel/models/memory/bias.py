"""Attentional biases: what a memory minimises when it is shown a key and its value.

Each is a loss of the memory's output and the value, summed over channels, and its gradient with
regard to the output. Gradients are written out (`Net.deltas` carries them on); where the papers
print a gradient that is not that of their loss, `gradient` is the printed one and the docstring
says so.

Legend: N sequences (times heads), T tokens, D channels of a value. `threshold` is one number a
token (N, T) or a channel (N, T, D).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cupel.tags import implements

_EPS = 1e-6  # Remark 5 of MIRAS: |x| is sqrt(x^2 + eps)


class Bias(Protocol):
    """An attentional bias."""

    needs_threshold: bool

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """One number a token, (N, T)."""
        ...

    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        """With regard to `out`, (N, T, D)."""
        ...


class L2:
    """`scale / 2 ||M(k) - v||^2`.

    `scale` is 2 in Titans' equation 12 (the sum of squares), 1 in its Appendix C, 2 / D for a mean
    over channels; it only rescales the step size.
    """

    needs_threshold = False

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return 0.5 * self.scale * (out - value).square().sum(-1)

    @implements("titans.v1:eq12", "titans.v1:eq17", "miras.v1:eq31")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return self.scale * (out - value)


class Dot:
    """`-<M(k), v>`: what linear attention writes by (MIRAS, equation 8)."""

    needs_threshold = False

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return -(out * value).sum(-1)

    @implements("miras.v1:eq8")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return -value


class Lp:
    """`||M(k) - v||_p^p` (MIRAS, equations 10 to 12), smoothed so that it can be differentiated
    twice.

    The printed gradient is `p Sign(r) |r|^(p-1)` with `Sign(x) ~ tanh(a x)` and `|x| ~ sqrt(x^2 +
    eps)` (Remark 5). `smooth="exact"` is the gradient of the smoothed loss instead, whose sign is
    `x / sqrt(x^2 + eps)`.
    """

    needs_threshold = False

    def __init__(
        self, p: float = 3.0, *, smooth: str = "paper", sharpness: float = 10.0, eps: float = _EPS
    ) -> None:
        assert smooth in ("paper", "exact"), smooth
        assert p >= 1, p
        self.p, self.smooth, self.sharpness, self.eps = p, smooth, sharpness, eps

    @implements("miras.v1:eq10")
    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return ((out - value).square() + self.eps).pow(self.p / 2).sum(-1)

    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        return self._exact(out - value) if self.smooth == "exact" else self._printed(out - value)

    @implements("miras.v1:eq10")
    def _exact(self, error: Tensor) -> Tensor:
        size = (error.square() + self.eps).sqrt()
        return self.p * error * size.pow(self.p - 2)

    @implements("miras.v1:eq11", "miras.v1:eq12", "miras.v1:eq25")
    def _printed(self, error: Tensor) -> Tensor:
        size = (error.square() + self.eps).sqrt()
        return self.p * torch.tanh(self.sharpness * error) * size.pow(self.p - 1)


class HuberCoordinate:
    """Huber's loss of each channel (MIRAS, equations 13 and 14)."""

    needs_threshold = True

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        error, limit = out - value, _a_channel(threshold)
        small = 0.5 * error.square()
        large = limit * (error.abs() - 0.5 * limit)
        return torch.where(error.abs() <= limit, small, large).sum(-1)

    @implements("miras.v1:eq13", "miras.v1:eq14")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        limit = _a_channel(threshold)
        error = out - value
        return torch.where(error.abs() <= limit, error, limit * error.sign())


class HuberNorm:
    """Huber's loss of the error's norm (MIRAS, equation 15): its gradient is clipped."""

    needs_threshold = True

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        assert threshold is not None
        size = _norm(out - value).squeeze(-1)
        small = 0.5 * size.square()
        return torch.where(size <= threshold, small, threshold * (size - 0.5 * threshold))

    @implements("miras.v1:eq15")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        error, limit = out - value, _a_token(threshold)
        size = _norm(error)
        return torch.where(size <= limit, error, limit * error / size)


class HuberMixture:
    """The l_2 gradient for small errors, delta times the l_1 gradient for large ones (equation 16).

    As printed: it jumps where the norm of the error passes the threshold, and is the gradient of no
    loss; `loss` is that of each side. Both gradients are those of `||r||_2^2` and `||r||_1`, and
    the sign is smoothed as in `Lp`.
    """

    needs_threshold = True

    def __init__(self, *, sharpness: float = 10.0) -> None:
        self.sharpness = sharpness

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        assert threshold is not None
        error = out - value
        large = threshold * (error.square() + _EPS).sqrt().sum(-1)
        return torch.where(_norm(error).squeeze(-1) <= threshold, error.square().sum(-1), large)

    @implements("miras.v1:eq16", "miras.v1:eq26")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        error, limit = out - value, _a_token(threshold)
        large = limit * torch.tanh(self.sharpness * error)
        return torch.where(_norm(error) <= limit, 2 * error, large)


class ValueShift:
    """The worst case of values moved by `shift` at most: `1/2 (||r|| + shift)^2` (17)."""

    needs_threshold = False

    def __init__(self, shift: float = 0.1) -> None:
        self.shift = shift

    def loss(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        size = _norm(out - value).squeeze(-1)
        return 0.5 * size.square() + self.shift * size + 0.5 * self.shift**2

    @implements("miras.v1:eq17")
    def gradient(self, out: Tensor, value: Tensor, threshold: Tensor | None = None) -> Tensor:
        error = out - value
        return error + self.shift * error / _norm(error)


def _norm(error: Tensor) -> Tensor:
    """(N, T, 1). Not zero where the error is, so that it can be divided by and differentiated."""
    return (error.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def _a_token(threshold: Tensor | None) -> Tensor:
    assert threshold is not None, "this bias needs a threshold"
    return threshold.unsqueeze(-1)


def _a_channel(threshold: Tensor | None) -> Tensor:
    """One threshold a token stands for all of its channels."""
    assert threshold is not None, "this bias needs a threshold"
    return threshold if threshold.dim() == 3 else threshold.unsqueeze(-1)
