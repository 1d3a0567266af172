"""Who may open a session, or join one: refusals, each in one line, and the taking of a place.

A place is taken by an exclusive creation, so of any number of processes that try at once exactly
one gets it: a session by the mkdir of its folder, a further rank of it by its heartbeat. Nothing
is written before what can refuse has been asked. How a session writes (`How`) is checked when it
is made.
"""

from __future__ import annotations

import contextlib
import math
import shutil
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
    except Exception as error:  # of whatever a value does that is asked what it is
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


def take_session(run_dir: Path, number: int) -> Path:
    """Make a session's folder with a heartbeat in it, whose path is returned.

    Raises FileExistsError when another process has done so, and other OSErrors.
    """
    folder = layout.session_dir(run_dir, number)
    layout.refuse_link(folder.parent)
    folder.parent.mkdir(exist_ok=True)
    folder.mkdir()
    beat = folder / layout.heartbeat_name()
    try:
        heartbeat.write_heartbeat(beat)  # first: a folder without one counts as alive for a minute
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return beat


def take_rank(run_dir: Path, number: int, rank: int) -> Path:
    """Make the heartbeat of a further rank of a living session; its path.

    A heartbeat is never replaced. It is the next one after that of a process that has died, so
    whoever else found that one dead comes too late. Raises UsageError, RecordError and OSError.
    """
    if rank < 1:
        raise UsageError(f"rank {rank} cannot join a session: rank 0 starts or resumes it")
    told = f"rank {rank} cannot join session {number:04d} of run {run_dir.name}"
    taken = RecordError(f"{told}: another process is that rank; give each process its own")
    _check_it_runs(run_dir, number, told)
    folder = layout.session_dir(run_dir, number)
    before = layout.heartbeats(folder, rank)
    last = max(before, default=-1)
    # One that is gone again counts as alive, as the folder has just changed.
    if before and heartbeat.is_alive(before[last]):
        raise taken
    beat = folder / layout.heartbeat_name(rank, last + 1)
    if not heartbeat.create_heartbeat(beat):
        raise taken
    try:
        _check_it_runs(run_dir, number, told)  # whoever sees it ended sees every rank that it had
    except (RecordError, OSError):
        beat.unlink(missing_ok=True)
        raise
    return beat


def _check_it_runs(run_dir: Path, number: int, told: str) -> None:
    folder = layout.session_dir(run_dir, number)
    if not folder.is_dir():
        raise RecordError(f"{told}: there is no {folder}; rank 0 starts or resumes it first")
    if layout.session_dir(run_dir, number + 1).exists():
        raise RecordError(f"{told}: session {number + 1:04d} has taken over; join that one")
    status = SessionInfo.read(run_dir, number).status
    if status != "running":
        raise RecordError(f"{told}: it is {status}; start or resume rank 0 first, and keep it up")


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
