"""The text that a needle is hidden in: one passage over and over, or sentences that are ever new.

No file and no download: a sentence is a subject, a verb and an object, each one of sixteen.
"""

from __future__ import annotations

import numpy as np

from cupel.data.tasks import draws
from cupel.data.tasks.draws import Bools, Ids, Words

# B: sequences, H: bytes, P: pieces of sentences.

# The passage of RULER, which has it from Mohtashami and Jaggi 2023 (arXiv 2305.16300).
PASSAGE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
)


def _parted(text: str) -> list[str]:
    return text.split("|")


SUBJECTS = _parted(
    "The farmer |A doctor |The sailor |My uncle |The teacher |An old king |The baker |"
    "Our neighbour |The clerk |A young poet |The miller |Her sister |The painter |A stranger |"
    "The captain |His friend "
)
VERBS = _parted(
    "found |sold |carried |watched |painted |lost |repaired |admired |bought |hid |borrowed |"
    "cleaned |kept |broke |wanted |described "
)
OBJECTS = _parted(
    "a red boat. |the heavy box. |an apple tree. |the long road. |a silver cup. |the old bridge. |"
    "a small horse. |the round table. |a paper lamp. |the stone wall. |a warm coat. |the garden. |"
    "a broken clock. |the quiet river. |a letter. |the tall house. "
)
# What a value belongs to; all of five letters, so that every needle has the same size.
KEYS = _parted(
    "amber|birch|cedar|daisy|eagle|flint|grape|heron|ivory|jelly|koala|lemon|maple|night|olive|"
    "pearl|quail|robin|stone|tulip|umber|viola|wheat|xenon|yacht|zebra|acorn|beach|cloud|delta|"
    "ember|frost"
)
_ALL = (*SUBJECTS, *VERBS, *OBJECTS)
_FIRST_OBJECT = len(SUBJECTS) + len(VERBS)


def ids(text: str) -> Ids:
    """The bytes of an ASCII text."""
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64)


_SIZES = np.array([len(piece) for piece in _ALL])
_PIECES = np.stack([ids(piece.ljust(int(_SIZES.max()))) for piece in _ALL])


def repeated(rows: int, size: int) -> tuple[Ids, Bools]:
    """The passage over and over, (B, H), and behind which bytes a sentence ends."""
    text = ids(PASSAGE)
    ends = np.zeros(len(text), dtype=np.bool_)
    ends[1:] = (text[:-1] == ord(".")) & (text[1:] == ord(" "))
    return np.tile(np.resize(text, size), (rows, 1)), np.tile(np.resize(ends, size), (rows, 1))


def pieces(size: int) -> int:
    """How many pieces fill `size` bytes, however short they are."""
    return size // int(_SIZES.min()) + 1


def sentences(words_BP: Words, size: int) -> tuple[Ids, Bools]:
    """Sentences of drawn pieces, cut off at `size` bytes, and behind which bytes one ends."""
    rows, count = words_BP.shape
    piece_BP = 16 * (np.arange(count) % 3) + draws.below(words_BP, 16)
    end_BP = np.cumsum(_SIZES[piece_BP], axis=1)
    begin_BP = end_BP - _SIZES[piece_BP]
    marks_BH = np.zeros((rows, size + 1), dtype=np.int64)
    np.put_along_axis(marks_BH, np.minimum(end_BP, size), 1, axis=1)
    number_BH = np.cumsum(marks_BH, axis=1)[:, :size]  # which piece each byte belongs to
    offset_BH = np.arange(size) - np.take_along_axis(begin_BP, number_BH, axis=1)
    piece_BH = np.take_along_axis(piece_BP, number_BH, axis=1)
    ends_BH = (offset_BH + 1 == _SIZES[piece_BH]) & (piece_BH >= _FIRST_OBJECT)
    return _PIECES[piece_BH, offset_BH], ends_BH
