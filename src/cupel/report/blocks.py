"""The parts of a report's document: what it says, without how it looks.

Texts hold a little Markdown: `code`, **strong**, *stress*, [links](…) and $TeX$. Whatever comes
from outside (a question, an arm's name, a reason) goes through `plain` first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MARKED = re.compile(r"([\\`*_\[\]<>$|#&~])")


def plain(text: object) -> str:
    """A text that means itself, with every character of Markdown escaped, on one line."""
    return _MARKED.sub(r"\\\1", " ".join(str(text).split()))


def named(setting: str) -> str:
    """A setting as it is typed, as code; a name in words as it is."""
    return f"`{setting}`" if re.search(r"[._]", setting) else setting


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences; `lead` is the answer, which stands out."""

    text: str
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; columns after the first are set to the right when `numbers`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.head) for row in self.rows), (self.head, self.rows)


@dataclass(frozen=True, slots=True)
class Figure:
    """Two files of one drawing, relative to the report, with words for who cannot see it."""

    light: str
    dark: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Maths:
    """A displayed formula in TeX."""

    tex: str


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of code or commands; with a `summary` they are folded away until asked for."""

    text: str
    language: str = ""
    summary: str = ""


Block = Heading | Paragraph | Bullets | Table | Figure | Maths | Code
