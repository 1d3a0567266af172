"""A memory over a sequence, chunk by chunk, in matrix products only.

In a chunk every write is made with the weights at the chunk's start, so all of them are rank one
and known at once, and the weights after each token are a sum of which only reads are needed: each
layer is a masked linear attention over the chunk's writes. No weights of a single token are ever
made. That costs O(b^3 + b^2 d + b d^2) a chunk of b tokens and layer, against O(b d^2) of memory
for a scan over weights, and holds for memories of any depth, with momentum, a gate a token, and
state that is carried on. Only writes wait for the chunk before them; reads of many chunks are one
batch.

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

# What is read in one batch at most: so many pieces, and so many numbers in the states at their
# starts, which are all kept until then. Batches are faster up to about here.
_MOST_PIECES = 32
_MOST_STATE = 2**22
# Numbers in gates of channels that are read at once: more do not stay in a processor's cache, and
# took half again as long.
_MOST_GATES = 2**20


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
    most = max(1, min(_MOST_PIECES, _MOST_STATE // max(1, sum(w.numel() for w in now.held))))
    for where in _groups(rule, length, fast.at, most):
        group = _group(rule, where, q_NTI, k_NTI, v_NTO, gates, fast)
        # Only the writes wait for each other: what they leave is read of all pieces at once.
        wrote = []
        for piece in _pieces(rule, group):
            one, now = _write(rule, piece, now)
            wrote.append(one)
        outputs.append(_behind_each_other(_read(rule, group, wrote, now), group.pieces))
    return torch.cat(outputs, 1), _parted(now)


def _groups(rule: Rule, length: int, at: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Where anchors change: start, length, and count of neighbours that are as long, `most` of
    them in one group.
    """
    stops = sorted({1, rule.chunk} if rule.retention.lag else {rule.chunk})
    start, size, count, done = 0, 0, 0, 0
    while done < length:
        stop = next(stop for stop in stops if stop > at)
        new = min(stop - at, length - done)
        if count and (new != size or count == most):
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


class _Mixes(NamedTuple):
    """The gates of a group as matrices: one for a token, or one for a channel of layers so wide."""

    token: Mixture  # (N n, T …)
    channel: Mixture | None  # (N n, D, T …)
    keep: Tensor  # (N n, T): the gate itself, which the gated delta rule's erasing needs

    def wide(self, width: int) -> Mixture | None:
        """Those of channels for a layer with outputs so wide; None: it has those of tokens."""
        fits = self.channel is not None and self.channel.start.shape[1] == width
        return self.channel if fits else None


class _Group(NamedTuple):
    """Neighbouring pieces of one length, n of each sequence: one batch of N n."""

    pieces: int  # n
    q: Tensor  # (N n, T, I)
    k: Tensor
    v: Tensor
    threshold: Tensor | None
    h: Tensor  # what the first layer's writes take for its input
    mixes: _Mixes
    last: _Last  # of gates of tokens
    keys: Tensor | None  # (N n, …, T) of the first layer, where it has gates of tokens


class _Piece(NamedTuple):
    """Tokens that share an anchor: (N, T, …)."""

    k: Tensor
    v: Tensor
    threshold: Tensor | None
    h: Tensor
    mixes: _Mixes | None  # where one is needed: for erasing, or of channels
    last: _Last
    keys: Tensor | None


class _Wrote(NamedTuple):
    """What reading needs of a piece's writes, a list entry a layer."""

    held: list[Tensor]  # weights and momentum at its start
    inputs: list[Tensor]  # (N, T, I), as written
    values: list[Tensor]  # (N, T, O)


def _group(
    rule: Rule,
    where: tuple[int, int, int],
    q_NTI: Tensor,
    k_NTI: Tensor,
    v_NTO: Tensor,
    gates: Gates,
    fast: Fast,
) -> _Group:
    """All that does not depend on the memory, of all pieces at once."""
    start, size, count = where

    def fold(found: Tensor) -> Tensor:
        """(N, T, …) → (N n, size, …)."""
        found = found[:, start : start + size * count]
        return found if count == 1 else torch.unflatten(found, 1, (count, size)).flatten(0, 1)

    k = fold(k_NTI)
    gate = Gates(*(None if one is None else fold(one) for one in gates))  # type: ignore[arg-type]
    mixes = _mixes(gate)
    last = _last(mixes.token)
    h = _written(rule, k)
    wide = mixes.wide(fast.weights[0].shape[-1])
    keys = _scaled(last.pushes, h).mT if wide is None else None
    return _Group(count, fold(q_NTI), k, fold(v_NTO), gate.threshold, h, mixes, last, keys)


def _written(rule: Rule, inputs: Tensor) -> Tensor:
    return torch.nn.functional.normalize(inputs, dim=-1) if rule.normalise else inputs


def _pieces(rule: Rule, group: _Group) -> Iterator[_Piece]:
    """A group's pieces, in their order."""

    # Unbound in one go: the gradient of a slice for each piece would be as large as the whole.
    def parts(found: Tensor | None) -> Sequence[Any]:
        if found is None:
            return [None] * group.pieces
        return [found] if group.pieces == 1 else _apart(found, group.pieces).unbind(1)

    def mixtures(mix: Mixture | None) -> list[Any]:
        return [None] * group.pieces if mix is None else list(map(Mixture, *map(parts, mix)))

    mixes: Sequence[_Mixes | None] = [None] * group.pieces
    if rule.erase is not None or group.mixes.channel is not None:
        every = (
            mixtures(group.mixes.token),
            mixtures(group.mixes.channel),
            parts(group.mixes.keep),
        )
        mixes = list(map(_Mixes, *every))
    last = map(_Last, *map(parts, group.last))
    given = (group.k, group.v, group.threshold, group.h)
    yield from map(_Piece, *map(parts, given), mixes, last, parts(group.keys))


def _mixes(gate: Gates) -> _Mixes:
    """Gates (M, T), or (M, T, D) with gates of channels, as matrices."""
    wide = [one for one in gate[:3] if one is not None and one.dim() == 3]
    channel = None
    if wide:
        every = [None if one is None else _of_channels(one, wide[0]) for one in gate[:3]]
        assert every[0] is not None
        assert every[1] is not None
        channel = mixture(every[0], every[1], every[2])
    keep, theta, eta = (one if one is None or one.dim() == 2 else one.mean(-1) for one in gate[:3])
    assert keep is not None
    assert theta is not None
    return _Mixes(mixture(keep, theta, eta), channel, keep.exp())


def _of_channels(gate: Tensor, wide: Tensor) -> Tensor:
    """(M, T) or (M, T, D) → (M, D, T)."""
    return gate.mT if gate.dim() == 3 else gate.unsqueeze(1).expand(*wide.mT.shape)


def _write(rule: Rule, piece: _Piece, now: _Now) -> tuple[_Wrote, _Now]:
    """Writes of the tokens of one anchor, and the state behind them."""
    net = rule.net
    out, tape = net.forward(piece.k, now.anchor)
    deltas = net.deltas(rule.bias.gradient(out, piece.v, piece.threshold), tape, now.anchor)
    if rule.most is not None:
        deltas = _bounded(tape.inputs, deltas, rule.most)
    inputs, values, held, dual = [], [], [], []
    for n, value in enumerate(deltas):
        h = _written(rule, tape.inputs[n]) if n else piece.h
        if rule.erase is not None and not (rule.erase_first and n):
            assert piece.mixes is not None
            keep_NT = piece.mixes.keep
            erase_NT = keep_NT if rule.erase == "keep" else torch.ones_like(keep_NT)
            value = erased(h, value, piece.mixes.token, erase_NT, now.held[n])
        starts = [now.held[n]] if now.dual is None else [now.held[n], now.dual[n]]
        ends = _ends(rule, n, h, piece, value, starts)
        held.append(ends[0])
        dual += ends[1:]
        inputs.append(h)
        values.append(value)
    after = _behind(rule, now, held, dual or None, now.at + piece.k.shape[1])
    return _Wrote(now.held, inputs, values), after


def _ends(
    rule: Rule,
    n: int,
    h_NTI: Tensor,
    piece: _Piece,
    value_NTO: Tensor,
    starts: Sequence[Tensor],
) -> list[Tensor]:
    """What layer n's weights and momentum (and dual) at a piece's start become by its end."""
    mix = None if piece.mixes is None else piece.mixes.wide(value_NTO.shape[-1])
    if mix is not None:
        assert rule.erase is None, "erasing takes gates of tokens, not of channels"
        return [_channels_end(h_NTI, mix, value_NTO, start) for start in starts]
    keys = piece.keys if n == 0 else _scaled(piece.last.pushes, h_NTI).mT
    assert keys is not None
    return [_tokens_end(keys, piece.last.steps, value_NTO, start) for start in starts]


def _read(rule: Rule, group: _Group, wrote: Sequence[_Wrote], now: _Now) -> Tensor:
    """What each token of a group reads, (N n, T, O)."""
    x, mixes = group.q, group.mixes
    if rule.read == "before":
        wide = None if mixes.channel is None else before(mixes.channel)
        mixes = mixes._replace(token=before(mixes.token), channel=wide)
    for n in range(len(wrote[0].held)):
        x = rule.net.value(x) if n else x
        held = [one.held[n] for one in wrote]
        value = _aside([one.values[n] for one in wrote])
        h = _aside([one.inputs[n] for one in wrote]) if n else group.h
        wide = mixes.wide(value.shape[-1])
        if wide is None:
            x = _tokens_read(x, h, mixes.token, held, value)
        else:
            x = _channels_read(x, h, wide, held, value)
    y = rule.net.finish(group.q, x)
    if rule.retention.linear or rule.read == "before":
        return y
    return _mapped_reads(rule, group, y, wrote, now)


def _mapped_reads(
    rule: Rule, group: _Group, y: Tensor, wrote: Sequence[_Wrote], now: _Now
) -> Tensor:
    """Reads of which the last of each piece sees the map that was taken behind it."""
    # What a piece begins with is the map behind the one before. Behind the last piece there is one
    # only where an anchor ended, and then the next anchor is the weights.
    maps = [one.held for one in wrote[1:]]
    if now.anchor is now.held:
        maps.append(now.held)
    if not maps:
        return y
    y, q = _apart(y, group.pieces), _apart(group.q, group.pieces)
    weights = [_aside(layer) for layer in zip(*maps, strict=True)]
    last, _ = rule.net.forward(q[:, : len(maps), -1:].flatten(0, 1), weights)
    last = _apart(last, len(maps))
    if len(maps) < group.pieces:
        last = torch.cat((last, y[:, len(maps) :, -1:]), 1)
    return torch.cat((y[:, :, :-1], last), 2).flatten(0, 1)


def _aside(parts: Sequence[Tensor]) -> Tensor:
    """(N, …) of each piece → (N n, …)."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts), 1).flatten(0, 1)


def _apart(found: Tensor, pieces: int) -> Tensor:
    """(N n, …) → (N, n, …)."""
    return torch.unflatten(found, 0, (-1, pieces))


def _behind_each_other(found: Tensor, pieces: int) -> Tensor:
    """(N n, T, …) → (N, n T, …)."""
    return found if pieces == 1 else _apart(found, pieces).flatten(1, 2)


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


class _Last(NamedTuple):
    """What a piece leaves of each write, and of what there was at its start.

    With momentum the memory is weights above momentum, and so are both of these.
    """

    pushes: Tensor  # (M, T, 1) or (M, T, 2), negative: a write goes against its gradient
    steps: Tensor  # `[[A]]` (M, 1, 1), or `[[A, G], [0, H]]` (M, 2, 2)


def _last(mix: Mixture) -> _Last:
    start, push = mix.start[..., -1], mix.writes[..., -1, :]
    if mix.inertia is None or mix.last_momentum is None or mix.kept is None:
        return _Last(-push.unsqueeze(-1), start[..., None, None])
    zero = torch.zeros_like(start)
    rows = (start, mix.inertia[..., -1], zero, mix.last_momentum)
    steps = torch.unflatten(torch.stack(rows, -1), -1, (2, 2))
    return _Last(-torch.stack((push, mix.kept), -1), steps)


def _scaled(gates_NTG: Tensor, x_NTI: Tensor) -> Tensor:
    """Each row once for each of its gates, one behind the other: (N, T, G I)."""
    return torch.cat([_over(gate_NT) * x_NTI for gate_NT in gates_NTG.unbind(-1)], -1)


@implements("titans.v1:eq15", "titans.v1:eq16")
def _tokens_read(
    x_NTI: Tensor, h_NTI: Tensor, seen: Mixture, held: Sequence[Tensor], value_NTO: Tensor
) -> Tensor:
    """`x_t W_t` for every token, of memories `held` at the start of each piece."""
    scores = torch.bmm(x_NTI, h_NTI.mT) * seen.writes
    return _of_start(x_NTI, seen, held) - torch.bmm(scores, value_NTO)


@implements("titans.v1:eq15")
def _of_start(x_NTI: Tensor, seen: Mixture, held: Sequence[Tensor]) -> Tensor:
    """What each token reads of the memory at the start; with momentum `[A x, G x]` meets `[W; S]`
    in one product.
    """
    gates = (seen.start,) if seen.inertia is None else (seen.start, seen.inertia)
    return _each(_scaled(torch.stack(gates, -1), x_NTI), held)


def _each(x_NTI: Tensor, held: Sequence[Tensor]) -> Tensor:
    """Each piece times its own memory: one product would need a copy of all states."""
    if len(held) == 1:
        return torch.bmm(x_NTI, held[0])
    parts = _apart(x_NTI, len(held)).unbind(1)
    return _aside([torch.bmm(x, weight) for x, weight in zip(parts, held, strict=True)])


@implements("titans.v1:eq17", "titans.v1:eq18", "miras.v1:eq29", "miras.v1:eq32")
def _tokens_end(keys: Tensor, steps: Tensor, value_NTO: Tensor, held: Tensor) -> Tensor:
    """Weights and momentum behind the last token; of keys one half writes W, the other S."""
    return torch.baddbmm(_left(steps, held), keys, value_NTO)


def _left(steps: Tensor, held: Tensor) -> Tensor:
    return _decayed(steps, held) if steps.shape[-1] == 1 else _carried(steps, held)


@implements("miras.v1:eq29", "miras.v1:eq32")
def _decayed(steps_N11: Tensor, held: Tensor) -> Tensor:
    return steps_N11 * held


@implements("titans.v1:eq18")
def _carried(steps_N22: Tensor, held: Tensor) -> Tensor:
    """Weights take momentum over, which stands below them."""
    return torch.bmm(steps_N22, torch.unflatten(held, 1, (2, -1)).flatten(2)).view_as(held)


@implements("miras.v1:eq28", "titans.v1:eq15")
def _channels_read(
    x_NTI: Tensor, h_NTI: Tensor, seen: Mixture, held: Sequence[Tensor], value_NTO: Tensor
) -> Tensor:
    """The same with gates for each channel of the output: a matrix of writes a channel."""
    given = (torch.bmm(x_NTI, h_NTI.mT), seen.writes, value_NTO)
    some = max(1, _MOST_GATES // seen.writes.shape[1:].numel())
    pieces = zip(*(torch.split(found, some) for found in given), strict=True)
    gathered = torch.cat([torch.einsum("ntj,ndtj,njd->ntd", *piece) for piece in pieces])
    size = x_NTI.shape[-1]  # no mutant: h is as wide
    found = seen.start.mT * _each(x_NTI, [one[:, :size] for one in held]) - gathered
    if seen.inertia is None:
        return found
    return found + seen.inertia.mT * _each(x_NTI, [one[:, size:] for one in held])


@implements("miras.v1:eq28")
def _channels_end(h_NTI: Tensor, mix: Mixture, value_NTO: Tensor, held: Tensor) -> Tensor:
    """Weights and momentum behind the last token."""
    size = h_NTI.shape[-1]
    weight = mix.start[..., -1].unsqueeze(1) * held[:, :size] - torch.matmul(
        h_NTI.mT, mix.writes[..., -1, :].mT * value_NTO
    )
    if mix.inertia is None or mix.kept is None or mix.last_momentum is None:
        return weight
    weight = weight + mix.inertia[..., -1].unsqueeze(1) * held[:, size:]
    pushed = torch.matmul(h_NTI.mT, mix.kept.mT * value_NTO)
    return torch.cat((weight, mix.last_momentum.unsqueeze(1) * held[:, size:] - pushed), 1)


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


def _over(gate: Tensor) -> Tensor:
    """(…, T) → (…, T, 1): what scales rows."""
    return gate.unsqueeze(-1)


@implements("nl.v1:eq57", "nl.v1:eq88", "nl.v1:eq90", "nl.v1:eq92", "nl.v1:eq93")
def erased(
    h_NTI: Tensor, delta_NTO: Tensor, mix: Mixture, erase_NT: Tensor, held: Tensor
) -> Tensor:
    """Values u_t with which `W_t = a_t W_{t-1} - theta_t h_t u_t` also erases what was there.

    `u_t = delta_t + erase_t W_{t-1}(h_t)`: the memory's own value at each key depends on the writes
    before it, so that the u of a chunk solve one triangular system,
    `(I + tril(erase_t (h_t . h_j) L[t-1, j] theta_j, -1)) U = delta + erase A_{t-1} (h W_0)`,
    with C in place of L, and what is left of the momentum beside `A (h W_0)`, where there is one.
    Source: Nested Learning (arXiv 2512.24695), equations 57, 88, 90 and 93; derived here.
    """
    earlier = before(mix)
    scores = torch.bmm(h_NTI, h_NTI.mT) * earlier.writes
    system = scores * _over(erase_NT)
    right = delta_NTO + _over(erase_NT) * _of_start(h_NTI, earlier, [held])
    # The diagonal is taken as ones and what is above it is not read.
    found: Tensor = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    return found
