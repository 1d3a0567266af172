"""How many bytes of a disk runs take, and with what: `usage_of`.

The sizes of files as they are listed, links not followed; about 3 µs a file. What changes or goes
while it is counted counts as it was met, or not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from cupel.record import compaction, layout, media

_LINES = ("metrics.", "events.", "system.", "console.", layout.TRAINING_LOG)


@dataclass(slots=True)
class Usage:
    """Bytes by what they are for; `other` is configuration, environments, figures, and more."""

    metrics: int = 0
    checkpoints: int = 0
    media: int = 0
    cache: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __add__(self, more: Usage) -> Usage:
        sums = {
            field.name: getattr(self, field.name) + getattr(more, field.name)
            for field in fields(self)
        }
        return Usage(**sums)


def usage_of(run_dir: Path) -> Usage:
    """What one run takes, with the columns that were cached for it."""
    found = Usage()
    for entry in _entries(run_dir):
        if entry.is_dir(follow_symlinks=False):
            size = bytes_of(Path(entry.path))
            if entry.name == layout.CHECKPOINTS:
                found.checkpoints += size
            elif entry.name in (media.MEDIA, media.ARTIFACTS):
                found.media += size
            elif entry.name == layout.SESSIONS:
                lines = _lines_in(entry.path)
                found.metrics += lines
                found.other += size - lines
            else:
                found.other += size
        else:
            found.other += _size(entry)
    root = run_dir.parent.parent
    cached = root / layout.CACHE / compaction.FOLDER / run_dir.parent.name / run_dir.name
    found.cache = bytes_of(cached)
    return found


def bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(
            bytes_of(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else _size(entry)
            for entry in _entries(path)
        )
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _lines_in(sessions: str) -> int:
    return sum(
        _size(entry)
        for session in _entries(sessions)
        for entry in _entries(session.path)
        if entry.name.startswith(_LINES)
    )


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(str(folder)) as entries:
            return list(entries)
    except OSError:
        return []


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
