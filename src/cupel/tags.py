"""`@implements("titans.v1:eq14")`: code says which parts of a paper it carries out.

An id is a paper, its version and a part: an equation (`eq14`, `eq71b`), an algorithm (`alg1`), an
ambiguity (`A4`) or a module (`memory`). `cupel notes` finds the marks by reading the source, so a
mark costs one attribute and changes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from cupel.errors import UsageError

PAPER = r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*"
NUMBER = r"(?:0|[1-9][0-9]{0,5})[a-z]?"
EQUATION, ALGORITHM, AMBIGUITY = rf"eq{NUMBER}", rf"alg{NUMBER}", rf"A{NUMBER}"
MODULE = r"[a-z][a-z0-9_-]*"
_ID = re.compile(rf"{PAPER}:(?:{EQUATION}|{ALGORITHM}|{AMBIGUITY}|{MODULE})")

Marked = TypeVar("Marked")


def is_id(text: str) -> bool:
    """Whether a text has the form of an id; whether such a part exists, only the notes know."""
    return _ID.fullmatch(text) is not None


def implements(*ids: str) -> Callable[[Marked], Marked]:
    """Mark a function or class as the code of these parts of papers.

    It is returned as it is, with the ids in `__implements__`, after those of further marks.
    Raises UsageError for what is no id, and where there is none.
    """
    if not ids:
        raise UsageError('@implements() names nothing; type @implements("titans.v1:eq14")')
    for given in ids:
        if not isinstance(given, str) or not is_id(given):
            raise UsageError(
                f"@implements({given!r}) is no id of a paper's part; expected "
                "paper.version:part, as in titans.v1:eq14, titans.v1:alg1 or titans.v1:memory"
            )

    def mark(target: Marked) -> Marked:
        # `vars`, since a class would show those of its base.
        before: tuple[str, ...] = vars(target).get("__implements__", ())
        target.__implements__ = (*before, *ids)  # type: ignore[attr-defined]
        return target

    return mark
