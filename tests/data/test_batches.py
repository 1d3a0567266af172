"""Batches: pure functions of (seed, step), shares that make up the whole, and fair coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.batches import Batches
from cupel.data.tokenizer import ByteTokenizer
from cupel.data.tokens import TokenSet
from cupel.errors import DataError

steps = st.integers(0, 2**40)
seeds = st.integers(-(2**31), 2**31)


def token_set(train: int, val: int = 50) -> TokenSet:
    """Ids that are their own position, so that a window shows where it was taken from."""
    corpus = {"bytes": {"train": train, "val": val}}
    ids = np.arange(max(train, val), dtype=np.uint16)
    return TokenSet(ids[:train], ids[:val], ByteTokenizer(), corpus, "")


def batches(train=1000, val=50, *, block=8, batch=12, seed=0) -> Batches:
    return Batches(token_set(train, val), block=block, batch=batch, seed=seed)


def equal(one, two):
    return np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


@given(step=steps, seed=seeds)
@settings(deadline=None)
def test_a_batch_holds_whole_windows_and_the_next_tokens(step, seed):
    x, y = batches(seed=seed).batch(step)
    assert x.shape == y.shape == (12, 8)
    assert x.dtype == y.dtype == np.int64
    assert np.array_equal(x - x[:, :1], np.tile(np.arange(8), (12, 1)))
    assert np.array_equal(y, x + 1)
    assert y.max() <= 999


@given(step=steps, seed=seeds)
@settings(deadline=None)
def test_a_batch_is_a_pure_function_of_seed_and_step(step, seed):
    one, two = batches(seed=seed), batches(seed=seed)
    two.batch(step + 1)
    assert equal(one.batch(step), two.batch(step))


@given(step=steps, seed=seeds)
@settings(deadline=None)
def test_other_steps_and_other_seeds_give_other_batches(step, seed):
    batch = batches(seed=seed).batch(step)
    assert not equal(batch, batches(seed=seed).batch(step + 1))
    assert not equal(batch, batches(seed=seed + 1).batch(step))


@given(step=steps, shares=st.sampled_from([1, 2, 3, 4, 6, 12]))
@settings(deadline=None)
def test_shares_in_order_make_up_the_whole_batch(step, shares):
    source = batches()
    parts = [source.batch(step, part=(i, shares)) for i in range(shares)]
    joined = tuple(np.concatenate([part[k] for part in parts]) for k in (0, 1))
    assert equal(joined, source.batch(step))


def test_every_window_is_drawn_about_equally_often():
    source = batches(train=58, block=8, batch=500)  # 50 possible windows
    starts = np.concatenate([source.batch(step)[0][:, 0] for step in range(100)])
    counts = np.bincount(starts, minlength=50)
    assert len(counts) == 50
    # 1,000 expected each; chi-square with 49 degrees of freedom stays below 100 but once in 10^4.
    assert ((counts - 1000) ** 2 / 1000).sum() < 100


def test_the_stream_of_windows_never_changes():
    # Frozen: whoever changes these numbers changes every run that was ever made.
    assert batches(batch=4, seed=7).batch(3)[0][:, 0].tolist() == [779, 730, 461, 413]


def test_shares_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(DataError, match="12 sequences cannot be shared equally by 5"):
        batches().batch(0, part=(0, 5))


@pytest.mark.parametrize(
    "train, val, message",
    [
        (8, 50, "training split holds 8 tokens, and a block of 8 needs 9"),
        (50, 3, "validation .* 3"),
    ],
)
def test_a_split_shorter_than_a_window_is_refused(train, val, message):
    with pytest.raises(DataError, match=message):
        batches(train=train, val=val)


def test_a_split_of_exactly_one_window_is_enough():
    source = batches(train=9, val=9)
    assert set(source.batch(0)[0][:, 0].tolist()) == {0}
    assert len(source.fixed("val", count=2, batch=2)) == 2


@given(val=st.integers(9, 5000), count=st.integers(1, 6), batch=st.integers(1, 8))
@settings(deadline=None)
def test_fixed_batches_are_even_over_validation_and_know_no_seed(val, count, batch):
    fixed = batches(val=val, seed=1).fixed("val", count=count, batch=batch)
    again = batches(val=val, seed=2).fixed("val", count=count, batch=batch)
    assert all(equal(one, two) for one, two in zip(fixed, again, strict=True))
    assert len(fixed) == count
    assert all(x.shape == (batch, 8) and np.array_equal(y, x + 1) for x, y in fixed)
    starts = np.sort(np.concatenate([x[:, 0] for x, _ in fixed]))
    assert starts[-1] < val - 8
    gap = (val - 8) / (count * batch)
    assert np.all(np.abs(np.diff(starts) - gap) < 1)
    assert starts[0] <= gap


def test_fixed_batches_differ_by_name_and_each_spans_the_split():
    source = batches(val=5000)
    one, two = source.fixed("val", count=4, batch=8), source.fixed("probe", count=4, batch=8)
    assert not equal(one[0], two[0])
    assert all(np.ptp(x[:, 0]) > 3000 for x, _ in one)
