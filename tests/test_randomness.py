"""Keys are a pure function of their place, never change, and differ from place to place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.randomness import Streams, derive

SIGNED_64 = st.integers(-(2**63), 2**63 - 1)
PLACES = st.tuples(SIGNED_64, st.text(), st.lists(SIGNED_64, max_size=4))


def test_keys_never_change() -> None:
    """Another value here means that no run of an earlier version can be repeated or resumed."""
    assert derive(0, "") == 2_283_521_107_298_152_996
    assert Streams(1).key("init") == 7_232_709_276_644_387_521
    assert Streams(1).key("dropout", step=3, micro=1, rank=2) == 6_818_267_155_754_041_484
    assert derive(2**63 - 1, "größe", -1) == 8_529_575_501_040_154_018


def test_a_key_is_derived_from_seed_stream_step_micro_step_and_rank_in_this_order() -> None:
    assert Streams(7).key("data", step=1, micro=2, rank=3) == derive(7, "data", 1, 2, 3)


@given(PLACES)
def test_a_key_fits_a_signed_64_bit_seed_and_is_always_the_same(place: tuple) -> None:
    seed, stream, position = place
    key = derive(seed, stream, *position)
    assert 0 <= key < 2**63
    assert key == derive(seed, stream, *position)


@given(PLACES, PLACES)
def test_different_places_have_different_keys(one: tuple, other: tuple) -> None:
    keys = {derive(seed, stream, *position) for seed, stream, position in (one, other)}
    assert len(keys) == (1 if one == other else 2)


def test_neighbouring_names_and_numbers_do_not_run_together() -> None:
    places = [("a", 11), ("a1", 1), ("a11",), ("a", 1, 1), ("a",), ("a", 0), ("a", 0, 0)]
    assert len({derive(1, *place) for place in places}) == len(places)


def test_every_bit_of_the_keys_is_used_evenly() -> None:
    """2,000 steps: each of the 63 bits is set in half of them, within five standard deviations."""
    keys = [Streams(3).key("dropout", step=step) for step in range(2000)]
    for bit in range(63):
        share = sum(key >> bit & 1 for key in keys)
        assert abs(share - 1000) < 5 * (2000 * 0.25) ** 0.5, bit


def test_a_seed_beyond_64_bits_is_refused_and_not_cut() -> None:
    with pytest.raises(struct.error):
        derive(2**63, "init")
