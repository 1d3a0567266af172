"""Attention over a sliding window, behind tokens that every window sees.

Positions are rotary (Su et al. 2021), from the start of the sequence, so that only distances count.
Prefix tokens have no position: a query meets them as it was before its rotation. Cost is T · 2
window, since a window's worth of queries meets its own keys and those of the window before.

Legend: B sequences, T tokens, C width, H heads, D width of a head, P prefix tokens, S cached
tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BASE = 10_000.0


def rotated(x_BHTD: Tensor, start: int) -> Tensor:
    """Queries or keys turned by their positions, `start` and on. D is even."""
    half = x_BHTD.shape[-1] // 2
    where = torch.arange(start, start + x_BHTD.shape[-2], device=x_BHTD.device)
    rates = _BASE ** (-torch.arange(half, device=x_BHTD.device, dtype=torch.float64) / half)
    angles_TD = where[:, None] * rates
    cos, sin = angles_TD.cos().to(x_BHTD.dtype), angles_TD.sin().to(x_BHTD.dtype)
    a, b = x_BHTD[..., :half], x_BHTD[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class WindowAttention(nn.Module):
    """Causal attention to the last `window` tokens and to a prefix."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x_BTC: Tensor,
        *,
        prefix_PC: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        start: int = 0,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, C) and keys and values of the last `window - 1` tokens, for the next call.

        `start` is how many tokens came before; `past` what the last call returned.
        """
        q, k, v = self._split(x_BTC)
        turned = rotated(k, start)
        if past is not None:
            turned, v = torch.cat((past[0], turned), 2), torch.cat((past[1], v), 2)
        keep = max(0, turned.shape[2] - (self.window - 1))
        cache = (turned[:, :, keep:], v[:, :, keep:])
        prefix = None if prefix_PC is None else self._split(prefix_PC.unsqueeze(0))[1:]
        y_BHTD = self._blocks(q, rotated(q, start), turned, v, prefix)
        y_BTC: Tensor = self.out(y_BHTD.transpose(1, 2).flatten(2))
        return y_BTC, cache

    def _split(self, x_BTC: Tensor) -> list[Tensor]:
        parts = self.qkv(x_BTC).chunk(3, -1)
        return [torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _blocks(
        self, plain: Tensor, q: Tensor, k: Tensor, v: Tensor, prefix: list[Tensor] | None
    ) -> Tensor:
        """Queries (B, H, T, D) in blocks of a window, against the keys of two blocks each."""
        _B, _H, T, D = q.shape
        # Of a short call no more than it needs: a step of decoding has one query.
        size = min(self.window, T)
        reach = self.window - 1
        count = -(-T // size)
        # Keys of block n are positions n·size − reach … n·size + size − 1 of the new tokens.
        before = reach - (k.shape[2] - T)
        after = count * size - T
        k, v = F.pad(k, (0, 0, before, after)), F.pad(v, (0, 0, before, after))
        k_blocks = k.unfold(2, reach + size, size).mT
        v_blocks = v.unfold(2, reach + size, size).mT
        pad = (0, 0, 0, after)
        q_blocks = torch.unflatten(F.pad(q, pad), 2, (count, size))
        seen = _seen(T, size=size, reach=reach, missing=max(before, 0), device=q.device)
        if prefix is None:
            y = _attend(q_blocks, k_blocks, v_blocks, seen, D)
        else:
            y = self._with_prefix(
                q_blocks, torch.unflatten(F.pad(plain, pad), 2, (count, size)), k_blocks, v_blocks,
                prefix, seen,
            )  # fmt: skip
        return y.flatten(2, 3)[:, :, :T]

    def _with_prefix(
        self, q: Tensor, plain: Tensor, k: Tensor, v: Tensor, prefix: list[Tensor], seen: Tensor
    ) -> Tensor:
        """Scores `turned · k` and `q · p` from one product: a key is zero in the other half."""
        B, H, count, _, D = q.shape
        p, w = (part.unsqueeze(2).expand(B, H, count, -1, D) for part in prefix)
        both_q = torch.cat((q, plain), -1)
        both_k = torch.cat((F.pad(p, (D, 0)), F.pad(k, (0, D))), 3)
        all_seen = F.pad(seen, (p.shape[3], 0), value=True)
        return _attend(both_q, both_k, torch.cat((w, v), 3), all_seen, D)


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, width: int) -> Tensor:
    # Rows of padding see nothing but themselves; they are cut off later.
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=width**-0.5)


def _seen(length: int, *, size: int, reach: int, missing: int, device: torch.device) -> Tensor:
    """(blocks, size, reach + size): the window's band, without what is before the first token."""
    count = -(-length // size)
    i = torch.arange(size, device=device)[:, None]
    j = torch.arange(reach + size, device=device)[None, :]
    band = (j >= i) & (j <= i + reach)
    first = torch.arange(count, device=device)[:, None, None] * size + j >= missing
    return band & first
