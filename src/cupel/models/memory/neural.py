"""A neural memory as a layer: projections, gates, the memory itself, and its output's gate.

`x -> q, k, v` by linear maps, each with a depthwise convolution over the last tokens, SiLU, and q
and k of norm one (Titans, section 4.4); gates of the memory from x; the memory by `chunk.run`; then
each head's output normalised, gated by a linear map of x, and projected. Several heads are several
memories.

By its settings the same layer is Titans' LMM, MIRAS' Moneta, Yaad and Memora, Hope's inner rule for
one memory, and linear attention, RetNet, DeltaNet, Gated DeltaNet and TTT: `points` names them.

Legend: B sequences, T tokens, C width, H heads, D width of a head; N is B times H.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cupel.models.memory import bias, retention
from cupel.models.memory.chunk import Fast, Gates, Rule, Watch, begin, run
from cupel.models.memory.net import Net
from cupel.models.memory.settings import MemorySettings
from cupel.models.memory.state import LayerState
from cupel.tags import implements

# What the gates are at first: decay, momentum, and the share of `step_max` (register, A17).
_FIRST_DECAY, _FIRST_MOMENTUM, _FIRST_STEP = 0.01, 0.5, 0.2
# An error's norm above which a token is an outlier, in sqrt(D): at first half as much. Two vectors
# of unit channels that know nothing of each other are sqrt(2 D) apart.
_LARGEST_THRESHOLD = 4.0


# Maps from what is learned, which may be any number, into where first weights must be.
_DOMAINS: dict[str, Callable[[Tensor], Tensor]] = {"kl": torch.exp, "sigmoid": torch.sigmoid}


def rule(settings: MemorySettings, width: int = 1) -> Rule:
    """How a memory of these settings learns; `width` of a head is what `surprise_max` is of."""
    most = None if settings.surprise_max is None else settings.surprise_max * width**0.5
    return Rule(
        Net(settings.activation, residual=settings.residual, norm=settings.norm),
        _bias(settings.bias),
        _retention(settings.retention),
        chunk=settings.chunk,
        read=settings.read,
        momentum=settings.momentum != "none",
        erase=None if settings.erase == "none" else settings.erase,
        normalise=settings.erase != "none" and settings.depth > 1,
        most=most,
    )


def _bias(settings: Any) -> bias.Bias:
    made: dict[str, Callable[[], bias.Bias]] = {
        "l2": lambda: bias.L2(settings.scale),
        "dot": bias.Dot,
        "lp": lambda: bias.Lp(settings.p, smooth=settings.smooth),
        "huber": lambda: {
            "mixture": bias.HuberMixture,
            "norm": bias.HuberNorm,
            "coordinate": bias.HuberCoordinate,
        }[settings.form](),
        "value_shift": lambda: bias.ValueShift(settings.shift),
    }
    return made[settings.kind]()


def _retention(settings: Any) -> retention.Retention:
    lq: dict[str, Callable[[float], retention.Retention]] = {
        "paper": retention.LqPaper,
        "mirror": retention.LqMirror,
    }
    made: dict[str, Callable[[], retention.Retention]] = {
        "l2": retention.L2Retention,
        "lq": lambda: lq[settings.form](settings.q),
        "kl": lambda: retention.KLRetention(settings.total, over=settings.over, lag=settings.lag),
        "elastic": lambda: retention.ElasticNet(settings.gamma),
        "sigmoid": retention.SigmoidBregman,
    }
    return made[settings.kind]()


class Projections(nn.Module):
    """`x -> q, k, v` (or fewer of them), (B, T, C) each, and the convolution's tail."""

    def __init__(self, width: int, settings: MemorySettings, *, parts: int = 3) -> None:
        super().__init__()
        self.kernel, self.first = settings.conv, settings.conv_on == "projected"
        self.parts = parts
        wide = parts * width
        self.maps = nn.Linear(width, wide, bias=False)
        if self.kernel:
            self.conv = nn.Conv1d(wide, wide, self.kernel, groups=wide, bias=False)

    @implements("titans.v1:eq11")
    def forward(self, x_BTC: Tensor, tail: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """`tail` holds the inputs of the last `kernel - 1` tokens, or None for a beginning."""
        found = self.maps(x_BTC)
        if not self.kernel:
            return list(F.silu(found).chunk(self.parts, -1)), None
        if not self.first:
            found = F.silu(found)
        if tail is None:
            tail = found.new_zeros(len(found), self.kernel - 1, found.shape[-1])
        whole = torch.cat((tail, found), 1)
        found = self.conv(whole.mT).mT
        if self.first:
            found = F.silu(found)
        return list(found.chunk(self.parts, -1)), whole[:, whole.shape[1] - (self.kernel - 1) :]


class Gate(nn.Module):
    """A gate of each head, (B, T, C) → (N, T) or, for channels, (N, T, D): before its sigmoid.

    `fixed` is one number a head that does not see x. The projection starts at zero, so that every
    token begins with `first`.
    """

    def __init__(
        self, kind: str, width: int, heads: int, *, rank: int | None, first: float
    ) -> None:
        super().__init__()
        self.kind, self.heads = kind, heads
        wide = width if kind == "channel" else heads
        self.offset = nn.Parameter(torch.full((wide,), math.log(first / (1 - first))))
        self.maps = nn.Sequential()
        if kind in ("token", "channel"):
            sizes = [width, wide] if rank is None else [width, rank, wide]
            for into, out in itertools.pairwise(sizes):
                last = nn.Linear(into, out, bias=False)
                self.maps.append(last)
            nn.init.zeros_(last.weight)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Logits."""
        found = self.offset.expand(*x_BTC.shape[:2], -1)
        if len(self.maps):
            found = found + self.maps(x_BTC)
        heads = _heads(found, self.heads)
        return heads if self.kind == "channel" else heads.squeeze(-1)


class NeuralMemory(nn.Module):
    """A memory for each head: projections, gates, first weights. `MemoryLayer` adds an output."""

    def __init__(self, width: int, heads: int, settings: MemorySettings, *, parts: int = 3) -> None:
        super().__init__()
        assert width % heads == 0, (width, heads)
        self.heads, self.settings, self.rule = heads, settings, rule(settings, width // heads)
        self.projections = Projections(width, settings, parts=parts)
        first = {"decay": _FIRST_DECAY, "momentum": _FIRST_MOMENTUM, "step": _FIRST_STEP}
        self.gates = nn.ModuleDict(
            {
                name: Gate(kind, width, heads, rank=settings.rank, first=first[name])
                for name in first
                if (kind := getattr(settings, name)) != "none"
            }
        )
        if self.rule.bias.needs_threshold:
            self.gates["threshold"] = Gate("token", width, heads, rank=settings.rank, first=0.5)
        self.first = _first(heads, width // heads, settings)
        self.norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.watch: Watch | None = None

    def begin(self, batch: int) -> Fast:
        """The memory before the first token, for each head of each sequence."""
        into: Callable[[Tensor], Tensor] = _DOMAINS.get(
            self.settings.retention.kind, lambda weight: weight
        )
        return begin(self.rule, [_shared(into(weight), batch) for weight in self.first])

    def split(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Each head by itself, (B, T, C) → (N, T, D)."""
        return [_heads(part, self.heads) for part in parts]

    def unit(self, found_NTD: Tensor) -> Tensor:
        """Of norm one, where keys and queries are."""
        return F.normalize(found_NTD, dim=-1) if self.settings.normalised else found_NTD

    def remember(
        self, q_NTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, x_BTC: Tensor, fast: Fast
    ) -> tuple[Tensor, Fast]:
        """Write keys and values with gates of x, read at queries: (B, T, C), heads joined."""
        # The memory's own arithmetic stays in float32 where the rest is of fewer bits.
        exact = fast.weights[0].dtype
        gates = self.gate(x_BTC, exact)
        with torch.autocast(x_BTC.device.type, enabled=False):
            q, k, v = q_NTD.to(exact), k_NTD.to(exact), v_NTD.to(exact)
            if self.watch is not None:
                self.watch(self.rule, k, v, gates, fast)
            y, fast = run(self.rule, q, k, v, gates, fast)
        return self.join(y.to(x_BTC.dtype)), fast

    def recall(self, q_NTD: Tensor, fast: Fast) -> Tensor:
        """Read without writing, with the weights as they are: (B, T, C), heads joined."""
        exact = fast.weights[0].dtype
        with torch.autocast(q_NTD.device.type, enabled=False):
            y, _ = self.rule.net.forward(q_NTD.to(exact), fast.weights)
        return self.join(y.to(q_NTD.dtype))

    def join(self, y_NTD: Tensor) -> Tensor:
        """Each head's output normalised: (N, T, D) → (B, T, C)."""
        y_BTHD = torch.unflatten(y_NTD, 0, (-1, self.heads)).transpose(1, 2)
        return normed(self.norm, y_BTHD).flatten(2)

    @implements("titans.v1:eq13", "titans.v1:eq14")
    def gate(self, x_BTC: Tensor, exact: torch.dtype) -> Gates:
        """What each token decides about its write."""

        def logits(name: str) -> Tensor:
            found: Tensor = self.gates[name](x_BTC).to(exact)
            return found

        shape = (len(x_BTC) * self.heads, x_BTC.shape[1])
        ones = torch.ones(shape, dtype=exact, device=x_BTC.device)
        # log(1 - sigmoid(z)) without ever making 1 - sigmoid(z).
        log_keep = F.logsigmoid(-logits("decay")) if "decay" in self.gates else ones.log()
        step = (
            self.settings.largest_step * torch.sigmoid(logits("step"))
            if "step" in self.gates
            else ones
        )
        log_eta = None
        if "momentum" in self.gates:
            log_eta = F.logsigmoid(logits("momentum"))
            if self.settings.damped and "step" in self.gates:
                step = _times(step, torch.sigmoid(-logits("momentum")))
        threshold = None
        if "threshold" in self.gates:
            wide = self.first[-1].shape[-1] ** 0.5
            threshold = _LARGEST_THRESHOLD * wide * torch.sigmoid(logits("threshold"))
        return Gates(log_keep, step, log_eta, threshold)


class MemoryLayer(NeuralMemory):
    """A memory that is written while it reads: (B, T, C) → (B, T, C) and the state behind it."""

    def __init__(self, width: int, heads: int, settings: MemorySettings) -> None:
        super().__init__(width, heads, settings)
        self.open = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTC: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        """Write every token and read at each."""
        state = state or LayerState()
        parts, tail = self.projections(x_BTC, state.conv)
        q, k, v = self.split(parts)
        fast = state.fast or self.begin(len(x_BTC))
        y_BTC, fast = self.remember(self.unit(q), self.unit(k), v, x_BTC, fast)
        found: Tensor = self.out(y_BTC * F.silu(self.open(x_BTC)))
        return found, LayerState(fast=fast, conv=tail)


def _times(one: Tensor, other: Tensor) -> Tensor:
    """Of gates of tokens (N, T) or channels (N, T, D): of channels where either is."""
    if one.dim() == other.dim():
        return one * other
    return one.unsqueeze(-1) * other if one.dim() == 2 else one * other.unsqueeze(-1)


def normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """In the dtype of the norm's weights: under autocast a projection gives fewer bits."""
    found: Tensor = norm(x.to(norm.weight.dtype))
    return found


def _heads(found_BTC: Tensor, heads: int) -> Tensor:
    """(B, T, H · D) → (N, T, D)."""
    return torch.unflatten(found_BTC, -1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _shared(weight_HIO: Tensor, batch: int) -> Tensor:
    """Every sequence begins with the same weights: (N, I, O)."""
    return weight_HIO.expand(batch, *weight_HIO.shape).flatten(0, 1)


def _first(heads: int, width: int, settings: MemorySettings) -> nn.ParameterList:
    """Initial weights of each layer, learned (register, A19)."""
    hidden = max(1, round(settings.expansion * width))
    sizes = [width, *[hidden] * (settings.depth - 1), width]
    found = []
    for into, out in itertools.pairwise(sizes):
        weight_HIO = torch.zeros(heads, into, out)
        if settings.first == "learned":
            unbound = settings.retention.kind in _DOMAINS
            nn.init.normal_(weight_HIO, std=1 if unbound else 1 / math.sqrt(into))
        found.append(nn.Parameter(weight_HIO, requires_grad=settings.first == "learned"))
    return nn.ParameterList(found)
