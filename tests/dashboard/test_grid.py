"""Grids: as many stretches as fit, every place in exactly one, equal for equal questions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cupel.dashboard import grid

_PLACES = st.floats(-1e12, 1e12, allow_nan=False)


@given(_PLACES, _PLACES, st.integers(16, 4000))
def test_as_many_stretches_as_fit_and_no_less_than_a_third(a: float, b: float, most: int) -> None:
    low, high = sorted((a, b))
    chosen = grid.fitting(low, high, most, x="time", log=False)
    count = grid.count(chosen, low, high)
    assert 1 <= count <= most
    finer = grid.Grid(chosen.power - 1, False)
    resolution = 2.0 ** (math.frexp(max(abs(low), abs(high), 1e-9))[1] - 47)
    if high - low > most * resolution and chosen.width > 2.0**-38:
        assert grid.count(finer, low, high) > most - 2


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(16, 2000))
def test_steps_are_never_split(low: int, span: int, most: int) -> None:
    chosen = grid.fitting(low, low + span, most, x="step", log=False)
    assert chosen.width >= 1
    if span < most:
        assert chosen.width == 1
        numbers = np.arange(low, low + span + 1)
        assert grid.centres(chosen, numbers, x="step").tolist() == numbers.tolist()


@given(st.floats(1e-6, 1e12), st.floats(1e-6, 1e12), st.integers(16, 2000))
def test_a_place_lies_within_the_edges_of_its_stretch(a: float, b: float, most: int) -> None:
    low, high = sorted((a, b))
    assume(high > low)
    for log in (False, True):
        chosen = grid.fitting(low, high, most, x="time", log=log)
        assert grid.count(chosen, low, high) <= most
        for place in (low, high, (low + high) / 2):
            number = chosen.number(place)
            left, right = chosen.edges(number, number)
            assert left <= place * (1 + 1e-12)
            assert place <= right * (1 + 1e-12)


@pytest.mark.parametrize("place", [0.0, -5.0])
def test_what_is_not_positive_has_a_place_on_a_logarithmic_axis(place: float) -> None:
    assert grid.Grid(-6, True).number(place) == grid.Grid(-6, True).number(2.0**-60)
