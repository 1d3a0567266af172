"""Formal languages: which symbols may come next, at every position; and the parity of random bits.

The six languages of the Nested Learning paper's table (arXiv 2512.24695, Table 5), in the practice
of Bhattamishra et al. 2020 (arXiv 2009.11264): after each symbol of a string of the language the
model names the set of symbols with which it can go on to some string of the language, the end among
them; a string counts only if every set is right. Train on short strings, evaluate on longer ones. A
length is drawn uniformly among those that the language has in the range, then a string uniformly
among the language's strings of that length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cupel.data.tasks import draws
from cupel.data.tasks.draws import Bools, Ids, Words
from cupel.data.tasks.settings import LANGUAGES, FormalSettings, ParitySettings
from cupel.data.tasks.task import IGNORE, TRAIN, Drawn, SetBatch, TokenBatch, cut

# B: sequences, T: positions, V: the language's symbols and, as the last one, the end.


class Language(ABC):
    """Strings over `alphabet` as ids of its letters; the id behind the last letter is the end."""

    alphabet: ClassVar[str]

    @property
    def end(self) -> int:
        """Follows a string that is in the language; fills what lies behind it in a batch."""
        return len(self.alphabet)

    def words(self, length: int) -> int:
        """Random words that strings of up to that length need."""
        return 0

    @abstractmethod
    def write(self, words_BW: Words, length_B: Ids, block: int) -> Ids:
        """One string a row, each of its length in a row of `block`; what lies behind is free."""

    @abstractmethod
    def follow(self, tokens_BT: Ids) -> list[Bools]:
        """For each symbol in turn, then for the end: whether it may follow each prefix."""


class Parity(Language):
    """An even number of ones among zeros and ones."""

    alphabet = "01"

    def words(self, length: int) -> int:
        return -(-length // 64)

    def write(self, words_BW: Words, length_B: Ids, block: int) -> Ids:
        token_BT = draws.bits(words_BW, block)
        last_B = length_B[:, None] - 1
        before_BT = np.where(np.arange(block) < last_B, token_BT, 0)
        np.put_along_axis(token_BT, last_B, before_BT.sum(axis=1, keepdims=True) % 2, axis=1)
        return token_BT

    def follow(self, tokens_BT: Ids) -> list[Bools]:
        always = np.ones_like(tokens_BT, dtype=np.bool_)
        return [always, always, np.cumsum(tokens_BT == 1, axis=1) % 2 == 0]


class Repeated(Language):
    """Any number of copies of one word: its letters by turns, the end after whole copies."""

    word: ClassVar[str]

    def write(self, words_BW: Words, length_B: Ids, block: int) -> Ids:
        return np.tile(self._letters(block), (len(length_B), 1))

    def follow(self, tokens_BT: Ids) -> list[Bools]:
        block = tokens_BT.shape[1]
        next_T = self._letters(block + 1)[1:]
        may_T = [next_T == letter for letter in range(self.end)]
        may_T.append(np.arange(1, block + 1) % len(self.word) == 0)
        return [np.broadcast_to(may, tokens_BT.shape) for may in may_T]

    def _letters(self, count: int) -> Ids:
        ids = [self.alphabet.index(letter) for letter in self.word]
        return np.resize(np.array(ids, dtype=np.int64), count)


class AA(Repeated):
    """(aa)*."""

    alphabet, word = "a", "aa"


class ABAB(Repeated):
    """(abab)*."""

    alphabet, word = "ab", "abab"


class Counted(Language):
    """Blocks of equal size, one of each letter: a^n b^n, a^n b^n c^n, with n of one or more."""

    def write(self, words_BW: Words, length_B: Ids, block: int) -> Ids:
        size_B = length_B[:, None] // self.end
        token_BT: Ids = np.minimum(np.arange(block) // size_B, self.end - 1)
        return token_BT

    def follow(self, tokens_BT: Ids) -> list[Bools]:
        # Only the first letter's number is free: it may stop after any.
        count = [np.cumsum(tokens_BT == letter, axis=1) for letter in range(self.end)]
        only_first = tokens_BT == 0
        follows = [only_first]
        for letter in range(1, self.end):
            begins = (tokens_BT == letter - 1) & (count[letter - 1] == count[0])
            follows.append(begins | ((tokens_BT == letter) & (count[letter] < count[0])))
        last = self.end - 1
        return [*follows, (tokens_BT == last) & (count[last] == count[0])]


class ANBN(Counted):
    """a^n b^n."""

    alphabet = "ab"


class ANBNCN(Counted):
    """a^n b^n c^n."""

    alphabet = "abc"


class Shuffle2(Language):
    """Two kinds of brackets; each kind is balanced by itself, and they may cross.

    Strings of 2m brackets are C(m) C(m+1) many (C: Catalan numbers). One of them, uniformly: the
    number k of pairs of the first kind, where they stand, and a balanced word of either kind.
    """

    alphabet = "()[]"

    def words(self, length: int) -> int:
        return 4 * length + 4  # (length + 2) + length + 2 (length + 1)

    def write(self, words_BW: Words, length_B: Ids, block: int) -> Ids:
        kind_w, place_w, *bracket_w = cut(words_BW, block + 2, block, block + 1, block + 1)
        pairs_B = length_B // 2
        # There are C(2m, 2k) C(k) C(m-k) strings with k, in proportion to binom(m, k)
        # binom(m+2, m+1-k): the number of the first m items among m+1 chosen out of 2m+2.
        chosen = draws.chosen(kind_w, length_B + 2, pairs_B + 1)
        first_B = (chosen & (np.arange(block + 2) < pairs_B[:, None])).sum(axis=1)
        is_first_BT = draws.chosen(place_w, length_B, 2 * first_B)
        ups = [
            np.take_along_axis(_balanced(w, pairs), np.maximum(np.cumsum(own, 1) - 1, 0), axis=1)
            for w, pairs, own in (
                (bracket_w[0], first_B, is_first_BT),
                (bracket_w[1], pairs_B - first_B, ~is_first_BT),
            )
        ]
        kinds = (np.where(up_BT, 2 * kind, 2 * kind + 1) for kind, up_BT in enumerate(ups))
        return np.where(is_first_BT, *kinds)

    def follow(self, tokens_BT: Ids) -> list[Bools]:
        always = np.ones_like(tokens_BT, dtype=np.bool_)
        follows, closed = [], always
        for opening in (0, 2):
            opened, shut = tokens_BT == opening, tokens_BT == opening + 1
            depth = np.cumsum(opened, axis=1) - np.cumsum(shut, axis=1)
            follows += [always, depth > 0]
            closed = closed & (depth == 0)
        return [*follows, closed]


def _balanced(words_BN: Words, pairs_B: Ids) -> Bools:
    """Where a uniformly drawn balanced word opens: (B, N), of which 2 · pairs columns count.

    By the cycle lemma: of the rotations of k ups and k + 1 downs exactly one stays at 0 or above
    until its last step, a down; it begins behind the first lowest point.
    """
    size_B = 2 * pairs_B + 1
    column_N = np.arange(words_BN.shape[1])
    inside_BN = column_N < size_B[:, None]
    up_BN = draws.chosen(words_BN, size_B, pairs_B)
    height_BN = np.cumsum(np.where(up_BN, 1, -1), axis=1)
    height_BN[~inside_BN] = words_BN.shape[1]
    begin_B = np.argmin(height_BN, axis=1) + 1
    return np.take_along_axis(up_BN, (begin_B[:, None] + column_N) % size_B[:, None], axis=1)


_LANGUAGES: dict[str, type[Language]] = {
    "parity": Parity,
    "aa": AA,
    "abab": ABAB,
    "anbn": ANBN,
    "anbncn": ANBNCN,
    "shuffle2": Shuffle2,
}
assert _LANGUAGES.keys() == LANGUAGES.keys()


def language(name: str) -> Language:
    """The language of that name."""
    return _LANGUAGES[name]()


class Formal(Drawn[SetBatch]):
    """The sets of symbols that may follow each prefix of a language's strings.

    Tokens are the letters; the end symbol fills what lies behind a string, where nothing is asked.
    There is no symbol for the beginning: the first set is asked for after the first letter.
    """

    headline = "exact"

    def __init__(self, settings: FormalSettings, *, seed: int) -> None:
        self.settings, self.language = settings, language(settings.language)
        symbols = len(self.language.alphabet) + 1
        self._ranges = _ranges(settings)
        lengths = {name: high for name, (_, high) in self._ranges.items()}
        super().__init__(settings, seed=seed, vocabulary=symbols, lengths=lengths)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """The lengths that the strings of a split have, each as likely as the others."""
        low, high = self._ranges[split]
        unit = LANGUAGES[self.settings.language]
        return np.arange(-(-low // unit) * unit, high + 1, unit)

    def _words(self, length: int) -> int:
        return 1 + self.language.words(length)

    def _make(self, words_BW: Words, split: str) -> SetBatch:
        block, lengths = self.length(split), self.lengths(split)
        length_B = lengths[draws.below(words_BW[:, 0], len(lengths))]
        tokens_BT = self.language.write(words_BW[:, 1:], length_B, block)
        mask_BT = np.arange(block) < length_B[:, None]
        targets_BTV = np.stack(self.language.follow(tokens_BT), axis=2) & mask_BT[:, :, None]
        return SetBatch(np.where(mask_BT, tokens_BT, self.language.end), targets_BTV, mask_BT)


class RunningParity(Drawn[TokenBatch]):
    """Random bits, and at each the parity of all up to it: whether the number of ones is odd.

    The same problem as the language's, put as the tracking of a state. All strings of bits occur,
    not only those with an even number of ones. Token 2 fills what lies behind them.
    """

    headline = "exact"
    PADDING = 2

    def __init__(self, settings: ParitySettings, *, seed: int) -> None:
        self.settings, self._ranges = settings, _ranges(settings)
        lengths = {name: high for name, (_, high) in self._ranges.items()}
        super().__init__(settings, seed=seed, vocabulary=3, outputs=2, lengths=lengths)

    def _words(self, length: int) -> int:
        return 1 + -(-length // 64)

    def _make(self, words_BW: Words, split: str) -> TokenBatch:
        (low, high), block = self._ranges[split], self.length(split)
        length_B = low + draws.below(words_BW[:, 0], high - low + 1)
        bits_BT = draws.bits(words_BW[:, 1:], block)
        inside_BT = np.arange(block) < length_B[:, None]
        return TokenBatch(
            np.where(inside_BT, bits_BT, self.PADDING),
            np.where(inside_BT, np.cumsum(bits_BT, axis=1) % 2, IGNORE),
        )


def _ranges(settings: FormalSettings | ParitySettings) -> dict[str, tuple[int, int]]:
    """Each split's least and greatest length; evaluation sets are named after them."""
    named = {f"{low}-{high}": (low, high) for low, high in settings.ranges}
    return {TRAIN: settings.ranges[0], **named}
