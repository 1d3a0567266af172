"""Works through a queue: claims runs, starts their processes, watches them, judges how they end.

Iterating over `Worker.changes()` does the work. Everything that matters is in the records: any
number of workers may share a study, and each may be killed at any moment and started anew. A
process that makes no step for long is hung: its stacks are dumped and it is ended. What comes
after an end, the failure policy decides (`cupel.jobs.policy`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from statistics import median
from typing import Any, Literal

from cupel.errors import RecordError, UsageError
from cupel.jobs import control
from cupel.jobs.attempts import FAILURE, Attempt, Failure, write_attempt
from cupel.jobs.backend import Ended, Handle, Job
from cupel.jobs.classify import classify
from cupel.jobs.leases import end_unbegun
from cupel.jobs.local import LocalBackend
from cupel.jobs.packing import Ledger, Placement
from cupel.jobs.policy import RunFailure, breaker, quarantine
from cupel.jobs.progress import progress, steps_of
from cupel.jobs.queue import Claimed, Queue, Standing, Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.workers import Presence, workers_of
from cupel.record import files, layout
from cupel.record.reader import SessionInfo

TICK_S = 0.2
INTERRUPTED = 75  # the exit code of a run that was asked to stop, and can go on
REFUSED = 2
HUNG_S, HUNG_STEPS = 600.0, 20  # no step for so long, and for so many median steps
PREPARING = 6  # times as long before the first step
_WATCH_S = 2.0  # between two looks at how far a run has come
_DUMP_S = 2.0  # for a hung process to write its stacks
_TAIL, _TAIL_BYTES = 40, 64 * 1024  # of a log, for a judgement

Kind = Literal[
    "started",
    "restarted",
    "waiting",
    "finished",
    "failed",
    "refused",
    "diverged",
    "interrupted",
    "again",
    "held",
    "cancelled",
    "quarantined",
    "submitted",
    "stopping",
]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a run; `detail` is the reason, in a line. Some concern all runs."""

    kind: Kind
    name: str = ""
    detail: str = ""


@dataclass(slots=True)
class _Running:
    claimed: Claimed
    handle: Handle
    printed: int = 0  # bytes of its log that earlier processes wrote
    device: str = ""
    asked: str | None = None
    hung: bool = False
    touched: float = field(default_factory=time.monotonic)
    watched: float = field(default_factory=time.monotonic)
    step: int = -1
    moved: float = field(default_factory=time.monotonic)  # when it last made a step
    paces: list[float] = field(default_factory=list)

    @property
    def task(self) -> Task:
        return self.claimed.task

    def session(self) -> SessionInfo:
        return SessionInfo.read(self.task.run_dir, self.claimed.claim.number)


MakeJob = Callable[[Claimed, Mapping[str, str]], Job]


@dataclass(slots=True)
class Worker:
    """Runs what a queue has, `slots` at a time, as far as `ledger` has room.

    `only` names the runs that it may take, `most` is how many it takes at most; with `waits` it
    stays while others work on what is left.
    """

    queue: Queue
    backend: LocalBackend
    make_job: MakeJob
    slots: int
    stop: Stopping
    ledger: Ledger | None = None
    only: frozenset[str] | None = None
    most: int | None = None
    waits: bool = True
    hung_s: float = HUNG_S
    _running: list[_Running] = field(default_factory=list)
    _elsewhere: set[str] = field(default_factory=set)
    _taken: int = 0
    _told: bool = False
    _failed: dict[str, RunFailure] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)  # kins of which a run got beyond its preparation
    _bad: list[tuple[str, Attempt]] = field(default_factory=list)
    _steered: float = 0.0
    _asked_at: float = 0.0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _aside: set[str] = field(default_factory=set)

    def changes(self) -> Generator[Change | None]:
        """Run what there is; yields each change, and None several times a second, so that there
        is somebody to draw. Returns when nothing is left, or when all have stopped."""
        presence = Presence(self.queue.folder, self.queue.worker, self.slots)
        try:
            while True:
                presence.show([running.task.name for running in self._running])
                yield from self._ended()  # first: what has ended leaves room for another
                if self.stop.name is not None:
                    yield from self._stop(self.stop.name)
                else:
                    yield from self._steer()
                    yield from self._begin()
                self._watch()
                if not self._running and (self.stop.name is not None or self._is_done()):
                    yield from self._others_ended()
                    return
                yield None
                self.backend.wait(TICK_S)
        finally:
            with contextlib.suppress(RecordError):
                self.backend.close()  # ends what runs, when whoever iterates has left early
            presence.leave()
            self.queue.close()

    # ---- beginning -----------------------------------------------------------------------------

    def _is_done(self) -> bool:
        if self.most is not None and self._taken >= self.most:
            return True
        if self.queue.control.is_quarantined(self.queue.host) is not None:
            return True  # nothing begins here for an hour, unless somebody releases it
        open_ones = {"queued", "waiting", "running"} if self.waits else {"queued", "waiting"}
        return not any(
            self.queue.standing(task).state in open_ones
            for task in self._mine()
            if task.name not in self.queue.set_aside
        )

    def _mine(self) -> Iterator[Task]:
        for task in self.queue.open_tasks():
            if self.only is None or task.name in self.only:
                yield task

    def _begin(self) -> Iterator[Change]:
        if self.queue.control.is_quarantined(self.queue.host) is not None:
            return
        while len(self._running) < self.slots:
            if self.most is not None and self._taken >= self.most:
                return
            placed: list[Placement] = []
            fits = partial(self._fits, placed=placed)
            claimed = self.queue.claim(fits, self._give_back, self._is_full)
            for name in self.queue.set_aside.keys() - self._aside:
                self._aside.add(name)
                yield Change("held", name, self.queue.set_aside[name])
            if claimed is None:
                yield from self._others()
                return
            self._taken += 1
            yield self._start(claimed, placed[-1] if placed else None)

    def _fits(self, task: Task, standing: Standing, placed: list[Placement]) -> bool:
        """Whether there is room for it here; where there is, it is taken."""
        if self.only is not None and task.name not in self.only:
            return False
        if any(running.task.name == task.name for running in self._running):
            return False  # its lease is over, but it is ours: whether it hangs, we see ourselves
        decision = standing.decision
        avoid = decision.avoid if decision else ()
        if (self.queue.host, "") in avoid and self._others_work(avoid):
            return False
        if self.ledger is None:
            return True
        needed = replace(task.resources, **(decision.resources if decision else {}))
        never = _devices(self.queue.control.quarantined, self.queue.host)
        shunned = never | _devices(avoid, self.queue.host)
        mine = {gpu.index for gpu in self.ledger.gpus}
        if not mine - shunned and not self._others_work(avoid):
            shunned = never  # what it failed on is better than nothing
        alone = bool(decision and decision.alone)
        try:
            place = self.ledger.place(task.name, needed, alone=alone, avoid=shunned)
        except UsageError as error:  # more than this machine has: another one may have it
            if decision is None or not decision.resources:
                raise
            control.append(self.queue.folder, "hold", [task.name], why=str(error), breaker=True)
            return False
        if place is None:
            return False
        placed.append(place)
        return True

    def _others_work(self, avoid: Iterable[tuple[str, str]]) -> bool:
        """Whether workers of other hosts are there that may take what this host failed at."""
        if time.monotonic() >= self._asked_at:
            self._asked_at = time.monotonic() + 5
            self._rows = workers_of(self.queue.folder)
        failed = {host for host, _ in avoid} | {self.queue.host}
        return any(row["host"] not in failed and row["state"] == "alive" for row in self._rows)

    def _is_full(self, task: Task) -> bool:
        """Whether there is no room for a run that wants what this one was planned with."""
        if self.ledger is None or (self.only is not None and task.name not in self.only):
            return False
        never = _devices(self.queue.control.quarantined, self.queue.host)
        return not self.ledger.has_room(task.resources, avoid=never)

    def _give_back(self, task: Task) -> None:
        if self.ledger is not None and task.name in self.ledger.placed:
            self.ledger.free(task.name)

    def _start(self, claimed: Claimed, placement: Placement | None) -> Change:
        device = ",".join(map(str, placement.devices)) if placement else ""
        try:
            job = self.make_job(claimed, placement.environment if placement else {})
            printed = _size(job.log)
            (handle,) = self.backend.submit([job])
        except BaseException as error:
            self._give_back(claimed.task)
            self._leave(claimed, f"its process could not be started: {error}")
            raise
        self._running.append(_Running(claimed, handle, printed, device))
        self._elsewhere.discard(claimed.task.name)
        before = claimed.attempts
        kind: Kind = "restarted" if before else "started"
        return Change(kind, claimed.task.name, _before(before[-1]) if before else "")

    def _leave(self, claimed: Claimed, why: str) -> None:
        """Say of a claim that nothing was started for it, which is not the run's fault."""
        now, number = time.time(), claimed.claim.number
        run_dir = claimed.task.run_dir
        attempt = Attempt(
            number, "interrupted", why, started=now, ended=now,
            host=self.queue.host, worker=self.queue.worker,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # else it counts as lost
            end_unbegun(run_dir, number, status="interrupted", error=why, started=now)
            write_attempt(run_dir, attempt)

    def _others(self) -> Iterator[Change]:
        """Tell, once, of runs that somebody else trains, or has ended."""
        yield from self._others_ended()
        if time.monotonic() < self._steered:
            return
        self._steered = time.monotonic() + 0.5
        ours = {running.task.name for running in self._running}
        for task in itertools.islice(self._mine(), 200):
            if task.name in ours:
                continue
            standing = self.queue.standing(task)
            if standing.state == "running" and task.name not in self._elsewhere:
                self._elsewhere.add(task.name)
                yield Change("waiting", task.name, "another process is training it")
            elif task.name in self._elsewhere and standing.state != "running":
                self._elsewhere.discard(task.name)
                if standing.state in ("accepted", "failed", "diverged", "cancelled"):
                    yield _settled(task.name, standing)

    def _others_ended(self) -> Iterator[Change]:
        for name in list(self._elsewhere):
            if (known := self.queue.settled.get(name)) is not None:
                self._elsewhere.discard(name)
                yield _settled(name, known)

    # ---- while they run ------------------------------------------------------------------------

    def _steer(self) -> Iterator[Change]:
        """Do what was asked for meanwhile: cancel what runs."""
        self.queue.refresh()
        for running in self._running:
            if self.queue.control.word(running.task.name).cancelled and running.asked is None:
                running.asked = "cancelled"
                self.backend.cancel([running.handle])
        return iter(())

    def _watch(self) -> None:
        """Keep claims alive until they are adopted; see whether runs make steps."""
        now = time.monotonic()
        for running in self._running:
            claim = running.claimed.claim
            if now - running.touched >= min(2.0, self.queue.lease_s / 4):
                running.touched = now
                if not claim.adopted():
                    claim.touch()
                if claim.superseded() and running.asked is None:
                    running.asked = "superseded"  # we stood still for longer than our lease
                    self.backend.signal([running.handle], SIGKILL)
            if now - running.watched >= _WATCH_S:
                running.watched = now
                self._look_at(running, now)

    def _look_at(self, running: _Running, now: float) -> None:
        session = running.session()
        if session.start_step is None:
            step = -1
        else:
            step = steps_of(session)[1]
        if step != running.step:
            if running.step >= 0 and step > running.step:
                running.paces.append((now - running.moved) / (step - running.step))
                del running.paces[:-50]
            running.step, running.moved = step, now
        limit = max(self.hung_s, HUNG_STEPS * median(running.paces) if running.paces else 0.0)
        if step < 0:  # it prepares: a large corpus takes its time
            limit *= PREPARING
        if now - running.moved > limit and running.asked is None:
            running.hung, running.asked = True, "hung"
            self.backend.signal([running.handle], signal.SIGUSR2)  # its stacks, into its log
            time.sleep(_DUMP_S)
            self.backend.cancel([running.handle])

    # ---- ending --------------------------------------------------------------------------------

    def _ended(self) -> Iterator[Change]:
        reports = self.backend.poll([running.handle for running in self._running])
        for running, report in zip(list(self._running), reports, strict=True):
            if report.state == "ended":
                assert report.ended is not None, report
                self._running.remove(running)
                self._give_back(running.task)
                yield from self._judge(running, report.ended)

    def _judge(self, running: _Running, ended: Ended) -> Iterator[Change]:
        """What became of a run whose process has ended, and what its attempt came to."""
        task, claim = running.task, running.claimed.claim
        if running.asked == "superseded":
            self._elsewhere.add(task.name)
            yield Change("waiting", task.name, "another worker took it over: its lease was over")
            return
        accepted = (task.run_dir / layout.RESULTS).exists()
        attempt, failure = self._attempt(running, ended, accepted=accepted)
        try:
            if not claim.adopted():
                status = "interrupted" if attempt.outcome == "interrupted" else "failed"
                end_unbegun(
                    task.run_dir,
                    claim.number,
                    status=status,
                    error=attempt.detail,
                    started=attempt.started,
                )
            write_attempt(task.run_dir, attempt)
        except OSError as error:
            yield Change("again", task.name, f"cannot write its attempt: {error.strerror or error}")
            if not accepted:
                return  # it is judged by what its session shows, when its lease is over
        if accepted:
            self.queue.standing(task)
            yield Change("finished", task.name)
            return
        if failure is not None:
            yield from self._look_around(task, attempt, failure)
        standing = self.queue.standing(task)
        if self.stop.name is not None and attempt.outcome in ("interrupted", "killed"):
            yield Change("interrupted", task.name)
        elif standing.state in ("failed", "diverged", "cancelled"):
            yield _settled(task.name, standing, attempt)
        else:
            yield Change("again", task.name, attempt.detail or attempt.outcome)

    def _attempt(
        self, running: _Running, ended: Ended, *, accepted: bool
    ) -> tuple[Attempt, Failure | None]:
        task, claim = running.task, running.claimed.claim
        session = running.session()
        opened = claim.adopted() and session.start_step is not None
        first, last = steps_of(session) if opened else (0, 0)
        begun = last > first
        if begun or accepted:
            self._begun.add(task.kin)
        failure = None
        asked = "preempted" if running.asked is None and self.stop.name else running.asked
        if not accepted:
            failure = classify(
                ended,
                failure=_told(running),
                log_tail=_printed_since(running),
                began=begun,
                asked=asked if asked != "hung" else None,
                hung=running.hung,
                nonfinite=_is_nonfinite(progress(task.run_dir).loss) if opened else False,
            )
        if accepted and _accepted_session(task.run_dir) not in (None, claim.number):
            outcome, detail = "interrupted", "the results of another session were accepted"
        elif accepted or (failure is None and ended.code == 0):
            outcome, detail = "finished", ""  # perhaps without results
        elif failure is None:
            outcome, detail = "interrupted", "stopped with a checkpoint"
        else:
            outcome, detail = failure.kind, failure.detail
        if self.stop.name is not None and outcome in ("killed", "preempted", "unknown", "timeout"):
            outcome, failure = "interrupted", None
        attempt = Attempt(
            claim.number,
            outcome,
            detail,
            signature=failure.signature if failure else "",
            begun=begun,
            first_step=first,
            last_step=last,
            started=session.started or time.time(),
            ended=time.time(),
            host=self.queue.host,
            device=running.device,
            worker=self.queue.worker,
            code=ended.code,
            state=ended.state,
            cpu_s=ended.cpu_s,
            peak_mb=ended.peak_mb,
            alone=running.claimed.alone,
            changes=dict(running.claimed.changes),
            resources={k: v for k, v in asdict(running.claimed.resources).items() if v is not None},
        )
        return attempt, failure

    def _look_around(self, task: Task, attempt: Attempt, failure: Failure) -> Iterator[Change]:
        """Hold runs that would fail alike; leave devices on which different runs fail."""
        self._failed[task.name] = RunFailure(
            task.name, failure.kind, failure.signature, attempt.begun, task.kin
        )
        self._bad.append((task.name, attempt))
        kins = {one.kin for one in self.queue.open_tasks()} | {task.kin}
        if (hold := breaker(self._failed.values(), kins=kins, begun=self._begun)) is not None:
            names = None
            if hold.kins:
                names = [one.name for one in self.queue.open_tasks() if one.kin in hold.kins]
            n = len(hold.runs)
            why = f"{n} runs failed alike before their first step: {attempt.detail}"
            self._failed.clear()
            if names != []:
                control.append(self.queue.folder, "hold", names, why=why, breaker=True)
                self.queue.refresh()
                yield Change("held", detail=why)
        for host, device, why in quarantine(self._bad, now=time.time()):
            if self.queue.control.is_quarantined(host, device) is None:
                control.append(
                    self.queue.folder, "quarantine", [], why=why, host=host, device=device
                )
                self.queue.refresh()
                yield Change("quarantined", detail=f"{host} {device}".strip() + f": {why}")

    # ---- stopping ------------------------------------------------------------------------------

    def _stop(self, name: str) -> Iterator[Change]:
        """Ask once, kill when told to; what has not begun does not begin."""
        handles = [running.handle for running in self._running]
        if not self._told:
            self._told = True
            self.backend.signal(handles, SIGTERM)
            yield Change("stopping", detail=name)
        elif self.stop.insists:
            self.backend.signal(handles, SIGKILL)


def _devices(places: Iterable[tuple[str, str]], here: str) -> set[int]:
    """The numbers of this host's devices among places."""
    parts = (part for host, device in places if host == here for part in device.split(","))
    return {int(part) for part in parts if part.isdecimal()}


def _is_nonfinite(value: float | None) -> bool:
    return value is not None and not math.isfinite(value)


def _told(running: _Running) -> dict[str, Any] | None:
    """What the process wrote down before it died of an exception; else with which error it ended
    its session, as a loop of a user's own does."""
    try:
        return files.read_json(running.claimed.claim.dir / FAILURE)
    except RecordError:
        session = running.session()
        error = session.fields.get("error") if session.status == "failed" else None
        return {"message": error} if isinstance(error, str) else None


def _accepted_session(run_dir: Path) -> int | None:
    """Whose results they are; None where that is not known."""
    try:
        number = files.read_json(run_dir / layout.RESULTS).get("accepted_session")
    except RecordError:
        return None
    return number if isinstance(number, int) else None


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _printed_since(running: _Running) -> str:
    """The end of what this process, and no earlier one of the run, has printed."""
    try:
        with running.handle.job.log.open("rb") as file:
            file.seek(max(running.printed, file.seek(0, 2) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL:])


def _before(attempt: Attempt) -> str:
    """How the attempt before ended, for the line that tells of a restart."""
    if attempt.outcome == "interrupted":
        return ""
    known = attempt.code is not None and attempt.code < 0 and -attempt.code in set(Signals)
    if attempt.outcome == "killed" and known and attempt.code is not None:
        return f"killed by {Signals(-attempt.code).name}"
    return attempt.detail or attempt.outcome


def _settled(name: str, standing: Standing, attempt: Attempt | None = None) -> Change:
    last = attempt or (standing.attempts[-1] if standing.attempts else None)
    refused = last is not None and last.outcome == "configuration" and not last.begun
    match standing.state:
        case "accepted":
            return Change("finished", name)
        case "failed":
            return Change("refused" if refused else "failed", name, standing.reason)
        case "diverged":
            return Change("diverged", name, standing.reason)
    return Change("cancelled", name, standing.reason)
