"""What people (and the failure policy) ask of a study's runs: lines appended to `control.jsonl`.

A line is one write, so any number of people and workers may append at once, on any host; on NFS,
which does not append atomically, one of two lines of the same instant may be lost. The last word on
a run counts. Nothing is ever rewritten: the file tells who held, boosted, cancelled or retried
what, when and why. A damaged line is skipped and counted.
"""

from __future__ import annotations

import getpass
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError
from cupel.record import codec, layout

CONTROL = "control.jsonl"
SCHEMA = 1
QUARANTINE_S = 3600.0

Do = Literal["hold", "release", "boost", "cancel", "retry", "quarantine"]


@dataclass(frozen=True, slots=True)
class Word:
    """What was last asked about one run, as far as it matters."""

    held: bool = False
    by_breaker: bool = False  # held because others failed alike, and not by a person
    why: str = ""
    priority: int | None = None
    cancelled: bool = False
    retried: float = 0.0  # attempts that ended before are forgiven
    forgiven: int = 0  # and, where it is told, sessions up to this number, whatever the clocks say


@dataclass(slots=True)
class Control:
    """All of a study's lines, folded; `refresh` reads what was added since.

    Lines about all runs (`runs: null`) are `everyone`'s; those about one run come on top of them.
    """

    path: Path
    everyone: Word = Word()
    runs: dict[str, Word] = field(default_factory=dict)
    # Since when, and why, no run may begin at (host, device).
    quarantines: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    released: float = 0.0  # when everything was released last: older failures hold it no more
    damaged: int = 0
    version: int = 0  # grows with every line
    _offset: int = 0

    @classmethod
    def of(cls, study: Path) -> Control:
        """The control of the study in a folder, read."""
        control = cls(study / CONTROL)
        control.refresh()
        return control

    def word(self, run: str) -> Word:
        """What counts for a run."""
        return self.runs.get(run, self.everyone)

    def refresh(self) -> bool:
        """Read the lines that were added; whether there were any. A file that is not there has
        none, and one that cannot be read is asked again next time."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # another file: a copy, an edited one
                    self._begin_anew()
                file.seek(self._offset)
                added = file.read()
        except OSError:
            return False
        whole, newline, _ = added.rpartition(b"\n")
        if not newline:
            return False  # a line that is being written
        self._offset += len(whole) + 1
        for line in whole.split(b"\n"):
            self._take(line)
        return True

    def _begin_anew(self) -> None:
        self.everyone, self.runs, self.quarantines = Word(), {}, {}
        self.released, self.damaged, self._offset = 0.0, 0, 0
        self.version += 1

    def _take(self, line: bytes) -> None:
        if not line.strip():  # somebody took a line that was being written for a torn one
            return
        self.version += 1
        try:
            fields = codec.decode_line(line)
            do, when, runs = fields["do"], float(fields["t"]), fields.get("runs")
            if not math.isfinite(when) or not isinstance(runs, list | None):
                raise ValueError(line)
            names = None if runs is None else [str(run) for run in runs]
        except (ValueError, KeyError, TypeError):
            self.damaged += bool(line.strip())
            return
        if do == "quarantine":
            place = (str(fields.get("host", "")), str(fields.get("device", "")))
            self.quarantines[place] = (when, str(fields.get("why") or "quarantined"))
        elif do == "release" and fields.get("host"):
            host, device = str(fields["host"]), fields.get("device")
            for place in list(self.quarantines):
                if place[0] == host and device in (None, "", place[1]):
                    del self.quarantines[place]
        elif names is None:
            self.everyone = _said(self.everyone, do, when, fields)
            self.runs = {run: _said(word, do, when, fields) for run, word in self.runs.items()}
            self.released = when if do in ("release", "retry") else self.released
        else:
            for run in names:
                self.runs[run] = _said(self.word(run), do, when, fields, run)

    @property
    def quarantined(self) -> dict[tuple[str, str], str]:
        """Where no run may begin, and why; it is over after an hour."""
        now = time.time()
        told = self.quarantines.items()
        return {place: why for place, (when, why) in told if now - when < QUARANTINE_S}

    def is_quarantined(self, host: str, device: str = "") -> str | None:
        """Why no run may begin there; None where one may."""
        there = self.quarantined
        return there.get((host, "")) or there.get((host, device))


def _said(
    word: Word, do: str, when: float, fields: Mapping[str, Any], run: str | None = None
) -> Word:
    match do:
        case "hold":
            by_breaker = bool(fields.get("breaker"))
            if by_breaker and word.held:  # a person's hold stays a person's
                return word
            return replace(word, held=True, by_breaker=by_breaker, why=str(fields.get("why", "")))
        case "release":
            if fields.get("breaker") and not word.by_breaker:
                return word
            return replace(word, held=False, by_breaker=False, why="")
        case "boost" if isinstance(fields.get("priority"), int):
            return replace(word, priority=fields["priority"])
        case "cancel":
            return replace(word, cancelled=True, why=str(fields.get("why", "")))
        case "retry":
            sessions = fields.get("sessions")
            told = sessions.get(run) if isinstance(sessions, dict) else None
            number = told if isinstance(told, int) and told > 0 else 0
            return Word(priority=word.priority, retried=when, forgiven=number)
    return word  # of a newer cupel


def append(
    study: Path, do: Do, runs: Sequence[str] | None, *, why: str = "", **facts: Any
) -> dict[str, Any]:
    """Append a line; `runs` None means all. Raises RecordError when it cannot be written."""
    fields = {
        "schema": SCHEMA,
        "t": time.time(),
        "do": do,
        "runs": None if runs is None else list(runs),
        **({"why": why} if why else {}),
        **facts,
        "by": _who(),
    }
    write_line(study / CONTROL, fields)
    return fields


def forgive(study: Path, runs: Mapping[str, Path], *, why: str = "") -> None:
    """Have runs tried again: a `retry` that names each one's newest session. Raises RecordError."""
    sessions = {run: max(layout.session_numbers(path), default=0) for run, path in runs.items()}
    append(study, "retry", list(runs), why=why, sessions=sessions)


def write_line(path: Path, fields: Mapping[str, Any]) -> None:
    """Append a line to a file of lines, in one write, on the disk when it returns.

    Raises RecordError. A part of a line that did fit stays, and counts as damaged.
    """
    line = codec.encode_event(fields)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _torn(path):
                line = b"\n" + line
            if os.write(fd, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


def _torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line, as a full disk leaves it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


def held_by(words: Iterable[Word]) -> str:
    """Why runs are held, in a line; empty when they are not."""
    return next((word.why or "held" for word in words if word.held), "")
