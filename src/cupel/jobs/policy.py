"""What follows when a run's process has ended without its results: `decide(attempts, now=…)`.

`TABLE` is all of the policy, a row a class of failure. `decide` looks at one run, `breaker` at the
early failures of a sweep, `quarantine` at the failures of hosts. They read attempts and give
decisions, always the same ones for the same attempts, and touch no file, process or clock.
docs/failures.md is this page for users.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal

from cupel.jobs.attempts import Attempt

ACCUMULATE = "train.accumulate"
MEMORY = "memory_mb"
HALVINGS = 3  # of the micro-batch
MORE_MEMORY = 1.5
LONGEST_WAIT_S = 600.0
CLOCKS_S = 60.0  # an attempt that ended further in the future was told by a clock that is wrong
ALIKE = 3  # runs with one early failure that are taken for all
UNLUCKY = 10  # times in a row that a run may be lost with its supervisor without coming further
QUARANTINE_S = 3600.0
RUNS_OF_A_DEVICE = 2  # that its host's fault has ended, before it is suspected
DEVICES_OF_A_HOST = 3  # that are in quarantine, before the host is


@dataclass(frozen=True, slots=True)
class Row:
    """What a class of failure leads to.

    A run is started again at most `retries` times after failures of this class, whatever came
    between; and `stalled` times in a row without having come further, together with the other
    classes that have such a number. None: as often as it takes. `backoff_s` is the first wait,
    which doubles; of classes with a number `stalled`, it comes before the second time in a row. A
    class that does not count is the fault of nobody's run.
    """

    retries: int | None
    stalled: int | None = None
    backoff_s: float = 0.0
    counts: bool = True
    change: str = "none"


TABLE: Mapping[str, Row] = {
    "configuration": Row(0),
    "import": Row(0),
    "cuda_oom": Row(1 + HALVINGS, change="alone on its device; then half the micro-batch"),
    "host_oom": Row(3, backoff_s=5, change="half as much memory again"),
    "timeout": Row(None, stalled=1),
    "preempted": Row(None, stalled=1),
    "diverged": Row(0),
    "hung": Row(1),
    "node": Row(5, backoff_s=10, counts=False, change="another device or host"),
    "killed": Row(None, stalled=2, backoff_s=2),
    "lost": Row(None, stalled=2, backoff_s=5),
    "cancelled": Row(0),
    "unknown": Row(2, backoff_s=5),  # once for each signature
    "interrupted": Row(None, counts=False),
}

_WORDS = {"finished": "it ended without results"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next for a run, and why, in a line.

    `ready`: it may be started; `wait`: not before `not_before` (Unix seconds); `failed` and
    `diverged` are ends, until somebody asks for another try. When it starts again, then with these
    `changes` of its settings and `resources` (`memory_mb`) instead of the planned ones, `alone` on
    its device or not, and not on what it is to `avoid`: (host, device), or (host, "") for all of a
    host. Where there is nothing else, what is avoided is better than nothing.
    """

    kind: Literal["ready", "wait", "failed", "diverged"]
    reason: str
    not_before: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    avoid: tuple[tuple[str, str], ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)


def decide(
    attempts: Sequence[Attempt],
    *,
    now: float,
    accumulate: int | None = None,
    batch: int | None = None,
    memory_mb: int | None = None,
    salt: str = "",
) -> Decision:
    """What comes next for a run that is not accepted, after these attempts, the oldest first.

    Only the attempts since somebody last asked for another try. `accumulate` and `batch` are the
    planned micro-batches and sequences of a step on one rank, None where the run has no such
    settings; `memory_mb` is the memory it is planned with. `salt`, the run's id for instance, keeps
    runs that failed together from coming back together.
    """
    if not attempts:
        return Decision("ready", "it has not begun")
    last = attempts[-1]
    why = last.detail or _WORDS.get(last.outcome, last.outcome)
    kept = Decision(
        "ready",
        why,
        changes=_changes(attempts, _told(attempts, accumulate, batch)),
        alone=any(one.outcome == "cuda_oom" for one in attempts),
        avoid=_faulty(attempts),
        resources=_resources(attempts, memory_mb or 0),
    )
    if last.outcome == "diverged":
        return replace(kept, kind="diverged")
    if ended := _too_often(attempts):
        return replace(kept, kind="failed", reason=f"{why}; {ended}")
    if last.outcome == "cuda_oom":
        return _with_less_memory(kept, attempts, accumulate, batch)
    if last.outcome == "host_oom":
        kept = _with_more_memory(kept, attempts)
    return _in_time(kept, attempts, now, salt)


def row_of(outcome: str) -> Row:
    """Its row. An outcome that is none, such as a finish without results, is an unknown failure."""
    return TABLE.get(outcome, TABLE["unknown"])


def progressed(attempts: Sequence[Attempt]) -> list[bool]:
    """Whether each attempt came further than all before it, or wrote a later checkpoint: then the
    next one began further. What only repeats the same steps each time is no progress."""
    found: list[bool] = []
    furthest = begun = attempts[0].first_step if attempts else 0
    for one, after in zip_longest(attempts, attempts[1:]):
        begun = max(begun, one.first_step)
        found.append(one.last_step > furthest or (after is not None and after.first_step > begun))
        furthest = max(furthest, one.first_step, one.last_step)
    return found


def _too_often(attempts: Sequence[Attempt]) -> str:
    """Why it is not started again after its last attempt; empty when it is."""
    last, row = attempts[-1], row_of(attempts[-1].outcome)
    if row.retries == 0:
        return "not retried"
    alike = [one for one in attempts if row_of(one.outcome) is row]
    if row is TABLE["unknown"] and any(one.signature == last.signature for one in alike[:-1]):
        return "it ended alike before"
    if row.retries is not None and len(alike) > row.retries:
        return f"retried {row.retries} times" if row.retries > 1 else "retried once"
    pairs = zip(reversed(attempts), reversed(progressed(attempts)), strict=True)
    unlucky = list(itertools.takewhile(lambda one: _is_no_fault(one[0]) and not one[1], pairs))
    if len(unlucky) > UNLUCKY:  # so often that it might be the run after all
        return f"{len(unlucky)} times in a row with whoever supervised it, and no further"
    stalled = _stalled(attempts)
    if row.stalled is not None and stalled > row.stalled:
        furthest = max(one.last_step for one in attempts)
        return f"{stalled} times in a row without getting beyond step {furthest}"
    return ""


def _stalled(attempts: Sequence[Attempt]) -> int:
    """How many attempts since the last progress ended in a class that progress excuses."""
    count = 0
    for one, further in zip(reversed(attempts), reversed(progressed(attempts)), strict=True):
        if further:
            return count
        count += row_of(one.outcome).stalled is not None and not _is_no_fault(one)
    return count


def _is_no_fault(one: Attempt) -> bool:
    """Whether it was lost with its supervisor, or before its first step: no word about the run."""
    return one.outcome == "lost" and (one.orphaned or not one.begun)


def _changes(attempts: Sequence[Attempt], told: int) -> dict[str, Any]:
    """What attempts ran with otherwise than planned: what was once changed stays so."""
    found: dict[str, Any] = {}
    for one in attempts:
        found |= one.changes
    micro = max([told, *(_whole(one.changes.get(ACCUMULATE)) for one in attempts)])
    return found | ({ACCUMULATE: micro} if micro else {})


def _told(attempts: Sequence[Attempt], accumulate: int | None, batch: int | None) -> int:
    """The micro-batches that earlier decisions led to, 0 for those planned: the record of an
    attempt that was lost does not say with how many it ran."""
    earlier = attempts[:-1] if attempts[-1].outcome == "cuda_oom" else attempts
    alone = [one.alone for one in earlier if one.outcome == "cuda_oom"]
    halved = min(sum(alone[:1]) + len(alone[1:]), HALVINGS)
    told = (accumulate or 0) * 2**halved
    return told if halved and told and batch and batch % told == 0 else 0


def _resources(attempts: Sequence[Attempt], planned: int) -> dict[str, Any]:
    """The most memory that any attempt was given, or told to be given, once it lacked memory."""
    lacked = sum(one.outcome == "host_oom" for one in attempts)
    raised = lacked - (attempts[-1].outcome == "host_oom")
    told = math.ceil(planned * MORE_MEMORY ** min(raised, TABLE["host_oom"].retries or 0))
    given = max([told, *(_whole(one.resources.get(MEMORY)) for one in attempts)])
    return {MEMORY: given} if given and lacked else {}


def _faulty(attempts: Sequence[Attempt]) -> tuple[tuple[str, str], ...]:
    found = [(one.host, one.device) for one in attempts if one.outcome == "node" and one.host]
    return tuple(dict.fromkeys(found))


def _with_less_memory(
    kept: Decision, attempts: Sequence[Attempt], accumulate: int | None, batch: int | None
) -> Decision:
    """First without neighbours on the device; then half the micro-batch, twice as often."""
    last = attempts[-1]
    failed = sum(one.outcome == "cuda_oom" for one in attempts)
    if failed == 1 and not last.alone:
        return replace(kept, reason=f"{kept.reason}; again, alone on its device")
    if not accumulate or not batch:
        told = "alone on its device, and its micro-batch cannot be halved from here"
        return replace(kept, kind="failed", reason=f"{kept.reason}; {told}")
    now = max(accumulate, _whole(kept.changes.get(ACCUMULATE)))
    if now >= accumulate * 2**HALVINGS:
        told = f"alone on its device, its micro-batch halved {HALVINGS} times"
        return replace(kept, kind="failed", reason=f"{kept.reason}; {told}")
    if batch % (2 * now):
        told = f"alone on its device, and a batch of {batch} cannot be shared by {2 * now}"
        return replace(kept, kind="failed", reason=f"{kept.reason}; {told} micro-batches")
    told = f"again with {2 * now} micro-batches a step"
    changes = {**kept.changes, ACCUMULATE: 2 * now}
    return replace(kept, reason=f"{kept.reason}; {told}", changes=changes)


def _with_more_memory(kept: Decision, attempts: Sequence[Attempt]) -> Decision:
    """Of what it was given; where it was given no limit, of what it was seen to take."""
    given, taken = kept.resources.get(MEMORY, 0), attempts[-1].peak_mb or 0.0
    given = given or (math.ceil(taken) if math.isfinite(taken) else 0)
    if given <= 0:
        return kept
    more = math.ceil(given * MORE_MEMORY)
    told = f"{kept.reason}; again with {more:,} MB of memory"
    return replace(kept, reason=told, resources={**kept.resources, MEMORY: more})


def _in_time(kept: Decision, attempts: Sequence[Attempt], now: float, salt: str) -> Decision:
    """Not before a while has passed: twice as long each time, and not all runs at once."""
    last, row = attempts[-1], row_of(attempts[-1].outcome)
    if not row.backoff_s or last.ended > now + CLOCKS_S:
        return kept
    before = sum(row_of(one.outcome) is row for one in attempts) - 1
    if row.stalled is not None:  # what was killed once is resumed at once
        before = _stalled(attempts) - 2
        if before < 0:
            return kept
    wait = min(row.backoff_s * 2**before, LONGEST_WAIT_S) * _jitter(salt, last.session)
    due = last.ended + wait
    return replace(kept, kind="wait" if due > now else "ready", not_before=due)


def _jitter(salt: str, number: int) -> float:
    """Between a half and one and a half, the same for one run and attempt."""
    digest = hashlib.blake2b(f"{number} {salt}".encode(errors="replace"), digest_size=4).digest()
    return 0.5 + int.from_bytes(digest, "little") / 2**32


def _whole(value: Any) -> int:
    """A number of a record, where it is one; 0 otherwise."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


@dataclass(frozen=True, slots=True)
class RunFailure:
    """A failed run as the breaker looks at it. `begun`: it had made a step. Runs of one
    `kin` differ in nothing that they could be refused for."""

    run: str
    kind: str
    signature: str
    begun: bool
    kin: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Runs that are not to be started: those of `kins`, or all that are left when there are none.
    `runs` have failed, with one `signature`."""

    signature: str
    runs: tuple[str, ...]
    kins: tuple[str, ...] = ()


def breaker(
    failures: Iterable[RunFailure], *, kins: Collection[str] = (), begun: Collection[str] = ()
) -> Hold | None:
    """What three runs that failed before their first step, for one reason, promise for the others.

    `kins` are all those of the sweep, `begun` those of which some run made a step.
    All is held; but where the failed runs are of one kin and there are others, or others have
    begun, then only their own kin.
    """
    early: dict[tuple[str, str], dict[str, str]] = {}
    for one in failures:
        if one.kind not in ("configuration", "import") or one.begun:
            continue
        alike = early.setdefault((one.kind, one.signature), {})
        alike.setdefault(one.run, one.kin)
    for (_, said), runs in early.items():
        if len(runs) >= ALIKE:
            theirs = set(runs.values())
            one_of_several = len(theirs) == 1 and bool(set(kins) - theirs)
            only = one_of_several or bool(set(begun) - theirs)
            return Hold(said, tuple(runs), tuple(sorted(theirs)) if only else ())
    return None


def quarantine(
    attempts: Iterable[tuple[str, Attempt]], *, now: float
) -> list[tuple[str, str, str]]:
    """Devices, and hosts, that no run is to be started on: (host, device, why), device "" for all
    of a host. Of attempts of all runs, each with its run's id.

    It is over an hour after the failures that led to it, unless others have followed.
    """
    runs: dict[tuple[str, str], set[str]] = {}
    for run, one in attempts:
        if one.outcome == "node" and one.host and one.ended >= now - QUARANTINE_S:
            runs.setdefault((one.host, one.device), set()).add(run)
    bad = sorted(place for place, those in runs.items() if len(those) >= RUNS_OF_A_DEVICE)
    found: list[tuple[str, str, str]] = []
    for host in dict.fromkeys(host for host, _ in bad):
        devices = [device for place, device in bad if place == host]
        if "" in devices:
            devices = [""]
        elif len(devices) >= DEVICES_OF_A_HOST:
            found.append((host, "", f"{len(devices)} of its devices failed several runs"))
            continue
        found += [
            (host, device, f"it failed {len(runs[host, device])} runs within an hour")
            for device in devices
        ]
    return found
