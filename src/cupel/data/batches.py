"""Batches of token windows as a pure function of (seed, step): nothing to save, nothing to restore.

Training draws windows with replacement, uniformly over all positions of the training split, so
there are no epochs; a window may span two documents. No worker processes: a batch of 8 × 257 costs
about 50 microseconds, against tens of milliseconds for a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cupel import randomness
from cupel.data.tokenizer import Ids
from cupel.data.tokens import TokenSet
from cupel.errors import DataError

# B: sequences, T: block. y is x one token later.
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


class Batches:
    """Windows of `block` tokens, `batch` of them a step, from both splits of a TokenSet.

    Raises DataError when a split is shorter than one window and its last target.
    """

    def __init__(self, tokens: TokenSet, *, block: int, batch: int, seed: int) -> None:
        assert block >= 1, block
        assert batch >= 1, batch
        for split, ids in (("training", tokens.train), ("validation", tokens.val)):
            if len(ids) < block + 1:
                raise DataError(
                    f"data: the {split} split holds {len(ids)} tokens, and a block of {block} "
                    f"needs {block + 1}; give a longer text or a smaller block"
                )
        self.block, self.size, self.seed = block, batch, seed
        # A plain array over the same memory: indexing a memmap object costs several times more.
        self._train: Ids = np.asarray(tokens.train)
        self._val: Ids = np.asarray(tokens.val)

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """The training batch of a step, or one share of it: x and y, int64, shape (B, T).

        `part=(i, n)` is the i-th of n equal shares of the same batch, for micro-steps and ranks.
        Raises DataError when n does not divide the batch.
        """
        index, shares = part
        assert 0 <= index < shares, part
        if self.size % shares:
            raise DataError(
                f"a batch of {self.size} sequences cannot be shared equally by {shares} (ranks × "
                f"micro-steps); make it a multiple of {shares}"
            )
        # Raw words, since numpy promises their stream for ever, but not that of Generator.integers.
        # The remainder favours some windows by less than 1 in 2**30.
        words = np.random.Philox(key=randomness.derive(self.seed, "data", step)).random_raw(
            self.size
        )
        starts_B = (words % np.uint64(len(self._train) - self.block)).astype(np.int64)
        share = self.size // shares
        return _windows(self._train, starts_B[index * share : (index + 1) * share], self.block)

    def fixed(self, name: str, *, count: int, batch: int) -> list[Batch]:
        """`count` validation batches, the same in every run: evenly spread windows of the split.

        They depend on the name (which shifts them all), the split's length and the block, never
        on the seed. Each batch spreads over the whole split; windows overlap where it is short.
        """
        windows, room = count * batch, len(self._val) - self.block
        shift = randomness.derive(0, f"validation/{name}") % room
        starts = (np.arange(windows, dtype=np.int64) * room + shift) // windows
        return [_windows(self._val, starts[i::count], self.block) for i in range(count)]


def _windows(ids: Ids, starts_B: NDArray[np.int64], block: int) -> Batch:
    window_BT = ids[starts_B[:, None] + np.arange(block + 1)].astype(np.int64)
    return np.ascontiguousarray(window_BT[:, :-1]), np.ascontiguousarray(window_BT[:, 1:])
