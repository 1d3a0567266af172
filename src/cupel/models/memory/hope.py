"""Hope: self-modifying memories, or attention, and a continuum memory system behind them.

Nested Learning (arXiv 2512.24695), equations 94 to 97. `o_t = M_t-1(q_t)` is what the main memory
says of a token, and the levels of `cms` read that: `y = CMS(o)`. Hope-attention has a window of
softmax attention in place of the memories.

Ours, as the paper does not say: the convolution comes before all maps; where there are several
heads, each sees all channels by a linear map of its own, which the memories then read (with one
head and the identity that is the paper); outputs of heads are normalised, gated by a linear map of
x and projected, as in the other mixers; an RMSNorm stands before the levels.

Legend: B sequences, T tokens, C width, H heads, P memories besides the main one, D width of a head;
N is B times H.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cupel.models.memory import bias
from cupel.models.memory.attention import WindowAttention
from cupel.models.memory.chunk import Rule, Watch
from cupel.models.memory.cms import CMS
from cupel.models.memory.net import Net
from cupel.models.memory.neural import Gate, normed
from cupel.models.memory.retention import L2Retention
from cupel.models.memory.selfmod import PARTS, How, Memories, modify, start
from cupel.models.memory.settings import HopeSettings
from cupel.models.memory.state import LayerState, State
from cupel.models.memory.titans import Persistent, attended
from cupel.tags import implements

_GATES = ("alpha", "eta")
_FIRST_MOMENTUM = 0.5  # as in Titans


def how(settings: HopeSettings) -> How:
    """How memories of these settings modify themselves."""
    rule = Rule(
        Net(settings.activation, residual=settings.depth > 1),
        bias.L2(settings.scale) if settings.loss == "l2" else bias.Dot(),
        L2Retention(),
        chunk=settings.chunk,
        read="before",
        erase=None if settings.erase == "none" else "one",
        normalise=settings.depth > 1 and settings.erase == "all",
        erase_first=settings.erase == "first",
        momentum=settings.momentum,
    )
    return How(
        rule,
        replace(rule, chunk=settings.chunk_others),
        names=tuple(name for name in PARTS if name in settings.memories),
        max_eta=settings.max_eta,
        flips=settings.allow_neg_eigval,
        read=settings.read,
        targets=settings.targets,
        unit=settings.unit,
    )


class Readout(nn.Module):
    """A gate's logits from what its memory says: (N, T, D) → (N, T).

    It starts at zero, so that every token begins with `first`.
    """

    def __init__(self, heads: int, width: int, first: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, width))
        self.offset = nn.Parameter(torch.full((heads,), math.log(first / (1 - first))))

    def forward(self, said_NTD: Tensor) -> Tensor:
        said_BHTD = said_NTD.view(-1, len(self.weight), *said_NTD.shape[1:])
        logits = torch.einsum("bhtd,hd->bht", said_BHTD, self.weight) + self.offset[:, None]
        return logits.flatten(0, 1)


class Convolution(nn.Module):
    """Each channel over its last `kernel` tokens: (B, T, C), and the tail for the next call."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.taps = nn.Conv1d(width, width, kernel, groups=width, bias=False)

    def forward(self, x_BTC: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        if tail is None:
            tail = x_BTC.new_zeros(len(x_BTC), self.kernel - 1, x_BTC.shape[-1])
        whole = torch.cat((tail, x_BTC), 1)
        return self.taps(whole.mT).mT, whole[:, whole.shape[1] - (self.kernel - 1) :]


class SelfModifying(nn.Module):
    """Self-modifying memories, a set for each head: (B, T, C) → (B, T, C) and the state behind."""

    def __init__(self, width: int, heads: int, settings: HopeSettings) -> None:
        super().__init__()
        assert width % heads == 0, (width, heads)
        self.heads, self.how = heads, how(settings)
        self.conv = Convolution(width, settings.conv) if settings.conv else None
        # What memories read, and what is not made by one.
        self.plain = tuple(n for n in PARTS if n not in self.how.names and n not in _GATES)
        self.maps = nn.Linear(width, width * (1 + len(self.plain)), bias=False)
        self.gates = nn.ModuleDict(
            {
                name: Readout(heads, width // heads, first)
                if name in self.how.names
                else Gate("token", width, heads, rank=None, first=first)
                for name, first in zip(
                    _GATES, (settings.first_alpha, settings.first_eta), strict=True
                )
            }
        )
        if settings.momentum:
            self.gates["momentum"] = Gate("token", width, heads, rank=None, first=_FIRST_MOMENTUM)
        self.main, self.others = _first(heads, width // heads, len(self.how.names), settings)
        self.norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.open = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.watch: Watch | None = None

    def begin(self, batch: int) -> Memories:
        """All memories before the first token."""

        def shared(weights: nn.ParameterList) -> list[Tensor]:
            return [weight.expand(batch, *weight.shape).flatten(0, 1) for weight in weights]

        return start(self.how, shared(self.main), shared(self.others))

    @implements("nl.v1:eq94", "nl.v1:eq95", "nl.v1:eq96")
    def forward(self, x_BTC: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        state = state or LayerState()
        seen_BTC, tail = (x_BTC, None) if self.conv is None else self.conv(x_BTC, state.conv)
        memories = self.begin(len(x_BTC))
        if state.fast is not None:
            memories = Memories(state.fast, state.others)
        # The memories' own arithmetic stays in float32 where the rest is of fewer bits.
        exact = self.main[0].dtype
        parts = [
            self._split(part).to(exact) for part in self.maps(seen_BTC).split(x_BTC.shape[-1], -1)
        ]
        given = dict(zip(self.plain, parts[1:], strict=True))
        given |= {
            name: gate(seen_BTC).to(exact)
            for name, gate in self.gates.items()
            if name not in self.how.names
        }
        with torch.autocast(x_BTC.device.type, enabled=False):
            y_NTD, memories = modify(
                self.how, parts[0], given, self._readout, memories, watch=self.watch
            )
        y_BHTD = y_NTD.to(x_BTC.dtype).view(len(x_BTC), self.heads, *y_NTD.shape[1:])
        y_BTC = self.norm(y_BHTD.transpose(1, 2)).flatten(2)
        found: Tensor = self.out(y_BTC * F.silu(self.open(x_BTC)))
        return found, LayerState(fast=memories.main, others=memories.others, conv=tail)

    def _readout(self, name: str, said_NTD: Tensor) -> Tensor:
        found: Tensor = self.gates[name](said_NTD)
        return found

    def _split(self, x_BTC: Tensor) -> Tensor:
        """Each head by itself: (N, T, D)."""
        x_BTHD = x_BTC.view(*x_BTC.shape[:2], self.heads, -1)
        return x_BTHD.transpose(1, 2).flatten(0, 1)


class Taught(Protocol):
    """A mixer with a continuum memory system."""

    cms: CMS


class Hope(nn.Module):
    """Self-modifying memories, then levels of MLPs that learn."""

    def __init__(self, width: int, heads: int, settings: HopeSettings) -> None:
        super().__init__()
        self.memory = SelfModifying(width, heads, settings)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.cms = CMS(width, settings.cms)

    @implements("nl.v1:eq97")
    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        state = state or LayerState()
        o_BTC, after = self.memory(x_BTC, state)
        y_BTC, cms = self.cms(normed(self.norm, o_BTC), state.cms)
        return y_BTC, replace(after, cms=cms)


class HopeAttention(nn.Module):
    """A window of attention, then levels of MLPs that learn."""

    def __init__(
        self, width: int, heads: int, settings: HopeSettings, *, persistent: int, window: int
    ) -> None:
        super().__init__()
        self.attention = WindowAttention(width, heads, window)
        self.persistent = Persistent(persistent, width)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.cms = CMS(width, settings.cms)

    @implements("nl.v1:eq97")
    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        state = state or LayerState()
        tokens = self.persistent.tokens
        o_BTC, (keys, values) = self.attention(
            x_BTC, prefix_PC=tokens if len(tokens) else None, past=attended(state), start=start
        )
        y_BTC, cms = self.cms(normed(self.norm, o_BTC), state.cms)
        return y_BTC, LayerState(keys=keys, values=values, cms=cms)


def teach(mixers: Mapping[int, Taught], loss: Tensor, state: State) -> State:
    """A state whose levels have learned from a loss of the call that made it.

    `mixers` are those of the layers by their number. The loss is a sum over tokens. The gradients
    that are handed in are constants of what follows; everything else that the updates depend on is
    not. Raises UsageError as `CMS.teach` does.
    """
    outputs: list[Tensor] = []
    for n in mixers:
        cms = state.layers[n].cms
        assert cms is not None
        assert cms.output is not None, "teach before the state is used again"
        outputs.append(cms.output)
    grads = torch.autograd.grad(loss, outputs, retain_graph=True)
    layers = list(state.layers)
    for (n, mixer), grad in zip(mixers.items(), grads, strict=True):
        cms = layers[n].cms
        assert cms is not None
        layers[n] = replace(layers[n], cms=mixer.cms.teach(grad, cms))
    return replace(state, layers=tuple(layers))


def _first(
    heads: int, width: int, others: int, settings: HopeSettings
) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Initial weights of each layer, learned: (H, I, O), and of the other memories (H, P, I, O)."""
    hidden = max(1, round(settings.expansion * width))
    sizes = [width, *[hidden] * (settings.depth - 1), width]
    main, rest = nn.ParameterList(), nn.ParameterList()
    for into, out in pairwise(sizes):
        main.append(nn.Parameter(torch.randn(heads, into, out) / math.sqrt(into)))
        rest.append(nn.Parameter(torch.randn(heads, others, into, out) / math.sqrt(into)))
    return main, rest
