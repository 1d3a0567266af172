"""Every value above its threshold is told, and none else, whatever is sorted out beforehand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.analysis import anomalies as module
from cupel.analysis.anomalies import Anomaly, anomalies

NOT_FINITE = [math.nan, math.inf, -math.inf]


def by_definition(steps: list[int], y: list[float], *, log: bool) -> list[Anomaly]:
    """One value after the other, straight from the words of the module."""
    found: list[Anomaly] = []
    before: list[float] = []
    stretch = False
    for step, value in zip(steps, y, strict=True):
        if not math.isfinite(value):
            if stretch:
                last = found.pop()
                found.append(Anomaly(last.kind, last.step, last.value, None, last.count + 1))
            else:
                found.append(Anomaly("not finite", step, value, None))
            stretch = True
            continue
        stretch = False
        if log and value <= 0:
            continue
        kept = float(np.log(value)) if log else value
        window = before[-100:]
        if len(window) >= 20:
            median = statistics.median(window)
            mad = statistics.median(abs(other - median) for other in window)
            bound = median + 6 * max(mad, 0.001 if log else 0.001 * abs(median))
            if kept > bound:
                told = float(np.exp(bound)) if log else bound
                found.append(Anomaly("spike" if log else "jump", step, value, told))
        before.append(kept)
    return found


def curve(seed: int, size: int, kind: str) -> list[float]:
    random = np.random.default_rng(seed)
    if kind == "few values":  # medians with ties, MADs of 0
        y = random.integers(-2, 4, size) / 4
    elif kind == "levels":
        y = np.repeat(random.integers(1, 5, size // 40 + 1), 40)[:size] + random.normal(size=size)
    elif kind == "wild":
        y = random.standard_cauchy(size)
    else:
        y = random.normal(10, 0.1, size)
    y[random.random(size) < random.choice([0, 0.02, 0.3])] = 50.0
    bad = random.random(size) < random.choice([0, 0.02, 0.5])
    y[bad] = random.choice(NOT_FINITE, int(bad.sum()))
    return [float(value) for value in y]


@given(
    st.integers(0, 2**32),
    st.integers(0, 700),
    st.sampled_from(["few values", "levels", "wild", "calm"]),
    st.booleans(),
)
@pytest.mark.slow
def test_what_is_told_is_by_definition(seed: int, size: int, kind: str, log: bool) -> None:
    y = curve(seed, size, kind)
    steps = [10 * number for number in range(size)]
    expected = by_definition(steps, y, log=log)
    found = anomalies(steps, y, log=log, most=size)
    assert found.total == len(expected)
    for one, two in zip(found.shown, expected, strict=True):
        assert (one.kind, one.step, repr(one.value), one.count) == (
            two.kind, two.step, repr(two.value), two.count
        )  # fmt: skip
        assert (one.threshold is None) == (two.threshold is None)
        if one.threshold is not None:
            assert one.threshold == pytest.approx(two.threshold, rel=1e-14)


@pytest.mark.slow
def test_points_of_many_chunks_are_by_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    random = np.random.default_rng(3)
    y = 2 + np.exp(-np.arange(6000) / 900) + 0.05 * random.standard_t(3, 6000)
    for log in (False, True):
        expected = by_definition(list(range(6000)), y.tolist(), log=log)
        found = anomalies(np.arange(6000), y, log=log, most=6000)
        assert len(expected) > 20
        assert [one.step for one in found.shown] == [one.step for one in expected]


@given(st.lists(st.floats(), max_size=150), st.booleans(), st.integers(0, 5))
def test_no_values_make_it_fail(y: list[float], log: bool, most: int) -> None:
    found = anomalies(range(len(y)), y, log=log, most=most)
    assert len(found.shown) == min(most, found.total)
    assert [one.step for one in found.shown] == sorted(one.step for one in found.shown)
    everything = anomalies(range(len(y)), y, log=log, most=10**6)
    assert repr(found.shown) == repr(everything.shown[found.total - len(found.shown) :])


@given(st.integers(0, 2**32), st.integers(-300, 300))
def test_another_unit_tells_the_same(seed: int, power: int) -> None:
    y = np.array(curve(seed, 300, "levels"))
    one, two = anomalies(range(300), y), anomalies(range(300), y * 2.0**power)
    assert [a.step for a in one.shown] == [a.step for a in two.shown]


def test_a_stretch_is_one_anomaly_and_a_later_jump_is_newer() -> None:
    y = [1.0] * 30 + [math.inf, math.nan, math.nan] + [1.0, 2.0, math.nan]
    assert [(one.kind, one.step, one.count) for one in anomalies(range(36), y).shown] == [
        ("not finite", 30, 3), ("jump", 34, 1), ("not finite", 35, 1)
    ]  # fmt: skip


def test_a_curve_that_hardly_moves_jumps_above_the_floor_only() -> None:
    steps = range(31)
    assert anomalies(steps, [5.0] * 30 + [5.0299]).total == 0
    assert anomalies(steps, [5.0] * 30 + [5.0301]).total == 1
    assert anomalies(steps, [5.0] * 30 + [5.0299], log=True).total == 0
    assert anomalies(steps, [5.0] * 30 + [5.0302], log=True).total == 1


def test_too_few_values_before_it_judge_none() -> None:
    assert anomalies(range(20), [1.0] * 19 + [9.0]).total == 0
    assert anomalies(range(21), [1.0] * 20 + [9.0]).total == 1


def test_normal_noise_is_seldom_told() -> None:
    y = np.random.default_rng(4).normal(size=200_000)
    assert anomalies(np.arange(200_000), y).total <= 60  # 24 to be expected at 12 in 100,000
