"""A trend is told when there is one, seldom when there is none, and never without its window."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cupel.analysis.trend import Trend, trend, window

Floats = NDArray[np.float64]
MIRROR = {"falling": "rising", "rising": "falling"}
SEEDS = st.integers(0, 2**32)
SIZES = st.integers(10, 3000)


def told(x: object, y: object) -> Trend:
    found = trend(x, y)  # type: ignore[arg-type]
    assert found is not None
    return found


def curve(seed: int, size: int) -> Floats:
    """Of every kind: lines, walks, noise, values of few kinds, some of them not finite."""
    random = np.random.default_rng(seed)
    x = np.arange(size)
    y: Floats = random.choice([0, 0.01, 3]) + random.choice([0, 1e-4, 1e-2]) * random.normal(
        size=size
    )
    y += random.choice([0, 1e-5, -1e-3]) * x + random.choice([0, 0, 0.01]) * np.cumsum(y)
    if random.random() < 0.3:
        y = np.round(y, 2)
    y[random.random(size) < random.choice([0, 0.05, 0.5])] = random.choice([math.nan, math.inf])
    return y


@given(SEEDS, SIZES, st.floats(5, 100), st.floats(-1e6, 1e6))
def test_a_line_that_falls_by_more_than_its_noise_is_falling(
    seed: int, size: int, times: float, shift: float
) -> None:
    random = np.random.default_rng(seed)
    part = window(size)  # within it the line falls by 5 standard deviations or more of one point
    y = -times * np.arange(size) / part + random.normal(size=size)
    assume(part >= 25)  # of ten points, a test at 2 % misses some such lines
    found = told(range(size), y)
    assert found.label == "falling"
    assert found.slope is not None
    assert found.slope * part == pytest.approx(-times, abs=5)  # 7 standard errors at 25 points
    # far from 0 such a fall is small, and then it may be below the noise
    assert told(range(size), y + shift).label in ("falling", "flat")


@given(SEEDS, SIZES)
def test_a_mirrored_curve_has_the_mirrored_trend(seed: int, size: int) -> None:
    y = curve(seed, size)
    one, two = told(range(size), y), told(range(size), -y)
    assert two.label == MIRROR.get(one.label, one.label)
    if one.slope is not None and two.slope is not None:
        assert two.slope == pytest.approx(-one.slope, rel=1e-9)


@given(SEEDS, SIZES, st.integers(-200, 200), st.integers(-30, 30), st.integers(-(2**40), 2**40))
def test_units_and_the_origin_of_x_do_not_matter(
    seed: int, size: int, power: int, stretch: int, origin: int
) -> None:
    y = curve(seed, size)
    one = told(range(size), y)
    two = told(np.ldexp(np.arange(size) * 1.0, stretch), y * 2.0**power)
    assert two.label == one.label
    if one.slope is not None and two.slope is not None:
        assert two.slope == pytest.approx(math.ldexp(one.slope, power - stretch), rel=1e-9)
    moved = told(np.arange(size) + origin, y)
    assert (moved.label, moved.points) == (one.label, one.points)
    assert (moved.low, moved.high) == (one.low + origin, one.high + origin)


@given(SEEDS, SIZES, st.floats(-100, 100))
def test_a_shift_of_y_turns_no_trend_around_and_leaves_the_slope(
    seed: int, size: int, shift: float
) -> None:
    y = curve(seed, size)
    one, two = told(range(size), y), told(range(size), y + shift)
    assert {one.label, two.label} != {"falling", "rising"}
    assert (one.label == "not finite") == (two.label == "not finite")
    if one.slope is not None and two.slope is not None:
        assert two.slope == pytest.approx(one.slope, rel=1e-6, abs=1e-12)


@given(SEEDS, SIZES)
def test_only_the_window_decides(seed: int, size: int) -> None:
    y, part = curve(seed, size), window(size)
    found = told(range(size), y)
    assert (found.low, found.high, found.points) == (size - part, size - 1, part)
    y[: size - part] = -1e9
    assert repr(told(range(size), y)) == repr(found)


NOISES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda random, size: random.normal(3, 1, size),
    "small": lambda random, size: random.normal(3, 0.001, size),
    "wild": lambda random, size: random.standard_cauchy(size),
    "of two values": lambda random, size: random.integers(0, 2, size) * 1.0,
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("size", [10, 50, 300])
def test_noise_has_a_trend_in_less_than_5_of_100_curves(noise: str, size: int) -> None:
    random = np.random.default_rng(5)
    labels = Counter(told(range(size), NOISES[noise](random, size)).label for _ in range(600))
    # 2 % by the test's level, and 1.7 standard errors of 600 curves are 1 %
    assert labels["falling"] + labels["rising"] <= 0.035 * 600
    assert labels["flat" if noise == "small" else "noisy"] >= 0.96 * 600


def test_constants_are_flat_and_exact_lines_are_not() -> None:
    assert told(range(100), [3.0] * 100).label == "flat"
    assert told(range(100), [0.0] * 100).label == "flat"
    line = told(range(0, 1000, 10), 5 - 1e-6 * np.arange(100))  # 0.002 %, but no noise
    assert line.label == "falling"
    assert line.slope == pytest.approx(-1e-7, rel=1e-6)


def test_a_trend_below_1_percent_and_below_the_noise_is_none() -> None:
    x = np.arange(1000)  # a window of 50, buckets of 2
    y = 100 + 0.9 * np.arange(1000) / 50 / 2 + np.where(x // 2 % 2, 0.45, -0.45)
    assert told(x, y).label == "flat"
    assert told(x, y - 100).label != "flat"  # the same, where it is no longer small


def test_not_finite_is_told_of_the_newest_bucket_or_of_half_of_the_points() -> None:
    y = np.arange(100.0)
    for bad in ([98, 99], list(range(50, 76))):
        broken = y.copy()
        broken[bad] = math.nan
        assert told(range(100), broken) == Trend("not finite", 50, 99, 50)
    for fine in ([99], [98], list(range(50, 74))):
        broken = y.copy()
        broken[fine] = math.inf
        assert told(range(100), broken).label == "rising"


def test_points_out_of_order_are_put_in_order() -> None:
    x = np.arange(50)
    y = 3.0 * x
    order = np.random.default_rng(6).permutation(50)
    assert told(x[order], y[order]) == told(x, y)


def test_where_nothing_can_be_said_there_is_no_trend() -> None:
    assert trend([], []) is None
    assert trend(range(9), range(9)) is None
    assert trend([4] * 60, range(60)) is None
    assert trend([math.nan] * 60, range(60)) is None


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=80), st.booleans())
@pytest.mark.slow
def test_no_points_make_it_fail(points: list[tuple[float, float]], ordered: bool) -> None:
    x, y = [x for x, _ in points], [y for _, y in points]
    found = trend(range(len(y)) if ordered else x, y)
    if found is not None:
        assert found.low < found.high
        for value in (found.slope, found.change, found.noise):
            assert value is None or math.isfinite(value)
