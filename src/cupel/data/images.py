"""Labelled images in memory: their split, and batches as a pure function of (seed, step).

Training goes through epochs: each is a permutation of the training images, drawn from its place in
a stream, and the batches are cut from the epochs laid end to end. So every batch is full, every
image comes once an epoch, and a batch may hold the end of one epoch and the beginning of the next.
Pixels stay bytes; a batch is standardised as it is made, by the training images' mean and spread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cupel import randomness
from cupel.data.settings import ImageDataSettings
from cupel.errors import DataError

Rows = NDArray[np.int64]  # indices of images
# Standardised images (B, C, H, W) of float32, and their labels (B,) of int64.
Batch = tuple[NDArray[np.float32], NDArray[np.int64]]

_FIXED = 5  # the fixed split validates on one part in five


@dataclass(frozen=True)
class ImageSet:
    """All images and labels of a data set, and which of them are for what.

    `pixels` is (N, C, H, W) of uint8, `labels` (N,) of int64 below `classes`; `train` and `val` are
    indices in increasing order; `split` names how they were made.
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    train: Rows
    val: Rows
    split: str

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.pixels.shape[1])

    @cached_property
    def mean_C(self) -> NDArray[np.float64]:
        """Each channel's mean over the training images, in units of a pixel."""
        mean: NDArray[np.float64] = self.pixels[self.train].mean(axis=(0, 2, 3), dtype=np.float64)
        return mean

    @cached_property
    def std_C(self) -> NDArray[np.float64]:
        """Each channel's standard deviation over the training images."""
        std: NDArray[np.float64] = self.pixels[self.train].std(axis=(0, 2, 3), dtype=np.float64)
        return std

    def take(self, rows: Rows) -> Batch:
        """Those images, standardised channel by channel, and their labels."""
        mean_CHW, std_CHW = (v[:, None, None].astype(np.float32) for v in (self.mean_C, self.std_C))
        return (self.pixels[rows].astype(np.float32) - mean_CHW) / std_CHW, self.labels[rows]

    def describe(self) -> dict[str, Any]:
        """What the record keeps: JSON-able, and enough to tell two data sets or splits apart."""
        return {
            "name": self.name,
            "images": {"train": len(self.train), "val": len(self.val)},
            "shape": list(self.pixels.shape[1:]),
            "classes": self.classes,
            "split": self.split,
            "mean": self.mean_C.tolist(),
            "std": self.std_C.tolist(),
            "sha256": self.sha256,
        }

    @cached_property
    def sha256(self) -> str:
        """Over shape, pixels, labels and both splits, whatever the machine's byte order."""
        digest = hashlib.sha256(f"{self.pixels.shape} {len(self.train)}".encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        for rows in (self.labels, self.train, self.val):
            digest.update(rows.astype("<i8").tobytes())
        return digest.hexdigest()


def split(labels: NDArray[np.int64], settings: ImageDataSettings) -> tuple[Rows, Rows, str]:
    """Indices for training and for validation, and the split's name; the same ones in every run.

    The classes' images, each class in an order drawn from a stream that knows no run's seed, are
    dealt to the parts in turn. So sizes differ by one at most, and so do any class's shares.
    """
    if settings.folds is None or settings.fold is None:
        parts, chosen, name, stream = _FIXED, 0, "fixed", f"split/{settings.name}/fixed"
    else:
        parts, chosen = settings.folds, settings.fold
        name, stream = f"fold {chosen} of {parts}", f"split/{settings.name}/folds"
    if parts > len(labels):
        raise DataError(
            f"data.folds is {parts}, and {settings.name} has {len(labels)} images; set fewer"
        )
    dealt = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        dealt.append(of_class[permutation(len(of_class), stream, parts, int(label))])
    val = np.sort(np.concatenate(dealt)[chosen::parts])
    return np.setdiff1d(np.arange(len(labels)), val), val, name


def permutation(count: int, stream: str, *position: int, seed: int = 0) -> Rows:
    """The order of `count` things at one place of a stream, every order equally likely.

    By sorting raw words, since numpy promises their stream for ever, but not that of
    Generator.permutation.
    """
    words = np.random.Philox(key=randomness.derive(seed, stream, *position)).random_raw(count)
    order: Rows = np.argsort(words, kind="stable").astype(np.int64)
    return order


class ImageBatches:
    """Training batches of `batch` images. Raises DataError when there are fewer than that."""

    def __init__(self, images: ImageSet, *, batch: int, seed: int) -> None:
        assert batch >= 1, batch
        if batch > len(images.train):
            raise DataError(
                f"data.batch is {batch}, and {images.name} has {len(images.train)} training "
                f"images; set data.batch={len(images.train)} or less"
            )
        self.images, self.size, self.seed = images, batch, seed
        self._orders: dict[int, Rows] = {}  # of the epochs in use: what is kept changes no batch

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """The batch of a step (the first is 1), or one share of it: images and labels.

        `part=(i, n)` is the i-th of n equal shares of the same batch, for micro-steps and ranks.
        Raises DataError when n does not divide the batch.
        """
        index, shares = part
        assert step >= 1, step
        assert 0 <= index < shares, part
        if self.size % shares:
            raise DataError(
                f"a batch of {self.size} images cannot be shared equally by {shares} (ranks × "
                f"micro-steps); make it a multiple of {shares}"
            )
        share = self.size // shares
        begin = (step - 1) * self.size + index * share
        return self.images.take(self._rows(begin, begin + share))

    def _rows(self, begin: int, end: int) -> Rows:
        """The images at places begin … end − 1 of all epochs laid end to end."""
        count = len(self.images.train)
        first, last = begin // count, (end - 1) // count
        self._orders = {epoch: self._order(epoch) for epoch in range(first, last + 1)}
        joined = np.concatenate([self._orders[epoch] for epoch in range(first, last + 1)])
        rows: Rows = self.images.train[joined[begin - first * count : end - first * count]]
        return rows

    def _order(self, epoch: int) -> Rows:
        if epoch in self._orders:
            return self._orders[epoch]
        return permutation(len(self.images.train), "data", epoch, seed=self.seed)
