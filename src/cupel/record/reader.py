"""Reads what runs left on disk, and tells the truth about it: a killed run is `crashed`.

Nothing here changes a run; columns of large metrics are kept beside the projects, in `.cache`.
Damaged lines are skipped and counted, damaged files are named in `problem`; only the reading of a
damaged `results.json` or `config.json` raises. Listing reads two small files a run (about 0.2 ms);
`history` reads every line (about 2 µs each), unless few keys are asked of a large run.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cupel.errors import RecordError, ResumeError, UnknownName, UsageError
from cupel.record import checkpoints, compaction, console, files, layout
from cupel.record.claims import is_claim
from cupel.record.codec import decode_line
from cupel.record.curve import Range, checked_range, edges_of
from cupel.record.heartbeat import sign
from cupel.record.history import View, thinned
from cupel.record.lines import LineFile
from cupel.record.metrics import Metrics
from cupel.record.series import STEP, TIME
from cupel.record.summary import Summary, summarise

if TYPE_CHECKING:
    from cupel.record.curve import Buckets, Curve, Series
    from cupel.record.series import Logged

Status = Literal["running", "finished", "failed", "interrupted", "crashed", "silent", "damaged"]

_TAIL_BYTES = 64 * 1024
_ENDED: tuple[Status, ...] = ("finished", "failed", "interrupted")
_UNFINISHED: tuple[Status, ...] = ("crashed", "failed", "interrupted", "silent")
_SIGNS: dict[str, Status] = {"alive": "running", "dead": "crashed", "silent": "silent"}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What one session's folder says; `fields` is all of session.json.

    When that is damaged, `fields` holds what its events say of the same: `start_step`, `status`.
    """

    run_dir: Path
    number: int
    status: Status
    fields: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, run_dir: Path, number: int) -> SessionInfo:
        """Read one session. What calls itself running is believed only while its process lives."""
        folder = layout.session_dir(run_dir, number)
        try:
            fields = files.read_json(folder / layout.SESSION)
        except RecordError:
            fields = _told_by_events(folder)
        for status in _ENDED:
            if fields.get("status") == status:
                return cls(run_dir, number, status, fields)
        return cls(run_dir, number, _SIGNS[sign(folder / layout.heartbeat_name())], fields)

    @property
    def dir(self) -> Path:
        """The session's folder."""
        return layout.session_dir(self.run_dir, self.number)

    @property
    def is_over(self) -> bool:
        """Whether its process has ended for sure, so that it writes no more."""
        return self.status not in ("running", "silent")

    @property
    def pid(self) -> int | None:
        """The process of the session."""
        return self.fields.get("pid")

    @property
    def host(self) -> str | None:
        """The machine of the session."""
        return self.fields.get("host")

    @property
    def started(self) -> float | None:
        """When it began, in Unix seconds."""
        return self.fields.get("started")

    @property
    def ended(self) -> float | None:
        """When it ended; None while it runs, and for ever after a kill."""
        return self.fields.get("ended")

    @property
    def start_step(self) -> int | None:
        """The step after which this session's steps count; None when it never came to one."""
        step = self.fields.get("start_step")
        return step if isinstance(step, int) else None

    @property
    def environment(self) -> dict[str, Any]:
        """What env.json says. Raises RecordError."""
        return files.read_json(self.dir / layout.ENVIRONMENT)

    def alone(self) -> SessionInfo:
        """The same session, as if it had not gone on from another."""
        return replace(self, fields={**self.fields, "start_step": None})


def _told_by_events(session: Path) -> dict[str, Any]:
    """Where a session began and how it ended, as its events have it."""
    fields: dict[str, Any] = {}
    for path in layout.segments(session, "events"):
        for event in chain.from_iterable(LineFile(path, "_event", str).read()):
            if event["_event"] == "begin":
                fields["start_step"] = event.get("step")
            elif event["_event"] == "finish":
                fields["status"] = event.get("status")
    return fields


class RunRecord:
    """One run's record. Making one reads `run.json` only and never raises.

    `problem` is a line about what is damaged (then `status` is "damaged"), else None. `status`
    and `sessions` are read anew at each call, since a run may be alive.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.problem: str | None = None
        self.run: dict[str, Any] = {}
        self._damaged: dict[Path, int] = {}  # of events; those of metrics are in _metrics
        self.renew()

    def renew(self) -> None:
        """Read `run.json` again, for whoever keeps a record of a run that goes on. Never raises."""
        before = self.run
        try:
            self.run, self.problem = files.read_json(self.run_dir / layout.RUN), None
        except RecordError as error:
            self.run, self.problem = {}, str(error)
        if bool(before) != bool(self.run):
            self.forget()  # they were read without the place of the cache

    def forget(self) -> None:
        """Let go of the columns that were read; the next question reads or maps them."""
        self.__dict__.pop("_metrics", None)

    def let_go(self) -> None:
        """Let go of columns in memory that the cache has in files, too."""
        self._metrics.let_go()

    @property
    def run_id(self) -> str:
        """The run's id: the name of its folder."""
        return self.run_dir.name

    @property
    def identity(self) -> str | None:
        """The hash of what the configuration means."""
        return self.run.get("identity")

    @property
    def created(self) -> float:
        """When the run was begun, in Unix seconds; 0 when its record is damaged."""
        created = self.run.get("created")
        try:
            return float(created) if isinstance(created, int | float) else 0.0
        except OverflowError:  # some hundred digits: something else wrote it
            return 0.0

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, with what was added to it. Raises RecordError.

        An addition is an event first: of the last one before a kill config.json may know nothing.
        """
        found = files.read_json(self.run_dir / layout.CONFIG).get("config")
        if not isinstance(found, dict):
            raise RecordError(f"{self.run_dir / layout.CONFIG} holds no configuration")
        try:
            events = self.events()
        except OSError as error:
            raise RecordError(f"cannot read {error.filename}: {error.strerror}") from error
        for event in events:
            if event["_event"] == "config" and isinstance(added := event.get("set"), dict):
                found |= added
        return found

    @property
    def results(self) -> dict[str, Any] | None:
        """The accepted results; None before there are any. Raises RecordError."""
        path = self.run_dir / layout.RESULTS
        return files.read_json(path) if path.exists() else None

    @property
    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first."""
        numbers = layout.session_numbers(self.run_dir)
        return [SessionInfo.read(self.run_dir, number) for number in numbers]

    @property
    def status(self) -> Status:
        """The run's true state: `finished` when results were accepted, else its last session's."""
        if self.problem:
            return "damaged"
        if (self.run_dir / layout.RESULTS).exists():
            return "finished"
        numbers = layout.session_numbers(self.run_dir)
        return SessionInfo.read(self.run_dir, numbers[-1]).status if numbers else "crashed"

    @property
    def damaged_lines(self) -> int:
        """How many lines the calls so far could not read, each counted once."""
        return sum(self._damaged.values()) + sum(self._metrics.damaged.values())

    def history(
        self,
        keys: Collection[str] | None = None,
        *,
        x: str = STEP,
        range: Range | None = None,
        points: int | None = None,
        rank: int = 0,
        session: int | None = None,
    ) -> list[dict[str, Any]]:
        """The metrics, a row a step in order of step: `_step`, `_t` and what was logged.

        Where a session went on from step k, what older sessions logged after k is left out; with
        `session`, it is that session's rows, and no other's. Lines of one step are merged, the
        later one wins. With `keys`, rows that hold none are left out.
        With `x="time"`, or the name of a key, rows are in the order of that and hold it; `range`
        leaves those from its first to its last place (None: open), and `points` about so many:
        of every key the least and the greatest in each of equal stretches, and both ends.
        Raises UsageError for what is no range and no number of points, and for no such session.
        """
        view = View(_axis(x), checked_range(range), _checked_points(points))
        keys = [keys] if isinstance(keys, str) else keys
        return self._metrics.history(self._counted(session), keys, view, rank)

    def series(
        self,
        key: str,
        *,
        x: str = STEP,
        range: Range | None = None,
        points: int | None = None,
        rank: int = 0,
        session: int | None = None,
    ) -> Series:
        """The numbers of one key as arrays, in the order of x; parameters as those of `history`.

        `x="time"` is when the number itself was logged. About 5 ms for 1,000,000 points that are
        compacted, 1.2 s before. Integers beyond 2^53 are rounded, what is no number is left out.
        """
        points, range = _checked_points(points), checked_range(range)
        (curve,) = self._curves([key], _axis(x), rank, session)
        return thinned(curve.series(range), points)

    def buckets(
        self,
        keys: str | Collection[str],
        *,
        x: str = STEP,
        range: Range | None = None,
        points: int = 1000,
        rank: int = 0,
        session: int | None = None,
    ) -> dict[str, Buckets]:
        """What the numbers of some keys come to in `points` equal stretches of an axis.

        All keys share the stretches: those of `range`, or from the first to the last of all their
        points; without any, none. Exact, whatever the number of points (`Buckets` says how), and
        about 15 ms for 2,000 stretches of 10,000,000 points that are compacted.
        """
        size, range = _checked_points(points), checked_range(range)
        keys = [keys] if isinstance(keys, str) else list(keys)
        curves = self._curves(keys, _axis(x), rank, session)
        edges = edges_of(curves, range, size or 1)
        return {key: curve.buckets(edges, range) for key, curve in zip(keys, curves, strict=True)}

    def logged(self, keys: Collection[str] | None, sessions: Sequence[SessionInfo]) -> Logged:
        """The columns of rank 0 of some of its sessions, at least those of `keys` (None: all).

        For who asks several things of one moment: `sessions` are what the property gave.
        """
        return self._metrics.logged(sessions, 0, keys)

    def is_large(self, sessions: Sequence[SessionInfo]) -> bool:
        """Whether columns of the metrics of some of its sessions are worth their making."""
        return self._metrics.is_large(sessions, 0)

    @property
    def summary(self) -> dict[str, Any]:
        """One number a metric: the last, or what `define_metric` says; and what `set_summary` set.

        Read anew at each call: about 1 ms, and for a large run that did not end within one session
        the first time as long as it takes to compact it.
        """
        return self.summarised().values

    def summarised(self, sessions: Sequence[SessionInfo] | None = None) -> Summary:
        """The summary and the last step that was logged; `sessions` are what the property gave."""
        found = self.sessions if sessions is None else sessions
        return summarise(self._metrics, found, self.events())

    def events(self, *, rank: int = 0) -> list[dict[str, Any]]:
        """All events, oldest first: `_event`, `_t`, `_session` and the fields of each."""
        return self._lines("events", rank, "_event", str)

    def system(self, *, rank: int = 0) -> list[dict[str, Any]]:
        """What the process and its machine were doing, a row every few seconds: `_t`, `_session`
        and the numbers; empty unless that was asked for."""
        return self._lines("system", rank, "_t", int, float)

    def media(self, *, rank: int = 0) -> list[dict[str, Any]]:
        """The media that count, oldest first: key, step, kind, path (in the run's folder), …

        As with metrics, a session's own take the place of those after the step it went on from.
        """
        starts = [(s.number, s.start_step) for s in self.sessions if s.start_step is not None]

        def counts(event: dict[str, Any]) -> bool:
            later = [start for number, start in starts if number > event["_session"]]
            step = event.get("step")
            return not isinstance(step, int) or step <= min(later, default=step)

        return [e for e in self.events(rank=rank) if e["_event"] == "media" and counts(e)]

    def artifacts(self, *, rank: int = 0) -> list[dict[str, Any]]:
        """The artifacts, oldest first: name, version, kind, path (in the run's folder), …"""
        return [event for event in self.events(rank=rank) if event["_event"] == "artifact"]

    def console(
        self, *, last: int | None = None, rank: int = 0, session: int | None = None
    ) -> list[str]:
        """What was printed, a line each, of all sessions; with `last`, at most so many from the
        end, for which no more is read than they take."""
        lines: list[str] = []
        for info in reversed(self._sessions(session)):
            missing = None if last is None else last - len(lines)
            if missing == 0:
                break
            there = layout.consoles(info.dir).items()
            lines = (
                _last_lines([path for place, path in there if place[0] == rank], missing) + lines
            )
        return lines

    def checkpoints(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return checkpoints.list_steps(self.run_dir)

    @cached_property
    def _metrics(self) -> Metrics:
        return Metrics(compaction.cache_folder(self.run_dir, self.run))

    def _curves(self, keys: Sequence[str], x: str, rank: int, session: int | None) -> list[Curve]:
        logged = self._metrics.logged(self._counted(session), rank, {*keys, x} - {STEP, TIME})
        return [logged.curve(key, x) for key in keys]

    def _counted(self, session: int | None) -> list[SessionInfo]:
        """The sessions whose metrics are asked; of a single one all of them count."""
        found = self._sessions(session)
        return found if session is None else [found[0].alone()]

    def _sessions(self, session: int | None) -> list[SessionInfo]:
        found = self.sessions
        if session is None:
            return found
        wanted = [info for info in found if info.number == session]
        if not wanted:
            known = [str(info.number) for info in found]
            raise UnknownName(f"session of run {self.run_id}", str(session), known)
        return wanted

    def _lines(self, kind: str, rank: int, required: str, *kinds: type) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for session in self.sessions:
            for path in layout.segments(session.dir, kind, rank):
                file = LineFile(path, required, *kinds)
                for lines in file.read():
                    found += [{**line, "_session": session.number} for line in lines]
                self._damaged[path] = file.damaged + file.unfinished
        return found


def newest_lines(session: SessionInfo) -> Iterator[dict[str, Any]]:
    """The lines at the end of a session's metrics of rank 0, the last one first.

    At most 64 KB are read, whatever the length of the files (about 0.3 ms); damaged lines, and one
    that the reading cuts, are passed over.
    """
    left = _TAIL_BYTES
    for path in reversed(layout.segments(session.dir, "metrics")):
        try:
            with files.open_regular(path) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - left))
                *whole, _ = file.read().split(b"\n")  # what follows the last newline is unfinished
        except OSError:  # deleted just now
            return
        for line in reversed(whole):
            try:
                yield decode_line(line)
            except ValueError:
                continue
        left -= size
        if left <= 0:
            return


def list_runs(root: str | Path | None = None, *, project: str | None = None) -> list[RunRecord]:
    """All runs, newest first. A folder that holds nothing of a run is left out; a damaged run is
    listed, with its `problem`.
    """
    folders = layout.run_dirs(layout.record_root(root), project)
    found = [RunRecord(folder) for folder in folders]
    runs = [run for run in found if not run.problem or holds_part_of_a_run(run.run_dir)]
    return sorted(runs, key=lambda run: (run.created, run.run_id), reverse=True)


def find_unfinished(root: str | Path | None, project: str, identity: str) -> RunRecord | None:
    """The newest run of this identity that crashed, failed or was interrupted, if there is one."""
    for run in list_runs(root, project=project):
        if run.identity == identity and run.status in _UNFINISHED:
            return run
    return None


def find_to_resume(root: str | Path | None, project: str, identity: str) -> RunRecord | None:
    """What `resume="auto"` means: the newest unfinished run of this identity, if there is one.

    Raises ResumeError when one is running: a second one beside it would do its work twice.
    """
    for run in list_runs(root, project=project):
        if run.identity == identity and run.status == "running":
            raise ResumeError(
                f"run {run.run_id}, with the same settings, is running now; wait for it or stop "
                'it, or start another with --resume never (in a script: resume="never")'
            )
    return find_unfinished(root, project, identity)


def holds_part_of_a_run(folder: Path) -> bool:
    """Whether a folder that stands where a run stands holds anything of one.

    Sessions that were claimed, and never began, are nothing of a run yet.
    """
    if any((folder / part).exists() for part in (layout.RUN, layout.CONFIG)):
        return True
    numbers = layout.session_numbers(folder)
    if not numbers:
        return (folder / layout.SESSIONS).exists()
    return any(not is_claim(layout.session_dir(folder, number)) for number in numbers)


def _axis(x: str) -> str:
    return {"_step": STEP, "_t": TIME}.get(x, x)


def _checked_points(points: int | None) -> int | None:
    if points is not None and points < 1:
        raise UsageError(f"{points} points are none; give 1 or more")
    return points


def _last_lines(paths: Sequence[Path], most: int | None) -> list[str]:
    """The last lines of a text in several files, at most so many (None: all)."""
    text = b""
    for path in reversed(paths):
        try:
            with files.open_regular(path) as file:
                left = file.seek(0, os.SEEK_END)
                while left and (most is None or text.count(b"\n") <= most):
                    size = min(left, _TAIL_BYTES if most is not None else left)
                    left -= size
                    file.seek(left)
                    text = file.read(size) + text
        except OSError:  # deleted just now, as the oldest ones may be
            continue
    lines = console.lines(text)
    return lines if most is None else lines[-most:]
