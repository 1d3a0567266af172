"""What must hold before a session is opened: refusals, each in one line, before a file is written.

Nothing here writes. How a session writes (`How`) is checked when it is made.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import RecordError, ResumeError, UsageError, did_you_mean
from cupel.record import codec, files, heartbeat, layout
from cupel.record.reader import SessionInfo
from cupel.record.writer import Durability

_START_A_NEW_ONE = 'start a new run with --resume never (in a script: resume="never")'
_DURABILITIES = ("process", "sync")


@dataclass(frozen=True, slots=True)
class How:
    """How a session writes, besides what. Raises UsageError for what it cannot be."""

    strict: bool
    durability: Durability
    console: bool
    system_every: float

    def __post_init__(self) -> None:
        given, every = self.durability, self.system_every
        if given not in _DURABILITIES:
            meant = did_you_mean(str(given), _DURABILITIES)
            raise UsageError(f'durability is {given!r}{meant}; it must be "process" or "sync"')
        if not (isinstance(every, int | float) and 0 <= every < math.inf):
            raise UsageError(
                f"system_every is {every!r}; it must be a number of seconds, or 0 for never"
            )


def check_document(name: str, fields: Mapping[str, Any]) -> None:
    """Raise UsageError when a file cannot hold this."""
    try:
        codec.encode_document(fields)
    except (TypeError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise UsageError(
            f"{name} cannot be written: {found}; give texts, numbers below 2**64, lists and dicts"
        ) from error


def check_group(group: Any) -> None:
    """Raise UsageError when this names no group of runs."""
    if group is not None and not (isinstance(group, str) and group):
        raise UsageError(f"group is {group!r}; it must be a text, or left out")


def next_number(run_dir: Path) -> int:
    """The number of the session that may be opened next.

    Raises ResumeError when the run is finished or its last session alive, RecordError when there
    is no such run.
    """
    files.read_json(run_dir / layout.RUN)
    if (run_dir / layout.RESULTS).exists():
        raise ResumeError(
            f"run {run_dir.name} is finished and its results are accepted; {_START_A_NEW_ONE}"
        )
    numbers = layout.session_numbers(run_dir)
    if not numbers:
        return 1
    last = SessionInfo.read(run_dir, numbers[-1])
    if last.status == "running":
        raise ResumeError(
            f"run {run_dir.name} is running: pid {last.pid} on {last.host}, session "
            f"{last.number:04d}; stop it first, or {_START_A_NEW_ONE}"
        )
    return numbers[-1] + 1


def lost_race(run_dir: Path, number: int) -> ResumeError:
    """What is raised when another process opens this session first."""
    return ResumeError(
        f"another process is resuming run {run_dir.name}: it has opened session {number:04d}; "
        f"let it work, or {_START_A_NEW_ONE}"
    )


def check_joining(run_dir: Path, number: int, rank: int) -> None:
    """Raise UsageError or RecordError when this rank may not join this session."""
    if rank < 1:
        raise UsageError(f"rank {rank} cannot join a session: rank 0 starts or resumes it")
    told = f"rank {rank} cannot join session {number:04d} of run {run_dir.name}"
    folder = layout.session_dir(run_dir, number)
    if not folder.is_dir():
        raise RecordError(f"{told}: there is no {folder}; rank 0 starts or resumes it first")
    if layout.session_dir(run_dir, number + 1).exists():
        raise RecordError(f"{told}: session {number + 1:04d} has taken over; join that one")
    status = SessionInfo.read(run_dir, number).status
    if status != "running":
        raise RecordError(f"{told}: it is {status}; start or resume rank 0 first, and keep it up")
    beat = folder / layout.heartbeat_name(rank)
    if beat.exists() and heartbeat.is_alive(beat):
        raise RecordError(f"{told}: another process is that rank; give each process its own")


@contextlib.contextmanager
def recording(place: Path) -> Iterator[None]:
    """A context for writing a record: what the disk refuses becomes a RecordError."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"cannot write the record to {place}: {error.strerror or error}; "
            "choose another place with --root or CUPEL_ROOT"
        ) from error
