"""Names of what papers hold: `titans.v1:eq14`, and the order in which such names are listed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cupel.tags import ALGORITHM, AMBIGUITY, EQUATION, MODULE, NUMBER, PAPER

_PART = re.compile(rf"(?:({PAPER}):)?({EQUATION}|{ALGORITHM}|{AMBIGUITY})")
_PAPER = re.compile(PAPER)
_NUMBER = re.compile(NUMBER)
_MODULE = re.compile(MODULE)
_PIECES = re.compile(r"(\d+)")
_LIKE_A_PART = re.compile(rf"{EQUATION}|{ALGORITHM}")


def whole(text: str, paper: str) -> str | None:
    """The id that `eq14` means within a paper, `titans.v1:eq14` anywhere; None for no id."""
    match = _PART.fullmatch(text)
    return f"{match[1] or paper}:{match[2]}" if match else None


def split(identity: str) -> tuple[str, str]:
    """`titans.v1:eq14` → `titans.v1`, `eq14`."""
    paper, _, part = identity.partition(":")
    return paper, part


def paper_of(identity: str) -> str:
    """`titans.v1:eq14` → `titans`: the paper, whatever its version."""
    return split(identity)[0].partition(".")[0]


def is_paper(text: str) -> bool:
    """Whether it is a paper with its version, as `titans.v1`."""
    return _PAPER.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether it is the number of an equation: 14, 71b."""
    return _NUMBER.fullmatch(text) is not None


def is_module(text: str) -> bool:
    """Whether it is a name for a module, and none that would be read as an equation's."""
    return _MODULE.fullmatch(text) is not None and not _LIKE_A_PART.fullmatch(text)


def order(identity: str) -> tuple[tuple[int, int, str], ...]:
    """A key to sort by that puts eq9 before eq10, and eq71 before eq71b."""
    return tuple(
        # By length and digits, as numbers are ordered: `int` refuses thousands of digits.
        (0, len(piece.lstrip("0")), piece.lstrip("0")) if piece.isdecimal() else (1, 0, piece)
        for piece in _PIECES.split(identity)
        if piece
    )


def ordered(identities: Sequence[str] | set[str] | frozenset[str]) -> list[str]:
    """Ids, each once, in the order of their numbers."""
    return sorted(set(identities), key=order)


def slug(text: str, *, most: int = 40) -> str:
    """A title as part of a file's name: lower case, `_` between words, as many words as fit."""
    words = re.findall(r"[a-z0-9]+", text.lower().encode("ascii", "ignore").decode())
    found = ""
    for word in words:
        if found and len(found) + 1 + len(word) > most:
            break
        found = f"{found}_{word}" if found else word[:most]
    return found or "unnamed"
