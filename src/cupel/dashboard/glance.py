"""Studies as the server sees them: `desk_of(store)` has a `Glance` at each, which is cheap to ask.

A look costs nothing for what has settled, a look at a list for what has not begun, and three stats
for a run that waits; only runs that go, and those whose folders have changed, are read. Forecast,
alerts and workers are at most five seconds old. Alerts are those that somebody who watches the
study has raised, and what a look from here finds besides; nobody is told of them from here, and
nothing is kept.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from cupel.dashboard.store import Store
from cupel.errors import RecordError, UnknownName, UsageError
from cupel.jobs.alerts import STATE as ALERTS
from cupel.jobs.alerts import Alert, Thresholds, Watch
from cupel.jobs.control import CONTROL, Word
from cupel.jobs.queue import told_or_seen
from cupel.names import refusal
from cupel.record import layout
from cupel.studies import stored
from cupel.studies.manifest import Manifest, PlannedRun, load_manifest, study_dir, study_dirs
from cupel.studies.state import Look, RunState, counts
from cupel.studies.tasks import queue_of
from cupel.studies.watching import Overview, overview, snapshot

LOOK_S = 0.9  # how old a look may be; pages are told once a second
FORECAST_S = 5.0
AGAIN_S = 10.0  # after so long a run that waits is read again, whatever its folders say
MOST_AGAIN = 20  # at one look
ACTIVE = ("running", "starting", "silent")
# What nobody will train any more unless somebody asks for it.
OVER = ("finished", "failed", "diverged", "refused", "cancelled", "damaged")
_SETTLED = ("finished", "failed", "diverged", "refused", "cancelled")
_FAILED = ("failed", "refused", "diverged", "damaged", "waiting")
# One letter a run: the states of 10,000 runs are 10 kB.
MARKS: Mapping[str, str] = {
    "planned": "p", "starting": "s", "running": "r", "silent": "q", "interrupted": "i",
    "crashed": "c", "waiting": "w", "held": "h", "cancelled": "x", "finished": "f",
    "failed": "e", "diverged": "d", "refused": "u", "damaged": "m",
}  # fmt: skip

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A study at one moment; `forecast` and `alerts` may be five seconds older."""

    key: str
    manifest: Manifest
    t: float
    states: Sequence[RunState]
    counts: Mapping[str, int]
    marks: str
    forecast: Overview
    alerts: Sequence[Alert]

    @property
    def over(self) -> bool:
        """Whether no run will be trained any more, or is held."""
        return not self.counts.keys() - {*OVER, "held"}

    @property
    def open(self) -> int:
        """How many runs are still to be done, those that are held among them."""
        return sum(count for state, count in self.counts.items() if state not in OVER)

    @property
    def ended(self) -> str:
        """A name of which runs have ended and how: another one when a comparison may be."""
        settled = {MARKS[state] for state in OVER}
        text = "".join(mark if mark in settled else "." for mark in self.marks)
        return blake2b(f"{self.manifest.hash} {text}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class _Kept:
    state: RunState
    stamp: Stamp  # empty where there is no folder, and where it is to be read again
    number: int  # of its newest session
    at: float


@dataclass(slots=True)
class Glance:
    """One study, asked again and again by any thread."""

    root: Path
    key: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    memory: dict[str, Any] = field(default_factory=dict)  # of who computes from it
    _manifest: Manifest | None = None
    _parts: Stamp = ()
    _look: Look | None = None
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _seen: Seen | None = None
    _listed: dict[str, int] = field(default_factory=dict)
    _listed_at: tuple[int, float] = (0, 0.0)
    _control: Stamp = ()
    _checked: float = 0.0
    _forecast: Overview | None = None
    _forecast_at: float = 0.0
    _watch: Watch | None = None
    _alerts: Stamp = ()
    _failures: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the study lies."""
        return study_dir(self.root, *self.key.split("/", 1))

    def seen(self, *, no_older: float = LOOK_S) -> Seen:
        """How the study stands, at most so many seconds ago. Raises RecordError."""
        with self.lock:
            now = time.monotonic()
            manifest = self._read()
            seen = self._seen
            if seen is None or time.time() - seen.t > no_older or seen.t > time.time():
                seen = self._looked(manifest, now)
            return seen

    def failure_of(self, state: RunState) -> str:
        """The class that a run's last attempt failed of; "damaged" where its record is."""
        if state.status == "damaged":
            return "damaged"
        sessions, kind = self._failures.get(state.run.run_id, (-1, ""))
        if sessions != state.sessions:
            kind = _class_of(self.root / self.key.split("/")[0] / state.run.run_id, state)
            self._failures[state.run.run_id] = state.sessions, kind
        return kind

    def failures(self, seen: Seen) -> Iterator[tuple[RunState, str]]:
        """The runs that failed, or wait for another try, each with its class."""
        with self.lock:
            for state in seen.states:
                if state.status in _FAILED:
                    yield state, self.failure_of(state)

    def quarantined(self) -> dict[tuple[str, str], str]:
        """Where no run may begin, and why."""
        with self.lock:
            return dict(self._look.queue.control.quarantined) if self._look else {}

    def word(self, run_id: str) -> Word:
        """What was last asked about a run."""
        with self.lock:
            return self._look.queue.control.word(run_id) if self._look else Word()

    def forget(self) -> None:
        """Look anew when next asked: something was changed from here."""
        with self.lock:
            self._seen = None

    def close(self) -> None:
        """Take away what only looking needed."""
        with self.lock:
            if self._look is not None:
                self._look.close()
            self._look = None

    # ---- the plan ------------------------------------------------------------------------------

    def _read(self) -> Manifest:
        now = _parts_of(self.folder, self._manifest)
        if self._manifest is None or now != self._parts:
            self.close()
            self._manifest = self._seen = self._forecast = self._watch = None
            self._kept.clear()
            self.memory.clear()
            try:
                self._manifest = load_manifest(self.folder)
            except RecordError as error:  # pages are not told where the root lies
                raise RecordError(str(error).replace(f"{self.root}/", "")) from error
            self._parts = _parts_of(self.folder, self._manifest)
        return self._manifest

    # ---- the runs ------------------------------------------------------------------------------

    def _looked(self, manifest: Manifest, now: float) -> Seen:
        states = self._states(manifest, now)
        found = counts(states)
        before = self._seen
        if (
            self._forecast is None
            or now - self._forecast_at > FORECAST_S
            or (before and _is_over(before.counts) != _is_over(found))
        ):
            self._forecast_at = now
            self._forecast = overview(cast(Look, _Told(manifest, states)))
            self._raise(manifest, self._forecast)
        alerts = self._watch.raised if self._watch else []
        marks = "".join([MARKS.get(state.status, "?") for state in states])
        self._seen = Seen(
            self.key, manifest, time.time(), states, found, marks, self._forecast, alerts
        )
        return self._seen

    def _states(self, manifest: Manifest, now: float) -> list[RunState]:
        project = manifest.root / manifest.project
        there = self._listing(project)
        control = _stamp(manifest.folder / CONTROL)
        asked, self._control = control != self._control, control
        thorough = now - self._checked > AGAIN_S
        self._checked = now if thorough else self._checked
        stale: list[PlannedRun] = []
        waiting: list[tuple[float, PlannedRun]] = []
        for run in manifest.runs:
            kept = self._kept.get(run.run_id)
            if kept is None or kept.state.status in ACTIVE:
                stale.append(run)
                continue
            status, begun = kept.state.status, run.run_id in there
            settled = status in _SETTLED
            if (asked and status != "finished") or begun != bool(kept.stamp):
                stale.append(run)
            elif begun and (not settled or thorough):
                if _stamp_of(project / run.run_id, kept.number) != kept.stamp:
                    stale.append(run)
                elif not settled and now - kept.at > AGAIN_S:
                    waiting.append((kept.at, run))
        waiting.sort(key=lambda one: one[0])
        stale += [run for _, run in waiting[:MOST_AGAIN]]
        self._read_again(manifest, stale, there, now)
        return [self._kept[run.run_id].state for run in manifest.runs]

    def _read_again(
        self, manifest: Manifest, runs: list[PlannedRun], there: Mapping[str, int], now: float
    ) -> None:
        project = manifest.root / manifest.project
        known = [self._kept[run.run_id].state.status for run in runs if run.run_id in self._kept]
        if self._look is None or any(status in _SETTLED for status in known):
            self.close()  # what had settled has not, or is gone: the index says what still holds
            worker = f"dashboard-{os.getpid()}"  # it claims nothing
            self._look = Look(manifest, queue_of(manifest, [], worker=worker))
        # Taken before reading: what changes meanwhile is read again next time.
        before = [self._stamped(project, run, begun=run.run_id in there) for run in runs]
        states = self._look.states(runs)
        for run, (number, stamp), state in zip(runs, before, states, strict=True):
            if stamp and number != _last(project / run.run_id):
                stamp = ()  # a session has begun since: it is read again
            self._kept[run.run_id] = _Kept(state, stamp, number, now)

    def _stamped(self, project: Path, run: PlannedRun, *, begun: bool) -> tuple[int, Stamp]:
        if not begun:
            return 0, ()
        kept, folder = self._kept.get(run.run_id), project / run.run_id
        number = kept.number if kept is not None and kept.stamp else _last(folder)
        return number, _stamp_of(folder, number)

    def _listing(self, project: Path) -> dict[str, int]:
        """The folders of the project, listed when it has changed."""
        try:
            changed = project.stat().st_mtime_ns
            stamp, at = self._listed_at
            if changed != stamp or time.time() - changed / 1e9 < 1 or time.time() - at > AGAIN_S:
                with os.scandir(project) as entries:
                    self._listed = {entry.name: entry.inode() for entry in entries}
                self._listed_at = changed, time.time()
        except OSError:
            self._listed = {}
        return self._listed

    # ---- alerts --------------------------------------------------------------------------------

    def _raise(self, manifest: Manifest, found: Overview) -> None:
        """What whoever watches has raised, and what is to be seen from here."""
        kept = _stamp(manifest.folder / ALERTS)
        if self._watch is None or kept != self._alerts:
            settings = manifest.study.alerts.model_dump(exclude={"webhook", "command"})
            self._watch = Watch.load(manifest.folder, Thresholds(**settings))
            self._alerts = kept
        self._watch.check(snapshot(manifest, found))


@dataclass(frozen=True, slots=True)
class _Told:
    """States that were just read, for what asks a `Look`."""

    manifest: Manifest
    told: Sequence[RunState]

    def states(self) -> Sequence[RunState]:
        return self.told


def _is_over(found: Mapping[str, int]) -> bool:
    return not found.keys() - {*OVER, "held"}


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _stamp_of(run_dir: Path, number: int) -> Stamp:
    """What is another when a session began or ended, or results were accepted."""
    session = layout.session_dir(run_dir, number)
    folders = (run_dir, session.parent, session)
    return tuple(_changed(folder) for folder in folders)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _last(run_dir: Path) -> int:
    return max(layout.session_numbers(run_dir), default=0)


def _parts_of(folder: Path, manifest: Manifest | None) -> Stamp:
    """What is another when a study was widened, or made anew."""
    count = 1 if manifest is None else manifest.parts
    found: Stamp = ()
    for part in range(1, count + 2):
        found += (0, *_stamp(stored.part_path(folder, part)))
    return found


def _class_of(run_dir: Path, state: RunState) -> str:
    if state.status == "diverged":
        return "diverged"
    number = _last(run_dir)
    return told_or_seen(run_dir, number).outcome if number else "unknown"


# ---- all of them ---------------------------------------------------------------------------------


class Desk:
    """The studies of one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._glances: dict[str, Glance] = {}
        self._keys: tuple[float, list[str]] = (-LOOK_S, [])
        self._lock = threading.Lock()

    def all(self) -> list[str]:
        """The keys of all studies, "<project>/<study>", at most a second old."""
        with self._lock:
            at, keys = self._keys
            if time.monotonic() - at > LOOK_S:
                found = study_dirs(self.root)
                keys = sorted(f"{folder.parents[1].name}/{folder.name}" for folder in found)
                self._keys = time.monotonic(), keys
            return keys

    def glance(self, key: str) -> Glance:
        """A study by its key. Raises UnknownName."""
        project, _, name = key.partition("/")
        # A key never leads out of the root: both parts are names of folders of ours.
        if refusal(project) or refusal(name) or not self._is_study(project, name):
            raise UnknownName("study", key[:200], self.all())
        with self._lock:
            return self._glances.setdefault(key, Glance(self.root, key))

    def find(self, name: str, project: str | None = None) -> Glance:
        """A study by its name. Raises UnknownName, and UsageError where several are meant."""
        if project is not None:
            return self.glance(f"{project}/{name}")
        keys = [key for key in self.all() if key.partition("/")[2] == name]
        if len(keys) > 1:
            listed = ", ".join(key.partition("/")[0] for key in keys)
            raise UsageError(
                f"study {name} is in several projects ({listed}); add ?project=… to the address"
            )
        if not keys:
            raise UnknownName("study", name[:200], [key.partition("/")[2] for key in self.all()])
        return self.glance(keys[0])

    def close(self) -> None:
        """Take away what only looking needed."""
        for glance in list(self._glances.values()):
            glance.close()

    def _is_study(self, project: str, name: str) -> bool:
        try:
            return stored.part_path(study_dir(self.root, project, name), 1).is_file()
        except (OSError, ValueError):
            return False


_desks: weakref.WeakKeyDictionary[Store, Desk] = weakref.WeakKeyDictionary()
_desks_lock = threading.Lock()


def desk_of(store: Store) -> Desk:
    """The studies of a store; what only looking needed is taken away together with it."""
    with _desks_lock:
        if (desk := _desks.get(store)) is None:
            desk = _desks[store] = Desk(store.root)
            weakref.finalize(store, desk.close)
        return desk
