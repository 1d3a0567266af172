"""Reads what runs left on disk, and tells the truth about it: a killed run is `crashed`.

Nothing here writes, caches or follows. Damaged lines are skipped and counted, damaged files are
named in `problem`; only the reading of a damaged `results.json` or `config.json` raises. Listing
reads two small files a run (about 0.2 ms); `history` parses every line (about 2 µs each).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError, ResumeError
from cupel.record import checkpoints, files, layout
from cupel.record.codec import decode_line
from cupel.record.heartbeat import is_alive

Status = Literal["running", "finished", "failed", "interrupted", "crashed", "damaged"]

_TAIL_BYTES = 64 * 1024
_ENDED: tuple[Status, ...] = ("finished", "failed", "interrupted")
_UNFINISHED: tuple[Status, ...] = ("crashed", "failed", "interrupted")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What one session's folder says; `fields` is all of session.json, empty when it is damaged."""

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
            fields = {}
        for status in _ENDED:
            if fields.get("status") == status:
                return cls(run_dir, number, status, fields)
        alive = is_alive(folder / layout.heartbeat_name())
        return cls(run_dir, number, "running" if alive else "crashed", fields)

    @property
    def dir(self) -> Path:
        """The session's folder."""
        return layout.session_dir(self.run_dir, self.number)

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


class RunRecord:
    """One run's record. Making one reads `run.json` only and never raises.

    `problem` is a line about what is damaged (then `status` is "damaged"), else None. `status`
    and `sessions` are read anew at each call, since a run may be alive.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.problem: str | None = None
        self.run: dict[str, Any] = {}
        self._damaged: dict[Path, int] = {}
        try:
            self.run = files.read_json(self.run_dir / layout.RUN)
        except RecordError as error:
            self.problem = str(error)

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
        return float(created) if isinstance(created, int | float) else 0.0

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises RecordError."""
        found = files.read_json(self.run_dir / layout.CONFIG).get("config")
        if not isinstance(found, dict):
            raise RecordError(f"{self.run_dir / layout.CONFIG} holds no configuration")
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
        """How many lines the calls of `history` and `events` so far could not read."""
        return sum(self._damaged.values())

    def history(
        self, keys: Collection[str] | None = None, *, rank: int = 0
    ) -> list[dict[str, Any]]:
        """The metrics, a row a step in order of step: `_step`, `_t` and what was logged.

        Where a session went on from step k, what older sessions logged after k is left out. Lines
        of one step are merged, the later one wins. With `keys`, rows that hold none are left out.
        """
        rows: dict[int, dict[str, Any]] = {}
        for session in self.sessions:
            if session.start_step is not None:
                rows = {step: row for step, row in rows.items() if step <= session.start_step}
            for line in self._lines(session, f"metrics.r{rank}.*.jsonl", "_step", int):
                rows.setdefault(line["_step"], {}).update(line)
        ordered = [rows[step] for step in sorted(rows)]
        if keys is None:
            return ordered
        wanted = {"_step", "_t", *keys}
        return [
            {key: value for key, value in row.items() if key in wanted}
            for row in ordered
            if not row.keys().isdisjoint(keys)
        ]

    def events(self, *, rank: int = 0) -> list[dict[str, Any]]:
        """All events, oldest first: `_event`, `_t`, `_session` and the fields of each."""
        return [
            {**line, "_session": session.number}
            for session in self.sessions
            for line in self._lines(session, f"events.r{rank}.*.jsonl", "_event", str)
        ]

    def checkpoints(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return checkpoints.list_steps(self.run_dir)

    def _lines(
        self, session: SessionInfo, pattern: str, required: str, kind: type
    ) -> Iterator[dict[str, Any]]:
        for path in sorted(session.dir.glob(pattern)):
            *whole, tail = path.read_bytes().split(b"\n")
            self._damaged[path] = int(bool(tail))  # what follows the last newline was cut off
            for line in filter(None, whole):
                try:
                    fields = decode_line(line)
                except ValueError:
                    fields = {}
                if isinstance(fields.get(required), kind):
                    yield fields
                else:
                    self._damaged[path] += 1


def newest_lines(session: SessionInfo) -> Iterator[dict[str, Any]]:
    """The lines at the end of a session's newest metrics of rank 0, the last one first.

    At most 64 KB of the file are read, whatever its length (about 0.3 ms); damaged lines, and one
    that the reading cuts, are passed over.
    """
    try:
        newest = max(session.dir.glob("metrics.r0.*.jsonl"))
        with newest.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            *whole, _ = file.read().split(b"\n")  # what follows the last newline is unfinished
    except (OSError, ValueError):  # none yet, or deleted just now
        return
    for line in reversed(whole):
        try:
            yield decode_line(line)
        except ValueError:
            continue


def list_runs(root: str | Path | None = None, *, project: str | None = None) -> list[RunRecord]:
    """All runs, newest first. A folder that holds nothing of a run is left out; a damaged run is
    listed, with its `problem`.
    """
    folders = layout.run_dirs(layout.record_root(root), project)
    found = [RunRecord(folder) for folder in folders]
    runs = [run for run in found if not run.problem or _holds_part_of_a_run(run.run_dir)]
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


def _holds_part_of_a_run(folder: Path) -> bool:
    parts = (layout.RUN, layout.CONFIG, layout.SESSIONS)
    return any((folder / part).exists() for part in parts)
