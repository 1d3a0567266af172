"""The names of a run's metrics, without reading all of its lines: `Names`.

What is added while somebody looks is read whole. Of a segment that is large when it is first
looked at, its first and its last 64 KB are; a name that occurs only between them is found when the
table of runs has been read, which knows all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cupel.record import files, layout
from cupel.record.lines import decode
from cupel.record.reader import SessionInfo

LARGE = 1024 * 1024
PIECE = 64 * 1024


@dataclass(slots=True)
class _Segment:
    offset: int = 0
    inode: int = 0
    skipped: bool = False
    names: dict[str, None] = field(default_factory=dict)


class Names:
    """Remembers how far each segment has been read."""

    def __init__(self) -> None:
        self._segments: dict[Path, _Segment] = {}

    def of(self, sessions: Iterable[SessionInfo]) -> list[str]:
        """The names in the order in which they came."""
        found: dict[str, None] = {}
        for info in sessions:
            for path in layout.segments(info.dir, "metrics"):
                known = self._segments.setdefault(path, _Segment())
                try:
                    _read_on(path, known)
                except OSError:  # deleted just now
                    continue
                found |= known.names
        return list(found)

    @property
    def skipped(self) -> bool:
        """Whether anything was too large to be read whole."""
        return any(known.skipped for known in self._segments.values())


def _read_on(path: Path, known: _Segment) -> None:
    stat = path.stat()
    if stat.st_ino != known.inode or stat.st_size < known.offset:
        known.offset, known.inode, known.names = 0, stat.st_ino, {}
    if stat.st_size == known.offset:
        return
    with files.open_regular(path) as file:
        if stat.st_size - known.offset > LARGE:
            file.seek(known.offset)
            _take(file.read(PIECE), known)
            known.offset, known.skipped = stat.st_size - PIECE, True
        file.seek(known.offset)
        text = file.read(stat.st_size - known.offset)
    known.offset += text.rfind(b"\n") + 1
    _take(text, known)


def _take(text: bytes, known: _Segment) -> None:
    """The names of the whole lines of a piece; what is cut off at its ends is passed over."""
    lines, _ = decode(text[: text.rfind(b"\n") + 1], "_step", (int,))
    seen = {"_step", "_t"} | known.names.keys()
    for line in lines:
        if line.keys() <= seen:
            continue
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("_step", "_t"):
                known.names[name] = None
        seen |= line.keys()
