"""Intervals and tests of paired differences, held against simulation, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from cupel.numerics.intervals import (
    Pairs,
    adjusted,
    detectable_difference,
    equivalence_interval,
    t_interval,
    t_test,
)

VALUES = st.floats(-1e3, 1e3, allow_nan=False)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=12)


def pairs_of(differences: list[float]) -> Pairs:
    return Pairs.of(differences, [0.0] * len(differences))


def spread(pairs: list[tuple[float, float]]) -> Pairs:
    made = Pairs.of(*zip(*pairs, strict=True))
    # Differences that vary by a hair against their size leave scipy itself few digits.
    assume(made.sd > 1e-6 * (1 + abs(made.mean)))
    return made


@given(PAIRS, st.floats(0.51, 0.999))
@settings(deadline=None)
@pytest.mark.slow
def test_interval_and_p_are_those_of_scipy(pairs: list[tuple[float, float]], level: float) -> None:
    made = spread(pairs)
    one, two = zip(*pairs, strict=True)
    reference = stats.ttest_rel(one, two)
    low, high = t_interval(made, confidence=level)
    expected = reference.confidence_interval(level)
    # 1e-7 of the scale: the two sum in different orders.
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-7, abs=1e-7)
    assert t_test(made) == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)


@given(PAIRS, st.floats(0.6, 0.99))
@settings(deadline=None)
def test_the_interval_excludes_zero_exactly_when_the_test_rejects(
    pairs: list[tuple[float, float]], level: float
) -> None:
    made = spread(pairs)
    p = t_test(made)
    assert p is not None
    assume(abs(p - (1 - level)) > 1e-9)
    low, high = t_interval(made, confidence=level)
    assert (low > 0 or high < 0) == (p < 1 - level)


@given(PAIRS, st.floats(0.01, 1e3))
@settings(deadline=None)
@pytest.mark.slow
def test_the_equivalence_interval_is_two_one_sided_tests(
    pairs: list[tuple[float, float]], margin: float
) -> None:
    made = spread(pairs)
    low, high = equivalence_interval(made, confidence=0.95)
    differences = [one - two for one, two in pairs]
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assume(abs(max(above, below) - 0.05) > 1e-7)
    assert (-margin < low and high < margin) == (max(above, below) < 0.05)


@given(PAIRS)
@settings(deadline=None)
@pytest.mark.slow
def test_swapping_the_sides_mirrors_everything(pairs: list[tuple[float, float]]) -> None:
    there = Pairs.of(*zip(*pairs, strict=True))
    back = Pairs.of(*reversed(list(zip(*pairs, strict=True))))
    low, high = t_interval(there, confidence=0.95)
    assert t_interval(back, confidence=0.95) == pytest.approx((-high, -low))
    assert t_test(back) == pytest.approx(t_test(there))


@pytest.mark.slow
def test_a_95_percent_interval_of_three_normal_differences_covers_95_percent() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        low, high = t_interval(pairs_of(list(random.normal(0.3, 1, 3))), confidence=0.95)
        held += low <= 0.3 <= high
    # Binomial with n = 2000: a standard deviation is 0.5 %, so this is four of them.
    assert held / 2000 == pytest.approx(0.95, abs=0.02)


@given(VALUES, VALUES, st.integers(2, 9))
@settings(deadline=None)
def test_differences_that_vary_by_rounding_alone_do_not_vary(
    base: float, difference: float, count: int
) -> None:
    values = [base * (1 + k / 3) for k in range(count)]
    made = Pairs.of([value + difference for value in values], values)
    assert made.sd == 0
    assert t_interval(made, confidence=0.95) == (made.mean, made.mean)
    assert t_test(made) is None


@pytest.mark.parametrize("n, effect", [(5, 1.683), (10, 0.996), (34, 0.495)])
def test_the_detectable_difference_is_that_of_published_tables_of_power(
    n: int, effect: float
) -> None:
    # Paired t, α 0.05 two-sided, 80 % power, in units of the sd (G*Power's values to 1 %).
    differences = np.random.default_rng(0).normal(size=n)
    made = pairs_of(list(differences))
    assert detectable_difference(made, alpha=0.05) / made.sd == pytest.approx(effect, rel=0.01)


def test_a_detectable_difference_is_found_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    delta = detectable_difference(Pairs(n=6, mean=0.0, sd=1.0, correlation=None), alpha=0.05)
    found = 0
    for _ in range(2000):
        p = t_test(pairs_of(list(random.normal(delta, 1, 6))))
        found += p is not None and p < 0.05
    # A standard deviation is 0.9 %; this is four of them.
    assert found / 2000 == pytest.approx(0.8, abs=0.036)


@pytest.mark.slow
def test_corrections_are_holms_and_bonferronis() -> None:
    p = [0.01, 0.04, 0.03]
    assert adjusted(p, method="none") == p
    assert adjusted(p, method="bonferroni") == pytest.approx([0.03, 0.12, 0.09])
    assert adjusted(p, method="holm") == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([], method="holm") == []


def test_the_correlation_is_told_from_three_pairs_on_and_only_where_both_sides_vary() -> None:
    assert Pairs.of([1, 2], [3, 5]).correlation is None
    assert Pairs.of([1, 2, 3], [5, 5, 5]).correlation is None
    assert Pairs.of([1, 2, 3], [2, 4, 6]).correlation == pytest.approx(1)
    assert Pairs.of([1, 2, 3], [6, 4, 2]).correlation == pytest.approx(-1)


def test_what_is_not_finite_or_alone_is_the_callers_mistake() -> None:
    for first, second in (([1.0], [2.0]), ([1.0, math.nan], [1.0, 2.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(AssertionError):
            Pairs.of(first, second)
