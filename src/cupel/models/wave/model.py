"""A GPT whose tokens are wave packets and whose attention is interference.

Blocks, initial weights and loss are those of `models.gpt`; what differs is the embedding, the
attention and the activation, each chosen in the settings. Positions live in the embedding's angles,
so there is no table of them. No cache for sampling, no tied head.

Parameters, with V tokens, C width, L layers, W waves, h harmonics, H heads, as recorded for the
original (interference, packet, all biases, a norm after the embedding):
    2·V·W + V·W·h + (2·W·h·C + C) + W + V·C + 1 + 2·C embedding
    + L·(10·C² + 2·C·H·W + 11·C + 4·H·W + 1) blocks + 4·C two norms + V·C + V head
which is 67,473,706 at V 50,257, C 384, L 8, W 48, h 4, H 8. Where H·W = C a block is
12·C² + 13·C + 2·H·W + 1.

Shapes: B batch, T tokens, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cupel.models.wave.attention import IntensityAttention, InterferenceAttention
from cupel.models.wave.embedding import PhysicsEmbedding, WavePacketEmbedding
from cupel.models.wave.mlp import MLP
from cupel.models.wave.pure import PureWaveAttention
from cupel.models.wave.ratio import RatioSchedule
from cupel.models.wave.settings import WaveModelSettings

_STD = 0.02
_ATTENTIONS = {
    "interference": InterferenceAttention,
    "pure": PureWaveAttention,
    "physics": IntensityAttention,
}


class Block(nn.Module):
    """Attention and MLP, each behind its layer norm and added to the residual stream."""

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.attention = _ATTENTIONS[settings.attention](settings)
        self.mlp_norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.mlp = MLP(settings)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """The residual stream after this block, (B, T, C)."""
        x_BTC = x_BTC + self.drop(self.attention(self.attention_norm(x_BTC)))
        y_BTC: Tensor = x_BTC + self.drop(self.mlp(self.mlp_norm(x_BTC)))
        return y_BTC


class WaveGPT(nn.Module):
    """The whole model. `settings.vocabulary` must be a number by now: the caller asks the data.

    `ranks_V` gives each id's rank by frequency, 0 for the commonest, for `embedding: physics`
    alone; without it an id is its own rank.
    """

    caches = False

    def __init__(self, settings: WaveModelSettings, *, ranks_V: Tensor | None = None) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "fill in settings.vocabulary from the data"
        self.settings = settings
        self.embedding: WavePacketEmbedding | PhysicsEmbedding
        if settings.embedding == "physics":
            self.embedding = PhysicsEmbedding(settings, ranks_V=ranks_V)
        else:
            assert ranks_V is None, "ranks_V is for embedding: physics"
            self.embedding = WavePacketEmbedding(settings)
        self.drop = nn.Dropout(settings.dropout)
        self.input_norm = (
            nn.LayerNorm(settings.width, bias=settings.bias)
            if settings.input_norm
            else nn.Identity()
        )
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.head = nn.Linear(settings.width, settings.vocabulary, bias=settings.head_bias)
        self._draw_weights()

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        *,
        norms: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and with targets the mean cross-entropy in nats, in float32.

        To `norms`, where given, is appended the mean length of the residual stream's vectors
        before the first block and after every block, with its graph.
        """
        T = tokens_BT.size(1)
        assert self.settings.block >= T, (T, self.settings.block)
        x_BTC = self.input_norm(self.drop(self.embedding(tokens_BT)))
        _note_norm(norms, x_BTC)
        for block in self.blocks:
            x_BTC = block(x_BTC)
            _note_norm(norms, x_BTC)
        logits_BTV = self.head(self.norm(x_BTC))
        if targets_BT is None:
            return logits_BTV, None
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        return logits_BTV, loss

    def ratio_schedule(self) -> RatioSchedule:
        """A new schedule of this model's wave ratio, which has counted no update yet."""
        chosen = self.settings
        return RatioSchedule(self.embedding.ratio, chosen.ratio, steps=chosen.ratio_steps)

    @torch.no_grad()
    def spectral_state(self) -> dict[str, Tensor]:
        """What the waves are at the moment, float32 on the CPU; not to be written to.

        Packet: frequencies f (V, W) as in θ = 2π·h·f + …, phases (V, W), amplitudes (V, W, H),
        position_frequencies (W,) in radians a position. Physics: frequencies ω₀/2π (V, 1) in
        cycles a position, phases (V, C/2) of its harmonics, amplitudes 1/n (V, 1, C/2). Both: the
        ratio, as in the embedding's formula. Interference: temperatures (layers,).
        """
        state = {**self.embedding.spectrum(), "ratio": self.embedding.ratio()}
        temperatures: list[Tensor] = [
            module.temperature
            for module in self.modules()
            if isinstance(module, InterferenceAttention)
        ]
        if temperatures:
            state["temperatures"] = torch.stack(temperatures)
        return {name: tensor.detach().float().cpu() for name, tensor in state.items()}

    def wave_packets(self, tokens_N: Tensor, positions_T: Tensor) -> Tensor:
        """Σ A·sin θ of each token at each position, (N, T), float32 on the CPU, without graph."""
        device = self.head.weight.device
        packets_NT = self.embedding.packets(
            torch.as_tensor(tokens_N, device=device), torch.as_tensor(positions_T, device=device)
        )
        return packets_NT.float().cpu()

    def coherence_state(self) -> dict[str, Tensor]:
        """Phases and amplitudes (V, W, H) with their graph, shaped as in `spectral_state`."""
        spectrum = self.embedding.spectrum()
        return {name: spectrum[name] for name in ("phases", "amplitudes")}

    def _draw_weights(self) -> None:
        """As a GPT's; the waves' own parameters were drawn where they are defined."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                into_stream = name.endswith(("attention.out", "mlp.down"))
                scale = math.sqrt(2 * self.settings.layers) if into_stream else 1.0
                nn.init.normal_(module.weight, std=_STD / scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)


def _note_norm(norms: list[Tensor] | None, x_BTC: Tensor) -> None:
    if norms is not None:
        norms.append(torch.linalg.vector_norm(x_BTC.float(), dim=-1).mean())
