"""Runs many runs, a few at a time, until each is finished or cannot go on: `Supervisor`.

What a process says of itself (its exit code) counts less than what its run's record says. A run
that was killed is started again and resumes, up to twice without progress; one that failed is not.
A run that a process of somebody else is training is waited for. When the first runs are refused for
one reason, the others are not started. Nothing is kept in memory that the records do not say, so
whoever supervises may be killed and started anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Literal

from cupel.jobs.backend import Backend, Handle, Job
from cupel.jobs.progress import progress
from cupel.jobs.reasons import failure_of, refusal_in
from cupel.jobs.stopping import Stopping
from cupel.record import layout
from cupel.record.reader import RunRecord, Status

TICK_S = 0.1
LOOK_S = 0.5  # between two looks at the record of a run that somebody else trains
RESTARTS = 2  # of a run that makes no progress
INTERRUPTED = 75  # the exit code of a run that was asked to stop, and can go on
ABORTED = 130
REFUSED = 2
ALIKE = 2  # refusals of one reason, none of them of a run that has begun, are taken for all

Kind = Literal[
    "started",
    "restarted",
    "waiting",
    "finished",
    "failed",
    "refused",
    "interrupted",
    "stopping",
    "leaving",
]


@dataclass(frozen=True, slots=True)
class Task:
    """One run, and the job that trains it, or goes on with it, until its end.

    Runs of one `kin` differ in nothing that they could be refused for.
    """

    job: Job
    run_dir: Path
    kin: str = ""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.job.name


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a run; `detail` is the reason, in a line.

    `stopping` concerns all runs, and `leaving` those that will not be started.
    """

    kind: Kind
    name: str = ""
    detail: str = ""


@dataclass(slots=True)
class _Running:
    task: Task
    handle: Handle
    session: int  # the newest one when it was started


@dataclass(slots=True)
class _Luck:
    """How often a run was killed without having come further than ever before."""

    step: int
    spent: int = 0
    ending: str = ""  # of its last process


@dataclass(slots=True)
class _Refusals:
    """The runs that ended one after the other for one reason, before any run has begun."""

    reason: tuple[int, str] = (0, "")
    tasks: list[Task] = field(default_factory=list)
    begun: bool = False  # some run has; from then on nothing is concluded

    def add(self, task: Task, reason: tuple[int, str]) -> None:
        self.tasks = [*self.tasks, task] if reason == self.reason else [task]
        self.reason = reason

    def promise_no_better(self, left: Iterable[Task]) -> bool:
        """Whether those that are left would end alike: not where only seeds of one arm did."""
        kin = {task.kin for task in self.tasks}
        enough = not self.begun and len(self.tasks) >= ALIKE
        return enough and (len(kin) > 1 or all(task.kin in kin for task in left))


@dataclass(slots=True)
class Supervisor:
    """Runs tasks on a backend, `slots` at a time, in the order given.

    Iterating over `changes()` does the work: it yields each change, and None several times a
    second, so that there is somebody to draw. A request of `stop` ends all runs with a checkpoint;
    when it insists, they are killed.
    """

    backend: Backend
    slots: int
    stop: Stopping
    _queue: deque[Task] = field(default_factory=deque)
    _running: list[_Running] = field(default_factory=list)
    _elsewhere: list[Task] = field(default_factory=list)
    _luck: dict[str, _Luck] = field(default_factory=dict)
    _refusals: _Refusals = field(default_factory=_Refusals)
    _told: bool = False
    _next_look: float = 0.0

    def changes(self, tasks: Iterable[Task]) -> Generator[Change | None]:
        """Run the tasks; returns when each has ended, or has stopped."""
        self._queue.extend(tasks)
        try:
            while self._queue or self._running or self._elsewhere:
                if self.stop.name is not None:
                    yield from self._stop(self.stop.name)
                else:
                    yield from self._look_elsewhere()
                    yield from self._start()
                yield from self._ended()
                yield None
                time.sleep(TICK_S)
        finally:
            self._signal(SIGTERM)  # only when whoever iterates has left early

    def _start(self) -> Iterator[Change]:
        while self._queue and len(self._running) < self.slots:
            if self._refusals.promise_no_better(self._queue):
                yield from self._leave()
                return
            task = self._queue.popleft()
            status = status_of(task.run_dir)
            if status == "finished":  # by somebody else, meanwhile
                yield Change("finished", task.name)
            elif status == "running":
                self._elsewhere.append(task)
                yield Change("waiting", task.name, "another process is training it")
            else:
                luck = self._luck.setdefault(task.name, _Luck(progress(task.run_dir).step))
                session = _newest_session(task.run_dir)
                self._running.append(_Running(task, self.backend.submit(task.job), session))
                kind: Kind = "restarted" if luck.ending else "started"
                yield Change(kind, task.name, luck.ending)

    def _leave(self) -> Iterator[Change]:
        """Start none of the others, unless one that is running yet begins after all."""
        self._refusals.begun |= bool(self._elsewhere) or any(map(_has_begun, self._running))
        if not self._running and not self._refusals.begun:
            n, runs = len(self._queue), "run is" if len(self._queue) == 1 else "runs are"
            told = f"{n} further {runs} not started: they would end like the last two"
            self._queue.clear()
            yield Change("leaving", detail=told)

    def _look_elsewhere(self) -> Iterator[Change]:
        """Queue again what a process of somebody else no longer trains, finished or not."""
        if not self._elsewhere or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        for task in list(self._elsewhere):
            status = status_of(task.run_dir)
            if status == "running":
                continue
            self._elsewhere.remove(task)
            if status == "failed":
                yield Change("failed", task.name, failure_of(task.run_dir))
            else:
                self._queue.appendleft(task)

    def _ended(self) -> Iterator[Change]:
        for running in list(self._running):
            code = self.backend.poll(running.handle)
            if code is not None:
                self._running.remove(running)
                yield from self._judge(running, code)

    def _judge(self, running: _Running, code: int) -> Iterator[Change]:
        """What became of a run whose process has ended."""
        task, status = running.task, status_of(running.task.run_dir)
        opened = _has_begun(running)
        self._refusals.begun |= opened
        if status == "finished":
            yield Change("finished", task.name)
        elif status == "running" and self.stop.name is None:
            self._elsewhere.append(task)
            yield Change("waiting", task.name, "another process is training it")
        elif status == "failed" and opened:
            yield Change("failed", task.name, failure_of(task.run_dir))
        elif self.stop.name is not None:
            yield Change("interrupted", task.name)
        elif code < 0 or code in (INTERRUPTED, ABORTED):
            yield from self._again(task, _ending(code))
        else:
            yield self._end_without_a_record(task, code, opened=opened)

    def _end_without_a_record(self, task: Task, code: int, *, opened: bool) -> Change:
        """What a process said last that wrote nothing of its end into a record."""
        last = self.backend.logs(task.job, lines=1)
        if not opened:
            self._refusals.add(task, (code, last))
        if why := refusal_in(last):
            return Change("refused" if code == REFUSED else "failed", task.name, why)
        told = f"exit code {code}: {last or 'it printed nothing'}; see {task.job.log}"
        return Change("failed", task.name, told)

    def _again(self, task: Task, ending: str) -> Iterator[Change]:
        luck, step = self._luck[task.name], progress(task.run_dir).step
        if step > luck.step:
            luck.step, luck.spent = step, 0
        luck.spent, luck.ending = luck.spent + 1, ending
        if luck.spent > RESTARTS:
            often = f"{luck.spent} times without getting beyond step {luck.step}"
            yield Change("failed", task.name, f"{ending} {often}; see {task.job.log}")
        else:
            self._queue.appendleft(task)

    def _stop(self, name: str) -> Iterator[Change]:
        """Ask once, kill when told to; what has not begun does not begin."""
        if not self._told:
            self._told = True
            self._queue.clear()
            self._elsewhere.clear()
            self._signal(SIGTERM)
            yield Change("stopping", detail=name)
        elif self.stop.insists:
            self._signal(SIGKILL)

    def _signal(self, number: Signals) -> None:
        for running in self._running:
            self.backend.signal(running.handle, number)


def status_of(run_dir: Path) -> Status | Literal["planned"]:
    """The run's state as its record tells it, or "planned" when it has none yet."""
    return RunRecord(run_dir).status if (run_dir / layout.RUN).exists() else "planned"


def _has_begun(running: _Running) -> bool:
    return _newest_session(running.task.run_dir) > running.session


def _newest_session(run_dir: Path) -> int:
    return max(layout.session_numbers(run_dir), default=0)


def _ending(code: int) -> str:
    if code >= 0:
        return f"stopped with exit code {code}"
    known = -code in set(Signals)
    return f"killed by {Signals(-code).name if known else f'signal {-code}'}"
