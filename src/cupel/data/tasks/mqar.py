"""Multi-query associative recall: pairs of key and value, then keys whose values are asked for.

After Arora et al. 2023 (Zoology, arXiv 2312.04927) and its published generator: keys and values
of a sequence all differ; each query stands at an even distance behind the pairs, drawn without
repetition by weights i^(a-1); the value itself does not stand behind its query. Ours are the
several queries of a key, and filler tokens among the pairs.
"""

from __future__ import annotations

import numpy as np

from cupel.data.tasks import draws
from cupel.data.tasks.draws import Ids, Words
from cupel.data.tasks.settings import MqarSettings
from cupel.data.tasks.task import IGNORE, TRAIN, Drawn, TokenBatch, cut

# B: sequences, T: positions, P: pairs, S: places of two positions, Q: queries.
BLANK = 0


class Mqar(Drawn[TokenBatch]):
    """Tokens: the blank, then keys, values, and fillers when there is noise."""

    def __init__(self, settings: MqarSettings, *, seed: int) -> None:
        fillers = settings.fillers if settings.noise else 0
        super().__init__(
            settings,
            seed=seed,
            vocabulary=1 + settings.keys + settings.values + fillers,
            lengths={TRAIN: settings.block, "val": settings.block},
        )
        self.settings = settings
        self.first_value = 1 + settings.keys
        self.first_filler = self.first_value + settings.values
        self.context = 2 * settings.places  # positions before the first query
        spaces = (settings.block - self.context) // 2
        exponent = settings.power - 1 if settings.gaps == "power" else 0.0
        self._weights = np.arange(1, spaces + 1, dtype=np.float64) ** exponent

    def _columns(self) -> tuple[int, ...]:
        noisy = bool(self.settings.noise)
        return (
            self.settings.pairs,
            self.settings.pairs,
            len(self._weights),
            self.settings.places if noisy else 0,
            self.settings.block if noisy else 0,
        )

    def _words(self, length: int) -> int:
        return sum(self._columns())

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        key_w, value_w, space_w, place_w, filler_w = cut(words_BW, *self._columns())
        keys_BP = 1 + draws.distinct(key_w, self.settings.keys)
        values_BP = self.first_value + draws.distinct(value_w, self.settings.values)
        tokens_BT = self._filled(filler_w)
        place_BP = 2 * self._places(place_w)
        np.put_along_axis(tokens_BT, place_BP, keys_BP, axis=1)
        np.put_along_axis(tokens_BT, place_BP + 1, values_BP, axis=1)
        repeats = self.settings.queries
        space_BQ = draws.race(space_w, self._weights, self.settings.pairs * repeats)
        at_BQ = self.context + 2 * space_BQ
        np.put_along_axis(tokens_BT, at_BQ, np.tile(keys_BP, repeats), axis=1)
        targets_BT = np.full_like(tokens_BT, IGNORE)
        np.put_along_axis(targets_BT, at_BQ, np.tile(values_BP, repeats), axis=1)
        return TokenBatch(tokens_BT, targets_BT)

    def _filled(self, words_BT: Words) -> Ids:
        """Filler everywhere among the pairs, and by chance behind them; the rest is blank."""
        rows, block = len(words_BT), self.settings.block
        if not self.settings.noise:
            return np.full((rows, block), BLANK, dtype=np.int64)
        filler_BT = self.first_filler + draws.below(
            words_BT & np.uint64(0xFFFFFFFF), self.settings.fillers
        )
        is_filler_BT = (words_BT >> np.uint64(32)) < np.uint64(self.settings.noise * 2**32)
        is_filler_BT[:, : self.context] = True
        return np.where(is_filler_BT, filler_BT, BLANK)

    def _places(self, words_BS: Words) -> Ids:
        """Where the pairs stand, in increasing order."""
        rows, pairs = len(words_BS), self.settings.pairs
        if not self.settings.noise:
            return np.tile(np.arange(pairs), (rows, 1))
        among, count = (np.full(rows, one) for one in (self.settings.places, pairs))
        _, place = np.nonzero(draws.chosen(words_BS, among, count))
        return place.reshape(rows, pairs)
