"""Attention by interference: of phases, as a softmax of cosines; of two waves, as an intensity.

Both are causal. Queries and keys live in W waves a head, values in C/heads numbers, so their sizes
may differ. `weights` gives the matrix of weights by the plain formula, for figures and tests.

Shapes: B batch, T tokens (S as keys, R as a slice of queries), C width, H heads, W waves of a head,
D = C/H width of a head's values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cupel.models.wave.precision import wide, without_autocast
from cupel.models.wave.settings import WaveModelSettings

# Largest B·H·R·S·W of a slice of the intensity: 1 MiB in float32, so that it stays in a cache.
_SLICE = 2**18


class InterferenceAttention(nn.Module):
    """Softmax of cosine(q, k)/τ, with q = W_q·x + φ_q and k = W_k·x + φ_k in W waves a head.

    φ starts at 0 and τ, one number a layer, at √W; nothing keeps τ positive. Cosines and the
    softmax run in torch's fused kernel: where W is not D, a CPU uses a slower one.

    Parameters: (2·H·W + C)·(C + 1) + 2·H·W + 1 + C·(C + 1), with biases.
    """

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        self.heads, self.waves = settings.heads, settings.waves
        self.dropout = settings.dropout
        C = settings.width
        self.qkv = nn.Linear(C, 2 * self.heads * self.waves + C, bias=settings.bias)
        self.phases = nn.Parameter(torch.zeros(2, self.heads, self.waves))
        self.temperature = nn.Parameter(torch.tensor(math.sqrt(self.waves)))
        self.out = nn.Linear(C, C, bias=settings.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """What each position gathers from itself and the positions before it, (B, T, C)."""
        q_BHTW, k_BHTW, v_BHTD = self._project(x_BTC)
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTW.to(v_BHTD.dtype),
            k_BHTW.to(v_BHTD.dtype),
            v_BHTD,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
            scale=1.0,
        )
        y_BTC: Tensor = self.out(y_BHTD.transpose(1, 2).reshape(x_BTC.shape))
        return y_BTC

    def weights(self, x_BTC: Tensor) -> Tensor:
        """How much of each position goes into each, (B, H, T, T); rows sum to 1."""
        q_BHTW, k_BHTW, _ = self._project(x_BTC)
        scores_BHTT = q_BHTW @ k_BHTW.transpose(-1, -2)
        return scores_BHTT.masked_fill(~visible(scores_BHTT), -torch.inf).softmax(-1)

    def _project(self, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q/(|q|·τ) and k/|k|, (B, H, T, W), and the values (B, H, T, D)."""
        B, T, C = x_BTC.shape
        H, W = self.heads, self.waves
        qk, v = self.qkv(x_BTC).split((2 * H * W, C), dim=2)
        qk_BTHW = wide(qk).view(B, T, 2 * H, W) + self.phases.view(2 * H, W)
        length = torch.linalg.vector_norm(qk_BTHW, dim=-1, keepdim=True).clamp_min(1e-12)
        # Dividing the lengths costs W times less than dividing the vectors.
        ones_H = self.temperature.new_ones(H, 1)
        qk_BTHW = qk_BTHW / (length * torch.cat((ones_H * self.temperature, ones_H)))
        q_BHTW, k_BHTW = qk_BTHW.transpose(1, 2).split(H, dim=1)
        return q_BHTW, k_BHTW, v.view(B, T, H, C // H).transpose(1, 2)


class IntensityAttention(nn.Module):
    """Weights that are intensities of two superposed waves, relative to the largest possible.

        I = Σ_w [A_q² + A_k² + 2·A_q·A_k·cos(Δω·Δt + Δφ)],   weight = I / Σ_w (A_q + A_k)²

    Frequency ω, phase φ and amplitude A = softplus are linear in x, for queries and keys apart;
    Δ is query minus key and t the position. Weights lie in [0, 1], those of later positions are 0,
    and there is no softmax. So nothing keeps a row's sum at 1: as defined, it grows with the
    number of visible positions, and the output with it.

    Costs T²·W cosines a head, so that a tiny model (T 64, W 32) takes some five times a GPT's time.
    Memory beyond T² is bounded: slices of the queries are computed one after another, and again in
    the backward pass.
    """

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        self.heads, self.waves = settings.heads, settings.waves
        C = settings.width
        self.qkv = nn.Linear(C, 6 * self.heads * self.waves + C, bias=settings.bias)
        self.drop = nn.Dropout(settings.dropout)
        self.out = nn.Linear(C, C, bias=settings.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """What each position gathers from itself and the positions before it, (B, T, C)."""
        waves, v_BHTD = self._project(x_BTC)
        with without_autocast(x_BTC.device):
            weights_BHTT = intensity(waves)
        y_BHTD = self.drop(weights_BHTT).to(v_BHTD.dtype) @ v_BHTD
        y_BTC: Tensor = self.out(y_BHTD.transpose(1, 2).reshape(x_BTC.shape))
        return y_BTC

    def weights(self, x_BTC: Tensor) -> Tensor:
        """How much of each position goes into each, (B, H, T, T), each in [0, 1]."""
        return intensity(self._project(x_BTC)[0])

    def _project(self, x_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """ω_q, ω_k, φ_q, φ_k, A_q, A_k as (6, B, H, T, W), and the values (B, H, T, D)."""
        B, T, C = x_BTC.shape
        H, W = self.heads, self.waves
        waves, v = self.qkv(x_BTC).split((6 * H * W, C), dim=2)
        waves = wide(waves).view(B, T, 6, H, W).permute(2, 0, 3, 1, 4)
        waves = torch.cat((waves[:4], F.softplus(waves[4:])))  # contiguous, which pays below
        return waves, v.view(B, T, H, C // H).transpose(1, 2)


def intensity(waves: Tensor, *, slice_numbers: int = _SLICE) -> Tensor:
    """Weights (B, H, T, T) of waves ω_q, ω_k, φ_q, φ_k, A_q, A_k, (6, B, H, T, W).

    `slice_numbers` bounds the B·H·R·S·W numbers that are worked on at a time.
    """
    a_q, a_k = waves[4], waves[5]
    alone_BHTT = a_q.square().sum(-1)[..., None] + a_k.square().sum(-1)[:, :, None]
    largest_BHTT = alone_BHTT + 2 * a_q @ a_k.transpose(-1, -2)
    crossed_BHTT = _crossed(waves, slice_numbers)
    return (alone_BHTT + 2 * crossed_BHTT) / largest_BHTT * visible(alone_BHTT)


class _Crossed(torch.autograd.Function):
    """waves → Σ_w A_q·A_k·cos(Δω·Δt + Δφ), (B, H, T, T), 0 for keys after a slice's last query.

    With C = g·cos(…) and S = g·sin(…) for a gradient g, and sums over j or i:
    ∂A_q = Σ_j C·A_k, ∂φ_q = −A_q·Σ_j S·A_k, ∂ω_q = −A_q·Σ_j S·A_k·Δt; for k with i and j, q and k
    exchanged, and a plus. Keeps its input alone and computes the cosines again.
    """

    @staticmethod
    def forward(ctx: Any, waves: Tensor, slice_numbers: int) -> Tensor:
        ctx.save_for_backward(waves)
        ctx.slice_numbers = slice_numbers
        a_q, a_k = waves[4], waves[5]
        crossed = waves.new_zeros(*waves.shape[1:4], waves.size(3))
        for rows, keys in _slices(waves, slice_numbers):
            cosine = _turns(waves, rows, keys)[0].cos_().mul_(a_k[:, :, None, keys])
            crossed[:, :, rows, keys] = (cosine @ a_q[:, :, rows, :, None])[..., 0]
        return crossed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (waves,) = ctx.saved_tensors
        w_q, w_k, p_q, p_k, a_q, a_k = range(6)
        out = torch.zeros_like(waves)
        for rows, keys in _slices(waves, ctx.slice_numbers):
            g = gradient[:, :, rows, keys, None]
            A_q, A_k = waves[a_q][:, :, rows, None], waves[a_k][:, :, None, keys]
            turn, elapsed = _turns(waves, rows, keys)
            sine, cosine = turn.sin().mul_(g), turn.cos_().mul_(g)
            out[a_q][:, :, rows] = (cosine * A_k).sum(3)
            out[a_k][:, :, keys] += cosine.mul_(A_q).sum(2)
            for q, k in ((p_q, p_k), (w_q, w_k)):
                out[q][:, :, rows] = -waves[a_q][:, :, rows] * (sine * A_k).sum(3)
                out[k][:, :, keys] += waves[a_k][:, :, keys] * (sine * A_q).sum(2)
                sine.mul_(elapsed)
        return out, None


_crossed: Callable[[Tensor, int], Tensor] = _Crossed.apply


def _slices(waves: Tensor, slice_numbers: int) -> Iterator[tuple[slice, slice]]:
    """Queries, and the keys before their end, of each slice."""
    _, B, H, T, W = waves.shape
    R = max(1, slice_numbers // (B * H * T * W))
    for start in range(0, T, R):
        stop = min(start + R, T)
        yield slice(start, stop), slice(0, stop)


def _turns(waves: Tensor, rows: slice, keys: slice) -> tuple[Tensor, Tensor]:
    """Δω·Δt + Δφ (B, H, R, S, W), and Δt (R, S, 1)."""
    t_T = torch.arange(waves.size(3), dtype=waves.dtype, device=waves.device)
    elapsed_RS1 = (t_T[rows, None] - t_T[keys])[..., None]
    w_q, w_k, p_q, p_k = waves[:4].unbind(0)
    turns = w_q[:, :, rows, None] - w_k[:, :, None, keys]
    turns.mul_(elapsed_RS1).add_(p_q[:, :, rows, None]).sub_(p_k[:, :, None, keys])
    return turns, elapsed_RS1


def visible(scores: Tensor) -> Tensor:
    """Which keys (last dimension) each query (the one before) may see: itself and the earlier."""
    T = scores.size(-1)
    return torch.ones(T, T, dtype=torch.bool, device=scores.device).tril()
