"""The smoothed curve is the debiased average of all raw points, however few of them are read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cupel.analysis import smoothing
from cupel.analysis.smoothing import smoothed_at, unit_of

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
FACTORS = st.floats(0, 0.999999) | st.sampled_from([0.0, 1e-300, 0.5, 0.9, 0.99, 1 - 1e-12])
GAPS = st.floats(0, 10) | st.sampled_from([0.0, 1e-9, 1e9, 1e300])


def by_definition(x: Any, y: Any, row: int, factor: float, unit: float) -> float:
    """Σ w y / Σ w over finite points, with weights relative to the newest: only ratios count."""
    points = [j for j in range(row + 1) if math.isfinite(y[j]) and math.isfinite(x[j])]
    if not points:
        return math.nan
    ages = [(float(x[points[-1]]) - float(x[j])) / unit for j in points]
    weights = [math.exp(age * math.log(factor)) if age and factor else not age for age in ages]
    return math.fsum(w * y[j] for w, j in zip(weights, points, strict=True)) / math.fsum(weights)


def check(x: Any, y: Any, rows: Any, factor: float, unit: float | None = None) -> None:
    found = smoothed_at(x, y, rows, factor, unit=unit)
    scale = max((abs(v) for v in y if math.isfinite(v)), default=0.0)
    for row, value in zip(rows, found.tolist(), strict=True):
        expected = by_definition(x, y, row, factor, unit or unit_of(x))
        # rounding of weights and sums, and what is left out: far less than the promised 1e-11
        assert value == pytest.approx(expected, rel=0, abs=1e-12 * scale, nan_ok=True)


@given(st.lists(st.tuples(GAPS, VALUES), max_size=80), FACTORS, st.data())
@example([(0.0, math.nan), (1.0, 1.0), (1e300, math.nan)], 0.5, None)
@pytest.mark.slow
def test_any_rows_of_any_curve_are_by_definition(
    points: list[tuple[float, float]], factor: float, data: st.DataObject | None
) -> None:
    x = np.cumsum([gap for gap, _ in points])
    y = np.array([value for _, value in points], dtype=np.float64)
    rows = range(len(points))
    if data is not None:
        rows = sorted(data.draw(st.lists(st.sampled_from(rows)))) if points else []
    check(x, y, rows, factor)


@given(
    st.lists(st.integers(0, 50) | st.sampled_from([2**40, 2**61]), min_size=1, max_size=40),
    st.integers(-(2**62), 2**62),
    FACTORS,
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 7, 1 << 16]),
)
@pytest.mark.slow
def test_batches_of_any_size_and_large_integers_are_by_definition(
    gaps: list[int], start: int, factor: float, seed: int, batch: int
) -> None:
    places = [0]
    for gap in gaps:
        places.append(places[-1] + gap if places[-1] + gap < 2**62 else places[-1])
    y = np.random.default_rng(seed).normal(size=len(places))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_BATCH", batch)
        found = smoothed_at([start + place for place in places], y, range(len(y)), factor)
    unit = unit_of(places)
    for row, value in enumerate(found.tolist()):  # the oracle's floats have room at 0 only
        ages = [(places[row] - place) / unit for place in places[: row + 1]]
        weights = [factor**age if age else 1.0 for age in ages]
        assert value == pytest.approx(np.dot(weights, y[: row + 1]) / sum(weights), abs=1e-10)


def tensorboard(y: NDArray[np.float64], factor: float) -> list[float]:
    last, smoothed = 0.0, []
    for count, value in enumerate(y.tolist(), start=1):
        last = last * factor + (1 - factor) * value
        smoothed.append(last / (1 - factor**count))
    return smoothed


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("gap", [1, 10, 0.25])
def test_on_a_regular_x_it_is_tensorboards(factor: float, gap: float) -> None:
    y = np.random.default_rng(1).normal(3, 1, size=5000)
    found = smoothed_at(np.arange(5000) * gap + 7, y, np.arange(5000), factor)
    np.testing.assert_allclose(found, tensorboard(y, factor), rtol=1e-9)


@pytest.mark.parametrize("factor", [0.9, 0.999, 0.999999])
@pytest.mark.slow
def test_few_rows_of_many_points_are_those_of_all_rows(factor: float) -> None:
    random = np.random.default_rng(2)
    size = 300_000
    x = np.cumsum(random.exponential(size=size)) + 1.7e9  # seconds of an epoch
    y = np.where(random.random(size) < 0.01, np.nan, random.normal(size=size))
    every = smoothed_at(x, y, np.arange(size), factor)
    rows = np.unique([*random.integers(0, size, 50), *np.flatnonzero(np.isnan(y))[::200]])
    np.testing.assert_allclose(smoothed_at(x, y, rows, factor), every[rows], rtol=0, atol=1e-11)
    alone = [smoothed_at(x, y, [row], factor)[0] for row in rows]
    np.testing.assert_allclose(alone, every[rows], rtol=0, atol=1e-11)


@given(st.integers(0, 2**32), FACTORS, st.integers(1001, 1500))
def test_later_points_repaint_nothing(seed: int, factor: float, size: int) -> None:
    random = np.random.default_rng(seed)
    x, y = np.cumsum(random.exponential(size=1600)), random.normal(size=1600)
    rows = np.arange(0, size, 37)
    before, after = smoothed_at(x[:size], y[:size], rows, factor), smoothed_at(x, y, rows, factor)
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-12)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), FACTORS, st.data())
@pytest.mark.slow
def test_what_comes_stays_among_the_values_and_never_fails(
    y: list[float], factor: float, data: st.DataObject
) -> None:
    wild = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**62), 2**62)
    x = data.draw(st.lists(wild, min_size=len(y), max_size=len(y)))  # in no order at all
    for place in (x, sorted(v for v in x if v == v), list(range(len(y)))):
        if len(place) != len(y):
            continue
        finite = [value for value in y if math.isfinite(value)]
        found = smoothed_at(place, y, range(len(y)), factor)
        assert len(found) == len(y)
        for value in found[~np.isnan(found)]:
            slack = 1e-9 * max(map(abs, finite))
            assert min(finite) - slack <= value <= max(finite) + slack


def test_a_long_stretch_without_points_keeps_the_last_average() -> None:
    y = np.concatenate([[1.0, 2.0], np.full(200_000, np.nan), [5.0], np.full(100, np.nan)])
    x = np.arange(len(y))
    found = smoothed_at(x, y, [0, 1, 1000, 200_001, 200_002, len(y) - 1], 0.5)
    assert found.tolist() == pytest.approx([1, 5 / 3, 5 / 3, 5 / 3, 5, 5])
    assert np.isnan(smoothed_at(x[2:100], y[2:100], [0, 97], 0.5)).all()


def test_values_near_the_greatest_float_are_averaged() -> None:
    top = float(np.finfo(np.float64).max)
    assert smoothed_at(range(9), [top] * 9, [0, 8], 0.99).tolist() == pytest.approx([top, top])
    assert smoothed_at(range(2), [top, -top], [1], 0.0).tolist() == [-top]
    mixed = smoothed_at(range(9), [top, top, top / 2] * 3, [8], 1 - 1e-9)[0]
    assert mixed / top == pytest.approx(5 / 6)


def test_the_unit_is_the_median_of_the_first_thousand_positive_gaps() -> None:
    assert unit_of([]) == unit_of([3]) == unit_of([2, 2, 2]) == unit_of([math.nan] * 3) == 1
    assert unit_of([0, 2, 2, 2, 4, 14]) == 2
    late = np.repeat(np.cumsum([1] * 400 + [9] * 900), 2)  # most of the first thousand gaps are 9
    assert unit_of(late) == unit_of(late * 1.0) == 9
    twice = np.repeat(np.arange(3000) * 5, 2)  # every other gap is none
    assert unit_of(np.concatenate([twice, twice[-1] + 1 + np.arange(9000)])) == 5


def test_smoothing_by_zero_is_the_curve() -> None:
    y = [3.0, math.nan, 4.0, math.inf]
    assert smoothed_at(range(4), y, range(4), 0.0).tolist() == [3, 3, 4, 4]
