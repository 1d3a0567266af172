"""Pauses are told apart from pace, and what is left covers what comes about as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cupel.analysis.pace import Eta, Pace, eta, pace

Floats = NDArray[np.float64]


def paced(steps: object, times: object) -> Pace:
    found = pace(steps, times)  # type: ignore[arg-type]
    assert found is not None
    return found


def left(steps: object, times: object, total: float) -> Eta:
    found = eta(steps, times, total)  # type: ignore[arg-type]
    assert found is not None
    return found


def clock(
    random: np.random.Generator,
    size: int,
    *,
    every: int = 0,
    pause: float = 0.0,
    noise: float = 0.3,
) -> Floats:
    """Times of `size` steps of about 0.1 s, with a pause after every so many."""
    gaps = 0.1 * np.exp(noise * random.normal(size=size - 1))
    if every:
        gaps[every::every] += pause * np.exp(0.05 * random.normal(size=len(gaps[every::every])))
    return np.concatenate([[0.0], np.cumsum(gaps)])


@given(st.integers(1, 1000), st.floats(1e-3, 1e3), st.integers(21, 1500), st.floats(-1e9, 1e9))
def test_a_steady_run_is_told_exactly(
    per_row: int, seconds: float, rows: int, origin: float
) -> None:
    steps = np.arange(rows) * per_row
    times = origin + np.arange(rows) * seconds
    close = 1e-6 + 1e-5 * abs(origin) / 1e9 / seconds  # what a clock at such an origin resolves
    found = paced(steps, times)
    assert found.velocity == pytest.approx(per_row / seconds, rel=close)
    assert found.overall == pytest.approx(per_row / seconds, rel=close)
    assert (found.pauses, found.paused_s, found.gaps) == (0, 0, rows - 1)
    soon = left(steps, times, 2 * steps[-1])
    assert soon.middle == pytest.approx((rows - 1) * seconds, rel=close)
    assert soon.high - soon.low <= 3 * close * soon.middle


@given(st.integers(0, 2**32), st.integers(30, 2000), st.integers(7, 60), st.floats(3, 1e5))
def test_pauses_are_counted_and_leave_the_velocity_alone(
    seed: int, size: int, every: int, pause: float
) -> None:
    plain = clock(np.random.default_rng(seed), size, noise=0.1)
    gaps = np.diff(plain)
    gaps[every::every] += pause
    with_pauses = np.concatenate([[0.0], np.cumsum(gaps)])
    one, two = paced(range(size), plain), paced(range(size), with_pauses)
    many = len(gaps[every::every])
    assert (one.pauses, two.pauses) == (0, many)
    assert two.velocity == pytest.approx(one.velocity, rel=0.15)  # of other gaps, noise 0.1
    assert two.paused_s == pytest.approx(many * pause, rel=0.1)
    assert two.overall == pytest.approx((size - 1) / with_pauses[-1])


def test_the_median_is_per_step_so_that_rows_may_be_far_apart() -> None:
    steps = np.cumsum(np.where(np.arange(300) % 10, 1, 100))  # one gap in ten has 100 steps
    assert paced(steps, steps * 0.1).pauses == 0


def test_velocity_follows_the_newest_gaps() -> None:
    times = np.concatenate([np.arange(500) * 0.1, 50 + np.arange(1, 201) * 0.2])
    assert paced(range(700), times).velocity == pytest.approx(5, rel=0.01)
    slow = np.concatenate([np.arange(5000) * 0.1, 500 + np.arange(1, 1001) * 1.0])
    found = paced(range(6000), slow)  # ten times as slow, but not a thousand pauses
    assert found.velocity == pytest.approx(1, rel=0.01)
    assert found.pauses <= 1


def test_repeated_steps_clocks_that_go_back_and_resumes_are_no_gaps() -> None:
    times = np.arange(100) * 0.5
    repeated = np.repeat(np.arange(100), 2)  # a second row of each step, 0.1 s later
    found = paced(repeated, np.sort(np.concatenate([times, times + 0.1])))
    assert found.velocity == pytest.approx(2)
    assert found.gaps == 99
    back = np.where(np.arange(100) < 50, times, times - 1000)
    assert paced(range(100), back).velocity == pytest.approx(2)
    resumed = np.concatenate([np.arange(60), np.arange(40, 80)])
    found = paced(resumed, np.where(np.arange(100) < 60, times, times + 9999))
    assert (found.velocity, found.pauses) == (pytest.approx(2), 0)
    assert found.overall == pytest.approx(2)


CASES = [
    (1000, 25, 0, 0.0), (1000, 900, 0, 0.0), (1000, 500, 0, 0.0), (5000, 1500, 0, 0.0),
    (1000, 520, 50, 5.0), (2000, 1800, 50, 5.0), (5000, 1500, 333, 20.0),
]  # fmt: skip


@pytest.mark.parametrize("total, seen, every, pause", CASES)
def test_the_interval_covers_about_what_it_says(
    total: int, seen: int, every: int, pause: float
) -> None:
    random = np.random.default_rng(total + seen + every)
    covered, ratios = 0, []
    for _ in range(200):
        times = clock(random, total + 1, every=every, pause=pause)
        found = left(np.arange(seen + 1), times[: seen + 1], total)
        truth = float(times[-1] - times[seen])
        covered += found.low <= truth <= found.high
        ratios.append(found.middle / truth)
    # 90 % within two standard errors (4 %) and the little that is approximate
    assert 0.82 <= covered / 200 <= 0.97
    assert np.median(ratios) == pytest.approx(1, abs=0.02)


def test_more_noise_and_a_farther_end_widen_the_interval() -> None:
    def width(noise: float, total: int) -> float:
        times = clock(np.random.default_rng(7), 500, noise=noise)
        found = left(range(500), times, total)
        return found.high - found.low

    assert width(0.01, 1000) < width(0.1, 1000) < width(0.5, 1000)
    assert width(0.1, 600) < width(0.1, 1000) < width(0.1, 10_000)


def test_evaluations_that_recur_are_part_of_the_time_left() -> None:
    times = clock(np.random.default_rng(8), 1001, every=100, pause=60.0, noise=0.05)
    found = left(range(951), times[:951], 2000)
    assert found.middle == pytest.approx(105 + 10 * 60, rel=0.05)
    assert paced(range(951), times[:951]).velocity == pytest.approx(10, rel=0.05)


def test_one_night_between_sessions_is_not() -> None:
    times = clock(np.random.default_rng(9), 1001, every=100, pause=5.0, noise=0.05)
    night = np.where(np.arange(1001) > 730, times + 30_000, times)
    calm, broken = left(range(1001), times, 2000), left(range(1001), night, 2000)
    assert broken.middle == pytest.approx(calm.middle, rel=0.01)
    assert paced(range(1001), night).paused_s == pytest.approx(30_045, rel=0.01)
    alone = clock(np.random.default_rng(9), 1001, noise=0.05)
    stopped = np.where(np.arange(1001) > 730, alone + 30_000, alone)
    assert left(range(1001), stopped, 2000).middle == pytest.approx(100, rel=0.05)


def test_a_first_evaluation_is_taken_to_recur_and_the_compilation_of_a_first_step_is_not() -> None:
    steps = np.arange(300)
    plain = steps * 0.1
    evaluated = np.where(steps > 100, plain + 4, plain)
    found = left(steps, evaluated, 1000)
    assert found.middle == pytest.approx(70.1 + 8.5 * 4, abs=2.1)  # after 200, 300, … and 900
    assert found.high > 1.3 * found.middle  # one is not much to know
    assert left(steps, np.where(steps > 0, plain + 4, plain), 1000).middle == pytest.approx(70.1)


def test_there_is_no_time_left_to_tell_early_or_without_an_end() -> None:
    steps, times = np.arange(21), np.arange(21) * 1.0
    assert eta(steps, times, 30) is not None
    assert eta(steps[:20], times[:20], 30) is None
    for total in (None, 20, 3, math.nan, math.inf):
        assert eta(steps, times, total) is None
    assert eta([], [], 5) is None
    assert pace([], []) is pace([1], [1]) is pace([1, 1], [1, 2]) is pace([1, 2], [3, 3]) is None


WILD = st.floats() | st.floats(0, 1e3) | st.integers(0, 100)


@given(st.lists(st.tuples(WILD, WILD), max_size=120), st.booleans(), st.floats() | st.none())
@pytest.mark.slow
def test_no_rows_make_it_fail(
    rows: list[tuple[float, float]], ordered: bool, total: float | None
) -> None:
    steps, times = [float(step) for step, _ in rows], [float(time) for _, time in rows]
    if ordered:
        steps, times = sorted(steps), sorted(times)
    found = pace(steps, times)
    if found is not None:
        assert found.velocity > 0
        assert found.paused_s >= 0
        assert all(math.isfinite(v) for v in (found.velocity, found.overall, found.paused_s))
    for end in (total, 1e9):
        soon = eta(steps, times, end)
        assert soon is None or 0 <= soon.low <= soon.middle <= soon.high < math.inf
