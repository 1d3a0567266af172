"""Choices from words: exact where they can be counted out, fair where they can only be counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.tasks import draws


def words(rows, columns, *, step=0):
    return draws.words(11, "test", step, rows, columns)


def chi_square(counts, expected):
    counts, expected = np.asarray(counts, float), np.broadcast_to(expected, np.shape(counts))
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("choices, count", [(5, 5), (5, 3), (6, 1), (4, 4)])
def test_every_ordered_choice_comes_from_exactly_one_code(choices, count):
    codes = itertools.product(*(range(choices - i) for i in range(count)))
    rows = np.array(list(codes), dtype=np.uint64).reshape(-1, count)
    found = {tuple(row) for row in draws.distinct(rows, choices).tolist()}
    assert found == set(itertools.permutations(range(choices), count))
    assert len(found) == len(rows)


@given(seed=st.integers(0, 1000), columns=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_the_chosen_are_as_many_as_asked_for_and_among_the_first(seed, columns, data):
    among = np.array(data.draw(st.lists(st.integers(0, columns), min_size=1, max_size=6)))
    count = np.array([data.draw(st.integers(0, int(one))) for one in among])
    mask = draws.chosen(draws.words(seed, "test", 0, len(among), columns), among, count)
    assert mask.sum(axis=1).tolist() == count.tolist()
    assert not mask[np.arange(columns) >= among[:, None]].any()


def test_every_choice_of_columns_is_about_equally_often():
    rows = 20_000
    mask = draws.chosen(words(rows, 7), np.full(rows, 6), np.full(rows, 3))
    counts = np.bincount(mask @ (1 << np.arange(7)), minlength=64)
    counts = counts[counts > 0]
    assert len(counts) == 20  # of 6 columns 3
    # Chi-square with 19 degrees of freedom stays below 55 but once in 10^4.
    assert chi_square(counts, rows / 20) < 55


def test_a_race_is_drawing_by_weight_without_putting_back():
    rows, weights = 60_000, np.array([4.0, 2.0, 1.0])
    order = draws.race(words(rows, 3), weights, 2)
    counts = dict.fromkeys(itertools.permutations(range(3), 2), 0)
    for pair, times in zip(*np.unique(order, axis=0, return_counts=True), strict=True):
        counts[tuple(pair.tolist())] = int(times)
    expected = {(i, j): rows * weights[i] / 7 * weights[j] / (7 - weights[i]) for i, j in counts}
    # Chi-square with 5 degrees of freedom stays below 26 but once in 10^4.
    assert chi_square(list(counts.values()), list(expected.values())) < 26


@given(
    rows=st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=5),
    scale=st.sampled_from([1, 2**40]),
)
def test_firsts_are_those_that_a_list_finds(rows, scale):
    codes = np.array(rows) * scale
    assert draws.firsts(codes).tolist() == [[row.index(one) for one in row] for row in rows]


def test_bits_are_those_of_the_words_lowest_first():
    source = words(3, 2)
    expected = [
        [int(word) >> i & 1 for word in row for i in range(64)][:100] for row in source.tolist()
    ]
    assert draws.bits(source, 100).tolist() == expected


def test_shares_fill_the_unit_interval_and_leave_out_one():
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert draws.share(ends).tolist() == [0.0, 1 - 2.0**-53]
    counts, _ = np.histogram(draws.share(words(100, 100)), bins=10, range=(0, 1))
    # Chi-square with 9 degrees of freedom stays below 34 but once in 10^4.
    assert chi_square(counts, 1000) < 34


def test_the_stream_of_words_never_changes():
    # Frozen: whoever changes these numbers changes every run of every task.
    assert draws.words(7, "task/mqar/train", 3, 1, 2).tolist() == [
        [7094967178123361443, 5638584167128712095]
    ]
