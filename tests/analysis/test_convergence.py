"""Each number of a curve is what its sentence says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.analysis.convergence import convergence

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


def mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


@given(
    st.lists(st.tuples(st.integers(0, 3), VALUES), min_size=1, max_size=300),
    st.sampled_from(["min", "max"]),
)
def test_numbers_are_those_of_plain_python(points: list[tuple[int, float]], goal: str) -> None:
    steps = np.cumsum([step for step, _ in points]).tolist()
    y = [value for _, value in points]
    found = convergence(steps, y, goal=goal)  # type: ignore[arg-type]
    assert found is not None
    finite = [(step, value) for step, value in zip(steps, y, strict=True) if math.isfinite(value)]
    size = min(len(y), max(50, len(y) // 20))
    assert (found.points, found.window, found.window_step) == (len(y), size, steps[-size])
    assert found.nan == sum(math.isnan(value) for value in y)
    assert found.infinite == sum(math.isinf(value) for value in y)
    assert found.mean == pytest.approx(mean(y), abs=1e-8)
    assert found.current == pytest.approx(mean(y[-size:]), abs=1e-8)
    if not finite:
        assert found.last is found.best is found.since_best is found.gain is None
        return
    best = (min if goal == "min" else max)(finite, key=lambda point: point[1])  # the first of them
    assert (found.last_step, found.last) == finite[-1]
    assert (found.best_step, found.best) == best
    assert found.since_best == steps[-1] - best[0]
    before, after = mean(y[-2 * size : -size]) if len(y) > size else None, mean(y[-size:])
    if before is None or after is None:
        assert found.gain is None
    else:
        assert found.gain == pytest.approx(
            (before - after) * (1 if goal == "min" else -1), abs=1e-8
        )
    assert (found.by_half is None) or len(y) >= 4 * size


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=260), st.sampled_from(["min", "max"]))
def test_no_values_and_no_steps_make_it_fail(points: list[tuple[float, float]], goal: str) -> None:
    found = convergence([s for s, _ in points], [v for _, v in points], goal=goal)  # type: ignore[arg-type]
    assert (found is None) == (not points)
    if found is not None:
        for value in (found.last, found.best, found.current, found.mean, found.gain):
            assert value is None or math.isfinite(value)


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_a_mirrored_curve_has_mirrored_numbers(seed: int, size: int) -> None:
    y = np.random.default_rng(seed).normal(size=size).cumsum()
    one, two = convergence(range(size), y), convergence(range(size), -y, goal="max")
    assert one is not None
    assert two is not None
    assert (one.best_step, one.since_best, one.gain) == (two.best_step, two.since_best, two.gain)
    assert one.by_half == two.by_half


def test_by_half_a_line_has_half_of_its_gain_and_an_early_fall_all() -> None:
    steps = np.arange(0, 20_000, 10)
    line, early = convergence(steps, -steps), convergence(steps, np.exp(-steps / 1000))
    late = convergence(steps, -np.maximum(steps, 12_000))
    assert line is not None
    assert line.by_half == pytest.approx(0.5, abs=0.03)  # windows are 5 % wide
    assert early is not None
    assert early.by_half == pytest.approx(1, abs=0.001)
    assert late is not None
    assert late.by_half == 0


def test_by_half_goes_by_steps_and_not_by_points() -> None:
    dense = np.concatenate([np.arange(1000), np.arange(1000, 10_000, 90)])
    found = convergence(dense, -dense)
    assert found is not None
    assert found.by_half == pytest.approx(0.4, abs=0.1)  # by points it would be 0.05


def test_nothing_is_said_of_gains_before_there_are_windows_or_when_nothing_was_gained() -> None:
    short, worse = convergence(range(199), range(199, 0, -1)), convergence(range(400), range(400))
    assert short is not None
    assert short.by_half is None
    assert short.gain == 50
    assert worse is not None
    assert worse.by_half is None
    assert worse.gain == -50
    assert convergence([], []) is None


def test_sums_beyond_all_floats_have_a_mean() -> None:
    found = convergence(range(3), [1.5e308, 1.5e308, math.nan])
    assert found is not None
    assert found.mean == pytest.approx(1.5e308)
