"""One run's metrics over all its sessions: which points count, on which axis, and in how few.

The newest session's values are the run's: where a session went on from step k, what older ones
logged after k is left out, and of several values of one key and step the last line's stays. As
long as steps only increase, a key is a list of pieces of its segments' columns, and nothing is
copied; else its points are sorted in memory once (about 0.15 µs a point).

The axis "step" is the step; "time" is when the value itself was logged; any other is a key that
was logged, and a point has a place on it when that key has a number at the same step. Points are
in the order of their axis: where clocks or keys went back they are sorted, and those of one place
stay in the order of their steps. A place that is not finite is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cupel.record.columns import Column, Kind, Rows, Steps, Table, is_ascending, is_increasing
from cupel.record.curve import Curve, Piece, first_row

if TYPE_CHECKING:
    from cupel.record.columns import Floats, Ints

STEP, TIME = "step", "time"


class Logged:
    """The metrics of a run: of each session its start step, None if it has none, and its tables."""

    def __init__(self, sessions: Sequence[tuple[int | None, Sequence[Table]]]) -> None:
        self._sessions = sessions
        self._known: dict[tuple[str, str], list[Piece]] = {}

    @property
    def sessions(self) -> Sequence[tuple[int | None, Sequence[Table]]]:
        """Of each session, oldest first, the step that it went on from and its tables."""
        return self._sessions

    @property
    def tables(self) -> list[Table]:
        """All tables, oldest first."""
        return [table for _, tables in self._sessions for table in tables]

    def kinds(self) -> dict[str, Kind]:
        """Every key, in the order in which they came first."""
        kinds: dict[str, Kind] = {}
        for table in self.tables:
            for key, kind in table.kinds.items():
                kinds[key] = kind if kinds.get(key, kind) == kind else "mixed"
        return kinds

    def curve(self, key: str, x: str = STEP) -> Curve:
        """The points of a key on an axis."""
        if (key, x) not in self._known:
            self._known[key, x] = self._on_axis(key, x)
        return Curve(self._known[key, x])

    def first(self, key: str) -> Any:
        """The number of a key's least step; None when there is none, or only the lines say it."""
        pieces = self._by_step(key)
        if not pieces or pieces[0].column.kind == "mixed":
            return None
        return pieces[0].column.exact(pieces[0].start, pieces[0].start + 1)[0]

    def last(self, key: str) -> tuple[int, Any] | None:
        """The greatest step of a key's points, and the number there, as its line has it.

        The number is None where only the lines can say it, all of it is where there are no points.
        Reads no column as long as steps only increase.
        """
        found, bound = [], math.inf
        for start_step, tables in reversed(self._sessions):
            ends = [(table.ends(key), bound) for table in reversed(tables)]
            found += [(end, limit) for end, limit in ends if end is not None]
            bound = bound if start_step is None else min(bound, start_step)
        if not found:
            return None
        (top, increasing, value), bound = found[0]
        if value is not None and increasing and all(end[0] <= top <= bound for end, _ in found):
            return top, value
        pieces = self._by_step(key)
        if not pieces:
            return None
        column, row = pieces[-1].column, pieces[-1].stop - 1
        exact = None if column.kind == "mixed" else column.exact(row, row + 1)[0]
        return column.rows.steps.at(row), exact

    def _on_axis(self, key: str, x: str) -> list[Piece]:
        pieces = self._by_step(key)
        if x == STEP or not pieces:
            return pieces
        placed = _by_time(pieces) if x == TIME else _by_key(pieces, self._by_step(x))
        if placed is not None and _in_order(placed):
            return placed
        return _sorted(*(_times(pieces) if x == TIME else _joined(pieces, self._by_step(x))))

    def _by_step(self, key: str) -> list[Piece]:
        if (key, STEP) not in self._known:
            pieces = self._plain(key)
            self._known[key, STEP] = self._merged(key) if pieces is None else pieces
        return self._known[key, STEP]

    def _plain(self, key: str) -> list[Piece] | None:
        """The pieces of a key whose steps only increase; None for any other key."""
        pieces: list[Piece] = []
        for start_step, tables in self._sessions:
            if start_step is not None:
                pieces = [cut for piece in pieces if (cut := _until(piece, start_step))]
            for table in tables:
                column = table.column(key)
                if column is not None:
                    if not column.rows.increasing:
                        return None
                    pieces.append(Piece(column, 0, len(column.rows.steps)))
        return pieces if all(a.last() < b.first() for a, b in pairwise(pieces)) else None

    def _merged(self, key: str) -> list[Piece]:
        """One piece of all points that count, for a key whose steps went back or came twice."""
        import numpy as np

        steps, times, values = np.empty(0, np.int64), np.empty(0), np.empty(0)
        kinds: set[Kind] = set()
        for start_step, tables in self._sessions:
            if start_step is not None:
                kept = steps <= start_step
                steps, times, values = steps[kept], times[kept], values[kept]
            columns = [column for table in tables if (column := table.column(key)) is not None]
            kinds |= {column.kind for column in columns}
            steps = np.concatenate([steps, *(column.rows.steps.array() for column in columns)])
            times = np.concatenate([times, *(column.rows.times for column in columns)])
            values = np.concatenate([values, *(column.values for column in columns)])
        order = np.argsort(steps, kind="stable")
        ordered = steps[order]
        order = order[np.append(ordered[1:] != ordered[:-1], True)[: len(order)]]
        if not len(order):
            return []
        rows = Rows.of(steps[order], times[order])
        kind: Kind = kinds.pop() if len(kinds) == 1 else "mixed"
        values = values[order]
        return [Piece(Column(rows, values, kind, is_ascending(values)), 0, len(values))]


def _until(piece: Piece, step: int) -> Piece | None:
    """The rows of a piece up to a step; None when there are none."""
    stop = min(piece.stop, first_row(piece.column.rows.steps, step, ends=True))
    return Piece(piece.column, piece.start, stop) if piece.start < stop else None


def _in_order(pieces: Sequence[Piece]) -> bool:
    return all(a.last() <= b.first() for a, b in pairwise(pieces))


def _by_time(pieces: Sequence[Piece]) -> list[Piece] | None:
    if not all(piece.column.rows.timely for piece in pieces):
        return None
    return [Piece(p.column, p.start, p.stop, p.column.rows.times) for p in pieces]


def _by_key(pieces: Sequence[Piece], axis: Sequence[Piece]) -> list[Piece] | None:
    """The pieces on the axis of a key that was logged in the same lines and never went back."""
    if len(pieces) != len(axis):
        return None
    for piece, other in zip(pieces, axis, strict=True):
        same = piece.column.rows is other.column.rows
        if not same or (piece.start, piece.stop) != (other.start, other.stop):
            return None
        if not other.column.ascending:
            return None
    return [
        Piece(p.column, p.start, p.stop, q.column.values) for p, q in zip(pieces, axis, strict=True)
    ]


def _times(pieces: Sequence[Piece]) -> tuple[Floats, Ints, Floats]:
    import numpy as np

    times = np.concatenate([p.column.rows.times[p.start : p.stop] for p in pieces])
    points = Curve(pieces).series()
    return times, points.x, points.y


def _joined(pieces: Sequence[Piece], axis: Sequence[Piece]) -> tuple[Floats, Ints, Floats]:
    """Of each point whose step the axis has too: its place there, its step and its value."""
    import numpy as np

    points, places = Curve(pieces).series(), Curve(axis).series()
    if not len(places.x):
        return np.empty(0), np.empty(0, np.int64), np.empty(0)
    at = np.minimum(np.searchsorted(places.x, points.x), len(places.x) - 1)
    both = places.x[at] == points.x
    return places.y[at[both]], points.x[both], points.y[both]


def _sorted(places: Floats, steps: Ints, values: Floats) -> list[Piece]:
    """One piece in the order of the places, those that are not finite left out."""
    import numpy as np

    order = np.argsort(places, kind="stable")
    order = order[np.isfinite(places[order])]
    if not len(order):
        return []
    places, values = places[order], values[order]
    rows = Rows(Steps(steps[order]), places, is_increasing(steps[order]), True, int(steps.max()))
    return [Piece(Column(rows, values, "mixed", False), 0, len(values), places)]
