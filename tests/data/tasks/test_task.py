"""What holds of every task: pure batches, shares that make up the whole, splits apart, scores."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel import randomness
from cupel.data.tasks.build import build
from cupel.data.tasks.settings import CompressionSettings, FormalSettings, MqarSettings
from cupel.data.tasks.task import (
    IGNORE,
    TRAIN,
    SetBatch,
    Share,
    TokenBatch,
    score_sets,
    score_tokens,
)
from cupel.errors import DataError, UnknownName
from task_kinds import EXAMPLES

EACH = pytest.mark.parametrize("name", EXAMPLES)
steps = st.integers(0, 2**40)
seeds = st.integers(-(2**31), 2**31)


def task(name, *, seed=7):
    return build(EXAMPLES[name], seed=seed)


def equal(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def asked(batch):
    return batch.mask if isinstance(batch, SetBatch) else batch.targets != IGNORE


# ---- batches -----------------------------------------------------------------------------------


@EACH
def test_a_batch_has_the_shapes_and_values_that_are_promised(name):
    source = task(name)
    for split in (TRAIN, *source.evaluations):
        batch = source.batch(split, 3, 6)
        shape = (6, source.length(split))
        assert batch.tokens.shape == shape
        assert batch.tokens.dtype == np.int64
        assert 0 <= batch.tokens.min() <= batch.tokens.max() < source.vocabulary
        if isinstance(batch, SetBatch):
            assert batch.targets.shape == (*shape, source.outputs)
            assert batch.targets.dtype == batch.mask.dtype == np.bool_
            assert batch.mask.shape == shape
            assert batch.targets.any(axis=2)[batch.mask].all(), "something may always follow"
            assert not batch.targets[~batch.mask].any()
        else:
            assert isinstance(batch, TokenBatch)
            assert batch.targets.shape == shape
            assert batch.targets.dtype == np.int64
            due = batch.targets[batch.targets != IGNORE]
            assert 0 <= due.min() <= due.max() < source.outputs
        assert asked(batch).any(axis=1).all(), "every sequence asks for something"
    assert source.block == source.length(TRAIN)


@EACH
@given(step=steps, seed=seeds)
@settings(deadline=None, max_examples=10)
def test_a_batch_is_a_pure_function_of_seed_split_and_step(name, step, seed):
    one, two = task(name, seed=seed), task(name, seed=seed)
    two.batch(TRAIN, step + 1, 4)
    two.batch(two.evaluations[0], step, 4)
    assert equal(one.batch(TRAIN, step, 4), two.batch(TRAIN, step, 4))


@EACH
def test_other_steps_and_other_seeds_give_other_batches(name):
    batch = task(name).batch(TRAIN, 5, 8)
    assert not equal(batch, task(name).batch(TRAIN, 6, 8))
    assert not equal(batch, task(name, seed=8).batch(TRAIN, 5, 8))


@EACH
@given(step=steps, shares=st.sampled_from([2, 3, 4, 6, 12]))
@settings(deadline=None, max_examples=10)
def test_shares_in_order_make_up_the_whole_batch(name, step, shares):
    source = task(name)
    for split in (TRAIN, source.evaluations[-1]):
        parts = [source.batch(split, step, 12, part=(i, shares)) for i in range(shares)]
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        assert equal(joined, source.batch(split, step, 12))


@EACH
def test_a_sequence_is_made_of_its_own_words_alone(name):
    source = task(name)
    larger = source.batch(TRAIN, 5, 12)
    assert equal(source.batch(TRAIN, 5, 4), [array[:4] for array in larger])


def test_shares_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(DataError, match="12 sequences cannot be shared equally by 5"):
        task("mqar").batch(TRAIN, 0, 12, part=(0, 5))


# ---- splits ------------------------------------------------------------------------------------


@EACH
def test_no_two_splits_or_steps_share_a_draw(name, monkeypatch):
    keys = []

    def noted(*place):
        keys.append(original(*place))
        return keys[-1]

    source = task(name, seed=0)  # evaluation sets draw with this seed, too
    original = randomness.derive
    monkeypatch.setattr("cupel.data.tasks.draws.randomness.derive", noted)
    for split in (TRAIN, *source.evaluations):
        for step in range(3):
            source.batch(split, step, 2)
    assert len(set(keys)) == len(keys) == 3 * (1 + len(source.evaluations))


@EACH
def test_evaluation_sets_know_no_seed(name):
    one, two = task(name, seed=1), task(name, seed=2)
    for split in one.evaluations:
        pairs = zip(
            one.fixed(split, count=3, batch=4), two.fixed(split, count=3, batch=4), strict=True
        )
        assert all(equal(a, b) for a, b in pairs)
        first, second, _ = one.fixed(split, count=3, batch=4)
        assert not equal(first, second)


@EACH
def test_a_split_that_is_none_is_refused_and_the_nearest_one_named(name):
    source = task(name)
    with pytest.raises(UnknownName, match=f"no split of the task {source.kind} is called 'trian'"):
        source.batch("trian", 0, 2)
    with pytest.raises(UnknownName, match="did you mean 'train'"):
        source.length("trian")


# ---- the record --------------------------------------------------------------------------------


@EACH
def test_the_description_is_json_and_holds_the_settings(name):
    described = json.loads(json.dumps(task(name).describe()))
    assert described["task"] == name.split("-")[0] == task(name).kind
    assert described["settings"] == EXAMPLES[name].model_dump(mode="json")
    assert list(described["evaluations"]) == list(task(name).evaluations)


def test_descriptions_tell_all_examples_apart():
    described = [json.dumps(task(name).describe(), sort_keys=True) for name in EXAMPLES]
    assert len(set(described)) == len(described)


def test_only_compression_is_read_at_the_last_position():
    last = {name for name in EXAMPLES if task(name).readout == "last"}
    assert last == {"compression"}
    assert build(CompressionSettings(), seed=1).headline == "accuracy"
    assert build(FormalSettings(), seed=1).headline == "exact"
    assert build(MqarSettings(), seed=1).headline == "accuracy"


# Frozen: whoever changes one of these changes every run of its task, and counts VERSION up.
GOLDEN = {
    "mqar": "b97c3ed58714cbc8",
    "mqar-noisy": "bf8e70db837ab18c",
    "formal-parity": "ee7c2140c9783509",
    "formal-aa": "89fa479fb6b35120",
    "formal-abab": "1298cff887063765",
    "formal-anbn": "d07e745fb39f62a4",
    "formal-anbncn": "a5ff0fd8bb5247df",
    "formal-shuffle2": "c60651460d41afc3",
    "parity": "42fb70becc6d76f9",
    "needle-passkey-byte": "47f28e1074ce4833",
    "needle-passkey-symbol": "376943f157dc9076",
    "needle-number-byte": "cc8279f4d98d0b9f",
    "needle-number-symbol": "e094c6ef9bb94cf0",
    "needle-uuid-byte": "5b3788c8153c2ee6",
    "needle-uuid-symbol": "50523c345060c411",
    "recall": "0086385fecaf1a2b",
    "noisy_recall": "69038faeb26caac5",
    "fuzzy_recall": "5547f35abb6fdfb7",
    "selective_copying": "074c2068253cadc8",
    "memorization": "81084b4b644f1d11",
    "compression": "f7d69bc8b7e30bfe",
}


@EACH
def test_the_drawn_sequences_never_change(name):
    digest = hashlib.sha256()
    source = task(name)
    for split in (TRAIN, *source.evaluations):
        for array in source.batch(split, 3, 8):
            digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[name]


# ---- scores ------------------------------------------------------------------------------------


@EACH
def test_what_is_right_everywhere_scores_all_and_one_mistake_costs_its_sequence(name):
    source = task(name)
    batch = source.batch(source.evaluations[0], 0, 6)
    predicted = batch.targets.copy()
    full = source.score(predicted, batch)
    assert full["accuracy"] == Share(int(asked(batch).sum()), int(asked(batch).sum()))
    assert full["exact"] == Share(6, 6)
    row, column = np.argwhere(asked(batch))[-1]
    if isinstance(batch, SetBatch):
        predicted[row, column, 0] ^= True
    else:
        predicted[row, column] = (predicted[row, column] + 1) % source.outputs
    wrong = source.score(predicted, batch)
    assert wrong["accuracy"] == Share(full["accuracy"].right - 1, full["accuracy"].of)
    assert wrong["exact"] == Share(5, 6)


@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 5), columns=st.integers(1, 6),
    outputs=st.integers(1, 3),
)  # fmt: skip
@settings(deadline=None)
def test_scores_agree_with_counting_one_by_one(seed, rows, columns, outputs):
    draw = np.random.default_rng(seed)
    predicted, targets = draw.integers(0, outputs, (2, rows, columns))
    targets[draw.random((rows, columns)) < 0.4] = IGNORE
    due = [
        [p == t for p, t in zip(*row, strict=True) if t != IGNORE]
        for row in zip(predicted.tolist(), targets.tolist(), strict=True)
    ]
    scores = score_tokens(predicted, targets)
    assert scores["accuracy"] == Share(sum(map(sum, due)), sum(map(len, due)))
    assert scores["exact"] == Share(sum(all(r) for r in due if r), sum(bool(r) for r in due))
    # As sets of one symbol each the same predictions are right at the same places.
    symbols = np.arange(outputs)
    as_sets = score_sets(
        predicted[..., None] == symbols, targets[..., None] == symbols, targets != IGNORE
    )
    assert as_sets == scores


def test_shares_add_up_and_nothing_of_nothing_is_no_number():
    assert Share(1, 2) + Share(3, 4) == Share(4, 6)
    assert Share(3, 4).value == 0.75
    assert np.isnan(Share(0, 0).value)
