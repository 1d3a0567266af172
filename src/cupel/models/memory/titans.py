"""Titans' four ways to use a neural memory: LMM, MAC, MAG, MAL (arXiv 2501.00663v1, sections 3.3,
4).

Each is causal: token i sees nothing of a later one. The paper's figure of MAC shows every row of a
segment all of that segment's memory tokens, of which later ones are functions of later tokens
(register, A4); `literal` masks as in the figure, for encoders.

Persistent memory is P learned tokens that come before the sequence: the memory is written with them
first, and every attention window sees them. Since they and the first weights are the same for all
sequences, they are run once, for one sequence.

Legend: B sequences, T tokens, C width, P persistent tokens, S tokens of a segment so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cupel.models.memory.attention import WindowAttention, rotated
from cupel.models.memory.chunk import Fast
from cupel.models.memory.neural import MemoryLayer, NeuralMemory, Projections, normed
from cupel.models.memory.settings import MemorySettings
from cupel.models.memory.state import LayerState
from cupel.tags import implements

_STD = 0.02


class Mixer(Protocol):
    """What stands where a transformer has attention."""

    def __call__(
        self, x_BTC: Tensor, state: LayerState | None, start: int
    ) -> tuple[Tensor, LayerState]:
        """Outputs and the state behind them; `start` tokens came before."""
        ...


class Persistent(nn.Module):
    """P learned tokens, which no input changes (equation 19)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(_STD * torch.randn(count, width))

    @implements("titans.v1:eq19")
    def before(self, memory: MemoryLayer, batch: int) -> tuple[Tensor | None, LayerState]:
        """A memory's outputs at these tokens (P, C), and its state behind them, for a batch."""
        if not len(self.tokens):
            return None, LayerState(fast=memory.begin(batch))
        found, state = memory(self.tokens.unsqueeze(0), None)
        return found[0], _repeated(state, batch)


def _repeated(state: LayerState, batch: int) -> LayerState:
    """The state of one sequence for each of a batch."""

    def more(tensor: Tensor) -> Tensor:
        return tensor.expand(batch, *tensor.shape).flatten(0, 1)

    assert state.fast is not None
    weights = [more(weight) for weight in state.fast.weights]
    same = state.fast.anchor is state.fast.weights
    anchor = weights if same else [more(weight) for weight in state.fast.anchor]
    momentum, dual = (
        None if part is None else [more(one) for one in part]
        for part in (state.fast.momentum, state.fast.dual)
    )
    fast = Fast(weights, anchor, momentum, dual, state.fast.at)
    return LayerState(fast=fast, conv=None if state.conv is None else more(state.conv))


def attended(state: LayerState) -> tuple[Tensor, Tensor] | None:
    """Keys and values of tokens that came before."""
    if state.keys is None or state.values is None:
        return None
    return state.keys, state.values


class Gating(nn.Module):
    """`a ⊗ b`: both normalised with weights of their own, one through SiLU (section 4.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.other = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)

    @implements("titans.v1:eq25", "titans.v1:eq28")
    def forward(self, a_BTC: Tensor, b_BTC: Tensor) -> Tensor:
        return normed(self.one, a_BTC) * F.silu(normed(self.other, b_BTC))


class LMM(nn.Module):
    """The memory alone."""

    def __init__(
        self, width: int, heads: int, settings: MemorySettings, *, persistent: int
    ) -> None:
        super().__init__()
        self.memory = MemoryLayer(width, heads, settings)
        self.persistent = Persistent(persistent, width)

    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        if state is None:
            _, state = self.persistent.before(self.memory, len(x_BTC))
        found: tuple[Tensor, LayerState] = self.memory(x_BTC, state)
        return found


class MAG(nn.Module):
    """Memory as a gate: window attention and memory side by side (equations 26 to 28)."""

    def __init__(
        self, width: int, heads: int, settings: MemorySettings, *, persistent: int, window: int
    ) -> None:
        super().__init__()
        self.memory = MemoryLayer(width, heads, settings)
        self.attention = WindowAttention(width, heads, window)
        self.persistent = Persistent(persistent, width)
        self.gating = Gating(width)

    @implements("titans.v1:eq26", "titans.v1:eq27")
    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        if state is None:
            _, state = self.persistent.before(self.memory, len(x_BTC))
        m_BTC, after = self.memory(x_BTC, state)
        y_BTC, (keys, values) = self.attention(
            x_BTC, prefix_PC=_some(self.persistent.tokens), past=attended(state), start=start
        )
        found = self.gating(y_BTC, m_BTC)
        return found, LayerState(fast=after.fast, conv=after.conv, keys=keys, values=values)


class MAL(nn.Module):
    """Memory as a layer: window attention over what the memory gives (equations 29 to 31)."""

    def __init__(
        self, width: int, heads: int, settings: MemorySettings, *, persistent: int, window: int
    ) -> None:
        super().__init__()
        self.memory = MemoryLayer(width, heads, settings)
        self.attention = WindowAttention(width, heads, window)
        self.persistent = Persistent(persistent, width)
        self.norm = nn.RMSNorm(width, eps=1e-6)

    @implements("titans.v1:eq29", "titans.v1:eq30", "titans.v1:eq31")
    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        # What the memory makes of the persistent tokens is seen by every window of every call.
        prefix_PC, first = self.persistent.before(self.memory, len(x_BTC))
        state = state or first
        y_BTC, after = self.memory(x_BTC, state)
        found, (keys, values) = self.attention(
            normed(self.norm, y_BTC),
            prefix_PC=None if prefix_PC is None else normed(self.norm, prefix_PC),
            past=attended(state),
            start=start,
        )
        return found, LayerState(fast=after.fast, conv=after.conv, keys=keys, values=values)


class MAC(nn.Module):
    """Memory as a context: attention over persistent tokens, what is recalled, and the segment.

    Equations 21 to 25. `h` of a segment is read from the memory as the segment before left it (21);
    row i of the attention sees the persistent tokens, and h and x up to i (22, 23; A4); the memory
    is written with the attention's outputs (24) and read at them, token i behind its own write (25;
    A5).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        settings: MemorySettings,
        *,
        persistent: int,
        segment: int,
        literal: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.segment, self.literal = heads, segment, literal
        self.memory = NeuralMemory(width, heads, settings, parts=2)
        self.asking = Projections(width, settings, parts=1)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.persistent = Persistent(persistent, width)
        self.gating = Gating(width)

    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        fast = self.memory.begin(len(x_BTC))
        state = state or LayerState(fast=fast, base=fast)
        assert not self.literal or (state.index == 0 and start == 0), (
            "literal takes whole sequences"
        )
        outputs, at = [], 0
        while at < x_BTC.shape[1]:
            size = min(self.segment - state.index, x_BTC.shape[1] - at)
            y_BTC, state = self._segment(x_BTC[:, at : at + size], state)
            outputs.append(y_BTC)
            at += size
        return torch.cat(outputs, 1), state

    @implements("titans.v1:eq24")
    def _segment(self, x_BTC: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Tokens of one segment, or of what is left of it."""
        assert state.fast is not None
        assert state.base is not None
        tails = (None, None) if state.conv is None else _tails(state.conv, x_BTC.shape[-1])
        h_BTC, asked = self._recalled(x_BTC, tails[0], state.base)
        y_BTC, keys, values = self._attended(h_BTC, x_BTC, state)
        parts, written = self.memory.projections(y_BTC, tails[1])
        k, v = self.memory.split(parts)
        (q,) = self.memory.split([y_BTC])
        m_BTC, fast = self.memory.remember(
            self.memory.unit(q), self.memory.unit(k), v, y_BTC, state.fast
        )
        o_BTC = self.gating(y_BTC, m_BTC)
        conv = None if asked is None or written is None else torch.cat((asked, written), -1)
        index = state.index + x_BTC.shape[1]
        if index == self.segment:
            return o_BTC, LayerState(fast=fast, conv=conv, base=fast)
        return o_BTC, LayerState(
            fast=fast, conv=conv, base=state.base, keys=keys, values=values, index=index
        )

    @implements("titans.v1:eq21")
    def _recalled(
        self, x_BTC: Tensor, tail: Tensor | None, base: Fast
    ) -> tuple[Tensor, Tensor | None]:
        """What the memory before this segment knows of its tokens, and the convolution's tail."""
        parts, tail = self.asking(x_BTC, tail)
        (q,) = self.memory.split(parts)
        return self.memory.recall(self.memory.unit(q), base), tail

    @implements("titans.v1:eq22", "titans.v1:eq23")
    def _attended(
        self, h_BTC: Tensor, x_BTC: Tensor, state: LayerState
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of the segment's tokens, and keys and values of all of its tokens so far."""
        _, k_h, v_h = self._split(h_BTC)
        q, k_x, v_x = self._split(x_BTC)
        k_h, k_x = rotated(k_h, state.index), rotated(k_x, state.index)
        keys, values = torch.cat((k_h, k_x), 1), torch.cat((v_h, v_x), 1)
        if (past := attended(state)) is not None:
            keys, values = torch.cat((past[0], keys), 2), torch.cat((past[1], values), 2)
        k_all, v_all = (torch.cat(part.chunk(2, 1), 2) for part in (keys, values))
        T, S, D = q.shape[2], keys.shape[2], q.shape[3]
        _, p, w = self._split(self.persistent.tokens.unsqueeze(0))
        p, w = (part.expand(len(q), -1, -1, -1) for part in (p, w))
        # As in WindowAttention: persistent tokens have no position.
        turned = torch.cat((rotated(q, state.index), q), -1)
        k_all = torch.cat((F.pad(p, (D, 0)), F.pad(k_all, (0, D))), 2)
        seen = mask(T, S, persistent=p.shape[2], literal=self.literal, device=q.device)
        y = F.scaled_dot_product_attention(
            turned, k_all, torch.cat((w, v_all), 2), attn_mask=seen, scale=D**-0.5
        )
        y_BTC: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return y_BTC, keys, values

    def _split(self, x_BTC: Tensor) -> list[Tensor]:
        parts = self.qkv(x_BTC).chunk(3, -1)
        return [torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2) for part in parts]


def mask(
    T: int, S: int, *, persistent: int, literal: bool, device: torch.device | None = None
) -> Tensor:
    """What the last T of a segment's S tokens see: (T, P + S + S) for persistent, recalled, own.

    `literal` shows each row all that is recalled, as figure 3a draws it, future and all.
    """
    own = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
    recalled = torch.ones_like(own) if literal else own
    first = torch.ones(T, persistent, dtype=torch.bool, device=device)
    return torch.cat((first, recalled, own), 1)


def _tails(conv: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return conv[..., :width], conv[..., width:]


def _some(tokens_PC: Tensor) -> Tensor | None:
    return tokens_PC if len(tokens_PC) else None


MIXERS: dict[str, Callable[..., nn.Module]] = {"lmm": LMM, "mac": MAC, "mag": MAG, "mal": MAL}
