"""Gates of a chunk as matrices: how much of each token's write is left at each later token.

A gate is given as its logarithm, so that a product of gates is a sum. Sums over a stretch are made
by adding up the stretch alone, never as a difference of two long sums: `beta_t / beta_i` underflows
after a few hundred tokens at 0.5, and the difference of two sums forgets small gates behind a large
one. So a gate may be exactly 0 (its logarithm is −inf) or 1.

Legend: N sequences (times heads), T tokens of one chunk, D channels of a layer's output. `…` is N,
or N and D where every channel has gates of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cupel.tags import implements

# Stands for the logarithm of 0 where sums are products, in which −inf times 0 is no number. Its exp
# is 0 in every floating type, and it has no gradient.
_LOG_OF_ZERO = -1e4
_SHORT = 128


def decays(log: Tensor) -> Tensor:
    """L[t, j] = prod of the gates behind j up to t: (…, T) of logarithms → (…, T, T).

    One on the diagonal, zero above it.
    """
    ones = _ones(log)
    # Row t holds the logarithm of gate t left of the diagonal; sums down column j are of (j, t].
    rows = log.clamp_min(_LOG_OF_ZERO).unsqueeze(-1) * ones.tril(-1)
    # Of few tokens by a product: the gradient of a running sum turns the whole tensor over twice.
    summed = torch.matmul(ones.tril(), rows) if len(ones) <= _SHORT else rows.cumsum(-2)
    return summed.exp().tril()


def products(log: Tensor) -> Tensor:
    """The product of all gates up to and with each token: (…, T) of logarithms → (…, T)."""
    return torch.matmul(log.clamp_min(_LOG_OF_ZERO), _ones(log).triu()).exp()


def products_behind(log: Tensor) -> Tensor:
    """The product of all gates behind each token: (…, T) of logarithms → (…, T).

    The last row of `decays`, for less.
    """
    return torch.matmul(log.clamp_min(_LOG_OF_ZERO), _ones(log).tril(-1)).exp()


def _ones(log: Tensor) -> Tensor:
    return torch.ones(log.shape[-1], log.shape[-1], dtype=log.dtype, device=log.device)


class Mixture(NamedTuple):
    """What a chunk's start and its writes weigh at each of its tokens, and at its end.

    With weights W_0, momentum S_0 and rank-one writes u_i at the chunk's start:

        W_t = start_t W_0 + inertia_t S_0 - sum_i writes[t, i] u_i
        S_b = last_momentum S_0 - sum_i kept_i u_i

    `inertia`, `last_momentum` and `kept` are None without momentum. The step sizes theta are in.
    """

    start: Tensor  # (…, T)
    writes: Tensor  # (…, T, T), lower triangular
    inertia: Tensor | None  # (…, T)
    last_momentum: Tensor | None  # (…,)
    kept: Tensor | None  # (…, T)


def mixture(log_keep: Tensor, theta: Tensor, log_eta: Tensor | None = None) -> Mixture:
    """The closed form of `W_t = keep_t W_{t-1} + S_t`, `S_t = eta_t S_{t-1} - theta_t u_t`.

    `log_keep` is log(1 - alpha), `log_eta` the momentum's gate (None: `S_t = -theta_t u_t`),
    `theta` the step size; each (…, T). Source: Titans (arXiv 2501.00663v1), equations 13, 14, 16
    and 18, unrolled: with L_A, L_H the decays of both gates, C = L_A L_H and

        W_t = A_t W_0 + (L_A H)_t S_0 - sum_{i<=t} C[t, i] theta_i u_i
    """
    if log_eta is None:
        return _plain(log_keep, theta)
    return _carried(log_keep, theta, log_eta)


@implements("titans.v1:eq8", "titans.v1:eq16", "miras.v1:eq28")
def _plain(log_keep: Tensor, theta: Tensor) -> Mixture:
    """Without momentum: equation 16, and 8 where nothing is forgotten."""
    return Mixture(products(log_keep), decays(log_keep) * theta.unsqueeze(-2), None, None, None)


@implements(
    "titans.v1:eq9", "titans.v1:eq10", "titans.v1:eq13", "titans.v1:eq14", "titans.v1:eq18"
)  # fmt: skip
def _carried(log_keep: Tensor, theta: Tensor, log_eta: Tensor) -> Mixture:
    """With momentum: equations 13, 14 and 18, and 9 and 10 where nothing is forgotten."""
    both = decays(log_keep) @ decays(log_eta)
    # What the momentum at the start does is what a write of the first token does, times its gate.
    inertia = both[..., 0] * log_eta[..., :1].exp()
    last = products_behind(log_eta) * theta
    through = log_eta.sum(-1).exp()
    return Mixture(products(log_keep), both * theta.unsqueeze(-2), inertia, through, last)


def before(mix: Mixture) -> Mixture:
    """The same as seen before each token's own write: row t is what row t - 1 was."""
    start = torch.cat((torch.ones_like(mix.start[..., :1]), mix.start[..., :-1]), -1)
    writes = torch.cat((torch.zeros_like(mix.writes[..., :1, :]), mix.writes[..., :-1, :]), -2)
    if mix.inertia is None:
        return mix._replace(start=start, writes=writes)
    inertia = torch.cat((torch.zeros_like(mix.inertia[..., :1]), mix.inertia[..., :-1]), -1)
    return mix._replace(start=start, writes=writes, inertia=inertia)
