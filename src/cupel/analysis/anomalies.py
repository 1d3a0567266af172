"""What a curve did that it should not: values that are not finite, jumps, spikes of a norm.

A stretch of rows that are not finite is one anomaly with its count. A finite value is a `jump`
when it lies above

    median + 6 · max(MAD, 0.001 · |median|)

of the 100 finite values before it, or of all when there are at least 20; MAD is the median distance
from the median, unscaled, so that of normal noise about 12 values in 100,000 are told. The floor
under the MAD is for curves that hardly move: less than 0.6 % above the median is never a jump. At a
median of 0 there is no such floor. What was told stays among the values that judge the next ones,
so after a level shift up to 50 values are told before the new level is the usual one.

With `log=True`, for norms and other positive numbers, the same rule holds for logarithms (the floor
is 0.001 itself) and the kind is `spike`; 0 and less are then neither judged nor remembered.

Costs 0.15 s for a million points of noise, 0.5 s where two in five of them are told; 0.02 s for
100,000 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["not finite", "jump", "spike"]

WINDOW, LEAST = 100, 20  # finite values that judge the next one, at most and at least
TIMES, FLOOR = 6.0, 1e-3
_TOGETHER = 6  # rows that share a bound: more are sorted faster, but by a looser one
_CHUNK = 4096  # windows at a time, which is 3 MB


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One of them: `count` rows from `step` on, the first of which has `value`.

    `threshold` is what a jump or a spike lies above, None for values that are not finite.
    """

    kind: Kind
    step: int | float
    value: float
    threshold: float | None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Anomalies:
    """How many there are, and the newest of them, newest last."""

    total: int
    shown: list[Anomaly]


def anomalies(steps: ArrayLike, y: ArrayLike, *, most: int = 100, log: bool = False) -> Anomalies:
    """The anomalies of a curve in the order of its rows; of them at most `most` are shown."""
    places, values = np.asarray(steps), np.asarray(y, dtype=np.float64)
    assert places.shape == values.shape, (places.shape, values.shape)
    with np.errstate(all="ignore"):
        starts, counts = _stretches(~np.isfinite(values))
        rows, thresholds = _above(values, log=log)
    total = len(starts) + len(rows)
    shown = [
        Anomaly("not finite", places[row].item(), float(values[row]), None, int(count))
        for row, count in _newest(starts, counts, most)
    ] + [
        Anomaly("spike" if log else "jump", places[row].item(), float(values[row]), float(bound))
        for row, bound in _newest(rows, thresholds, most)
    ]
    order = np.argsort(np.concatenate([_last(starts, most), _last(rows, most)]))
    return Anomalies(total, [shown[number] for number in _last(order, most)])


def _last(array: NDArray[Any], most: int) -> NDArray[Any]:
    return array[max(len(array) - most, 0) :]


def _newest(rows: Ints, others: NDArray[Any], most: int) -> Any:
    return zip(_last(rows, most), _last(others, most), strict=True)


def _stretches(bad: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """First rows and lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(bad, prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]


def _above(values: Floats, *, log: bool) -> tuple[Ints, Floats]:
    """The rows above their thresholds, and these."""
    usable = np.isfinite(values) & (values > 0) if log else np.isfinite(values)
    rows = np.flatnonzero(usable)
    kept = np.log(values[rows]) if log else values[rows]
    maybe = _candidates(kept, log=log)
    bounds = thresholds(kept, maybe, log=log)
    told = kept[maybe] > bounds
    found = bounds[told]
    return rows[maybe[told]], np.exp(found) if log else found


def thresholds(values: Floats, at: Ints, *, log: bool) -> Floats:
    """By the definition, for the places `at`, each of which has at least one value before it."""
    found = np.empty(len(at))
    for start in range(0, len(at), _CHUNK):
        where = at[start : start + _CHUNK, None] + np.arange(-WINDOW, 0)
        window = np.where(where < 0, np.inf, values[np.maximum(where, 0)])
        size = np.minimum(at[start : start + _CHUNK], WINDOW)
        median = _medians(window, size)
        mad = _medians(np.abs(window - median[:, None]), size)
        found[start : start + _CHUNK] = _threshold(median, mad, log=log)
    return found


def _medians(window: Floats, size: Ints) -> Floats:
    """Of each row's `size` least values; sorts the rows."""
    window.sort(axis=1)
    lines = np.arange(len(window))
    return 0.5 * window[lines, (size - 1) // 2] + 0.5 * window[lines, size // 2]


def _threshold(median: Floats, mad: Floats, *, log: bool) -> Floats:
    floor = FLOOR if log else FLOOR * np.abs(median)
    return median + TIMES * np.maximum(mad, floor)


def _candidates(values: Floats, *, log: bool) -> Ints:
    """Places that may be above their thresholds, among them all that are.

    A few rows that follow each other share most of their windows. What they share bounds median
    and MAD of each from below, for the rest can move a rank by as many places as it has values.
    """
    size = len(values)
    first = min(size, WINDOW)
    groups = (size - first) // _TOGETHER
    maybe = np.arange(size) >= LEAST
    for start in range(0, groups, _CHUNK):
        count = min(_CHUNK, groups - start)
        begin = first + start * _TOGETHER
        shared = np.lib.stride_tricks.sliding_window_view(
            values[begin + _TOGETHER - 1 - WINDOW : begin + count * _TOGETHER - 1],
            WINDOW + 1 - _TOGETHER,
        )[::_TOGETHER].copy()
        bound = _least_threshold(shared, log=log)
        end = begin + count * _TOGETHER
        maybe[begin:end] = values[begin:end] > np.repeat(bound, _TOGETHER)
    return np.flatnonzero(maybe)


def _least_threshold(shared: Floats, *, log: bool) -> Floats:
    """What no threshold is below, of any window that has these values and a few more.

    Rounding keeps order, so this holds to the last bit. The median is within low … high; so many
    values as half a window has beyond the unknown ones are within the MAD of it, and d is the least
    distance from low … high for which that can be.
    """
    shared.sort(axis=1)
    half = WINDOW // 2
    low, high = shared[:, half - _TOGETHER], shared[:, half]
    near = half + 1 - _TOGETHER
    below = low[:, None] - shared[:, : shared.shape[1] - near + 1]
    beyond = shared[:, near - 1 :] - high[:, None]
    d = np.maximum(np.maximum(below, beyond).min(axis=1), 0.0)
    # median + 6 · floor grows with the median, so that its least value is the one at low
    bound = np.maximum(low + TIMES * d, _threshold(low, np.zeros(len(low)), log=log))
    return np.where(np.isnan(bound), -np.inf, bound)
