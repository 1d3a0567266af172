"""Entropies against corpora small enough to count by hand, and against an explicit sum."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.entropy import entropies


def test_alternating_tokens_are_a_coin_alone_and_certain_in_context():
    found = entropies(np.array([0, 1] * 50, dtype=np.uint8), vocabulary=256)
    assert found["unigram"] == pytest.approx(math.log(2), abs=1e-12)
    assert found["bigram"] == pytest.approx(0, abs=1e-12)


def test_a_corpus_counted_by_hand():
    # 0 0 1 0 1: tokens 3 of 0 and 2 of 1; pairs 00, 01, 10, 01, so after 0: 1 and 2, after 1: 1.
    found = entropies(np.array([0, 0, 1, 0, 1]), vocabulary=2)
    assert found["unigram"] == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.4)))
    after_zero = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert found["bigram"] == pytest.approx(3 / 4 * after_zero)


def test_one_token_repeated_has_no_entropy():
    found = entropies(np.zeros(10, dtype=np.uint8), vocabulary=256)
    assert [f"{value:.4f}" for value in found.values()] == ["0.0000", "0.0000"]  # not -0.0000


@given(ids=st.lists(st.integers(0, 6), min_size=2, max_size=200))
@settings(deadline=None)
def test_tables_and_sorting_both_equal_an_explicit_sum(ids):
    pairs, firsts = Counter(itertools.pairwise(ids)), Counter(ids[:-1])
    explicit = -sum(
        n / (len(ids) - 1) * math.log(n / firsts[first]) for (first, _), n in pairs.items()
    )
    for vocabulary in (7, 60000):  # a table of all pairs, and a sort of those that occur
        found = entropies(np.array(ids, dtype=np.uint16), vocabulary=vocabulary)
        assert found["bigram"] == pytest.approx(explicit, abs=1e-12)
        assert found["bigram"] >= 0
        assert found["unigram"] <= math.log(len(set(ids))) + 1e-12
