"""Columns in memory, made from a file of lines that may still grow: `Growing(path).refresh()`.

Of all keys, or of some. A line of ten numbers costs about 2.5 µs, of which one is wanted 1.3 µs,
once: each refresh reads only what has been added. Keeps 8 bytes a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.record.columns import Column, Kind, Rows, covers, is_ascending
from cupel.record.lines import LineFile
from cupel.record.picking import ABSENT, ABSENT_TYPE, Picker, revived

if TYPE_CHECKING:
    from cupel.record.columns import Floats, Ints

_EXACT = 2**53  # every integer up to here is a float64
_MOST_PIECES = 256
_LARGER = 4  # times the usual piece, where little of it is kept

Line = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Group:
    """Lines that were read together and have the same keys; keys that share groups share rows."""

    lines: Ints
    steps: Ints
    times: Floats

    def part(self, kept: Ints) -> _Group:
        return _Group(self.lines[kept], self.steps[kept], self.times[kept])


_Piece = tuple[_Group, "Floats"]


class Growing:
    """The table (`cupel.record.columns.Table`) of a file as it was at the last `refresh`.

    With `keys` it holds only these, and "_t".
    """

    def __init__(self, path: Path, keys: Collection[str] | None = None) -> None:
        self.path = path
        self._wanted = keys
        self.refused = False  # whether no file would take these columns
        self.version = 0
        self._forget()

    def _forget(self) -> None:
        self._file = LineFile(self.path, "_step", int)
        self._picker = Picker(self._wanted)
        self._inode: int | None = None
        self._begun = False
        self.lines = 0
        self.whole = True
        self.kinds: dict[str, Kind] = {}
        self._last: dict[str, tuple[int, Any]] = {}  # line and value
        self._pieces: dict[str, list[_Piece]] = {}
        self._fed = 0
        self._columns: dict[str, Column] = {}
        self._rows: dict[tuple[int, ...], tuple[Rows, Ints | None]] = {}

    @property
    def damaged(self) -> int:
        """Damaged lines, an unfinished one at the end included."""
        return self._file.damaged + self._file.unfinished

    @property
    def offset(self) -> int:
        """The end of the last whole line that has been read."""
        return self._file.offset

    def refresh(self) -> bool:
        """Read what has been added; whether anything has changed. Raises OSError.

        A file that is another one than before, or shorter, is read anew.
        """
        now = self.path.stat()
        changed = self._inode not in (None, now.st_ino) or now.st_size < self._file.offset
        if changed:
            self._forget()
        self._inode = now.st_ino
        for piece in self._file.pieces(1 if self._wanted is None else _LARGER):
            if self._take(piece):
                self._columns, self._rows = {}, {}
                changed = True
        self.version += changed
        return changed

    @property
    def wanted(self) -> frozenset[str] | None:
        """The keys that it holds; None when these are all that there are."""
        return self._picker.keys if self._picker.skips else None

    def covers(self, keys: Collection[str] | None) -> bool:
        """See `Table.covers`."""
        return covers(self.wanted, keys)

    def column(self, key: str) -> Column | None:
        """A key's column; None when no line holds a number under that key."""
        import numpy as np

        if key not in self._columns and (pieces := self._pieces.get(key)):
            rows, order = self._rows_of([group for group, _ in pieces])
            if key == "_t":
                values = rows.times
            else:
                values = np.concatenate([values for _, values in pieces])
                values = values if order is None else values[order]
            column = Column(rows, values, self.kinds[key], is_ascending(values))
            self._columns[key] = column
        return self._columns.get(key)

    def ends(self, key: str) -> tuple[int, bool, Any] | None:
        """See `Table.ends`."""
        column = self.column(key)
        if column is None:
            return None
        return column.rows.top, column.rows.increasing, self._last[key][1]

    def _take(self, piece: bytes) -> bool:
        """Take the lines of a piece; whether there are any that can be read."""
        if not self._begun:
            # The first line alone tells which keys there are: of all others only values are wanted.
            self._begun, end = True, piece.find(b"\n") + 1
            first, rest = self._take(piece[:end]), piece[end:]
            return (self._take(rest) if rest else False) or first
        before = self.lines
        columns = self._picker.pick(piece)
        if columns is None or not self._take_columns(columns):
            lines = self._file.decode(piece)
            self._picker.learn(lines)
            self._take_lines(lines)
        if self.lines == before:
            return False
        self._fed += 1
        if self._fed % _MOST_PIECES == 0:
            self._join_pieces()
        return True

    def _take_columns(self, columns: Mapping[str, list[Any]]) -> bool:
        """Take the values of some keys in lines; False where the lines must be asked."""
        import numpy as np

        steps = columns["_step"]
        if max(steps) >= 2**63 or min(steps) < -(2**63):
            return False
        told: dict[str, Sequence[Any]] = {}
        kinds: dict[str, set[type]] = {}
        for key, values in columns.items():
            kinds[key] = set(map(type, values))
            if str in kinds[key]:
                values = revived(values)
                kinds[key] = set(map(type, values))
            if kinds[key] != {ABSENT_TYPE}:
                told[key] = values
        if not self.kinds.keys() | {"_step"} >= told.keys():
            return False  # the first line of a key tells its place among the others
        before, self.lines = self.lines, self.lines + len(steps)
        partly = [key for key in told if ABSENT_TYPE in kinds[key]]
        if not partly:
            self._add(told, np.arange(before, self.lines), kinds)
            return True
        always = [key for key in told if key not in partly]
        alike: dict[tuple[bool, ...], list[int]] = {}
        for number, row in enumerate(zip(*(told[key] for key in partly), strict=True)):
            alike.setdefault(tuple([value is ABSENT for value in row]), []).append(number)
        for absent, numbers in alike.items():
            keys = always + [key for key, is_ in zip(partly, absent, strict=True) if not is_]
            some = {key: [told[key][number] for number in numbers] for key in keys}
            self._add(some, before + np.array(numbers), {})
        return True

    def _take_lines(self, lines: Sequence[Line]) -> None:
        import numpy as np

        before, self.lines = self.lines, self.lines + len(lines)
        if self._picker.keys is not None:
            keys = self._picker.keys
            lines = [{key: line[key] for key in line if key in keys} for line in lines]
        alike: dict[tuple[str, ...], list[int]] = {}
        for number, shape in enumerate(map(tuple, lines)):
            alike.setdefault(shape, []).append(number)
        for shape, numbers in alike.items():
            rows = zip(*(lines[number].values() for number in numbers), strict=True)
            self._add(dict(zip(shape, rows, strict=True)), before + np.array(numbers), {})

    def _add(
        self, told: Mapping[str, Sequence[Any]], numbers: Ints, kinds: Mapping[str, set[type]]
    ) -> None:
        """Take the values of lines that all have the same keys; `kinds` are types known already."""
        import numpy as np

        columns = dict(told)
        asked = columns.pop("_step")
        self.whole = self.whole and (kinds.get("_step") or set(map(type, asked))) == {int}
        try:
            steps = np.fromiter(asked, np.int64, len(asked))
        except OverflowError:
            self.whole = False
            fits = [n for n, step in enumerate(asked) if -(2**63) <= step < 2**63]
            if fits:
                some = {key: [values[n] for n in fits] for key, values in told.items()}
                self._add(some, numbers[fits], {})
            self.kinds |= dict.fromkeys(columns, "mixed")
            return
        group = _Group(numbers, steps, np.full(len(steps), np.nan))
        if "_t" in columns:
            times, _, kept = as_floats(columns["_t"], kinds.get("_t"))
            group.times[slice(None) if kept is None else kept] = times
        for key, values in columns.items():
            floats, kind, kept = as_floats(values, kinds.get(key))
            if self.kinds.setdefault(key, kind) != kind:
                self.kinds[key] = "mixed"
            if len(floats):
                place = group if kept is None else group.part(kept)
                self._pieces.setdefault(key, []).append((place, floats))
                last = int(place.lines[-1])
                if last > self._last.get(key, (-1, None))[0]:
                    value = values[-1 if kept is None else int(kept[-1])]
                    self._last[key] = (last, value)

    def _rows_of(self, groups: Sequence[_Group]) -> tuple[Rows, Ints | None]:
        same = tuple(map(id, groups))
        if same not in self._rows:
            group, order = _joined(groups)
            self._rows[same] = Rows.of(group.steps, group.times), order
        return self._rows[same]

    def _join_pieces(self) -> None:
        """Make one piece of each key's many; keys that shared their rows go on sharing them."""
        import numpy as np

        joined: dict[tuple[int, ...], tuple[_Group, Ints | None]] = {}
        for key, pieces in self._pieces.items():
            if len(pieces) > 1:
                groups = [group for group, _ in pieces]
                same = tuple(map(id, groups))
                if same not in joined:
                    joined[same] = _joined(groups)
                group, order = joined[same]
                values = np.concatenate([values for _, values in pieces])
                self._pieces[key] = [(group, values if order is None else values[order])]


def as_floats(
    values: Sequence[Any], kinds: set[type] | None = None
) -> tuple[Floats, Kind, Ints | None]:
    """The numbers among some values, how exact they are, and their places if they are not all.

    `kinds` are the types of the values, where they are known.
    """
    import numpy as np

    kinds = kinds or set(map(type, values))
    if kinds == {float}:
        return np.fromiter(values, np.float64, len(values)), "float", None
    if kinds == {int} and max(values) <= _EXACT and min(values) >= -_EXACT:
        return np.array(values, dtype=np.float64), "int", None
    places, floats = [], []
    for place, value in enumerate(values):
        if isinstance(value, int | float) and (number := _float(value)) is not None:
            places.append(place)
            floats.append(number)
    kept = None if len(places) == len(values) else np.array(places, dtype=np.int64)
    return np.array(floats, dtype=np.float64), "mixed", kept


def _float(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return None


def _joined(groups: Sequence[_Group]) -> tuple[_Group, Ints | None]:
    """One group of all the lines, and the order that puts them right, if that is needed."""
    import numpy as np

    if len(groups) == 1:
        return groups[0], None
    lines = np.concatenate([group.lines for group in groups])
    whole = _Group(
        lines,
        np.concatenate([group.steps for group in groups]),
        np.concatenate([group.times for group in groups]),
    )
    if (lines[1:] > lines[:-1]).all():
        return whole, None
    order = np.argsort(lines, kind="stable")
    return whole.part(order), order
