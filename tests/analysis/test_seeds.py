"""Means over runs with their intervals, held against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.analysis.seeds import interval, quantile


@pytest.mark.parametrize("df", [*range(1, 31), 59, 120, 1001])
@pytest.mark.parametrize("p", [0.75, 0.95, 0.975, 0.995])
def test_the_quantile_is_that_of_students_t(p: float, df: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert quantile(p, df) == pytest.approx(float(stats.t.ppf(p, df)), rel=1e-8)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=8))
def test_the_interval_is_the_t_interval_of_each_place(rows: list[list[float]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.array(rows)
    mean, low, high, count = interval(values)
    half = stats.t.ppf(0.975, len(rows) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(rows))
    assert count.tolist() == [len(rows)] * 3
    scale = np.abs(values).max() + 1e-9
    assert np.allclose(mean, values.mean(axis=0), atol=1e-12 * scale)
    assert np.allclose(high - mean, half, rtol=1e-6, atol=1e-9 * scale)
    assert np.allclose(mean - low, half, rtol=1e-6, atol=1e-9 * scale)


def test_what_is_missing_or_not_finite_is_left_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.inf]])
    mean, low, high, count = interval(values)
    assert mean[:2].tolist() == [2.0, 5.0]
    assert np.isnan(mean[2])
    assert count.tolist() == [2, 1, 0]
    assert np.isnan(low[1:]).all()
    assert np.isnan(high[1:]).all()
