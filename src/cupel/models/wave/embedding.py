"""Token embeddings made of waves: learned packets, or harmonics of a frequency set by rank.

Both mix waves with an ordinary lookup table by a ratio r, and carry the position in their angles:
a wave GPT has no table of positions. Angles are float32 at least, also under autocast.

Shapes: B batch, T tokens, N tokens of the batch in a row, C width, V vocabulary, W waves,
H harmonics, K = C/2 harmonics of the physics embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cupel.models.wave.precision import wide
from cupel.models.wave.ratio import WaveRatio
from cupel.models.wave.settings import WaveModelSettings

_TURN = 2 * math.pi


class WavePacketEmbedding(nn.Module):
    """A token as the superposition of W waves, with H harmonics each, next to a lookup table.

        θ[w,h] = 2π·h·f[w] + φ[w] + position·p[w],   h = 1 … H
        state  = (A·sin θ, A·cos θ) over all (w,h), 2·W·H numbers
        out    = LayerNorm(r·Linear(state) + (1 − r)·lookup)

    f, φ, A are each token's own, p is shared. Initially f = linspace(0.5, 5, W) + 0.1·N(0,1),
    φ uniform in [0, 2π), A = 0.5·N(0,1)/√(W·H), p = 0.1·N(0,1).

    Parameters: 2·V·W + V·W·H + (2·W·H·C + C) + W + V·C + 1 + 2·C; with ratio: decay the 1 goes,
    without biases two times C go.
    """

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "fill in settings.vocabulary from the data"
        V, W, H = settings.vocabulary, settings.waves, settings.harmonics
        spread_W = torch.linspace(0.5, 5.0, W)
        self.frequencies = nn.Parameter(spread_W + 0.1 * torch.randn(V, W))
        self.phases = nn.Parameter(_TURN * torch.rand(V, W))
        self.amplitudes = nn.Parameter(torch.randn(V, W, H) * (0.5 / math.sqrt(W * H)))
        self.position_frequencies = nn.Parameter(0.1 * torch.randn(W))
        self.project = nn.Linear(2 * W * H, settings.width, bias=settings.bias)
        self.lookup = nn.Embedding(V, settings.width)
        self.ratio = WaveRatio(learned=settings.ratio != "decay")
        self.norm = nn.LayerNorm(settings.width, bias=settings.bias)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The first residual stream, (B, T, C); the first token of a row is at position 0."""
        frequencies_NW, offsets_BTW, amplitudes_NWH = self._gather(
            tokens_BT, torch.arange(tokens_BT.size(1), device=tokens_BT.device)
        )
        state_NS = packet_state(frequencies_NW, offsets_BTW.flatten(0, 1), amplitudes_NWH)
        standard_BTC = self.lookup(tokens_BT)
        wave_NC = self.project(state_NS.to(self.project.weight.dtype))
        wave_BTC = wave_NC.view(standard_BTC.shape).to(standard_BTC.dtype)
        mixed_BTC: Tensor = self.norm(torch.lerp(standard_BTC, wave_BTC, self.ratio()))
        return mixed_BTC

    @torch.no_grad()
    def packets(self, tokens_N: Tensor, positions_T: Tensor) -> Tensor:
        """Σ A·sin θ over all waves and harmonics of each token at each position, (N, T)."""
        W, T = self.position_frequencies.numel(), len(positions_T)
        frequencies, offsets, amplitudes = self._gather(
            tokens_N[:, None].expand(-1, T), positions_T
        )
        state = packet_state(frequencies, offsets.view(-1, W), amplitudes)
        return state.chunk(2, dim=1)[0].sum(1).view(-1, T)

    def spectrum(self) -> dict[str, Tensor]:
        """f (V, W), φ (V, W), A (V, W, H), p (W): the parameters themselves."""
        return {
            "frequencies": self.frequencies,
            "phases": self.phases,
            "amplitudes": self.amplitudes,
            "position_frequencies": self.position_frequencies,
        }

    def _gather(self, tokens_BT: Tensor, positions_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f (N, W), φ + position·p (B, T, W) and A (N, W, H) of every token of the batch."""
        tokens_N = tokens_BT.flatten()
        V, W, H = self.amplitudes.shape
        shifts_TW = torch.outer(positions_T, wide(self.position_frequencies))
        return (
            wide(F.embedding(tokens_N, self.frequencies)),
            wide(F.embedding(tokens_BT, self.phases)) + shifts_TW,
            wide(F.embedding(tokens_N, self.amplitudes.view(V, W * H))).view(-1, W, H),
        )


class PhysicsEmbedding(nn.Module):
    """A token as the harmonics of one frequency, set by its rank; only their phases are learned.

        mass = 1/(rank + 1),  ω₀ = 1/√mass,  ω_n = n·ω₀,  A_n = 1/n,  n = 1 … C/2
        wave = (A_n·sin(ω_n·t + φ_n), A_n·cos(ω_n·t + φ_n)),  t the position
        out  = (1 − r)·wave + r·lookup

    Here r is the share of the lookup table: `ratio: decay` starts with the table alone, which
    knows no positions, and ends with waves alone. φ starts uniform in [0, 2π). There is no layer
    norm: the norm of the waves is √Σ 1/n², about 1.28.

    Parameters: V·C/2 + V·C, and 1 unless ratio: decay.
    """

    def __init__(self, settings: WaveModelSettings, *, ranks_V: Tensor | None = None) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "fill in settings.vocabulary from the data"
        V, K = settings.vocabulary, settings.width // 2
        if ranks_V is None:
            ranks_V = torch.arange(V)
        assert ranks_V.shape == (V,), (ranks_V.shape, V)
        assert not ranks_V.is_floating_point(), ranks_V.dtype
        self.register_buffer("ranks", ranks_V.clone())
        self.phases = nn.Parameter(_TURN * torch.rand(V, K))
        self.lookup = nn.Embedding(V, settings.width)
        self.ratio = WaveRatio(learned=settings.ratio != "decay")

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The first residual stream, (B, T, C); the first token of a row is at time 0."""
        positions_T = torch.arange(tokens_BT.size(1), device=tokens_BT.device)
        angles_BTK = self._angles(tokens_BT, positions_T)
        amplitudes_K = self._amplitudes(angles_BTK)
        standard_BTC = self.lookup(tokens_BT)
        waves = (amplitudes_K * angles_BTK.sin(), amplitudes_K * angles_BTK.cos())
        wave_BTC = torch.cat(waves, dim=-1).to(standard_BTC.dtype)
        return torch.lerp(wave_BTC, standard_BTC, self.ratio())

    @torch.no_grad()
    def packets(self, tokens_N: Tensor, positions_T: Tensor) -> Tensor:
        """Σ A_n·sin(ω_n·t + φ_n) of each token at each position, (N, T)."""
        angles_NTK = self._angles(tokens_N[:, None].expand(-1, len(positions_T)), positions_T)
        return angles_NTK.sin() @ self._amplitudes(angles_NTK)

    def spectrum(self) -> dict[str, Tensor]:
        """ω₀/2π (V, 1) in cycles a position, φ (V, K), and 1/n as amplitudes (V, 1, K)."""
        omega_V = (self.get_buffer("ranks") + 1).to(self.phases.dtype).sqrt()
        amplitudes_K = self._amplitudes(self.phases)
        return {
            "frequencies": (omega_V / _TURN)[:, None],
            "phases": self.phases,
            "amplitudes": amplitudes_K.expand(len(omega_V), 1, -1),
        }

    def _angles(self, tokens_BT: Tensor, positions_T: Tensor) -> Tensor:
        """ω_n·t + φ_n, (B, T, K), where ω_n·t is exact to 1e-12 rad before it is rounded.

        At rank 50,000, n 192 and t 255 it is 1e7 rad, of which float32 would know nothing: so it
        is reduced to one turn in float64, before and after the multiplication by n.
        """
        omega_BT = (self.get_buffer("ranks")[tokens_BT] + 1).double().sqrt()
        base_BT = (omega_BT * positions_T).remainder(_TURN)
        phases_BTK = wide(F.embedding(tokens_BT, self.phases))
        n_K = torch.arange(1, phases_BTK.size(-1) + 1, device=tokens_BT.device)
        return (base_BT[..., None] * n_K).remainder(_TURN).to(phases_BTK.dtype) + phases_BTK

    def _amplitudes(self, like: Tensor) -> Tensor:
        return 1 / torch.arange(
            1, self.phases.size(1) + 1, dtype=like.dtype, device=self.phases.device
        )


def packet_state(frequencies_NW: Tensor, offsets_NW: Tensor, amplitudes_NWH: Tensor) -> Tensor:
    """(A·sin θ, A·cos θ) as (N, 2·W·H), with θ = 2π·h·f + offset; differentiable once."""
    return _packet_state(frequencies_NW, offsets_NW, amplitudes_NWH)


class _PacketState(torch.autograd.Function):
    """Keeps sin θ and cos θ for the backward pass, where both are needed again:
    ∂A = g_s·sin θ + g_c·cos θ and ∂θ = A·(g_s·cos θ − g_c·sin θ). First derivatives only.
    """

    @staticmethod
    def forward(ctx: Any, frequencies: Tensor, offsets: Tensor, amplitudes: Tensor) -> Tensor:
        N, W, H = amplitudes.shape
        n_H = torch.arange(1, H + 1, dtype=frequencies.dtype, device=frequencies.device)
        angles = torch.addcmul(offsets[..., None], frequencies[..., None], _TURN * n_H)
        sine, cosine = angles.sin(), angles.cos()
        ctx.save_for_backward(sine, cosine, amplitudes)
        return torch.stack((amplitudes * sine, amplitudes * cosine), 1).view(N, 2 * W * H)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sine, cosine, amplitudes = ctx.saved_tensors
        N, W, H = amplitudes.shape
        by_sine, by_cosine = gradient.view(N, 2, W, H).unbind(1)
        by_amplitude = (by_sine * sine).addcmul_(by_cosine, cosine)
        by_angle = (by_sine * cosine).addcmul_(by_cosine, sine, value=-1).mul_(amplitudes)
        # Both sums over h at once: plain, and weighted by ∂θ/∂f = 2π·h.
        ones_H = torch.ones(H, dtype=sine.dtype, device=sine.device)
        sums = by_angle @ torch.stack((_TURN * ones_H.cumsum(0), ones_H), 1)
        return sums[..., 0], sums[..., 1], by_amplitude


_packet_state: Callable[[Tensor, Tensor, Tensor], Tensor] = _PacketState.apply
