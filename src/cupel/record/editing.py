"""Changes run.json while others may write it too: notes and tags, also of a run that is running.

Whoever edits holds a lock on the run's folder, so that two editors wait for each other. The session
itself takes no lock: it reads run.json anew and replaces it within some milliseconds, when it
begins and when it ends. So an edit looks again after its writing, and is made once more when it
has been overwritten. About 10 ms, of a running run 60 ms.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cupel.errors import RecordError, UnknownName, UsageError
from cupel.record import files, layout
from cupel.record.reader import RunRecord

_LOOKS_AGAIN_S = 0.05
_TRIES = 20
_LONGEST_TAG = 100

Change = Callable[[dict[str, Any]], Mapping[str, Any]]


def add_note(run_dir: Path, text: str, *, replace: bool = False) -> str:
    """Add lines to a run's notes, or put them in their place; what the notes are then.

    Raises RecordError when run.json is damaged or cannot be written.
    """
    added = text.strip("\n")

    def change(run: dict[str, Any]) -> dict[str, Any]:
        return {"notes": "\n".join(filter(None, ["" if replace else notes_of(run), added]))}

    def keep(run: dict[str, Any]) -> dict[str, Any]:
        now = notes_of(run)
        return {} if now == added or now.endswith(f"\n{added}") else change(run)

    notes = notes_of(_edited(run_dir, change))
    _look_again(run_dir, keep)
    return notes


def change_tags(run_dir: Path, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
    """Give a run tags and take some away; its tags then.

    Raises UsageError for what is no tag, UnknownName for taking one that it does not have, and as
    `add_note` does.
    """
    for tag in add:
        if not tag.strip() or len(tag) > _LONGEST_TAG or not tag.isprintable():
            raise UsageError(
                f"{tag[:_LONGEST_TAG]!r} is no tag: give 1 to {_LONGEST_TAG} printable characters"
            )
    if both := sorted(set(add) & set(remove)):
        raise UsageError(f"'{both[0]}' is to be added and removed; say one of them")
    known = tags_of(files.read_json(run_dir / layout.RUN))
    for tag in remove:
        if tag not in known:
            raise UnknownName(f"tag of run {run_dir.name}", tag, known)

    def change(run: dict[str, Any]) -> dict[str, Any]:
        kept = [tag for tag in tags_of(run) if tag not in remove]
        return {"tags": list(dict.fromkeys([*kept, *add]))}

    tags = tags_of(_edited(run_dir, change))
    _look_again(run_dir, change)
    return tags


def notes_of(run: Mapping[str, Any]) -> str:
    """The notes in run.json, without newlines at the end."""
    notes = run.get("notes")
    return notes.rstrip("\n") if isinstance(notes, str) else ""


def tags_of(run: Mapping[str, Any]) -> list[str]:
    """The tags in run.json; what is none is left out."""
    tags = run.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _look_again(run_dir: Path, change: Change) -> None:
    """Make a change once more when a session that runs has overwritten it."""
    if RunRecord(run_dir).status in ("running", "silent"):
        time.sleep(_LOOKS_AGAIN_S)
        _edited(run_dir, change)


def _edited(run_dir: Path, change: Change) -> dict[str, Any]:
    """Replace run.json by what a change makes of it; what it says then."""
    path = run_dir / layout.RUN
    layout.refuse_link(path)
    try:
        with locked(run_dir):
            for _ in range(_TRIES):
                before = path.stat()
                run = files.read_json(path)
                changed = {**run, **change(run)}
                if changed == run:
                    return run
                if _same(before, path.stat()):  # else a session has replaced it meanwhile
                    files.write_json(path, changed)
                    return changed
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    raise RecordError(f"{path} is replaced again and again by another process; try again")


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_mtime_ns, one.st_size) == (
        other.st_ino, other.st_mtime_ns, other.st_size,
    )  # fmt: skip


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which nobody else edits the run in a folder. Raises OSError without one."""
    fd = files.open_folder(folder)
    try:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
