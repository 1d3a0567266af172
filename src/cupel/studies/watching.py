"""A study at one moment, and when somebody should look: progress, pace, ETA, alerts.

`overview(look)` is read from the records. Of all who watch a study one raises alerts (`Watcher`):
who holds the lock of `alerts.lock`; the others see what he has raised, and one of them takes over
when he leaves.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cupel.jobs.alerts import Alert, RunningRun, Snapshot, Thresholds, Watch, free_part
from cupel.jobs.eta import Eta, Pace, Throughput, eta, throughput, unknown_because
from cupel.jobs.hooks import Hooks
from cupel.jobs.workers import workers_of
from cupel.studies.manifest import Manifest
from cupel.studies.state import Look, RunState, counts

LOCK = "alerts.lock"
_WINDOW_S = 3600.0  # that throughput is counted over
_DONE = ("finished", "diverged")  # the others that ended say nothing of how long a run takes
_OPEN = ("planned", "interrupted", "crashed", "silent", "waiting", "starting")
_RUNNING = ("running", "starting")


@dataclass(frozen=True, slots=True)
class Overview:
    """All of a study's runs, how fast they go, and when they will be done.

    `eta` is None until enough is known, and `unknown` says then what is missing.
    """

    t: float
    states: Sequence[RunState]
    counts: dict[str, int]
    workers: Sequence[dict[str, object]]
    slots: int
    steps: int
    of_steps: int
    throughput: Throughput
    eta: Eta | None
    unknown: str = ""


def overview(look: Look, *, slots: int | None = None) -> Overview:
    """A study as it stands now; `slots` is how many runs go at a time, else what workers say.

    Without workers and running runs nothing is forecast: nobody knows when somebody will begin.
    """
    now, states = time.time(), look.states()
    workers = workers_of(look.manifest.folder)
    alive = sum(one["slots"] for one in workers if one["state"] == "alive")
    running = sum(state.status in _RUNNING for state in states)
    at_once = slots or max(alive, running)
    paces = [_pace(state) for state in states if state.status in (*_DONE, *_RUNNING, *_OPEN)]
    when = eta(paces, slots=at_once, now=now)
    return Overview(
        now,
        states,
        counts(states),
        workers,
        at_once,
        sum(state.step for state in states),
        sum(state.steps for state in states),
        throughput(paces, _WINDOW_S, now=now),
        when,
        "" if when is not None else unknown_because(paces, slots=at_once),
    )


def _pace(state: RunState) -> Pace:
    """A run as the forecast sees it."""
    kind: Literal["done", "running", "open"] = (
        "running" if state.status in _RUNNING else "open" if state.status in _OPEN else "done"
    )
    return Pace(
        state.run.run_id,
        f"{state.run.arm} {state.run.point}".strip(),
        kind,
        state.seconds,
        state.step,
        state.steps,
        state.signed or 0.0,
    )


def snapshot(manifest: Manifest, seen: Overview) -> Snapshot:
    """What alerts are raised by."""
    states = seen.states
    running = [
        RunningRun(
            state.run.run_id,
            state.step,
            state.stepped or state.signed or seen.t,
            state.signed or seen.t,
            state.loss,
        )
        for state in states
        if state.status in ("running", "silent")
    ]
    failed = sum(state.status in ("failed", "refused", "damaged") for state in states)
    diverged = sum(state.status == "diverged" for state in states)
    accepted = sum(state.status == "finished" for state in states)
    left = [state for state in states if state.status in _OPEN and state.status != "starting"]
    try:
        free = free_part(manifest.root)
    except OSError:
        free = None
    return Snapshot(
        seen.t,
        ended=accepted + failed + diverged,
        failed=failed,
        diverged=diverged,
        running=running,
        open=len(left),
        claimable=sum(state.status != "waiting" for state in left),
        free=max(0, seen.slots - len(running)),
        disk_free=free,
        eta=seen.eta,
    )


class Watcher:
    """Raises and clears a study's alerts, tells hooks of them, and remembers them on the disk.

    `leads` is False while another process does so; this one then sees what that one has raised.
    Where files cannot be locked each process leads on its own, and keeps nothing on the disk.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        webhook: str | None = None,
        command: str | None = None,
        on_problem: Callable[[str], object] = lambda problem: None,
    ) -> None:
        """`on_problem` hears, once each, what keeps alerts from being told or kept.

        Raises UsageError for hooks that cannot be used, and for a deadline that is no date.
        """
        settings = manifest.study.alerts
        self._manifest, self._on_problem = manifest, on_problem
        self._thresholds = Thresholds(**settings.model_dump(exclude={"webhook", "command"}))
        self._problems: set[str] = set()
        self._watch = self._loaded()
        self._hooks = Hooks(
            webhook=webhook or settings.webhook,
            command=command or settings.command,
            about={"study": manifest.name, "project": manifest.project},
            on_problem=on_problem,
        )
        self._lock = _Lock(manifest.folder / LOCK)

    @property
    def leads(self) -> bool:
        """Whether it is this process that raises alerts."""
        return self._lock.state != "theirs"

    @property
    def raised(self) -> list[Alert]:
        """What is raised now, as far as this process has seen."""
        return self._watch.raised

    def check(self, seen: Overview) -> list[Alert]:
        """What is to be told now: each alert once when it is raised, and once when it is over."""
        if not self.leads:
            if self._lock.take() == "theirs":
                return self._followed(seen.t)
            self._watch = self._loaded()  # what has been told already
        told = self._watch.check(snapshot(self._manifest, seen))
        if self._lock.state == "ours":
            self._complain(self._watch.save())
        for alert in told:
            self._hooks.deliver(alert)
        return told

    def close(self) -> None:
        """Wait a moment for hooks, and let another process lead."""
        self._hooks.close()
        self._lock.release()

    def _followed(self, t: float) -> list[Alert]:
        """What another process has raised and cleared since the last look."""
        before = {alert.key: alert for alert in self._watch.raised}
        self._watch = self._loaded()
        now = {alert.key: alert for alert in self._watch.raised}
        new = [
            a for key, a in now.items() if key not in before or before[key].severity != a.severity
        ]
        return [
            *new,
            *(replace(a, raised=False, t=t) for key, a in before.items() if key not in now),
        ]

    def _loaded(self) -> Watch:
        watch = Watch.load(self._manifest.folder, self._thresholds)
        self._complain(watch.problem)
        return watch

    def _complain(self, problem: str) -> None:
        if problem and problem not in self._problems:
            self._problems.add(problem)
            self._on_problem(problem)


_Held = Literal["ours", "theirs", "none"]


class _Lock:
    """A file that one process at a time holds: "ours", "theirs", or "none" on a disk (or in a
    folder) where nothing can be locked."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd = path, -1
        self.state: _Held = self.take()

    def take(self) -> _Held:
        """Try to get it; who has it now."""
        self.state = self._taken()
        return self.state

    def _taken(self) -> _Held:
        try:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except PermissionError:  # another user's, who leads perhaps
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return "none"
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            return "theirs" if isinstance(error, BlockingIOError) else "none"
        self._fd = fd
        return "ours"

    def release(self) -> None:
        """Let another process have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
