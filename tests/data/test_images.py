"""Images: splits that are fair and fixed, epochs that hold every image once, pure batches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.images import ImageBatches, ImageSet, permutation, split
from cupel.data.settings import ImageDataSettings
from cupel.errors import DataError

steps = st.integers(1, 2**40)
seeds = st.integers(-(2**31), 2**31)


def image_set(train: int = 50, val: int = 10, *, channels: int = 2) -> ImageSet:
    """Images whose label is their own index, so that a batch shows what was taken."""
    count = train + val
    pixels = np.arange(count * channels * 4, dtype=np.int64) * 37 % 251
    pixels = pixels.astype(np.uint8).reshape(count, channels, 2, 2)
    rows = np.arange(count)
    return ImageSet("images", pixels, rows, count, rows[:train], rows[train:], "by hand")


def batches(train: int = 50, *, batch: int = 12, seed: int = 0) -> ImageBatches:
    return ImageBatches(image_set(train), batch=batch, seed=seed)


def equal(one, two):
    return np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


# ---- splits ------------------------------------------------------------------------------------


@st.composite
def labelled(draw):
    labels = draw(st.lists(st.integers(0, 4), min_size=12, max_size=80))
    return np.array(labels, dtype=np.int64)


@given(labels=labelled(), folds=st.integers(2, 12))
@pytest.mark.slow
def test_folds_part_the_images_evenly_and_each_class_too(labels, folds):
    parts = [split(labels, ImageDataSettings(folds=folds, fold=fold)) for fold in range(folds)]
    for fold, (train, val, name) in enumerate(parts):
        assert sorted([*train, *val]) == list(range(len(labels)))
        assert name == f"fold {fold} of {folds}"
    assert sorted(np.concatenate([val for _, val, _ in parts])) == list(range(len(labels)))
    sizes = [len(val) for _, val, _ in parts]
    assert max(sizes) - min(sizes) <= 1
    for label in np.unique(labels):
        of_class = [int((labels[val] == label).sum()) for _, val, _ in parts]
        assert max(of_class) - min(of_class) <= 1


@given(labels=labelled())
def test_the_fixed_split_holds_out_a_fifth_of_each_class(labels):
    train, val, name = split(labels, ImageDataSettings())
    assert name == "fixed"
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert len(val) == -(-len(labels) // 5)
    for label in np.unique(labels):
        share, whole = int((labels[val] == label).sum()), int((labels == label).sum())
        assert whole // 5 <= share <= whole // 5 + 1


def test_the_fixed_split_is_none_of_the_folds():
    labels = np.arange(100) % 10
    fixed = split(labels, ImageDataSettings())[1]
    assert all(
        not np.array_equal(fixed, split(labels, ImageDataSettings(folds=5, fold=fold))[1])
        for fold in range(5)
    )


def test_more_folds_than_images_are_refused():
    with pytest.raises(DataError, match=r"data.folds is 13, and digits has 12 images; set fewer"):
        split(np.zeros(12, dtype=np.int64), ImageDataSettings(folds=13, fold=0))


def test_every_order_of_three_is_drawn_about_equally_often():
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(permutation(3, "data", epoch))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # 1,000 expected each; chi-square with 5 degrees of freedom stays below 26 but once in 10^4.
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 26


def test_orders_never_change():
    # Frozen: whoever changes these numbers changes every run that was ever made.
    assert permutation(8, "data", 2, seed=7).tolist() == [7, 1, 6, 3, 0, 5, 2, 4]
    assert split(np.arange(20) % 2, ImageDataSettings())[1].tolist() == [1, 3, 4, 6]


# ---- what is recorded --------------------------------------------------------------------------


def test_the_hash_knows_pixels_labels_shape_and_split():
    one, hashes = image_set(), set()
    pixels, labels = one.pixels.copy(), one.labels.copy()
    pixels[0, 0, 0, 0] ^= 1
    labels[:2] = labels[1::-1]
    rest = (one.classes, one.train, one.val, "by hand")
    for other in (
        one,
        ImageSet("images", pixels, one.labels, *rest),
        ImageSet("images", one.pixels, labels, *rest),
        ImageSet("images", one.pixels.reshape(60, 1, 2, 4), one.labels, *rest),
        ImageSet("images", one.pixels, one.labels, 60, one.train[:-1], np.arange(49, 60), ""),
    ):
        hashes.add(other.sha256)
    assert len(hashes) == 5
    assert image_set().sha256 == one.sha256
    assert json.loads(json.dumps(one.describe())) == one.describe()


def test_training_images_are_standardised_channel_by_channel_and_validation_with_their_numbers():
    images = image_set()
    x_BCHW, y_B = images.take(images.train)
    assert (x_BCHW.dtype, y_B.dtype) == (np.float32, np.int64)
    assert np.allclose(x_BCHW.mean((0, 2, 3)), 0, atol=1e-6)
    assert np.allclose(x_BCHW.std((0, 2, 3)), 1, atol=1e-6)
    v_BCHW, _ = images.take(images.val)
    back = v_BCHW * images.std_C[:, None, None] + images.mean_C[:, None, None]
    assert np.allclose(back, images.pixels[images.val], atol=1e-3)


# ---- batches -----------------------------------------------------------------------------------


@given(step=steps, seed=seeds)
@settings(deadline=None)
def test_a_batch_is_a_pure_function_of_seed_and_step(step, seed):
    one, two = batches(seed=seed), batches(seed=seed)
    two.batch(step + 1)
    two.batch(max(1, step - 3))
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


@given(train=st.integers(1, 60), batch=st.integers(1, 60), epochs=st.integers(1, 4))
@settings(deadline=None)
def test_every_epoch_holds_every_training_image_once(train, batch, epochs):
    batch = min(train, batch)
    source = batches(train, batch=batch)
    steps = -(-train * epochs // batch)
    taken = np.concatenate([source.batch(step)[1] for step in range(1, steps + 1)])
    whole = [taken[i * train : (i + 1) * train].tolist() for i in range(epochs)]
    assert all(sorted(epoch) == list(range(train)) for epoch in whole)
    if train > 20:
        assert len({tuple(epoch) for epoch in whole}) == epochs


def test_an_image_comes_with_its_label():
    source = batches()
    x_BCHW, y_B = source.batch(5)
    assert np.array_equal(x_BCHW, source.images.take(y_B)[0])  # the label is the index


def test_shares_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(DataError, match="12 images cannot be shared equally by 5"):
        batches().batch(1, part=(0, 5))


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(DataError, match=r"data.batch is 51, and images has 50 training images"):
        batches(50, batch=51)
    assert sorted(batches(50, batch=50).batch(1)[1]) == list(range(50))
