"""Rows of a run's metrics, a mapping a step: from the lines, or from columns, and the same ones.

From columns only what every line would say again to the bit; for anything else `from_columns`
gives None, and the lines have to be read (about 2 µs each, against 0.5 µs).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cupel.record.curve import Range, Series
from cupel.record.series import STEP, TIME, Logged

if TYPE_CHECKING:
    from cupel.record.columns import Floats, Ints
    from cupel.record.curve import Places

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """Which rows, and in which order: those of a range of an axis, thinned to some points."""

    x: str = STEP
    range: Range = (None, None)
    points: int | None = None

    @property
    def key(self) -> str:
        """The key that holds the places."""
        return {STEP: "_step", TIME: "_t"}.get(self.x, self.x)

    @property
    def is_plain(self) -> bool:
        """Whether it is all rows in the order of their steps."""
        return self == View()


def from_lines(sessions: Iterable[tuple[int | None, Iterable[Row]]]) -> list[Row]:
    """The rows of some sessions, of each its start step, None if it has none, and its lines."""
    rows: dict[int, Row] = {}
    for start_step, lines in sessions:
        if start_step is not None:
            rows = {step: row for step, row in rows.items() if step <= start_step}
        for line in lines:
            if (row := rows.get(line["_step"])) is None:
                rows[line["_step"]] = line
            else:
                row.update(line)
    return [rows[step] for step in sorted(rows)]


def selected(rows: list[Row], keys: Collection[str] | None, view: View) -> list[Row]:
    """The rows that hold one of the keys, with nothing but these, as the view wants them."""
    if keys is not None:
        wanted = {"_step", "_t", view.key, *keys}
        rows = [
            {key: value for key, value in row.items() if key in wanted}
            for row in rows
            if not row.keys().isdisjoint(keys)
        ]
    if view.is_plain:
        return rows
    low, high = view.range
    placed = [
        (place, row)
        for row in rows
        if (place := _place(row.get(view.key))) is not None
        and (low is None or place >= low)
        and (high is None or place <= high)
    ]
    placed.sort(key=lambda pair: pair[0])
    rows = [row for _, row in placed]
    if view.points is None or len(rows) <= view.points:
        return rows
    return _thinned(placed, keys, view.points)


def from_columns(logged: Logged, keys: Collection[str], view: View) -> list[Row] | None:
    """The same rows as `selected` gives; None where columns do not tell all that lines say."""
    import numpy as np

    kinds = logged.kinds()
    held = [key for key in kinds if key in keys]
    shown = ["_t", *(key for key in kinds if key != "_t" and (key in keys or key == view.key))]
    exact = all(table.whole for table in logged.tables)
    if "_step" in keys or not exact or "mixed" in {kinds.get(key) for key in shown}:
        return None
    columns = {key: logged.curve(key).series() for key in {*held, *shown}}
    steps = [np.empty(0, np.int64), *(columns[key].x for key in held)]
    chosen: Ints = np.unique(np.concatenate(steps)) if len(held) > 1 else steps[-1]
    if not view.is_plain:
        chosen = _viewed(chosen, columns, keys, view)
    rows: list[Row] = [{"_step": step} for step in chosen.tolist()]
    for key in shown:
        at, found = _found(chosen, columns[key])
        values = columns[key].y[found]
        told = values.tolist() if kinds.get(key) != "int" else values.astype(np.int64).tolist()
        places = rows if len(at) == len(rows) else [rows[place] for place in at.tolist()]
        for row, value in zip(places, told, strict=True):
            row[key] = value
    return rows


def thin(x: Floats, columns: Sequence[tuple[Ints, Floats]], most: int) -> Ints:
    """Which of many places show what they all show, at about `most` of them.

    `columns` are the rows and values of some keys; x ascends. Of every key, the least and the
    greatest of each equal stretch stay, the last one where all are NaN, and both ends of all.
    """
    import numpy as np

    parts = max(1, (most - 2) // (2 * max(1, len(columns))))
    fraction = np.arange(1, parts) / parts
    cuts = np.searchsorted(x, x[0] * (1 - fraction) + x[-1] * fraction)
    cuts = np.concatenate([[0], cuts, [len(x)]])
    chosen = [np.array([0, len(x) - 1])]
    for places, values in columns:
        bounds = np.searchsorted(places, cuts)
        starts = bounds[:-1][bounds[1:] > bounds[:-1]]
        if not len(starts):
            continue
        lengths = np.diff([*starts, len(places)])
        part = np.repeat(np.arange(len(starts)), lengths)
        for extreme in (np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)):
            hits = np.flatnonzero(values == extreme[part])
            chosen.append(places[hits[np.unique(part[hits], return_index=True)[1]]])
        empty = np.isnan(extreme)
        chosen.append(places[(starts + lengths - 1)[empty]])
    return np.unique(np.concatenate(chosen))


def thinned(series: Series, points: int | None) -> Series:
    """A series of about so many of its points."""
    import numpy as np

    if points is None or len(series.x) <= points:
        return series
    x = series.x.astype(np.float64)
    kept = thin(x, [(np.arange(len(x)), series.y)], points)
    return Series(series.x[kept], series.y[kept])


def _viewed(steps: Ints, columns: dict[str, Series], keys: Collection[str], view: View) -> Ints:
    """The steps of a view, in its order."""
    import numpy as np

    places: Places = steps
    if view.x != STEP:
        axis = columns.get(view.key)
        if axis is None:
            return steps[:0]
        at, found = _found(steps, axis)
        steps, places = steps[at], axis.y[found]
    low, high = view.range
    if places.dtype == np.int64:
        low = low if low is None or math.isinf(low) else math.ceil(low)
        high = high if high is None or math.isinf(high) else math.floor(high)
    kept = np.isfinite(places)
    if low is not None:
        kept &= places >= low
    if high is not None:
        kept &= places <= high
    steps, places = steps[kept], places[kept]
    order = np.argsort(places, kind="stable")
    steps, places = steps[order], places[order]
    if view.points is None or len(steps) <= view.points:
        return steps
    values: list[tuple[Ints, Floats]] = []
    for key in dict.fromkeys(keys):
        series = columns.get(key, Series(np.empty(0, np.int64), np.empty(0)))
        at, found = _found(steps, series)
        values.append((at, series.y[found]))
    return steps[thin(places.astype(np.float64), values, view.points)]


def _found(steps: Ints, series: Series) -> tuple[Ints, Ints]:
    """Which of some steps a series has, and where it has them."""
    import numpy as np

    if len(steps) == len(series.x) and (steps == series.x).all():
        return np.arange(len(steps)), np.arange(len(steps))
    if not len(series.x):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    where = np.minimum(np.searchsorted(series.x, steps), len(series.x) - 1)
    at = np.flatnonzero(series.x[where] == steps)
    return at, where[at]


def _thinned(
    placed: Sequence[tuple[float, Row]], keys: Collection[str] | None, points: int
) -> list[Row]:
    import numpy as np

    rows = [row for _, row in placed]
    if keys is None:
        keys = {key for row in rows for key in row} - {"_step", "_t"}
    columns = []
    for key in dict.fromkeys(keys):
        at = [number for number, row in enumerate(rows) if key in row]
        values = [_number(rows[number][key]) for number in at]
        columns.append((np.array(at, dtype=np.int64), np.array(values, dtype=np.float64)))
    x = np.array([place for place, _ in placed], dtype=np.float64)
    return [rows[number] for number in thin(x, columns, points).tolist()]


def _place(value: Any) -> float | None:
    """A place on an axis; None for what is none."""
    number = _number(value)
    return value if math.isfinite(number) else None


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
