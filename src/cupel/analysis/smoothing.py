"""An exponential moving average of raw points, told at a few rows and right wherever x has gaps.

Seen from row i, the point j ≤ i weighs

    factor ** ((x_i - x_j) / unit)

and the result is the weighted mean of the points that are finite; dividing by the sum of weights is
what others call debiasing. On a regular x and with its gap as unit, this is TensorBoard's smoothing
to rounding. Only ratios of weights count, so after a gap of any length the mean of what was before
it goes on; where no point up to a row is finite, it is NaN. The average is of raw points and looks
back only, so it neither depends on what is drawn nor changes behind a live point.

Rows that are asked for hand on to the next what they found, and of what lies between them only
points that weigh at least 1e-12 of all in the end are read: the result is exact to 1e-11 of the
greatest value. Costs, for 1,000 rows of ten million points: 6 ms at a factor of 0.9, 60 ms at
0.99, 0.1 s at 0.999 and above, when all are read; each further row 0.5 µs. Where 1 % of the points
are not finite, a third more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Places = NDArray[Any]  # int64 or float64

GAPS = 1000  # the first positive ones, which decide the unit
_LEFT_OUT = 1e-12  # of the weight of the newest point, all that is not read together
_BATCH = 1 << 16  # points at a time: half a megabyte an array, which stays in the cache
_LOOK = 64  # rows back for the newest point, before all rows are searched
_GREATEST = float(np.finfo(np.float64).max)


def smoothed_at(
    x: ArrayLike, y: ArrayLike, rows: ArrayLike, factor: float, *, unit: float | None = None
) -> Floats:
    """The average at each of the rows, which ascend, as x does; `unit` is else `unit_of(x)`.

    Where x is not finite there is no point; one that stands before a later point and yet beyond it
    has no weight there.
    """
    assert 0 <= factor < 1, factor
    assert unit is None or 0 < unit < math.inf, unit
    places, values, asked = _places(x), np.asarray(y, np.float64), np.asarray(rows, np.int64)
    assert places.shape == values.shape, (places.shape, values.shape)
    if not len(asked):
        return np.empty(0)
    assert 0 <= asked.min() <= asked.max() < len(values), (asked.min(), asked.max(), len(values))
    with np.errstate(all="ignore"):
        anchors = _anchors(places, values, asked)
        ends, which = np.unique(anchors, return_inverse=True)
        none = int(ends[0] < 0)  # rows before all finite points, if any, share the anchor −1
        if none == len(ends):
            return np.full(len(asked), np.nan)
        scale = unit_of(places) if unit is None else unit
        found = _means(places, values, ends[none:], factor, scale)
        if not np.isfinite(found).all():  # sums beyond all floats
            scaled = _means(places, values * 2.0**-64, ends[none:], factor, scale)
            found = np.clip(scaled * 2.0**64, -_GREATEST, _GREATEST)
    return np.concatenate([np.full(none, np.nan), found])[which]


def unit_of(x: ArrayLike) -> float:
    """The median of the first 1,000 positive gaps, 1 where there are none.

    Later points don't change it, so that a live curve does not repaint what it has drawn.
    """
    places = _places(x)
    with np.errstate(all="ignore"):
        size = GAPS + 1
        while True:
            gaps = np.diff(places[:size])
            gaps = gaps[(gaps > 0) & np.isfinite(gaps)]
            if len(gaps) >= GAPS or size >= len(places):
                break
            size *= 4
    return float(np.median(gaps[:GAPS])) if len(gaps) else 1.0


def _places(x: ArrayLike) -> Places:
    """As int64 where differences fit into it, so that they are exact; else as float64."""
    array = np.asarray(x)
    if array.dtype.kind == "i" and len(array) and int(array[-1]) - int(array[0]) < 2**63:
        return array.astype(np.int64, copy=False)
    return array.astype(np.float64, copy=False)


def _anchors(x: Places, y: Floats, rows: Ints) -> Ints:
    """The newest row with a point up to each row, −1 where there is none."""
    bad = rows[~_points(x, y, rows)]
    if len(bad) * _LOOK < len(y):  # a look back, which mostly finds them and costs next to nothing
        before = np.maximum(bad[:, None] - np.arange(1, _LOOK), 0)
        good = _points(x, y, before)
        if good.any(axis=1).all():
            anchors = rows.copy()
            anchors[~_points(x, y, rows)] = before[np.arange(len(bad)), good.argmax(axis=1)]
            return anchors
    points = np.flatnonzero(_points(x, y, slice(0, int(rows.max()) + 1)))
    newest: Ints = np.concatenate([[-1], points])[np.searchsorted(points, rows, side="right")]
    return newest


def _points(x: Places, y: Floats, rows: Any) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = np.isfinite(y[rows])
    return good if x.dtype.kind == "i" else good & np.isfinite(x[rows])


def _means(x: Places, y: Floats, ends: Ints, factor: float, unit: float) -> Floats:
    """The average at rows that increase and have points."""
    rate = -math.log(factor) if factor > 0 else math.inf  # in e-folds a unit
    starts = _starts(x, ends, rate, unit)
    starts, stops, asked = _split(starts, ends)
    decay = _weights(x[stops[:-1]] - x[stops[1:]], rate, unit).tolist()
    sums, weights = [], []
    total = weight = 0.0
    for (value, own), kept in zip(
        _pieces(x, y, starts, stops, rate, unit), [0.0, *decay], strict=True
    ):
        total, weight = kept * total + value, kept * weight + own
        sums.append(total)
        weights.append(weight)
    found: Floats = np.array(sums)[asked] / np.array(weights)[asked]
    return found


def _starts(x: Places, ends: Ints, rate: float, unit: float) -> Ints:
    """The first row to read for each: after the row before it, and within reach of its weights."""
    before = np.concatenate([[0], ends[:-1] + 1])
    reach = unit * math.log(max(len(x), 1) / _LEFT_OUT) / rate
    if x.dtype.kind == "i":  # to search floats among integers would copy all of these
        span = max(int(x[-1]) - int(x[0]), 0)
        limits = x[ends] - (span if reach >= span else math.ceil(reach))
    else:
        limits = x[ends] - reach
    starts: Ints = np.minimum(np.maximum(before, np.searchsorted(x, limits)), ends)
    return starts


def _split(starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """First and last rows of pieces no longer than a batch, and which piece ends each range."""
    parts = (ends - starts) // _BATCH + 1
    last = np.cumsum(parts) - 1
    number = np.arange(int(parts.sum())) - np.repeat(last + 1 - parts, parts)
    firsts = np.repeat(starts, parts) + number * _BATCH
    return firsts, np.minimum(firsts + _BATCH - 1, np.repeat(ends, parts)), last


def _pieces(
    x: Places, y: Floats, starts: Ints, stops: Ints, rate: float, unit: float
) -> Iterator[tuple[float, float]]:
    """Of each piece the sums of weight · value and of weight, as seen from its last row."""
    lengths = stops - starts + 1
    batch = (np.cumsum(lengths) - lengths) // _BATCH
    edges = np.flatnonzero(np.diff(batch, prepend=-1, append=-1))
    for one, two in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        heads = np.cumsum(lengths[one:two]) - lengths[one:two]
        rows = _rows(starts[one:two], stops[one:two], lengths[one:two], heads)
        behind = x[rows] - np.repeat(x[stops[one:two]], lengths[one:two])
        weights, values = _weights(behind, rate, unit), y[rows]
        good = np.isfinite(values)
        if not good.all():
            weights, values = np.where(good, weights, 0.0), np.where(good, values, 0.0)
        sums = np.add.reduceat(weights * values, heads)
        yield from zip(sums.tolist(), np.add.reduceat(weights, heads).tolist(), strict=True)


def _rows(starts: Ints, stops: Ints, lengths: Ints, heads: Ints) -> Any:
    """All rows of some pieces: a slice, which copies nothing, where they follow each other."""
    if (starts[1:] == stops[:-1] + 1).all():
        return slice(int(starts[0]), int(stops[-1]) + 1)
    return np.repeat(starts - heads, lengths) + np.arange(int(lengths.sum()))


def _weights(behind: Places, rate: float, unit: float) -> Floats:
    """Of points so far behind (≤ 0) in x; those beyond have none."""
    weights: Floats = behind / unit
    if rate == math.inf:
        same: Floats = (weights == 0).astype(np.float64)
        return same
    weights *= rate
    wrong = ~(weights <= 0)
    np.exp(weights, out=weights)
    if wrong.any():
        weights[wrong] = 0.0
    return weights
