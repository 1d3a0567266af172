"""The six tasks of MAD: three kinds of recall, selective copying, memorization, compression.

After Poli et al. 2024 (arXiv 2403.17844) and its published generators, where a recall task asks for
many values, too. Ours differ in three things: targets are only what is measured, also in training,
where its recall tasks have all next tokens; there is no end of training sequences; every way in
which blanks can stand among the tokens to copy is equally likely.
"""

from __future__ import annotations

import numpy as np

from cupel.data.images import permutation
from cupel.data.tasks import draws
from cupel.data.tasks.draws import Bools, Ids, Words
from cupel.data.tasks.settings import (
    CompressionSettings,
    FuzzyRecallSettings,
    MemorizationSettings,
    NoisyRecallSettings,
    RecallSettings,
    SelectiveCopyingSettings,
)
from cupel.data.tasks.task import IGNORE, TRAIN, Drawn, TokenBatch, cut

# B: sequences, T: positions, P: pairs, K: keys, N: tokens of a key or a value.


class Recall(Drawn[TokenBatch]):
    """Pairs of key and value to the end; a value is due wherever its key has been there before.

    Each sequence has its own value for each key. The last pair's key has always been there before.
    With noise, a pair may be two noise tokens instead; at least one before the last is a pair.
    """

    def __init__(self, settings: RecallSettings | NoisyRecallSettings, *, seed: int) -> None:
        self.keys = settings.vocabulary // 2
        self.values = settings.vocabulary - self.keys
        self.pairs = settings.block // 2
        self.noise, self.noises = 0.0, 0
        if isinstance(settings, NoisyRecallSettings):
            self.noise, self.noises = settings.noise, settings.noise_vocabulary
        self._first_noise = settings.vocabulary
        super().__init__(
            settings,
            seed=seed,
            vocabulary=settings.vocabulary + self.noises,
            lengths={TRAIN: settings.block, "val": settings.block},
        )

    def _columns(self) -> tuple[int, ...]:
        noisy = self.pairs if self.noise else 0
        return self.keys, self.pairs, self.pairs, 1, noisy, 2 * noisy

    def _words(self, length: int) -> int:
        return sum(self._columns())

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        value_w, key_w, probe_BP, spared_w, noise_w, noises_w = cut(words_BW, *self._columns())
        noise_BP = self._noise(noise_w, spared_w[:, 0])
        key_BP = draws.below(key_w, self.keys)
        # Noise takes part as keys that never come again.
        code_BP = np.where(noise_BP, self.keys + np.arange(self.pairs), key_BP)
        new_BP = (draws.firsts(code_BP) == np.arange(self.pairs)) & ~noise_BP
        new_BP[:, -1] = False
        # The last key is one of those that were there, each as likely as the others.
        probe_B = np.where(new_BP, probe_BP, np.uint64(0)).argmax(axis=1)
        key_BP[:, -1] = np.take_along_axis(key_BP, probe_B[:, None], axis=1)[:, 0]
        value_BK = self.keys + draws.below(value_w, self.values)
        value_BP = np.take_along_axis(value_BK, key_BP, axis=1)
        tokens_BT = np.stack([key_BP, value_BP], axis=2).reshape(len(key_BP), -1)
        if self.noise:
            noises_BT = self._first_noise + draws.below(noises_w, self.noises)
            tokens_BT = np.where(np.repeat(noise_BP, 2, axis=1), noises_BT, tokens_BT)
        targets_BT = np.full_like(tokens_BT, IGNORE)
        targets_BT[:, 0::2] = np.where(new_BP | noise_BP, IGNORE, value_BP)
        return TokenBatch(tokens_BT, targets_BT)

    def _noise(self, words_BP: Words, spared_B: Words) -> Bools:
        """Which pairs are noise: neither the last one nor another, drawn in each sequence."""
        rows = len(spared_B)
        if not self.noise:
            return np.zeros((rows, self.pairs), dtype=np.bool_)
        noise_BP = draws.share(words_BP) < self.noise
        noise_BP[np.arange(rows), draws.below(spared_B, self.pairs - 1)] = False
        noise_BP[:, -1] = False
        return noise_BP


class FuzzyRecall(Drawn[TokenBatch]):
    """Recall whose keys and values are several tokens, of which no two are equal.

    A sequence is as many pairs as fit, then one of them again; padding comes first. All tokens of a
    value are due where its key has been there before. As in MAD, keys are of all sizes in training
    and of the greatest size in evaluation.
    """

    def __init__(self, settings: FuzzyRecallSettings, *, seed: int) -> None:
        self.settings = settings
        self.padding = settings.vocabulary - 1
        self.keys = self.padding // 2
        self.values = self.padding - self.keys
        self.pairs = settings.block // 2  # more than fit
        lengths = {TRAIN: settings.block, "val": settings.block}
        super().__init__(settings, seed=seed, vocabulary=settings.vocabulary, lengths=lengths)

    def _columns(self) -> tuple[int, ...]:
        key, value = self.settings.key_size, self.settings.value_size
        return 1, self.pairs, self.pairs, self.pairs * key, self.pairs * value

    def _words(self, length: int) -> int:
        return sum(self._columns())

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        probe_w, key_size_w, value_size_w, key_w, value_w = cut(words_BW, *self._columns())
        key, value = self.settings.key_size, self.settings.value_size
        size_BP = 1 + draws.below(key_size_w, key)
        if split != TRAIN:
            size_BP = np.full_like(size_BP, key)
        key_BPN = self._motifs(key_w, size_BP, self.keys, key)
        code_BP = ((key_BPN + 1) * (self.keys + 1) ** np.arange(key)).sum(axis=2)
        first_BP = draws.firsts(code_BP)
        value_BPN = self._motifs(
            value_w, 1 + draws.below(value_size_w, value), self.values, value, offset=self.keys
        )
        row_B = np.arange(len(words_BW))[:, None]
        value_BPN = value_BPN[row_B, first_BP]
        pair_BPN = np.concatenate([key_BPN, value_BPN], axis=2)
        # As many pairs as leave room for any of them to come again, and then one of these.
        total_BP = np.cumsum((pair_BPN >= 0).sum(axis=2), axis=1)
        fit_B = (total_BP <= self.settings.block - key - value).sum(axis=1)
        probe_B = (probe_w[:, 0] % fit_B.astype(np.uint64)).astype(np.int64)
        place_P = np.arange(self.pairs)
        again_BP = place_P == fit_B[:, None]
        pair_BPN = pair_BPN[row_B, np.where(again_BP, probe_B[:, None], place_P)]
        due_BP = again_BP | (first_BP < place_P)
        return self._laid(pair_BPN, due_BP, place_P <= fit_B[:, None])

    def _motifs(
        self, words_BW: Words, size_BP: Ids, there: int, longest: int, *, offset: int = 0
    ) -> Ids:
        """Tokens that differ, `size` of each motif's `longest` columns; the others are -1."""
        drawn = draws.distinct(words_BW.reshape(-1, longest), there).reshape(*size_BP.shape, -1)
        return np.where(np.arange(longest) < size_BP[:, :, None], offset + drawn, -1)

    def _laid(self, pair_BPN: Ids, due_BP: Bools, used_BP: Bools) -> TokenBatch:
        """The used pairs' tokens one after the other, up to the last position."""
        rows, block = len(pair_BPN), self.settings.block
        there_BW = ((pair_BPN >= 0) & used_BP[:, :, None]).reshape(rows, -1)
        due_BPN = np.zeros(pair_BPN.shape, dtype=np.bool_)
        due_BPN[:, :, self.settings.key_size :] = due_BP[:, :, None]
        at_BW = np.cumsum(there_BW, axis=1) - 1 + block - there_BW.sum(axis=1, keepdims=True)
        row, column = np.nonzero(there_BW)
        at, token = at_BW[row, column], pair_BPN.reshape(rows, -1)[row, column]
        tokens_BT = np.full((rows, block), self.padding, dtype=np.int64)
        tokens_BT[row, at] = token
        targets_BT = np.full((rows, block), IGNORE, dtype=np.int64)
        due = due_BPN.reshape(rows, -1)[row, column]
        targets_BT[row[due], at[due] - 1] = token[due]  # a value's token is due one position before
        return TokenBatch(tokens_BT, targets_BT)


class SelectiveCopying(Drawn[TokenBatch]):
    """Tokens among blanks, the copy token, then blanks at which the tokens are due in order."""

    def __init__(self, settings: SelectiveCopyingSettings, *, seed: int) -> None:
        self.settings = settings
        self.copy, self.blank = settings.vocabulary - 1, settings.vocabulary - 2
        self.room = settings.block - settings.copies - 1  # positions before the copy token
        lengths = {TRAIN: settings.block, "val": settings.block}
        super().__init__(settings, seed=seed, vocabulary=settings.vocabulary, lengths=lengths)

    def _words(self, length: int) -> int:
        return self.settings.copies + self.room

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        rows, copies = len(words_BW), self.settings.copies
        copied_BN = draws.below(words_BW[:, :copies], self.settings.vocabulary - 2)
        among, count = (np.full(rows, one) for one in (self.room, copies))
        place = np.nonzero(draws.chosen(words_BW[:, copies:], among, count))
        tokens_BT = np.full((rows, self.settings.block), self.blank, dtype=np.int64)
        tokens_BT[place] = copied_BN.ravel()
        tokens_BT[:, self.room] = self.copy
        targets_BT = np.full_like(tokens_BT, IGNORE)
        targets_BT[:, self.room + 1 :] = copied_BN
        return TokenBatch(tokens_BT, targets_BT)


class Memorization(Drawn[TokenBatch]):
    """Keys, each followed by the asking token, at which the key's value is due.

    Values follow from no sequence: `values_K` is the same in all of them, and in every run.
    """

    def __init__(self, settings: MemorizationSettings, *, seed: int) -> None:
        self.settings = settings
        self.ask = settings.vocabulary - 1
        self.keys = self.ask // 2
        there = self.ask - self.keys
        order = permutation(there, "task/memorization/facts", settings.vocabulary)
        self.values_K: Ids = self.keys + order[: self.keys]
        lengths = {TRAIN: settings.block, "val": settings.block}
        super().__init__(settings, seed=seed, vocabulary=settings.vocabulary, lengths=lengths)

    def _words(self, length: int) -> int:
        return length // 2

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        tokens_BT = np.full((len(words_BW), self.settings.block), self.ask, dtype=np.int64)
        tokens_BT[:, 0::2] = draws.below(words_BW, self.keys)
        targets_BT = np.full_like(tokens_BT, IGNORE)
        targets_BT[:, 1::2] = self.values_K[tokens_BT[:, 0::2]]
        return TokenBatch(tokens_BT, targets_BT)


class Compression(Drawn[TokenBatch]):
    """Random tokens and a last one, from whose state alone all others are to be recovered.

    `readout` is "last": target t is what a decoder, given the last state and t, has to name. MAD
    asks for the last token, too; it is always the same, and ours does not.
    """

    readout = "last"

    def __init__(self, settings: CompressionSettings, *, seed: int) -> None:
        self.settings = settings
        lengths = {TRAIN: settings.block, "val": settings.block}
        super().__init__(settings, seed=seed, vocabulary=settings.vocabulary, lengths=lengths)

    def _words(self, length: int) -> int:
        return length - 1

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        last = self.settings.vocabulary - 1
        random_BT = draws.below(words_BW, last)
        ending = ((0, 0), (0, 1))
        return TokenBatch(
            np.pad(random_BT, ending, constant_values=last),
            np.pad(random_BT, ending, constant_values=IGNORE),
        )
