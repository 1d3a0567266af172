"""The mean over runs and its t interval, place by place along a curve. Needs no scipy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def interval(
    values: Floats, *, level: float = 0.95
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Mean, lower end, upper end and how many, down the columns of runs × places.

    What is not finite counts as missing. The ends are NaN where fewer than two runs have a value.
    """
    there = np.isfinite(values)
    count = there.sum(axis=0).astype(np.int64)
    kept = np.where(there, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = kept.sum(axis=0) / count
        spread = (np.where(there, values - mean, 0.0) ** 2).sum(axis=0)
        error = np.sqrt(spread / (count - 1) / count)
        wide = np.array([quantile(0.5 + level / 2, n - 1) if n > 1 else math.nan for n in count])
        half = np.where(count > 1, wide * error, np.nan)
        return np.where(count > 0, mean, np.nan), mean - half, mean + half, count


@lru_cache(maxsize=1024)
def quantile(p: float, df: int) -> float:
    """Student's t: the value below which a part p (over 0.5) lies, with df whole degrees.

    By bisection of the distribution function, which is a finite sum for whole degrees of freedom
    (Abramowitz and Stegun 26.7.3 and 26.7.4); right to 1e-9.
    """
    assert 0.5 < p < 1, p
    assert df >= 1, df
    low, high = 0.0, 1.0
    while _within(high, df) < 2 * p - 1:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < 2 * p - 1 else (low, middle)
    return (low + high) / 2


def _within(t: float, df: int) -> float:
    """The part that lies between −t and t."""
    angle = math.atan(t / math.sqrt(df))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    term, total = 1.0, 1.0
    if df % 2 == 0:
        for k in range(1, df // 2):
            term *= square * (2 * k - 1) / (2 * k)
            total += term
        return sine * total
    if df == 1:
        return 2 * angle / math.pi
    for k in range(1, (df - 1) // 2):
        term *= square * (2 * k) / (2 * k + 1)
        total += term
    return 2 / math.pi * (angle + sine * math.cos(angle) * total)
