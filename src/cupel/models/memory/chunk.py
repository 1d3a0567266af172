"""A memory over a sequence, chunk by chunk, in matrix products only.

In a chunk every write is made with the weights at the chunk's start, so all of them are rank one
and known at once, and the weights after each token are a sum of which only reads are needed: each
layer is a masked linear attention over the chunk's writes. No weights of a single token are ever
made. That costs O(b^2 d + b d^2) a chunk of b tokens and layer, against O(b d^2) of memory for a
scan over weights, and holds for memories of any depth, with momentum, a gate a token, and state
that is carried on.

With chunks of one token this is the online rule.

Legend: N sequences (times heads), T tokens, I and O a layer's input and output widths, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cupel.models.memory.bias import Bias
from cupel.models.memory.net import Net
from cupel.models.memory.recurrence import Mixture, before, mixture
from cupel.models.memory.retention import Retention
from cupel.tags import implements


class Gates(NamedTuple):
    """What a token decides about its own write; each (N, T), or (N, T, D) with gates a channel.

    Gates of channels belong to the layers whose output has D channels; layers of other widths take
    the mean over channels (of logarithms, for products).
    """

    log_keep: Tensor  # log(1 - alpha): what is left of the weights
    theta: Tensor  # the step size
    log_eta: Tensor | None = None  # what is left of the momentum; None: there is none
    threshold: Tensor | None = None  # of biases that have one


class Fast(NamedTuple):
    """A memory's weights somewhere in a sequence, a list entry a layer, (N, I, O) each."""

    weights: list[Tensor]
    anchor: list[Tensor]  # the weights at the chunk's start, at which writes are made
    momentum: list[Tensor] | None = None
    dual: list[Tensor] | None = None  # of a retention whose weights are a map of it
    at: int = 0  # tokens of the current chunk that are written already


@dataclass(frozen=True)
class Rule:
    """How a memory learns: its network, what it minimises, what it retains, and when it is read.

    `chunk` tokens share an anchor. `read` is "after" (a token's read sees its own write) or
    "before". `erase` is None, or what the memory's own old value at a key weighs when it is erased
    before the write: "keep" (gated delta rule: alpha M (I - beta k k^T)) or "one" (delta gradient
    descent: M (alpha I - eta k k^T)).
    """

    net: Net
    bias: Bias
    retention: Retention
    chunk: int = 64
    read: str = "after"
    momentum: bool = False
    erase: str | None = None
    normalise: bool = False  # writes take layers' inputs with norm one
    erase_first: bool = False  # only the first layer erases
    most: float | None = None  # the largest norm of a token's gradient, over all layers

    def __post_init__(self) -> None:
        assert self.chunk >= 1, self.chunk
        assert self.read in ("after", "before"), self.read
        assert self.most is None or self.most > 0, self.most
        assert self.erase in (None, "keep", "one"), self.erase
        assert not (self.momentum and self.erase), "the delta rule has no momentum"
        assert self.retention.linear or not (self.momentum or self.erase), "mirror maps stand alone"


# What is told of tokens before they are written: rule, keys, values, gates, and the state.
Watch = Callable[[Rule, Tensor, Tensor, Gates, Fast], None]


def begin(rule: Rule, weights: Sequence[Tensor]) -> Fast:
    """The state before the first token, for initial weights of (N, I, O) a layer."""
    first = list(weights)
    momentum = [torch.zeros_like(weight) for weight in first] if rule.momentum else None
    if rule.retention.linear:
        return Fast(first, first, momentum)
    # What begins is what the map can give: weights on a simplex, for one.
    dual = [rule.retention.dual(weight) for weight in first]
    first = [rule.retention.primal(found) for found in dual]
    return Fast(first, first, momentum, dual)


@implements("titans.v1:eq15", "titans.v1:eq16")
def run(
    rule: Rule, q_NTI: Tensor, k_NTI: Tensor, v_NTO: Tensor, gates: Gates, fast: Fast
) -> tuple[Tensor, Fast]:
    """Write all tokens and read at each: outputs (N, T, O) and the state behind the last token.

    Calls may follow each other at any token: state says how far into a chunk it is.
    Source: Titans (arXiv 2501.00663v1), equations 13 to 18; MIRAS (arXiv 2504.13173v1), 28 to 32.
    """
    now, outputs = _joined(fast), []
    length = k_NTI.shape[1]  # no mutant: there are as many queries and values as keys
    for start, size, count in _groups(rule, length, fast.at):
        stop = start + size * count
        for piece in _pieces(rule, (start, stop, size), q_NTI, k_NTI, v_NTO, gates, fast):
            out, now = _write(rule, piece, now)
            outputs.append(out)
    return torch.cat(outputs, 1), _parted(now)


def _groups(rule: Rule, length: int, at: int) -> Iterator[tuple[int, int, int]]:
    """Where anchors change: start, length, and count of neighbours that are as long."""
    stops = sorted({1, rule.chunk} if rule.retention.lag else {rule.chunk})
    start, size, count, done = 0, 0, 0, 0
    while done < length:
        stop = next(stop for stop in stops if stop > at)
        new = min(stop - at, length - done)
        if count and new != size:
            yield start, size, count
            start, count = done, 0
        size, count = new, count + 1
        done, at = done + new, (at + new) % rule.chunk
    if count:
        yield start, size, count


class _Now(NamedTuple):
    """The state inside of a call: each layer's momentum stands below its weights."""

    held: list[Tensor]  # (N, I, O), or (N, 2 I, O) with momentum
    anchor: list[Tensor]
    dual: list[Tensor] | None
    at: int


def _joined(fast: Fast) -> _Now:
    if fast.momentum is None:
        return _Now(list(fast.weights), fast.anchor, fast.dual, fast.at)
    both = zip(fast.weights, fast.momentum, strict=True)
    return _Now([torch.cat(pair, 1) for pair in both], fast.anchor, fast.dual, fast.at)


def _parted(now: _Now) -> Fast:
    weights = _weights(now)
    momentum = None
    if any(found is not held for found, held in zip(weights, now.held, strict=True)):
        momentum = [held[:, held.shape[1] // 2 :] for held in now.held]
    # Behind a whole chunk the anchor is the weights: one list, as `begin` makes it.
    return Fast(weights, weights if now.at == 0 else now.anchor, momentum, now.dual, now.at)


def _weights(now: _Now) -> list[Tensor]:
    return [
        held if held.shape[1] == anchor.shape[1] else held[:, : anchor.shape[1]]
        for held, anchor in zip(now.held, now.anchor, strict=True)
    ]


class _Piece(NamedTuple):
    """Tokens that share an anchor."""

    q: Tensor  # (N, T, I)
    k: Tensor
    v: Tensor
    threshold: Tensor | None
    mixes: Mixes
    first: _Parts | None  # of the first layer, made for a whole group at once


class Mixes(NamedTuple):
    """The gates of a piece as matrices: one for a token, or one for a channel of layers so wide."""

    token: Mixture  # (N, T …)
    channel: Mixture | None  # (N, D, T …)
    keep_NT: Tensor  # the gate itself, which the gated delta rule's erasing needs


def _pieces(
    rule: Rule,
    where: tuple[int, int, int],
    q_NTI: Tensor,
    k_NTI: Tensor,
    v_NTO: Tensor,
    gates: Gates,
    fast: Fast,
) -> Iterator[_Piece]:
    """The pieces of a group, with all that does not depend on the memory made at once."""
    start, stop, size = where

    def split(found: Tensor) -> Tensor:
        """(N, T, …) → (N, n, size, …)."""
        return torch.unflatten(found[:, start:stop], 1, (-1, size))

    q, k, v = split(q_NTI), split(k_NTI), split(v_NTO)
    gate = Gates(*(None if one is None else split(one) for one in gates))  # type: ignore[arg-type]
    token, channel, keep = _mixes(gate)
    width = fast.weights[0].shape[-1]
    first: list[_Parts | None] = [None] * q.shape[1]
    if channel is None or channel.start.shape[2] != width:
        h = torch.nn.functional.normalize(k, dim=-1) if rule.normalise else k
        first = list(map(_Parts, *(part.unbind(1) for part in _parts(rule, q, h, token)[:3])))
        steps = _steps(token).unbind(1)
        first = [part._replace(steps=one) for part, one in zip(first, steps, strict=True) if part]
    thresholds = [None] * q.shape[1] if gate.threshold is None else gate.threshold.unbind(1)
    mixes = map(Mixes, _unbound(token), _unbound(channel, q.shape[1]), keep.unbind(1))
    # Unbound in one go: the gradient of a slice for each piece would be as large as the whole.
    yield from map(_Piece, q.unbind(1), k.unbind(1), v.unbind(1), thresholds, mixes, first)


def _mixes(gate: Gates) -> tuple[Mixture, Mixture | None, Tensor]:
    """Matrices of tokens (N, n, T …), of channels (N, n, D, T …), and the decay (N, n, T)."""
    wide = [one for one in gate[:3] if one is not None and one.dim() == 4]
    channel = None
    if wide:
        every = [None if one is None else _of_channels(one, wide[0]) for one in gate[:3]]
        assert every[0] is not None
        assert every[1] is not None
        channel = mixture(every[0], every[1], every[2])
    keep, theta, eta = (one if one is None or one.dim() == 3 else one.mean(-1) for one in gate[:3])
    assert keep is not None
    assert theta is not None
    return mixture(keep, theta, eta), channel, keep.exp()


def _of_channels(gate: Tensor, wide: Tensor) -> Tensor:
    """(N, n, T) or (N, n, T, D) → (N, n, D, T)."""
    return gate.mT if gate.dim() == 4 else gate.unsqueeze(2).expand(*wide.mT.shape)


def _unbound(mix: Mixture | None, count: int = 0) -> list[Any]:
    """A mixture of a group as one for each of its pieces."""
    if mix is None:
        return [None] * count
    parts = [None if part is None else part.unbind(1) for part in mix]
    length = len(next(part for part in parts if part is not None))
    return [
        Mixture(*(None if part is None else part[n] for part in parts))  # type: ignore[arg-type]
        for n in range(length)
    ]


def _write(rule: Rule, piece: _Piece, now: _Now) -> tuple[Tensor, _Now]:
    """Tokens of one anchor: their writes, reads, and the state behind them."""
    net = rule.net
    out, tape = net.forward(piece.k, now.anchor)
    deltas = net.deltas(rule.bias.gradient(out, piece.v, piece.threshold), tape, now.anchor)
    if rule.most is not None:
        deltas = _bounded(tape.inputs, deltas, rule.most)
    x, held, dual = piece.q, [], []
    for n, value in enumerate(deltas):
        x = net.value(x) if n else x
        h = (
            torch.nn.functional.normalize(tape.inputs[n], dim=-1)
            if rule.normalise
            else tape.inputs[n]
        )
        layer = _layer(rule, n, x, h, piece, value.shape[-1])
        if rule.erase is not None and not (rule.erase_first and n):
            keep_NT = piece.mixes.keep_NT
            erase_NT = keep_NT if rule.erase == "keep" else torch.ones_like(keep_NT)
            value = erased(h, value, piece.mixes.token, erase_NT, now.held[n])
        x = layer.read(now.held[n], value)
        held.append(layer.end(now.held[n], value))
        if now.dual is not None:
            dual.append(layer.end(now.dual[n], value))
    y_NTO = net.finish(piece.q, x)
    after = _behind(rule, now, held, dual or None, now.at + piece.k.shape[1])
    if rule.read == "after" and not rule.retention.linear and after.anchor is after.held:
        # The map has been taken behind the last token, which sees it.
        last, _ = net.forward(piece.q[:, -1:], after.held)
        y_NTO = torch.cat((y_NTO[:, :-1], last), 1)
    return y_NTO, after


def _behind(rule: Rule, now: _Now, held: list[Tensor], dual: list[Tensor] | None, at: int) -> _Now:
    """State behind a piece; where an anchor ends the next begins."""
    if not _turns(rule, at):
        return _Now(held, now.anchor, dual, at)
    if dual is not None:
        return _mapped(rule, dual, at)
    new = _Now(held, now.anchor, None, at % rule.chunk)
    return new._replace(anchor=_weights(new))


@implements("miras.v1:eq30", "miras.v1:eq31")
def _turns(rule: Rule, at: int) -> bool:
    """Whether an anchor ends behind a chunk's first `at` tokens: all of them, or the lag token."""
    return at == rule.chunk or (rule.retention.lag and at == 1)


@implements("miras.v1:eq30", "miras.v1:eq31")
def _mapped(rule: Rule, dual: list[Tensor], at: int) -> _Now:
    """The weights for what has been added up, at which the next writes are made."""
    held = [rule.retention.primal(found) for found in dual]
    return _Now(held, held, dual, at % rule.chunk)


class _Parts(NamedTuple):
    """What one layer's reads and writes in one piece are made of, besides memory and deltas.

    With momentum the memory is weights above momentum, so queries are twice as wide: `[A x, G x]`
    meets `[W; S]` in one product. So are keys, of which one half writes W and the other S.
    """

    queries: Tensor  # (N, T, I) or (N, T, 2 I)
    scores: Tensor  # (N, T, T)
    keys: Tensor  # (N, I, T) or (N, 2 I, T)
    steps: Tensor | None = None  # what is left of weights and momentum: (N, 1, 1) or (N, 2, 2)

    @implements("titans.v1:eq15", "titans.v1:eq16")
    def read(self, held: Tensor, value_NTO: Tensor) -> Tensor:
        """`x_t W_t` for every token."""
        return torch.baddbmm(torch.bmm(self.queries, held), self.scores, value_NTO, alpha=-1)

    @implements("titans.v1:eq17", "titans.v1:eq18", "miras.v1:eq29", "miras.v1:eq32")
    def end(self, held: Tensor, value_NTO: Tensor) -> Tensor:
        """Weights and momentum behind the last token."""
        return torch.baddbmm(self._kept(held), self.keys, value_NTO, alpha=-1)

    def _kept(self, held: Tensor) -> Tensor:
        """What is left of weights and momentum at the chunk's start."""
        assert self.steps is not None
        plain = self.steps.shape[-1] == 1
        return _decayed(self.steps, held) if plain else _carried(self.steps, held)


@implements("miras.v1:eq29", "miras.v1:eq32")
def _decayed(steps_N11: Tensor, held: Tensor) -> Tensor:
    return steps_N11 * held


@implements("titans.v1:eq18")
def _carried(steps_N22: Tensor, held: Tensor) -> Tensor:
    """Weights take momentum over, which stands below them."""
    return torch.bmm(steps_N22, torch.unflatten(held, 1, (2, -1)).flatten(2)).view_as(held)


def _parts(rule: Rule, x: Tensor, h: Tensor, mix: Mixture) -> _Parts:
    """Of queries and writes' inputs, (…, T, I) each, for any leading dimensions."""
    seen = before(mix) if rule.read == "before" else mix
    scores = torch.matmul(x, h.mT) * seen.writes
    queries, keys = _over(seen.start) * x, _over(mix.writes[..., -1, :]) * h
    if seen.inertia is not None and mix.kept is not None:
        queries = torch.cat((queries, _over(seen.inertia) * x), -1)
        keys = torch.cat((keys, _over(mix.kept) * h), -1)
    return _Parts(queries, scores, keys.mT)


def _steps(mix: Mixture) -> Tensor:
    """`[[A, G], [0, H]]` of a piece's end, or `[[A]]` without momentum: (…, 2, 2) or (…, 1, 1)."""
    start = mix.start[..., -1]
    if mix.inertia is None or mix.last_momentum is None:
        return start[..., None, None]
    zero = torch.zeros_like(start)
    rows = (start, mix.inertia[..., -1], zero, mix.last_momentum)
    return torch.unflatten(torch.stack(rows, -1), -1, (2, 2))


def _bounded(inputs: Sequence[Tensor], deltas: Sequence[Tensor], most: float) -> list[Tensor]:
    """Deltas of gradients of at most this norm: a token's weights move by so much and no more.

    Of a memory with layers the gradient grows with the weights, and they with it.
    """
    squares_NT = surprise(inputs, deltas)
    scale_NT1 = most * squares_NT.clamp_min(most**2).rsqrt().unsqueeze(-1)
    return [delta * scale_NT1 for delta in deltas]


def surprise(inputs: Sequence[Tensor], deltas: Sequence[Tensor]) -> Tensor:
    """Squared norm of each token's gradient over all layers, (N, T).

    Of a layer it is an outer product, whose norm is the product of the norms.
    """
    squares = [
        h.square().sum(-1) * delta.square().sum(-1) for h, delta in zip(inputs, deltas, strict=True)
    ]
    return torch.stack(squares).sum(0)


def _layer(
    rule: Rule, n: int, x: Tensor, h: Tensor, piece: _Piece, width: int
) -> _Parts | _Channels:
    """One layer in one piece, with gates of tokens, or of channels where it is as wide."""
    if n == 0 and piece.first is not None:
        return piece.first
    mix = piece.mixes.channel
    if mix is None or mix.start.shape[1] != width:
        token = piece.mixes.token
        return _parts(rule, x, h, token)._replace(steps=_steps(token))
    assert rule.erase is None, "erasing takes gates of tokens, not of channels"
    return _Channels(rule, x, h, mix)


class _Channels:
    """The same with gates for each channel of the output: a matrix of writes a channel."""

    def __init__(self, rule: Rule, x_NTI: Tensor, h_NTI: Tensor, mix: Mixture) -> None:
        self.x, self.h, self.mix = x_NTI, h_NTI, mix
        self.seen = before(mix) if rule.read == "before" else mix

    @implements("miras.v1:eq28", "titans.v1:eq15")
    def read(self, held: Tensor, value_NTO: Tensor) -> Tensor:
        """`x_t W_t` for every token."""
        scores_NTT = torch.matmul(self.x, self.h.mT)
        gathered = torch.einsum("ntj,ndtj,njd->ntd", scores_NTT, self.seen.writes, value_NTO)
        size = self.x.shape[-1]
        found = self.seen.start.mT * torch.matmul(self.x, held[:, :size]) - gathered
        if self.seen.inertia is None:
            return found
        return found + self.seen.inertia.mT * torch.matmul(self.x, held[:, size:])

    def end(self, held: Tensor, value_NTO: Tensor) -> Tensor:
        """Weights and momentum behind the last token."""
        mix, size = self.mix, self.x.shape[-1]
        weight = mix.start[..., -1].unsqueeze(1) * held[:, :size] - torch.matmul(
            self.h.mT, mix.writes[..., -1, :].mT * value_NTO
        )
        if mix.inertia is None or mix.kept is None or mix.last_momentum is None:
            return weight
        weight = weight + mix.inertia[..., -1].unsqueeze(1) * held[:, size:]
        pushed = torch.matmul(self.h.mT, mix.kept.mT * value_NTO)
        return torch.cat((weight, mix.last_momentum.unsqueeze(1) * held[:, size:] - pushed), 1)


def _over(gate: Tensor) -> Tensor:
    """(…, T) → (…, T, 1): what scales rows."""
    return gate.unsqueeze(-1)


@implements("nl.v1:eq57", "nl.v1:eq88", "nl.v1:eq90", "nl.v1:eq92", "nl.v1:eq93")
def erased(
    h_NTI: Tensor, delta_NTO: Tensor, mix: Mixture, erase_NT: Tensor, weight_NIO: Tensor
) -> Tensor:
    """Values u_t with which `W_t = a_t W_{t-1} - theta_t h_t u_t` also erases what was there.

    `u_t = delta_t + erase_t W_{t-1}(h_t)`: the memory's own value at each key depends on the writes
    before it, so that the u of a chunk solve one triangular system,
    `(I + tril(erase_t (h_t . h_j) L[t-1, j] theta_j, -1)) U = delta + erase A_{t-1} (h W_0)`.
    Source: Nested Learning (arXiv 2512.24695), equations 57, 88, 90 and 93; derived here.
    """
    earlier = before(mix)
    scores = torch.matmul(h_NTI, h_NTI.mT) * earlier.writes
    system = scores * _over(erase_NT)
    right = delta_NTO + _over(erase_NT * earlier.start) * torch.matmul(h_NTI, weight_NIO)
    # The diagonal is taken as ones and what is above it is not read.
    found: Tensor = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    return found
