"""The exact test of paired differences, held against scipy's, which counts all assignments too."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cupel.numerics.signflip import MOST_PAIRS, sign_flip_test

# Whole numbers of a few sizes give ties, and sums that are exact in any order.
DIFFERENCES = st.lists(st.integers(-20, 20), min_size=2, max_size=10)


@given(DIFFERENCES)
@settings(deadline=None, max_examples=60)
def test_p_is_that_of_scipy(differences: list[int]) -> None:
    reference = stats.permutation_test(
        (np.array(differences, dtype=float), np.zeros(len(differences))),
        lambda one, two, axis: np.mean(one - two, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_test(differences) == pytest.approx(reference.pvalue, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=8))
def test_p_counts_the_assignments_that_are_as_far_from_zero(differences: list[float]) -> None:
    found = abs(sum(differences))
    hair = 1e-12 * sum(map(abs, differences))  # sums that are equal but for rounding are equal
    every = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    close = [total for total in every if abs(total - found) <= hair]
    surely = sum(total >= found + hair for total in every)
    assert surely <= sign_flip_test(differences) * len(every) <= surely + len(close)


@pytest.mark.parametrize("n", [1, 2, 5, 7, 12])
def test_the_smallest_p_is_two_in_two_to_the_n(n: int) -> None:
    assert sign_flip_test([0.1 * (1 + k) for k in range(n)]) == 2 / 2**n
    assert sign_flip_test([-0.1] * n) == 2 / 2**n


def test_no_difference_at_all_is_no_evidence() -> None:
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_test([1.0, -1.0]) == 1.0


def test_signs_order_and_scale_do_not_matter() -> None:
    values = [0.3, -0.1, 0.7, 0.2, 0.05]
    p = sign_flip_test(values)
    assert sign_flip_test([-v for v in values]) == p
    assert sign_flip_test(values[::-1]) == p
    assert sign_flip_test([1e-300 * v for v in values]) == p
    assert sign_flip_test([1e300 * v for v in values]) == p


def test_as_many_pairs_as_it_takes_are_counted_in_less_than_a_few_seconds() -> None:
    begun = time.perf_counter()
    p = sign_flip_test([1.0 + 1e-3 * k for k in range(MOST_PAIRS)])
    assert p == 2 / 2**MOST_PAIRS
    assert time.perf_counter() - begun < 10
