"""A GPT in the shape of GPT-2, and the cache of keys and values that makes sampling cheap.

- token embedding plus learned position embedding, so no context longer than `block`
- blocks with the layer norm before each branch; attention by torch's fused kernel; MLP of 4 × width
  with GELU; a last layer norm; an output head without bias, tied to the embedding if asked
- initial weights N(0, 0.02), projections into the residual stream divided by √(2 · layers)
  (Radford et al. 2019, §2.3), all drawn from torch's global generator: the caller seeds it
- no padding, no attention mask but the causal one, no rotary positions, no grouped heads

Parameters, with V tokens, width C, block T, L layers, with biases, untied, `hidden` unset:
    V·C embedding + T·C positions + L·(12·C² + 13·C) blocks + 2·C last norm + V·C head
A block: 4·C² + 4·C attention, 8·C² + 5·C MLP, 4·C two norms. Without biases 13·C becomes 2·C and
2·C becomes C; tied, the head's V·C goes.

Shapes: B batch, T tokens of this call, S tokens seen including cached ones, C width, H heads,
D width of a head, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cupel.models.gpt.settings import GPTModelSettings

_STD = 0.02


class KVCache:
    """Keys and values of the tokens seen so far, by layer; `length` is how many tokens.

    For one sequence or batch, without gradients. It grows by copying, which costs as much as
    attention's own reading of it. Learned positions cannot slide: past `block` tokens start a new
    cache with the context that is to be kept.
    """

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self._layers[0][0].size(2) if self._layers else 0

    def extend(self, layer: int, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's new keys and values; return all of them, (B, H, S, D) each."""
        if layer in self._layers:
            k_past, v_past = self._layers[layer]
            k_BHTD, v_BHTD = torch.cat((k_past, k_BHTD), 2), torch.cat((v_past, v_BHTD), 2)
        self._layers[layer] = (k_BHTD, v_BHTD)
        return k_BHTD, v_BHTD


class Attention(nn.Module):
    """Causal self-attention of several heads, by `scaled_dot_product_attention`."""

    def __init__(self, settings: GPTModelSettings, *, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.dropout = layer, settings.heads, settings.dropout
        self.qkv = nn.Linear(settings.width, 3 * settings.width, bias=settings.bias)
        self.out = nn.Linear(settings.width, settings.width, bias=settings.bias)

    def forward(self, x_BTC: Tensor, cache: KVCache | None = None) -> Tensor:
        """What each position gathers from itself and the positions before it, (B, T, C)."""
        B, T, C = x_BTC.shape
        q_BHTD, k_BHSD, v_BHSD = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.qkv(x_BTC).split(C, dim=2)
        )
        mask_TS = None
        if cache is not None:
            k_BHSD, v_BHSD = cache.extend(self.layer, k_BHSD, v_BHSD)
            S = k_BHSD.size(2)
            if S > T:  # is_causal would align the triangle to the first key, not to the last
                mask_TS = torch.ones(T, S, dtype=torch.bool, device=x_BTC.device).tril(S - T)
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BHSD,
            v_BHSD,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask_TS is None,
        )
        y_BTC: Tensor = self.out(y_BHTD.transpose(1, 2).reshape(B, T, C))
        return y_BTC


class MLP(nn.Module):
    """Two linear layers with GELU between, four times as wide inside unless set otherwise."""

    def __init__(self, settings: GPTModelSettings) -> None:
        super().__init__()
        hidden = settings.hidden or 4 * settings.width
        self.up = nn.Linear(settings.width, hidden, bias=settings.bias)
        self.down = nn.Linear(hidden, settings.width, bias=settings.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Each position on its own, (B, T, C)."""
        y_BTC: Tensor = self.down(F.gelu(self.up(x_BTC)))
        return y_BTC


class Block(nn.Module):
    """Attention and MLP, each behind its layer norm and added to the residual stream."""

    def __init__(self, settings: GPTModelSettings, *, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.attention = Attention(settings, layer=layer)
        self.mlp_norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.mlp = MLP(settings)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BTC: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after this block, (B, T, C)."""
        x_BTC = x_BTC + self.drop(self.attention(self.attention_norm(x_BTC), cache))
        y_BTC: Tensor = x_BTC + self.drop(self.mlp(self.mlp_norm(x_BTC)))
        return y_BTC


class GPT(nn.Module):
    """The whole model. `settings.vocabulary` must be a number by now: the caller asks the data."""

    caches = True

    def __init__(self, settings: GPTModelSettings) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "fill in settings.vocabulary from the data"
        self.settings = settings
        self.tokens = nn.Embedding(settings.vocabulary, settings.width)
        self.positions = nn.Embedding(settings.block, settings.width)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings, layer=i) for i in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width, bias=settings.bias)
        self.head = nn.Linear(settings.width, settings.vocabulary, bias=False)
        self._draw_weights()
        if settings.tied:
            self.head.weight = self.tokens.weight

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and with targets the mean cross-entropy in nats, in float32.

        With a cache, `tokens_BT` are the tokens after those it has seen, and it learns them.
        """
        start, T = cache.length if cache is not None else 0, tokens_BT.size(1)
        assert start + T <= self.settings.block, (start, T, self.settings.block)
        positions_T = torch.arange(start, start + T, device=tokens_BT.device)
        x_BTC = self.drop(self.tokens(tokens_BT) + self.positions(positions_T))
        recompute = self.settings.activation_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute and cache is None:
                x_BTC = checkpoint(block, x_BTC, use_reentrant=False)
            else:
                x_BTC = block(x_BTC, cache)
        logits_BTV = self.head(self.norm(x_BTC))
        if targets_BT is None:
            return logits_BTV, None
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        return logits_BTV, loss

    def _draw_weights(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("attention.out.weight", "mlp.down.weight")):
                nn.init.normal_(parameter, std=_STD / math.sqrt(2 * self.settings.layers))
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=_STD)
