"""Self-modifying Titans: memories that make their own keys, values, step sizes, decays and targets.

Nested Learning (arXiv 2512.24695), equations 79 to 93. Keys, values, step sizes and decays are what
memories say of a token (79 to 82); each memory is then written at the token's key with what it says
itself of the token's value (83 to 85), by delta gradient descent with decay (88):

    M(alpha I - eta k k^T) - eta grad L(M; k, M(v))

The target M(v) is a constant of that gradient. What is read is the main memory, before the token's
own write (86). In chunks (90) all that the memories say, and every gradient, is of the weights at
the chunk's start; the main memory has chunks of its own. The two lengths need not divide each
other: a stretch ends where either chunk does. With chunks of one token this is the online rule.

Our readings, where the paper is unclear:
- alpha and eta are one number a token and head: `sigmoid` and `max_eta sigmoid` of a learned linear
  read-out of M_alpha(x) and M_eta(x)
- of a memory with more layers each is written by delta gradient descent with its own input, of norm
  one (or, `erase_first`, the first one alone; the others by gradient descent)
- the l_2 loss has the gradient `M(k) - v`, without the 2, as equation 93 prints it. The erasure
  then counts twice along the key: `alpha - 2 eta` is left, and with `max_eta` of 1/2 that is in
  (-1, 1]
- tokens, values and targets have norm one, as keys have (`unit`). The paper says it of q and k
  alone, and with those alone memories grow without bound within some ten tokens: written at keys of
  norm one and read at longer inputs, each makes its own targets longer
- momentum is in the paper's ablation and in none of its equations. With it (`Rule.momentum`) what a
  token writes is carried on as in Titans (13, 14), `S_t = mu_t S_{t-1} - eta_t (1 - mu_t) (…)`, so
  that all that one write does in the end is as large as without; mu is a gate of the token's

Legend: N sequences (times heads), P memories besides the main one, T tokens, I and O a layer's
widths, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.chunk import Fast, Gates, Rule, Watch, begin, run
from cupel.tags import implements

# What can be a memory besides the main one; what is not is given with each call.
PARTS = ("q", "k", "v", "alpha", "eta")
UNITS = ("keys", "inputs", "all")


@dataclass(frozen=True)
class How:
    """How memories modify themselves.

    `main` and `others` are one rule with two chunks. `names` says which of PARTS are memories.
    `flips` lets the step size go to `max_eta (1 + alpha)`, so that writing twice at a key can turn
    what it holds into its negative. `read` is "token" (the main memory as the token before left it)
    or "snapshot" (as it was at the start of its chunk). `targets` is "self", or "value": the value
    itself, for every memory. `unit` says what has norm one: "keys" and queries; "inputs", that is
    tokens and values too, where memories read them; "all", targets too.
    """

    main: Rule
    others: Rule
    names: tuple[str, ...] = ("k", "v", "alpha", "eta")
    max_eta: float = 0.5
    flips: bool = False
    read: str = "token"
    targets: str = "self"
    unit: str = "all"

    def __post_init__(self) -> None:
        assert self.main.read == "before", self.main.read
        assert set(self.names) <= set(PARTS), self.names
        assert self.read in ("token", "snapshot"), self.read
        assert self.targets in ("self", "value"), self.targets
        assert self.unit in UNITS, self.unit


class Memories(NamedTuple):
    """All memories of a layer somewhere in a sequence."""

    main: Fast
    others: (
        Fast | None
    )  # (N · P, I, O) a layer, P of one sequence side by side; None: there are none


class Said(NamedTuple):
    """What is known of a stretch of tokens before anything is written."""

    q_NTD: Tensor
    k_NTD: Tensor
    v_NTD: Tensor
    gates: Gates


# Logits of a gate (N, T), from what its memory says (N, T, D).
Readout = Callable[[str, Tensor], Tensor]


def start(how: How, main: Sequence[Tensor], others: Sequence[Tensor]) -> Memories:
    """State before the first token: weights (N, I, O) a layer, and of the others (N, P, I, O)."""
    rest = begin(how.others, [weight.flatten(0, 1) for weight in others]) if how.names else None
    return Memories(begin(how.main, main), rest)


@implements("nl.v1:eq86", "nl.v1:eq90")
def modify(
    how: How,
    x_NTD: Tensor,
    given: Mapping[str, Tensor],
    readout: Readout,
    memories: Memories,
    *,
    watch: Watch | None = None,
) -> tuple[Tensor, Memories]:
    """Write all tokens into all memories, and read the main one: (N, T, D) and the state behind.

    `given` holds those of PARTS that are no memories, (N, T, D), or logits (N, T) of gates, among
    them those of "momentum" where memories have it. Calls may follow each other at any token.
    `watch` is told what the main memory is given to write.
    """
    outputs, (main, others) = [], memories
    for part in _stretches(how.others.chunk, x_NTD.shape[1], others.at if others else 0):
        own = {name: tensor[:, part] for name, tensor in given.items()}
        said = _said(how, x_NTD[:, part], own, readout, others)
        y_NTD, main = _main(how, said, main, watch)
        outputs.append(y_NTD)
        if others is not None:
            others = _written(how, said, others)
    return torch.cat(outputs, 1), Memories(main, others)


@implements("nl.v1:eq79", "nl.v1:eq80", "nl.v1:eq81", "nl.v1:eq82")
def _said(
    how: How, x_NTD: Tensor, given: Mapping[str, Tensor], readout: Readout, others: Fast | None
) -> Said:
    """Queries, keys, values and gates, by memories as they were at the chunk's start."""
    found = dict(given)
    x_NTD = x_NTD if how.unit == "keys" else _unit(x_NTD)
    if others is not None:
        out_NPTD = _answers(how, x_NTD, others)
        found |= {name: out_NPTD[:, n] for n, name in enumerate(how.names)}
    # Gates stay as logits until here: the products of a chunk need the decay's logarithm.
    logits = {
        name: readout(name, found[name]) if name in how.names else found[name]
        for name in ("alpha", "eta")
    }
    log_keep = F.logsigmoid(logits["alpha"])
    eta, log_mu = step(how, logits["eta"], log_keep), None
    if how.main.momentum:
        log_mu = F.logsigmoid(found["momentum"])
        eta = eta * torch.sigmoid(-found["momentum"])
    q, k = _unit(found["q"]), _unit(found["k"])
    v = found["v"] if how.unit == "keys" else _unit(found["v"])
    return Said(q, k, v, Gates(log_keep, eta, log_mu))


def _over(gate_NT: Tensor) -> Tensor:
    return gate_NT.unsqueeze(-1)


def _unit(found_NTD: Tensor) -> Tensor:
    return F.normalize(found_NTD, dim=-1)


def step(how: How, logits: Tensor, log_keep: Tensor) -> Tensor:
    """The step size eta: at most `max_eta`, or `max_eta (1 + alpha)` where it may flip a value."""
    eta = how.max_eta * torch.sigmoid(logits)
    return eta * (1 + log_keep.exp()) if how.flips else eta


@implements("nl.v1:eq86", "nl.v1:eq87", "nl.v1:eq88")
def _main(how: How, said: Said, main: Fast, watch: Watch | None) -> tuple[Tensor, Fast]:
    """Write and read the main memory: (N, T, D)."""
    if _is_plain(how, main) and watch is None:  # no mutant: either way is the same
        return _online(how, said, main)
    outputs = []
    for part in _stretches(how.main.chunk, said.k_NTD.shape[1], main.at):
        q, k, v, gates = _cut(said, part)
        if how.targets == "self":
            target = _target(how, how.main.net.forward(v, main.anchor)[0])
        else:
            target = v
        if watch is not None:
            watch(how.main, k, target, gates, main)  # no mutant: what is told changes nothing
        if how.read == "snapshot":
            y, _ = how.main.net.forward(q, main.anchor)
            _, main = run(how.main, k, k, target, gates, main)
        else:
            y, main = run(how.main, q, k, target, gates, main)
        outputs.append(y)
    return torch.cat(outputs, 1), main


def _is_plain(how: How, main: Fast) -> bool:
    """Whether `_online` has the case: a matrix without momentum, token by token."""
    return how.main.chunk == 1 and len(main.weights) == 1 and not how.main.momentum


@implements("nl.v1:eq88")
def _online(how: How, said: Said, main: Fast) -> tuple[Tensor, Fast]:
    """The same token by token, of a matrix, in fewer operations than chunks of one take.

    A training step of a layer of width 32 takes a third of the time: 28 ms in place of 87, of 16
    sequences of 50 tokens on one core.
    """
    rule, (weight,) = how.main, main.weights
    keep = said.gates.log_keep.exp()[..., None, None].unbind(1)
    wrote = (_over(said.gates.theta) * said.k_NTD).unsqueeze(-1).unbind(1)
    asks = torch.stack((said.q_NTD, said.k_NTD, said.v_NTD), 2).unbind(1)
    outputs = []
    for t, asked in enumerate(asks):
        y_ND, held_ND, own_ND = torch.bmm(asked, weight).unbind(1)
        target = _target(how, own_ND) if how.targets == "self" else said.v_NTD[:, t]
        u_ND = rule.bias.gradient(held_ND, target, None)
        if rule.erase is not None:
            u_ND = u_ND + held_ND
        weight = torch.baddbmm(keep[t] * weight, wrote[t], u_ND.unsqueeze(1), alpha=-1)
        outputs.append(y_ND)
    weights = [weight]
    return torch.stack(outputs, 1), Fast(weights, weights)


@implements("nl.v1:eq83", "nl.v1:eq84", "nl.v1:eq85", "nl.v1:eq87", "nl.v1:eq88")
def _written(how: How, said: Said, others: Fast) -> Fast:
    """All other memories behind a stretch of one chunk, each with targets of its own."""
    count = len(how.names)
    if how.targets == "self":
        target_NPTD = _target(how, _answers(how, said.v_NTD, others))
    else:
        target_NPTD = said.v_NTD.unsqueeze(1).expand(-1, count, -1, -1)
    gates = Gates(*(None if gate is None else _each(gate, count) for gate in said.gates))  # type: ignore[arg-type]
    k_NTD = _each(said.k_NTD, count)
    _, after = run(how.others, k_NTD, k_NTD, target_NPTD.flatten(0, 1), gates, others)
    return after


def _target(how: How, said: Tensor) -> Tensor:
    return _unit(said) if how.unit == "all" else said


def _answers(how: How, x_NTD: Tensor, others: Fast) -> Tensor:
    """What every other memory says of x as it was at the chunk's start: (N, P, T, D)."""
    count = len(how.names)
    out, _ = how.others.net.forward(_each(x_NTD, count), others.anchor)
    return out.view(-1, count, *out.shape[1:])


def _each(found: Tensor, count: int) -> Tensor:
    """The same for each of `count` memories: (N, …) → (N · P, …)."""
    return found.unsqueeze(1).expand(-1, count, *found.shape[1:]).flatten(0, 1)


def _cut(said: Said, part: slice) -> tuple[Tensor, Tensor, Tensor, Gates]:
    gates = Gates(*(None if gate is None else gate[:, part] for gate in said.gates))  # type: ignore[arg-type]
    return said.q_NTD[:, part], said.k_NTD[:, part], said.v_NTD[:, part], gates


def _stretches(chunk: int, length: int, index: int) -> list[slice]:
    """Tokens up to where a chunk ends, of which `index` have been, and so on."""
    found, at = [], 0
    while at < length:
        size = min(chunk - index, length - at)
        found.append(slice(at, at + size))
        at, index = at + size, (index + size) % chunk
    return found
