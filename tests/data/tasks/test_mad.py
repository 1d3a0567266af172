"""The tasks of MAD: what is due, worked out from the tokens alone with dictionaries and lists."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.tasks.mad import (
    Compression,
    FuzzyRecall,
    Memorization,
    Recall,
    SelectiveCopying,
)
from cupel.data.tasks.settings import (
    CompressionSettings,
    FuzzyRecallSettings,
    MemorizationSettings,
    NoisyRecallSettings,
    RecallSettings,
    SelectiveCopyingSettings,
)
from cupel.data.tasks.task import IGNORE, TRAIN

steps = st.integers(0, 2**40)


def rows(batch):
    return zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)


# ---- recall ------------------------------------------------------------------------------------


@given(
    step=steps, block=st.integers(2, 40), vocabulary=st.integers(2, 40),
    noise=st.sampled_from([0.0, 0.3, 0.95]),
)  # fmt: skip
@settings(deadline=None)
def test_recall_is_due_where_a_key_comes_again(step, block, vocabulary, noise):
    sizes = {"block": 2 * block, "vocabulary": vocabulary}
    chosen = (
        NoisyRecallSettings(noise=noise, noise_vocabulary=5, **sizes)
        if noise
        else RecallSettings(**sizes)
    )
    for tokens, targets in rows(Recall(chosen, seed=1).batch(TRAIN, step, 4)):
        known: dict[int, int] = {}
        for key, value, due, nothing in zip(
            tokens[0::2], tokens[1::2], targets[0::2], targets[1::2], strict=True
        ):
            assert nothing == IGNORE
            if key >= vocabulary:
                assert noise
                assert value >= vocabulary
                assert due == IGNORE
                continue
            assert key < vocabulary // 2 <= value < vocabulary
            assert due == known.get(key, IGNORE)
            assert known.setdefault(key, value) == value
        assert targets[-2] != IGNORE, "the last pair was there before"


def test_noise_takes_the_place_of_its_share_of_pairs():
    task = Recall(NoisyRecallSettings(noise=0.4), seed=1)
    tokens = task.batch(TRAIN, 1, 500).tokens
    assert tokens.max() == task.vocabulary - 1 == 31
    # Of 64 pairs two are spared; 31,000 draws: ± 0.015 is five standard deviations.
    assert abs((tokens[:, 0::2] >= 16).mean() * 64 / 62 - 0.4) < 0.015


def test_the_last_key_is_each_of_those_that_were_there_about_equally_often():
    tokens = Recall(RecallSettings(block=10, vocabulary=64), seed=1).batch(TRAIN, 1, 8000).tokens
    different = [row for row in tokens.tolist() if len(set(row[0:8:2])) == 4]
    counts = np.bincount([row[0:8:2].index(row[8]) for row in different], minlength=4)
    expected = len(different) / 4
    # Chi-square with 3 degrees of freedom stays below 22 but once in 10^4.
    assert ((counts - expected) ** 2 / expected).sum() < 22


# ---- fuzzy recall ------------------------------------------------------------------------------


def pairs_of(tokens, keys):
    """Keys and values as tuples: a key ends where values begin, and a value where keys do."""
    runs = [tuple(run) for _, run in itertools.groupby(tokens, key=lambda one: one < keys)]
    assert len(runs) % 2 == 0
    return list(zip(runs[0::2], runs[1::2], strict=True))


@given(
    step=steps, extra=st.integers(0, 40), vocabulary=st.integers(9, 20), key=st.integers(1, 4),
    value=st.integers(1, 4), split=st.sampled_from([TRAIN, "val"]),
)  # fmt: skip
@settings(deadline=None)
def test_fuzzy_recall_is_due_token_by_token(step, extra, vocabulary, key, value, split):
    chosen = FuzzyRecallSettings(
        block=max(4, 2 * (key + value)) + extra,
        vocabulary=vocabulary,
        key_size=key,
        value_size=value,
    )
    task = FuzzyRecall(chosen, seed=1)
    for tokens, targets in rows(task.batch(split, step, 4)):
        padding = tokens.count(task.padding)
        assert tokens[:padding] == [task.padding] * padding
        assert padding < chosen.block - 1
        known, expected = {}, [IGNORE] * padding
        for one, its in pairs_of(tokens[padding:], task.keys):
            assert len(set(one)) == len(one) <= key
            assert split == TRAIN or len(one) == key
            assert len(set(its)) == len(its) <= value
            due = its if one in known else (IGNORE,) * len(its)
            assert known.setdefault(one, its) == its
            expected += [IGNORE] * len(one) + list(due)
        assert targets == [*expected[1:], IGNORE]
        assert targets[-2] != IGNORE, "the last pair was there before"


def test_a_fuzzy_sequence_is_full_but_for_less_than_a_pair_and_its_query():
    task = FuzzyRecall(FuzzyRecallSettings(), seed=1)
    tokens = task.batch(TRAIN, 1, 500).tokens
    assert (tokens == task.padding).sum(axis=1).max() < 12
    sizes = {len(key) for row in tokens.tolist() for key, _ in pairs_of(strip(row, task), 7)}
    assert sizes == {1, 2, 3}


def strip(row, task):
    return [token for token in row if token != task.padding]


# ---- the others --------------------------------------------------------------------------------


@given(step=steps, copies=st.integers(1, 12), extra=st.integers(0, 30))
@settings(deadline=None)
def test_copies_are_due_in_their_order_after_the_copy_token(step, copies, extra):
    chosen = SelectiveCopyingSettings(block=max(4, 2 * copies + 1) + extra, copies=copies)
    for tokens, targets in rows(SelectiveCopying(chosen, seed=1).batch(TRAIN, step, 4)):
        at = tokens.index(15)
        copied = [token for token in tokens[:at] if token != 14]
        assert len(copied) == copies
        assert all(0 <= token < 14 for token in copied)
        assert tokens[at + 1 :] == [14] * copies
        assert targets == [IGNORE] * (at + 1) + copied


@pytest.mark.parametrize("seed", [1, 2])
def test_facts_are_the_same_in_every_sequence_split_and_run(seed):
    task = Memorization(MemorizationSettings(vocabulary=33), seed=seed)
    facts: dict[int, int] = {}
    for split in (TRAIN, "val"):
        for tokens, targets in rows(task.batch(split, 1, 40)):
            assert targets[0::2] == [IGNORE] * 16
            assert tokens[1::2] == [32] * 16
            for key, value in zip(tokens[0::2], targets[1::2], strict=True):
                assert key < 16 <= value < 32
                assert facts.setdefault(key, value) == value
    assert len(facts) == len(set(facts.values())) == 16
    assert list(facts.values()) == [int(task.values_K[key]) for key in facts]
    first = Memorization(MemorizationSettings(vocabulary=33), seed=9)
    assert np.array_equal(first.values_K, task.values_K)


@given(step=steps, block=st.integers(2, 40))
@settings(deadline=None)
def test_compression_asks_for_all_tokens_but_the_last(step, block):
    task = Compression(CompressionSettings(block=block), seed=1)
    for tokens, targets in rows(task.batch(TRAIN, step, 4)):
        assert tokens[-1] == 15
        assert all(0 <= token < 15 for token in tokens[:-1])
        assert targets == [*tokens[:-1], IGNORE]
