"""The points of one key in the order of one axis: as arrays, or as what stretches come to.

A curve is a list of pieces of columns that lie where they lay; nothing is copied until arrays are
asked for, and buckets read single rows at the edges of their blocks only (`cupel.record.pyramid`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cupel.errors import UsageError
from cupel.record import pyramid
from cupel.record.columns import Column, Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cupel.record.columns import Floats, Ints

    Places = NDArray[Any]  # int64 or float64

Range = tuple[float | None, float | None]

_LEAST, _MOST = -(2**63), 2**63 - 1
_FEW = 16_384  # rows that are read one by one rather than a pyramid is built over all of them


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Points in the order of x; x is int64 on the axis "step", else float64, as y always is."""

    x: Places
    y: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Equal stretches of an axis, each with what its points come to.

    A point at x belongs to the stretch with x0 <= x < x1; the last one includes its x1. `count` is
    of the points that are not NaN, `nan` of the others. `min`, `max` and `last` are values that
    were logged, `mean` is right to rounding; `last` may be NaN, the others count what is not. All
    four are NaN where there is no such point.
    """

    x0: Floats
    x1: Floats
    count: Ints
    nan: Ints
    min: Floats
    max: Floats
    mean: Floats
    last: Floats


@dataclass(frozen=True, slots=True)
class Point:
    """One point: its place on the axis, its step, its time in Unix seconds, its value."""

    x: float
    step: int
    time: float
    y: float


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of a column, and the places of all its rows on an axis (None: their steps)."""

    column: Column
    start: int
    stop: int
    places: Floats | None = None

    def first(self) -> float:
        return self._place(self.start)

    def last(self) -> float:
        return self._place(self.stop - 1)

    def point(self, row: int) -> Point:
        """One row. Its time is unknown where the places are those of another key."""
        rows = self.column.rows
        timed = self.places is None or self.places is rows.times
        return Point(
            self._place(row), rows.steps.at(row), float(rows.times[row]) if timed else math.nan,
            float(self.column.values[row]),
        )  # fmt: skip

    def _place(self, row: int) -> float:
        steps = self.column.rows.steps
        return steps.at(row) if self.places is None else float(self.places[row])

    def x(self, start: int, stop: int) -> Places:
        steps = self.column.rows.steps
        return steps.array(start, stop) if self.places is None else self.places[start:stop]

    def rows_before(self, targets: Floats) -> Ints:
        """For each target, the first row of this piece that is not before it."""
        import numpy as np

        if self.places is None:
            found = self.column.rows.steps.search(_whole(targets))
        else:
            found = np.searchsorted(self.places, targets)
        return np.clip(found, self.start, self.stop)

    def rows_within(self, range_: Range) -> tuple[int, int]:
        """The rows whose places lie in a range, its ends included."""
        low, high = range_
        start, stop = self.start, self.stop
        if self.places is None:
            steps = self.column.rows.steps
            if low is not None:
                start = first_row(steps, low, ends=False)
            if high is not None:
                stop = first_row(steps, high, ends=True)
        else:
            if low is not None:
                start = int(self.places.searchsorted(low, "left"))
            if high is not None:
                stop = int(self.places.searchsorted(high, "right"))
        start = min(max(start, self.start), self.stop)
        return start, max(start, min(stop, self.stop))


class Curve:
    """The points of one key in the order of one axis."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces

    def extent(self) -> tuple[float, float] | None:
        """The first and the last place; None without points."""
        if not self.pieces:
            return None
        return self.pieces[0].first(), self.pieces[-1].last()

    def nearest(self, x: float) -> Point | None:
        """The point whose place is nearest to x, the earlier one of two; None without points."""
        import numpy as np

        best: Point | None = None
        for piece in self.pieces:
            after = int(piece.rows_before(np.array([x], dtype=np.float64))[0])
            for row in (after - 1, after):
                if piece.start <= row < piece.stop:
                    point = piece.point(row)
                    if best is None or abs(point.x - x) < abs(best.x - x):
                        best = point
        return best

    def newest(self, most: int) -> tuple[Ints, Floats, Floats]:
        """Steps, times and values of the last points, at most so many."""
        import numpy as np

        steps, times, values = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
        for piece in reversed(self.pieces):
            if most <= 0:
                break
            start, rows = max(piece.start, piece.stop - most), piece.column.rows
            most -= piece.stop - start
            steps.append(rows.steps.array(start, piece.stop))
            times.append(rows.times[start : piece.stop])
            values.append(piece.column.values[start : piece.stop])
        return (
            np.concatenate(steps[::-1]), np.concatenate(times[::-1]), np.concatenate(values[::-1])
        )  # fmt: skip

    def series(self, range_: Range = (None, None)) -> Series:
        """All points of a range, its ends included."""
        import numpy as np

        cuts = [(piece, *piece.rows_within(range_)) for piece in self.pieces]
        steps = all(piece.places is None for piece in self.pieces)
        x: list[Places] = [np.empty(0, np.int64 if steps else np.float64)]
        x += [piece.x(start, stop) for piece, start, stop in cuts]
        y = [np.empty(0)] + [piece.column.values[start:stop] for piece, start, stop in cuts]
        return Series(np.concatenate(x), np.concatenate(y))

    def buckets(self, edges: Floats, range_: Range = (None, None)) -> Buckets:
        """What the points of a range come to between `edges`, which ascend."""
        import numpy as np

        size = max(0, len(edges) - 1)
        count, nan = np.zeros(size, np.int64), np.zeros(size, np.int64)
        least, greatest, last = (np.full(size, np.nan) for _ in range(3))
        sums = np.zeros(size)
        with np.errstate(invalid="ignore", over="ignore"):
            for piece in self.pieces if size else ():
                start, stop = piece.rows_within(range_)
                cuts = np.clip(piece.rows_before(edges), start, stop)
                cuts[0], cuts[-1] = start, stop
                some = np.flatnonzero(cuts[1:] > cuts[:-1])
                starts, stops = cuts[:-1][some], cuts[1:][some]
                values = piece.column.values
                few = piece.column.built is None and stop - start < _FEW
                levels = () if few else piece.column.levels
                totals = pyramid.reduce(values, levels, starts, stops)
                count[some] += totals.count
                nan[some] += totals.nan
                least[some] = np.fmin(least[some], totals.min)
                greatest[some] = np.fmax(greatest[some], totals.max)
                sums[some] += totals.sum
                last[some] = values[stops - 1]
            mean = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
        return Buckets(edges[:-1], edges[1:], count, nan, least, greatest, mean, last)


def edges_of(curves: Iterable[Curve], range_: Range, points: int) -> Floats:
    """The ends of so many equal stretches of a range; where it is open, of all the points.

    No edges without an end to go by.
    """
    import numpy as np

    extents = [extent for curve in curves if (extent := curve.extent()) is not None]
    low, high = range_
    if low is None:
        low = min((first for first, _ in extents), default=None)
    if high is None:
        high = max((last for _, last in extents), default=None)
    if low is None or high is None or low > high:
        return np.empty(0)
    part = np.arange(points + 1) / points
    edges = float(low) * (1 - part) + float(high) * part  # the difference could overflow
    return np.clip(np.maximum.accumulate(edges), float(low), float(high))


def checked_range(range_: Range | None) -> Range:
    """A range with None where it is open. Raises UsageError for what is none."""
    low, high = range_ or (None, None)
    for end in (low, high):
        if end is not None and not -math.inf <= _float(end) <= math.inf:
            raise UsageError(
                "an end of the range is NaN or beyond all numbers; None is an open end"
            )
    low = None if low == -math.inf else low
    high = None if high == math.inf else high
    if low is not None and high is not None and low > high:
        raise UsageError(f"the range {low} to {high} ends before it begins; give it as (from, to)")
    return low, high


def first_row(steps: Steps, bound: float, *, ends: bool) -> int:
    """The first row at or after a bound, or after it where the bound still belongs to what ends."""
    import numpy as np

    if isinstance(bound, float) and not math.isfinite(bound):
        return len(steps) if bound > 0 else 0
    target = math.floor(bound) + 1 if ends else math.ceil(bound)
    if target > _MOST:
        return len(steps)
    return int(steps.search(np.array([max(target, _LEAST)], dtype=np.int64))[0])


def _whole(targets: Floats) -> Ints:
    import numpy as np

    # 2^63 itself is a float64 and no int64; the float before it is 1,024 less.
    return np.clip(np.ceil(targets), _LEAST, _MOST - 1023).astype(np.int64)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.nan
