"""The queue of a study: which run is next, and the claim of it. No database: the folders are it.

A run may be claimed when its last session has ended, is dead or has lost its lease, when the
failure policy says that it may go on, and when nobody holds it. Claiming is the exclusive mkdir of
its next session: of any number of workers on any hosts exactly one gets it. So a run has exactly
one accepted completion, and is executed at least once.
"""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError
from cupel.jobs.attempts import Attempt, changes_in, read_attempt
from cupel.jobs.backend import Resources
from cupel.jobs.control import Control
from cupel.jobs.leases import LEASE_S, DiskClock, hold_of, is_gone, last_sign
from cupel.jobs.policy import Decision, decide
from cupel.jobs.progress import steps_of
from cupel.jobs.reasons import in_a_line
from cupel.record import layout, processes
from cupel.record.claims import LEASE, Claim, claim_session, read_lease
from cupel.record.reader import RunRecord, SessionInfo

WORKERS = "workers"
_PLAN = "manifest.json"  # in the folder of a study
_OF_ONE_RUN = (errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
_LOOK_S = 0.5  # between two looks at a run that somebody else trains
_WAIT_S = 60.0  # at most, between two looks at one that is to wait

NOTHING_ASKED = Resources()

State = Literal[
    "queued", "waiting", "running", "held", "cancelled", "accepted", "diverged", "failed"
]
SETTLED: tuple[State, ...] = ("accepted", "diverged", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Task:
    """A run to be done. Runs of one `kin` (a cell) differ in nothing that they could be refused
    for."""

    name: str
    run_dir: Path
    kin: str = ""
    priority: int = 100
    not_before: float = 0.0
    resources: Resources = NOTHING_ASKED


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task stands: its state, why, from when on it may go on, and as what."""

    state: State
    reason: str = ""
    not_before: float = 0.0
    session: int = 0  # the newest one
    attempts: tuple[Attempt, ...] = ()
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that is ours: its session, and how the policy wants it to be run this time."""

    task: Task
    claim: Claim
    attempts: tuple[Attempt, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    resources: Resources = NOTHING_ASKED


@dataclass(slots=True)
class Queue:
    """The open runs of one study, as one worker sees them.

    It remembers what cannot change (ended attempts, accepted runs), so a claim costs a few looks
    at the disk whatever the length of the manifest.
    """

    folder: Path
    tasks: Sequence[Task]
    worker: str
    host: str = ""
    lease_s: float = LEASE_S
    # Of a task: in how many micro-batches its steps are taken, and the examples of a step.
    split_of: Callable[[Task], tuple[int, int | None]] = lambda task: (1, None)
    control: Control = field(init=False)
    clock: DiskClock = field(init=False)
    # Of this worker's own knowledge: by the name of a run.
    settled: dict[str, Standing] = field(default_factory=dict)
    # Runs whose folders cannot be claimed, and why.
    set_aside: dict[str, str] = field(default_factory=dict)
    guarded: bool = False  # whether claims are refused when the study's plan is gone
    _open: dict[str, Task] = field(default_factory=dict)
    _later: dict[str, float] = field(default_factory=dict)
    _ended: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    _version: int = -1

    def __post_init__(self) -> None:
        self.control = Control.of(self.folder)
        self.clock = DiskClock(self.folder / WORKERS / f"{self.worker}.clock")
        self._reorder()

    def close(self) -> None:
        """Take away what only this worker needed."""
        with contextlib.suppress(OSError):
            self.clock.probe.unlink(missing_ok=True)

    # ---- what stands how -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Hear what was asked since (`control.jsonl`)."""
        self.control.refresh()
        if self.control.version != self._version:
            self._reorder()

    def _reorder(self) -> None:
        """Most urgent first; among equals in the order of the plan, seed by seed."""
        self._version = self.control.version
        done = {name for name, one in self.settled.items() if one.state == "accepted"}
        self.settled = {name: self.settled[name] for name in done}
        self._later.clear()
        left = [task for task in self.tasks if task.name not in done]
        left.sort(key=lambda task: -self.priority(task))  # stable
        self._open = {task.name: task for task in left}

    def priority(self, task: Task) -> int:
        """The task's priority: what was last asked for, else the plan's."""
        asked = self.control.word(task.name).priority
        return task.priority if asked is None else asked

    def is_settled(self) -> bool:
        """Whether no task is open any more, as far as this worker has seen."""
        return not self._open

    def open_tasks(self) -> Iterator[Task]:
        """What is not settled as far as this worker has seen, most urgent first."""
        yield from list(self._open.values())

    def standing(self, task: Task) -> Standing:
        """How a task stands now; a few looks at the disk."""
        if (known := self.settled.get(task.name)) is not None:
            return known
        found = self._looked(task)
        if found.state in SETTLED:
            self.settled[task.name] = found
            self._open.pop(task.name, None)
        return found

    def _looked(self, task: Task) -> Standing:
        run_dir, word = task.run_dir, self.control.word(task.name)
        if (run_dir / layout.RESULTS).exists():
            return Standing("accepted", session=max(layout.session_numbers(run_dir), default=0))
        numbers = layout.session_numbers(run_dir)
        last = numbers[-1] if numbers else 0
        if last and self._hold(run_dir, last) == "held":
            return Standing("running", session=last)
        if word.cancelled:
            return Standing("cancelled", word.why or "cancelled", session=last)
        since = 0.0 if word.forgiven else word.retried  # clocks of hosts differ, numbers do not
        attempts = tuple(self.attempts(task, numbers, since=since))
        short = any(attempt.outcome == "cuda_oom" for attempt in attempts)
        accumulate, batch = self.split_of(task) if short else (1, None)
        decision = decide(
            attempts,
            now=time.time(),
            accumulate=accumulate,
            batch=batch,
            memory_mb=task.resources.memory_mb,
            salt=task.name,
        )
        now = Standing("queued", decision.reason, 0.0, last, attempts, decision)
        begin = max(task.not_before, decision.not_before)
        if decision.kind in ("failed", "diverged"):
            return replace(now, state=decision.kind)
        if word.held:
            return replace(now, state="held", reason=word.why or "held")
        if begin > time.time():
            return replace(now, state="waiting", not_before=begin)
        # That it has not begun, or was asked to stop, is no reason for anything.
        if not attempts or (attempts[-1].outcome == "interrupted" and not attempts[-1].detail):
            return replace(now, reason="")
        return now

    def _hold(self, run_dir: Path, number: int) -> str:
        if (run_dir.name, number) in self._ended:
            return "ended"
        return hold_of(run_dir, number, clock=self.clock, lease_s=self._lease(run_dir, number))

    def _lease(self, run_dir: Path, number: int) -> float:
        """A session's own lease; sessions without one (begun by hand) have the study's."""
        told = read_lease(run_dir, number).get("lease_s")
        return float(told) if isinstance(told, int | float) and told > 0 else self.lease_s

    def attempts(
        self, task: Task, numbers: Sequence[int] | None = None, *, since: float = 0.0
    ) -> Iterator[Attempt]:
        """How each ended session of a run ended, oldest first, of those that count since then."""
        run_dir, word = task.run_dir, self.control.word(task.name)
        known = layout.session_numbers(run_dir) if numbers is None else numbers
        for number in known:
            key = (run_dir.name, number)
            if (found := self._ended.get(key)) is None:
                is_last = number == known[-1]
                hold = self._hold(run_dir, number) if is_last else "ended"
                if hold == "held":
                    continue
                found = told_or_seen(run_dir, number)
                if hold == "ended":  # who was only silent may come back, and is at work then
                    self._ended[key] = found
            if number <= word.forgiven or found.ended < since:
                continue
            if found.outcome == "cancelled" and word.retried and not word.cancelled:
                found = replace(found, outcome="interrupted")
            yield found

    # ---- claiming ------------------------------------------------------------------------------

    def claim(
        self,
        fits: Callable[[Task, Standing], bool] = lambda task, standing: True,
        give_back: Callable[[Task], object] = lambda task: None,
        is_full: Callable[[Task], bool] = lambda task: False,
    ) -> Claimed | None:
        """Take the most urgent run that may go on and that `fits`; None when there is none now.

        `give_back` hears of one that fitted and was taken by somebody else; `is_full` says of one
        that did not fit whether that is for want of room, so that none that wants as much is looked
        at. Raises RecordError when the disk refuses it.
        """
        now = time.monotonic()
        self._require_study()
        full: set[Resources] = set()  # what did not fit as planned: of these, no other is looked at
        for task in list(self._open.values()):
            if self._later.get(task.name, 0.0) > now or task.resources in full:
                continue
            standing = self.standing(task)
            if standing.state != "queued":
                self._look_later(task, standing)
            elif fits(task, standing):
                if (taken := self._take(task, standing)) is not None:
                    return taken
                give_back(task)
            elif not standing.attempts and is_full(task):
                full.add(task.resources)
        return None

    def _require_study(self) -> None:
        """Raises RecordError when the study was moved or deleted: a claim would make it anew."""
        if self.guarded and not (self.folder / _PLAN).exists():
            raise RecordError(
                f"the study is gone from {self.folder}; type the command again where it is now"
            )

    def _look_later(self, task: Task, standing: Standing) -> None:
        wait = _LOOK_S
        if standing.state == "waiting":
            # Not for hours: this machine's clock may be set right meanwhile.
            wait = min(max(_LOOK_S / 10, standing.not_before - time.time()), _WAIT_S)
        elif standing.state == "held":
            wait = 3600.0  # a word releases it, and then all is looked at anew
        self._later[task.name] = time.monotonic() + wait

    def _take(self, task: Task, standing: Standing) -> Claimed | None:
        decision = standing.decision
        changes = dict(decision.changes) if decision else {}
        alone = bool(decision and decision.alone)
        resources = replace(task.resources, **(decision.resources if decision else {}))
        facts = {
            "worker": self.worker,
            "lease_s": self.lease_s,
            "changes": changes,
            "alone": alone,
            "resources": {k: v for k, v in asdict(resources).items() if v is not None},
            "priority": self.priority(task),
            "supervisor": processes.this_process().as_json(),
        }
        number = standing.session + 1
        try:
            claim = claim_session(task.run_dir, number, facts)
        except FileExistsError as error:
            if not layout.session_dir(task.run_dir, number).is_dir():
                self._set_aside(task, error)
            self._later.setdefault(task.name, time.monotonic() + _LOOK_S)  # somebody was quicker
            return None
        except RecordError as error:  # a link, through which nothing is written
            self._set_aside(task, error)
            return None
        except OSError as error:
            if error.errno in _OF_ONE_RUN:
                self._set_aside(task, error)
                return None
            raise RecordError(
                f"cannot claim {task.name} in {task.run_dir}: {error.strerror or error}"
            ) from error
        if (task.run_dir / layout.RESULTS).exists():  # accepted between the look and the claim
            if not claim.superseded():  # by whoever took it over while we stood still
                shutil.rmtree(claim.dir, ignore_errors=True)
            return None
        return Claimed(task, claim, standing.attempts, changes, alone, resources)

    def _set_aside(self, task: Task, error: Exception) -> None:
        """Leave a run alone whose folder is not one of a run, for a minute, and remember why."""
        why = getattr(error, "strerror", None) or str(error)
        self.set_aside[task.name] = f"cannot claim it in {task.run_dir}: {why}"
        self._later[task.name] = time.monotonic() + _WAIT_S


def told_or_seen(run_dir: Path, number: int) -> Attempt:
    """How a session ended that is over: as its supervisor told, else as its folder shows."""
    if (told := read_attempt(run_dir, number)) is not None and _is_sound(told, number):
        return told
    info = SessionInfo.read(run_dir, number)
    first, last = steps_of(info)
    outcome, detail = _seen(run_dir, info)
    ended = info.ended if isinstance(info.ended, int | float) else last_sign(info.dir)
    lease = read_lease(run_dir, number)
    resources = lease.get("resources")
    return Attempt(
        number,
        outcome,
        detail,
        begun=last > first,
        first_step=first,
        last_step=last,
        started=info.started if isinstance(info.started, int | float) else ended,
        ended=ended,
        host=str(info.host or ""),
        alone=lease.get("alone") is True,
        orphaned=outcome == "lost" and is_gone(lease.get("supervisor"), unnamed=False),
        changes=changes_in(run_dir, number, None),
        resources=resources if isinstance(resources, Mapping) else {},
    )


def _is_sound(told: Attempt, number: int) -> bool:
    """Whether somebody wrote this who knew how: a file that was changed by hand tells nothing."""
    texts = (told.outcome, told.detail, told.signature, told.host, told.device)
    steps = (told.first_step, told.last_step)
    times = (told.started, told.ended, told.peak_mb or 0.0)
    return (
        told.session == number
        and all(isinstance(one, str) for one in texts)
        and all(isinstance(one, int) for one in steps)
        and all(isinstance(one, int | float) and math.isfinite(one) for one in times)
        and isinstance(told.changes, Mapping)
        and isinstance(told.resources, Mapping)
    )


def _seen(run_dir: Path, info: SessionInfo) -> tuple[str, str]:
    """Outcome and reason of a session that nobody has judged."""
    if not any((info.dir / name).exists() for name in (LEASE, layout.SESSION)):
        return "interrupted", "whoever claimed it could not write that down"  # nothing was started
    error = info.fields.get("error")
    detail = in_a_line(error) if isinstance(error, str) else ""
    if info.status in ("finished", "interrupted"):
        return info.status, detail
    if info.status in ("running", "silent"):
        return "lost", "it gave no sign for longer than its lease"
    if info.status != "failed":
        return "lost", "its process is gone, and so is whoever supervised it"
    names = [e.get("error") for e in RunRecord(run_dir).events() if e["_session"] == info.number]
    return ("diverged" if "Diverged" in names else "unknown"), detail
