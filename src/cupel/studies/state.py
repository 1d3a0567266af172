"""How every run of a study stands, from the records alone: `study_state(manifest)`.

Cheap enough to be drawn twice a second: a run that has begun costs a few small files and the end of
its newest metrics (about half a millisecond), one that has not a look at a list.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from cupel.errors import RecordError, UnknownName, did_you_mean
from cupel.jobs.index import FINAL, Settled, SettledIndex
from cupel.jobs.progress import progress
from cupel.jobs.queue import Queue, Standing, Task
from cupel.record import layout
from cupel.record.reader import RunRecord, SessionInfo, Status
from cupel.studies.manifest import Manifest, PlannedRun
from cupel.studies.tasks import queue_of, tasks_of

LOGS = "logs"

State = (
    Status | Literal["planned", "refused", "waiting", "held", "cancelled", "diverged", "starting"]
)


class RunState(msgspec.Struct, frozen=True):  # a dataclass takes ten times as long to make
    """One run of a study. `finished` means that its results were accepted, `refused` that it could
    not begin, `failed` and `diverged` that it is not tried again, `waiting` that it will be.

    `loss` is the last one logged, `val_loss` that of the last evaluation; `reason` says in a line
    why the last attempt ended or why it is held, or what is damaged; `seconds` are those of all
    sessions.
    """

    run: PlannedRun
    status: State
    step: int
    steps: int
    loss: float | None = None
    val_loss: float | None = None
    sessions: int = 0
    seconds: float = 0.0
    reason: str | None = None
    attempts: int = 0
    stepped: float | None = None  # when it last logged a step, in Unix seconds
    signed: float | None = None  # when its newest session last gave a sign of life


_SETTLED = ("finished", "failed", "diverged", "refused", "cancelled")
_KEEP_S = 5.0  # between two writes of what has settled
_TOLD = [name for name in RunState.__struct_fields__ if name != "run"]  # kept in the index


class Look:
    """Looks at a study again and again; what has settled is looked at once, and kept in an index
    (`cupel.jobs.index`) for the next one who looks."""

    def __init__(self, manifest: Manifest, queue: Queue | None = None) -> None:
        self.manifest = manifest
        # It claims nothing, and of 100,000 tasks only those are made that have begun.
        self.queue = queue or queue_of(manifest, [], worker=f"look-{os.getpid()}")
        self._tasks: dict[str, Task] = {}
        self._known: dict[str, RunState] = {}
        self._steps_of: dict[int, int] = {}  # by the cell
        self._version = self.queue.control.version
        self._index = SettledIndex.open(manifest.root, manifest.folder)
        self._loaded = False
        self._new: dict[str, RunState] = {}  # settled, and not in the index yet
        self._kept = 0.0

    def states(self, runs: Sequence[PlannedRun] | None = None) -> list[RunState]:
        """The state of every planned run, or of some, in their order."""
        self.queue.refresh()
        if self.queue.control.version != self._version:  # a retry may have undone a failure
            self._version = self.queue.control.version
            self._known = {n: s for n, s in self._known.items() if s.status == "finished"}
            self._new = {n: s for n, s in self._new.items() if s.status == "finished"}
        there = _folders(self.manifest)
        self._load(there)
        chosen = self.manifest.runs if runs is None else runs
        states = [self._state(run, begun=run.run_id in there) for run in chosen]
        self._keep(there)
        return states

    def state(self, run: PlannedRun) -> RunState:
        """The state of one run."""
        return self._state(run, begun=True)

    def _state(self, run: PlannedRun, *, begun: bool) -> RunState:
        if (known := self._known.get(run.run_id)) is not None:
            return known
        word = self.queue.control.word(run.run_id)
        if not begun and not (word.held or word.cancelled):
            return RunState(run, "planned", 0, self._steps(run))
        if (task := self._tasks.get(run.run_id)) is None:
            (task,) = tasks_of(self.manifest, [run])
            self._tasks[run.run_id] = task
        found = self._looked(run, task, self.queue.standing(task))
        if found.status in _SETTLED:
            self._known[run.run_id] = found
        return found

    def _steps(self, run: PlannedRun) -> int:
        if (steps := self._steps_of.get(run.cell)) is None:
            steps = self._steps_of[run.cell] = self.manifest.config_of(run)["train"]["steps"]
        return steps

    # ---- what was seen before -------------------------------------------------------------------

    def _load(self, there: Mapping[str, int]) -> None:
        """Take from the index what still holds; once."""
        if self._loaded or self._index is None:
            return
        self._loaded = True
        project = self.manifest.root / self.manifest.project
        for row in self._index.load():
            run_dir, inode = project / row.run, there.get(row.run)
            if row.run in self._known or not row.holds(inode, run_dir, self._version):
                continue
            with contextlib.suppress(UnknownName, ValueError, TypeError):  # of another version
                told = msgspec.msgpack.decode(row.told, type=dict[str, Any])
                self._known[row.run] = RunState(self.manifest.run(row.run), **told)

    def _keep(self, there: Mapping[str, int], *, now: bool = False) -> None:
        """Put what has settled since into the index, every few seconds."""
        if self._index is None or not self._new:
            return
        if not now and time.monotonic() < self._kept + _KEEP_S:
            return
        self._kept = time.monotonic()
        rows = [
            Settled(
                name,
                FINAL if state.status == "finished" else state.status,
                there[name],
                state.sessions,
                self._version,
                msgspec.msgpack.encode({name: getattr(state, name) for name in _TOLD}),
            )
            for name, state in self._new.items()
            if name in there
        ]
        self._new.clear()
        self._index.add(rows)

    def _looked(self, run: PlannedRun, task: Task, standing: Standing) -> RunState:
        run_dir, steps = task.run_dir, self._steps(run)
        status = _status(standing, run_dir)
        if not (run_dir / layout.RUN).exists():
            return RunState(
                run,
                status,
                0,
                steps,
                sessions=standing.session,
                reason=standing.reason or None,
                attempts=len(standing.attempts),
            )
        record, now = RunRecord(run_dir), progress(run_dir)
        sessions = record.sessions
        step, val_loss, reason = now.step, now.val_loss, standing.reason or None
        if status == "finished":
            try:
                results = record.results or {}
                step, val_loss = results["step"], results["final"].get("val_loss", val_loss)
            except (RecordError, KeyError, AttributeError) as error:
                status, reason = "damaged", str(error)
        elif record.problem:
            status, reason = "damaged", record.problem
        found = RunState(
            run,
            status,
            step,
            steps,
            now.loss,
            val_loss,
            len(sessions),
            sum(_seconds(session) for session in sessions),
            reason,
            len(standing.attempts),
            now.time,
            _last_sign(sessions[-1]) if sessions else None,
        )
        if status in _SETTLED and sessions and sessions[-1].is_over:
            self._new[run.run_id] = found  # one that still closes its files runs on for a moment
        return found

    def close(self) -> None:
        """Take away what only looking needed."""
        if self._new:
            self._keep(_folders(self.manifest), now=True)
        self.queue.close()


def study_state(manifest: Manifest) -> list[RunState]:
    """The state of every planned run, in the order of the plan."""
    look = Look(manifest)
    try:
        return look.states()
    finally:
        look.close()


def run_state(manifest: Manifest, run: PlannedRun) -> RunState:
    """The state of one run."""
    look = Look(manifest, queue_of(manifest, [run], worker=f"look-{os.getpid()}"))
    try:
        return look.state(run)
    finally:
        look.close()


def _status(standing: Standing, run_dir: Path) -> State:
    """What a run is called, by how it stands in the queue and, while open, by its record."""
    last = standing.attempts[-1] if standing.attempts else None
    match standing.state:
        case "accepted":
            return "finished"
        case "failed" if last is not None and last.outcome == "configuration" and not last.begun:
            return "refused"
        case "running" if not (run_dir / layout.RUN).exists():
            return "starting"
        case "queued" if not (run_dir / layout.RUN).exists():
            return "planned"
        case "queued":
            found = RunRecord(run_dir).status
            if found == "failed":  # for good only where the queue says so: its next try is due
                return "waiting"
            return "crashed" if found == "running" else found  # its lease is over
        case "running" | "held" | "waiting" | "cancelled" | "diverged" | "failed":
            return standing.state


def _folders(manifest: Manifest) -> dict[str, int]:
    """The folders of all runs of the project, each with its inode: one listing, whatever their
    number."""
    try:
        with os.scandir(manifest.root / manifest.project) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def counts(states: Iterable[RunState]) -> dict[str, int]:
    """How many runs stand how; only what there is."""
    found: dict[str, int] = {}
    for state in states:
        found[state.status] = found.get(state.status, 0) + 1
    return found


def unknown_metric(manifest: Manifest) -> str | None:
    """What is wrong when runs are accepted and none of them has the study's primary metric."""
    metric, known = manifest.study.primary.metric, set[str]()
    accepted = False
    for run in manifest.runs:
        if (found := metrics_of(manifest, run)) is not None:
            if metric in found:
                return None
            known, accepted = known | found, True
    if not accepted:
        return None
    return (
        f"study.primary.metric: '{metric}' is in no results{did_you_mean(metric, known)} "
        f"(there are: {', '.join(sorted(known)) or 'none'}); delete {manifest.folder} and type "
        "cupel study run RECIPE study.primary.metric=NAME; accepted runs are not trained again"
    )


def metrics_of(manifest: Manifest, run: PlannedRun) -> set[str] | None:
    """What an accepted run could be decided by, or None of a run that is not accepted.

    The last value must be in the results; the best one is looked for in all that was logged.
    """
    primary, record = manifest.study.primary, RunRecord(manifest.run_dir(run))
    try:
        final = set(results["final"]) if (results := record.results) is not None else None
    except (RecordError, KeyError, TypeError):
        return None
    if final is None or primary.metric in final or primary.statistic == "last":
        return final
    return final | ({primary.metric} if record.history([primary.metric]) else set())


def log_of(manifest: Manifest, run: PlannedRun) -> Path:
    """Where what a run's processes print is kept."""
    return manifest.folder / LOGS / f"{run.run_id}.log"


def refusal_of(manifest: Manifest, run: PlannedRun) -> str | None:
    """Why a run that has not begun could not; None when nothing was refused."""
    state = run_state(manifest, run)
    return state.reason if state.status == "refused" else None


def _seconds(session: SessionInfo) -> float:
    """How long a session ran; of one that was killed, until its last sign of life."""
    if session.started is None:
        return 0.0
    end = session.ended
    if end is None:
        end = time.time() if session.status == "running" else _last_sign(session)
    return max(0.0, end - session.started)


def _last_sign(session: SessionInfo) -> float:
    names = (layout.heartbeat_name(), layout.SESSION)
    files = [*(session.dir / name for name in names), *layout.segments(session.dir, "metrics")[-1:]]
    return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
