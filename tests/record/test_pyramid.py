"""Ranges of rows come to what their rows come to, whatever blocks they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record import pyramid

NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e308])


def check(values: Sequence[float], ranges: Sequence[tuple[int, int]]) -> None:
    array = np.array(values, dtype=np.float64)
    starts, stops = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    found = pyramid.reduce(array, pyramid.build(array), starts, stops)
    for number, (start, stop) in enumerate(ranges):
        inside = array[start:stop]
        told = inside[~np.isnan(inside)]
        assert found.count[number] == len(told)
        assert found.nan[number] == len(inside) - len(told)
        if not len(told):
            assert math.isnan(found.min[number])
            assert math.isnan(found.max[number])
            continue
        assert found.min[number] == told.min()
        assert found.max[number] == told.max()
        with np.errstate(all="ignore"):
            total, sizes = told.sum(), np.abs(told[np.isfinite(told)]).sum()
        if not math.isfinite(sizes):
            continue  # beyond all floats, and the order of adding decides when
        if np.isinf(told).any():
            assert repr(float(found.sum[number])) == repr(float(total))
        else:
            assert abs(found.sum[number] - total) <= 1e-12 * sizes  # another order of adding


@settings(deadline=None, max_examples=200)
@given(st.lists(NUMBERS, max_size=60), st.data())
@pytest.mark.slow
def test_any_range_is_exact(values: list[float], data: st.DataObject) -> None:
    places = st.integers(0, len(values))
    ranges = data.draw(st.lists(st.tuples(places, places).map(lambda r: (min(r), max(r)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "RATIO", 3)  # so that few values make blocks of blocks
        check(values, ranges)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 20_000])
def test_blocks_of_their_real_size_are_exact(size: int) -> None:
    random = np.random.default_rng(size)
    values = random.normal(size=size)
    values[random.random(size) < 0.01] = np.nan
    cuts = np.sort(random.integers(0, size + 1, size=40))
    check(values.tolist(), [(0, size), *zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)])


def test_the_pyramid_costs_half_a_byte_a_row() -> None:
    levels = pyramid.build(np.arange(1_000_000.0))
    assert sum(array.nbytes for level in levels for array in level.arrays()) < 400_000
