"""Pieces of Markdown: tables, blocks, lists to tick."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a bar in a cell is escaped, an empty cell is a dash."""
    lines = [_row(head), f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(_row([str(cell) for cell in row]) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in cells) + " |"


def block(language: str, text: str) -> str:
    """A fenced block, with more marks than any line of the text begins with."""
    longest = max((len(mark) for mark in re.findall(r"^\s*(`{3,})", text, re.MULTILINE)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def ticks(items: Iterable[str]) -> str:
    """A list of boxes to tick."""
    return "\n".join(f"- [ ] {item}" for item in items)


def numbered(items: Iterable[str]) -> str:
    """A numbered list."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def document(parts: Iterable[str]) -> str:
    """Parts with an empty line between them; empty ones are left out."""
    return "\n\n".join(part.rstrip() for part in parts if part.strip()) + "\n"


def count(number: int, what: str) -> str:
    """`1 equation`, `2 equations`; the word is given in the plural."""
    return f"{number} {what.removesuffix('s') if number == 1 else what}"
