"""Values of some keys out of many lines at once, with no object made of the others: `Picker`.

Of a key that is skipped msgspec makes nothing, and it looks less closely at what it skips: bytes
that are no UTF-8 and numbers beyond all floats would pass, where a line with one of them counts as
damaged. So only pieces that cannot hold either are read this way (about 1.2 µs a line of ten
numbers, for one of them); of any other `pick` gives None, and its lines are decoded one and all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from cupel.record.codec import WORDS

ABSENT = msgspec.UNSET  # stands where a line has not the key
ABSENT_TYPE = type(ABSENT)

# The same values as `Any` gives, in 0.7 of its time.
_ANYTHING = int | float | str | bool | list[Any] | dict[str, Any] | None
_MOST_KEYS = 64  # above, each line costs more here than as a mapping
_MOST_LEARNED = 8  # times that new keys are taken in
# A number is below 1e300 with less than 200 digits before its point and an exponent of at most two.
# Of 200 digits in a row 25 are met by looking at each 8th byte.
_LARGE, _LONG = re.compile(rb"[eE]\+?[0-9]{3}"), re.compile(rb"[0-9]{200}")
_STRIDE, _DIGITS = 8, b"\1" * 25

Line = dict[str, Any]


class Picker:
    """Picks the values of some keys, `_step` and `_t` among them; with None those of all keys.

    `skips` tells whether any line seen by `pick` or `learn` may have held other keys than these.
    """

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = None if keys is None else frozenset({"_step", "_t", *keys})
        self.skips = False
        self._known: dict[str, None] = {}
        if keys is not None:
            self._known = dict.fromkeys(["_step", "_t", *sorted(keys)])
        self._learned = 0
        self._decoder = self._made() if self.keys is not None else None

    def learn(self, lines: Sequence[Line]) -> None:
        """Take note of the keys of lines that were decoded otherwise."""
        held = dict.fromkeys(key for shape in dict.fromkeys(map(tuple, lines)) for key in shape)
        if self.keys is not None:
            if not self.skips and not held.keys() <= self.keys:
                self.skips = True
                self._decoder = self._made()
        elif not held.keys() <= self._known.keys() and self._learned < _MOST_LEARNED:
            self._learned += 1
            self._known |= held
            # Where lines hold few of the keys each, looking for all costs more than it saves.
            dense = 2 * sum(map(len, lines)) >= len(self._known) * len(lines)
            self._decoder = self._made() if dense else None

    def pick(self, piece: bytes) -> dict[str, list[Any]] | None:
        """Of lines in order a list of values a key; None where only decoding them can tell.

        The piece ends in a newline. All lines are whole, and all their steps are integers.
        """
        import numpy as np

        if self._decoder is None or b"\\" in piece:
            return None
        array = np.frombuffer(piece, np.uint8)
        ends = np.flatnonzero(array == ord("\n"))
        # As in `cupel.record.lines`: between a `}` and a `{` no value goes on.
        if array[0] != ord("{") or not (array[ends - 1] == ord("}")).all():
            return None
        if not (array[ends[:-1] + 1] == ord("{")).all():
            return None
        if self.skips and not _is_plain(piece, array):
            return None
        try:
            lines = self._decoder.decode_lines(piece)
        except (ValueError, RecursionError):
            return None
        if len(lines) != len(ends):
            return None
        found = {key: list(map(attrgetter(f"f{n}"), lines)) for n, key in enumerate(self._known)}
        return found if set(map(type, found["_step"])) == {int} else None

    def _made(self) -> msgspec.json.Decoder[Any] | None:
        if len(self._known) > _MOST_KEYS:
            return None
        names = {f"f{number}": key for number, key in enumerate(self._known)}
        try:
            lines = msgspec.defstruct(
                "Picked",
                [(name, _ANYTHING, ABSENT) for name in names],
                rename=names,
                gc=False,
                forbid_unknown_fields=not self.skips,
            )
        except ValueError:  # a key with a quote, a backslash or a control character
            return None
        return msgspec.json.Decoder(lines)


def revived(values: Sequence[Any]) -> list[Any]:
    """Some values with numbers for the words that stand for NaN and infinities."""
    return [WORDS.get(value, value) if type(value) is str else value for value in values]


def _is_plain(piece: bytes, array: Any) -> bool:
    """Whether all texts are UTF-8, and no number can be beyond all floats."""
    import numpy as np

    if not piece.isascii():
        try:
            piece.decode()
        except UnicodeDecodeError:
            return False
    digits = array - ord("0") < 10
    if _DIGITS in digits[::_STRIDE].tobytes() and _LONG.search(piece):
        return False
    exponents = np.flatnonzero(digits[:-1] & ((array[1:] | 0x20) == ord("e")))
    return not any(_LARGE.match(piece, place + 1) for place in exponents.tolist())
