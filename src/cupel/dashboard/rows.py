"""The lines that a run has logged, as they are at one moment, piece by piece: `Rows`.

The files are gone through twice: once for the names and the number of rows, then for the rows
themselves, up to where the files went the first time. Of each piece some hundred lines are held.
Only what counts after rewinds, of a run whose steps went back, needs more: 24 bytes a line.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cupel.record import files, layout, lines
from cupel.record.lines import LineFile
from cupel.record.reader import RunRecord

if TYPE_CHECKING:
    from cupel.record.columns import Ints

Which = Literal["all", "current"]
_MOST_SHAPES = 10_000  # sets of names that are remembered as seen
_AT_ONCE = 256  # lines that are read one by one before they are handed on


class Row(NamedTuple):
    """What one call of `log` has recorded, and in which session; or several of one step, merged."""

    session: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of lines, up to where it went; its lines count up to the step `last`."""

    path: Path
    session: int
    end: int
    last: float


class Rows:
    """The rows of rank 0 of one run.

    "all" has one for each line of every session, in their order; "current" what counts after
    rewinds, a row a step, as `RunRecord.history` has it. With `keys`, rows that hold none of them
    are left out. `names` are the metrics in the order in which they came first, or `keys`; `count`
    is the number of rows, `damaged` that of lines that cannot be read, `began` the time at which
    the first session did. Raises OSError.
    """

    def __init__(
        self, run_dir: Path, *, keys: Sequence[str] | None = None, which: Which = "all"
    ) -> None:
        self.record = RunRecord(run_dir)
        self.began: float | None = None
        self.count = self.damaged = 0
        self._keys = None if keys is None else frozenset(keys)
        self._merges = which == "current"
        self._parts: list[_Part] = []
        self._ascends = True
        self._sorted: tuple[Ints, Ints] | None = None
        found = self._look()
        self.names = found if keys is None else list(dict.fromkeys(keys))
        if self._merges and not self._ascends:
            self._sort()
        if self._merges and self._keys is not None:
            self.count = sum(map(len, self.pieces()))

    def pieces(self) -> Iterator[list[Row]]:
        """The rows, some hundred at a time. Raises OSError."""
        if not self._merges:
            yield from self._read()
            return
        rows = self._read() if self._sorted is None else self._one_by_one(*self._sorted)
        for piece in _merged(rows):
            yield [row for row in piece if self._has_key(row.fields)]

    def _look(self) -> list[str]:
        """Go through all files once; the names that are there."""
        sessions = self.record.sessions
        if sessions:
            self.began = _float(sessions[0].started)
        names: dict[str, None] = {}
        shapes: set[tuple[str, ...]] = set()
        before: int | None = None
        for place, info in enumerate(sessions):
            later = [s.start_step for s in sessions[place + 1 :] if s.start_step is not None]
            last = min(later, default=math.inf) if self._merges else math.inf
            for path in layout.segments(info.dir, "metrics"):
                file = LineFile(path, "_step", int)
                for found in file.read():
                    kept = self._kept(found, last)
                    before = self._counted(kept, before)
                    new = {shape: None for line in kept if (shape := tuple(line)) not in shapes}
                    names.update((name, None) for shape in new for name in shape)
                    shapes.update(new)
                    if len(shapes) > _MOST_SHAPES:
                        shapes.clear()
                self.damaged += file.damaged + file.unfinished
                self._parts.append(_Part(path, info.number, file.offset, last))
        return [name for name in names if name not in ("_step", "_t")]

    def _counted(self, kept: Sequence[dict[str, Any]], before: int | None) -> int | None:
        """Count rows; the last one's step."""
        if self.began is None and kept:
            self.began = _float(kept[0].get("_t"))
        if not self._merges:
            self.count += len(kept)
            return before
        for line in kept:
            step: int = line["_step"]
            if step != before:
                self.count += 1
                self._ascends &= before is None or step > before
            before = step
        return before

    def _kept(self, found: list[dict[str, Any]], last: float) -> list[dict[str, Any]]:
        if last != math.inf:
            found = [line for line in found if line["_step"] <= last]
        if self._merges:  # which of a step's lines holds a key does not matter then
            return found
        return [line for line in found if self._has_key(line)]

    def _has_key(self, fields: dict[str, Any]) -> bool:
        return self._keys is None or not self._keys.isdisjoint(fields)

    def _read(self) -> Iterator[list[Row]]:
        """The rows in the order of the lines."""
        for part in self._parts:
            file = LineFile(part.path, "_step", int)
            for piece in _until(file, part.end):
                yield [
                    Row(part.session, line) for line in self._kept(file.decode(piece), part.last)
                ]

    # ---- steps that went back ------------------------------------------------------------------

    def _sort(self) -> None:
        """Where the line of each row lies, in the order of their steps."""
        import numpy as np

        steps, places = _Integers(), array("q")  # a place: file, then offset, each in its bits
        for number, part in enumerate(self._parts):
            file = LineFile(part.path, "_step", int)
            at = 0
            for piece in _until(file, part.end):
                for text in piece.split(b"\n")[:-1]:
                    for line in self._kept(_decoded(text + b"\n"), part.last):
                        steps.append(line["_step"])
                        places.append(number << 48 | at)
                    at += len(text) + 1
        order, self.count = steps.order()
        sorted_ = np.frombuffer(places, np.int64)[order]
        self._sorted = sorted_ >> 48, sorted_ & (1 << 48) - 1

    def _one_by_one(self, parts: Ints, offsets: Ints) -> Iterator[list[Row]]:
        with ExitStack() as stack:
            opened = [stack.enter_context(files.open_regular(part.path)) for part in self._parts]
            for start in range(0, len(parts), _AT_ONCE):
                rows = []
                for number, at in zip(
                    parts[start : start + _AT_ONCE].tolist(),
                    offsets[start : start + _AT_ONCE].tolist(),
                    strict=True,
                ):
                    text = _line_at(opened[number].fileno(), at)
                    rows += [Row(self._parts[number].session, line) for line in _decoded(text)]
                yield rows


def _until(file: LineFile, end: int) -> Iterator[bytes]:
    """The pieces of a file up to an offset, which is the end of a line."""
    before = file.offset
    for piece in file.pieces():
        if before >= end:
            return
        yield piece[: end - before]
        before = file.offset


def _merged(pieces: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """Rows of one step, which lie beside each other, as one: the later one wins."""
    waiting: list[Row] = []
    for piece in pieces:
        waiting += piece
        done: list[Row] = []
        for row in waiting:
            if done and done[-1].fields["_step"] == row.fields["_step"]:
                done[-1] = Row(row.session, done[-1].fields | row.fields)
            else:
                done.append(row)
        waiting = done[-1:]
        yield done[:-1]
    yield waiting


def _decoded(text: bytes) -> list[dict[str, Any]]:
    """The line, if it is one."""
    return lines.decode(text, "_step", (int,))[0] if text.strip() else []


def _line_at(fd: int, at: int) -> bytes:
    parts: list[bytes] = []
    while b"\n" not in (block := os.pread(fd, 4096, at)) and block:
        parts.append(block)
        at += len(block)
    return b"".join([*parts, block[: block.find(b"\n") + 1]])


class _Integers:
    """Integers in eight bytes each, as long as they fit."""

    def __init__(self) -> None:
        self.held: array[int] | list[int] = array("q")

    def append(self, value: int) -> None:
        try:
            self.held.append(value)
        except OverflowError:  # beyond 2^63
            self.held = [*self.held, value]

    def order(self) -> tuple[Ints, int]:
        """Where they are in ascending order, equal ones as they came, and how many differ."""
        import numpy as np

        if isinstance(self.held, list):
            places = sorted(range(len(self.held)), key=self.held.__getitem__)
            return np.array(places, np.int64), len(set(self.held))
        held = np.frombuffer(self.held, np.int64)
        return np.argsort(held, kind="stable"), len(np.unique(held))


def _float(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # some hundred digits: something else wrote it
        return None
