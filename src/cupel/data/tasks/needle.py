"""A needle in a haystack: one value hidden in a long sequence, and asked for at its end.

After the three S-NIAH tasks of RULER (Hsieh et al. 2024, arXiv 2404.06654): a passkey in one
repeated passage, a number in text, a uuid in text. The sentences around the value are shorter than
there, so that a small model's block of 256 bytes has room; the text is not Paul Graham's essays,
but sentences made here, new in each sequence; a uuid has no version bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cupel.data.tasks import draws, haystack
from cupel.data.tasks.draws import Bools, Ids, Words
from cupel.data.tasks.haystack import KEYS, ids
from cupel.data.tasks.settings import NEEDLE_BYTES, NEEDLE_SYMBOLS, NeedleSettings
from cupel.data.tasks.task import IGNORE, TRAIN, Drawn, TokenBatch, cut

# B: sequences, T: positions, H: tokens of the haystack, N: tokens of needle, query or value.

# Symbols: the two marks, the keys, sixteen digits, the fillers.
NEEDLE_MARK, QUERY_MARK, FIRST_KEY = 0, 1, 2
FIRST_DIGIT = FIRST_KEY + len(KEYS)
FIRST_FILLER = FIRST_DIGIT + 16
FILLERS = 64
PERIOD = 16  # of the repeated fillers


class _Frame(NamedTuple):
    """What stands around a value, with room for the key: ids, and where the key goes."""

    needle: Ids
    key_in_needle: slice
    value_in_needle: slice
    query: Ids
    key_in_query: slice


class Needle(Drawn[TokenBatch]):
    """Haystack with the needle in it, query, answer; only the answer's tokens are asked for.

    Evaluation sets are called by their length, and by length@depth for each depth that is set.
    """

    headline = "exact"

    def __init__(self, settings: NeedleSettings, *, seed: int) -> None:
        self.settings = settings
        self._bytes = settings.tokens == "byte"
        self._sizes = (NEEDLE_BYTES if self._bytes else NEEDLE_SYMBOLS)[settings.variant]
        self._frame = _byte_frame(settings) if self._bytes else _symbol_frame(self._sizes[1])
        self._depths: dict[str, float] = {}
        lengths = {TRAIN: settings.block}
        for length in settings.lengths:
            lengths[str(length)] = length
            for depth in settings.depths:
                self._depths[f"{length}@{depth:g}"] = depth
                lengths[f"{length}@{depth:g}"] = length
        vocabulary = 256 if self._bytes else FIRST_FILLER + FILLERS
        super().__init__(settings, seed=seed, vocabulary=vocabulary, lengths=lengths)

    def room(self, length: int) -> int:
        """Tokens of the haystack in a sequence of that length; the answer's last one is cut off."""
        frame, value = self._sizes
        return length + 1 - frame - 2 * value

    def _columns(self, length: int) -> tuple[int, int, int, int]:
        return 1, self._sizes[1], 1, self._hay_words(self.room(length))

    def _words(self, length: int) -> int:
        return sum(self._columns(length))

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        length = self.length(split)
        key_w, value_w, depth_w, hay_w = cut(words_BW, *self._columns(length))
        hay_BH, breaks_BH = self._hay(hay_w, self.room(length))
        key_BN, value_BN = self._key(key_w[:, 0]), self._value(value_w)
        needle_BN = np.tile(self._frame.needle, (len(hay_BH), 1))
        needle_BN[:, self._frame.key_in_needle] = key_BN
        needle_BN[:, self._frame.value_in_needle] = value_BN
        query_BN = np.tile(self._frame.query, (len(hay_BH), 1))
        query_BN[:, self._frame.key_in_query] = key_BN
        depth_B = np.full(len(hay_BH), self._depths.get(split, 0.0))
        if split not in self._depths:
            depth_B = draws.share(depth_w[:, 0])
        hidden_BT = _hidden(hay_BH, needle_BN, _nearest_break(breaks_BH, depth_B))
        whole_BT = np.concatenate([hidden_BT, query_BN, value_BN], axis=1)
        targets_BT = whole_BT[:, 1:].copy()
        targets_BT[:, : -value_BN.shape[1]] = IGNORE
        return TokenBatch(np.ascontiguousarray(whole_BT[:, :-1]), targets_BT)

    def _key(self, words_B: Words) -> Ids:
        chosen_B = draws.below(words_B, len(KEYS))
        return _KEY_BYTES[chosen_B] if self._bytes else FIRST_KEY + chosen_B[:, None]

    def _value(self, words_BN: Words) -> Ids:
        """A number of seven digits, of which the first is not 0, or hexadecimal digits."""
        if self.settings.variant == "uuid":
            digits_BN = draws.below(words_BN, 16)
        else:
            digits_BN = draws.below(words_BN, 10)
            digits_BN[:, 0] = 1 + draws.below(words_BN[:, 0], 9)
        if not self._bytes:
            return FIRST_DIGIT + digits_BN
        written_BN = _HEXADECIMAL[digits_BN]
        if self.settings.variant == "uuid":
            written_BN[:, [8, 13, 18, 23]] = ord("-")
        return written_BN

    def _hay_words(self, size: int) -> int:
        if self.settings.variant == "passkey":
            return 0
        return haystack.pieces(size) if self._bytes else size

    def _hay(self, words_BP: Words, size: int) -> tuple[Ids, Bools]:
        """The haystack, and behind which of its tokens the needle may be put."""
        rows = len(words_BP)
        if not self._bytes:
            if self.settings.variant == "passkey":
                fillers_BH = np.tile(np.arange(size) % PERIOD, (rows, 1))
            else:
                fillers_BH = draws.below(words_BP, FILLERS)
            return FIRST_FILLER + fillers_BH, np.ones((rows, size), dtype=np.bool_)
        if self.settings.variant == "passkey":
            return haystack.repeated(rows, size)
        return haystack.sentences(words_BP, size)


def _nearest_break(breaks_BH: Bools, depth_B: NDArray[np.float64]) -> Ids:
    """The last place at or before a depth where the haystack may be cut; 0, before all of it."""
    size = breaks_BH.shape[1]
    behind_H = np.arange(1, size + 1)
    allowed_BH = breaks_BH & (behind_H <= np.floor(depth_B * size + 0.5)[:, None])
    place_B: Ids = np.where(allowed_BH, behind_H, 0).max(axis=1)
    return place_B


def _hidden(hay_BH: Ids, needle_BN: Ids, place_B: Ids) -> Ids:
    """The haystack with the needle put in at its place."""
    room, size = hay_BH.shape[1], needle_BN.shape[1]
    at_T = np.arange(room + size)
    in_needle_BT = at_T - place_B[:, None]
    in_hay_BT = np.where(in_needle_BT < size, np.minimum(at_T, room - 1), at_T - size)
    hay_BT = np.take_along_axis(hay_BH, in_hay_BT, axis=1)
    needle_BT = np.take_along_axis(needle_BN, np.clip(in_needle_BT, 0, size - 1), axis=1)
    return np.where((in_needle_BT >= 0) & (in_needle_BT < size), needle_BT, hay_BT)


def _byte_frame(settings: NeedleSettings) -> _Frame:
    what = "uuid" if settings.variant == "uuid" else "number"
    before, between = f"The magic {what} of ", " is "
    value = NEEDLE_BYTES[settings.variant][1]
    key = len(KEYS[0])
    begin = len(before) + key + len(between)
    return _Frame(
        needle=ids(f"{before}{'?' * key}{between}{'?' * value}. "),
        key_in_needle=slice(len(before), len(before) + key),
        value_in_needle=slice(begin, begin + value),
        query=ids(f"\n{before}{'?' * key}{between}"),
        key_in_query=slice(1 + len(before), 1 + len(before) + key),
    )


def _symbol_frame(value: int) -> _Frame:
    needle = np.full(2 + value, NEEDLE_MARK, dtype=np.int64)
    query = np.full(2, QUERY_MARK, dtype=np.int64)
    return _Frame(needle, slice(1, 2), slice(2, 2 + value), query, slice(1, 2))


_HEXADECIMAL = ids("0123456789abcdef")
_KEY_BYTES = np.stack([ids(key) for key in KEYS])
