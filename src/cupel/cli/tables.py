"""How things are shown: columns for people, JSON for machines, commands to type, printable text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Control characters but newline and tab; of C1, U+009B begins a sequence on some terminals.
_CONTROLS = {
    code: repr(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\n\t"
}
_LEAST = 10  # columns that a shortened name or text keeps
_LONGEST_NAME = 120


def program() -> str:
    """How this very program is typed: `cupel`, `.venv/bin/cupel` or `python -m cupel`."""
    typed = Path(sys.argv[0])
    if typed.name != "cupel":
        return "python -m cupel"
    found = shutil.which("cupel")
    if found is not None and Path(found).resolve() == typed.resolve():
        return "cupel"
    here = Path.cwd()
    return str(typed.relative_to(here) if typed.is_relative_to(here) else typed)


def printable(text: str) -> str:
    """The text with control characters written out, as \\x1b: a model may write what would
    recolour a terminal, or worse."""
    return text.translate(_CONTROLS)


def print_json(value: Any) -> None:
    """Print plain data as JSON; numbers that are not finite as the strings that the record uses."""
    import json

    from cupel.record.codec import document

    print(json.dumps(document(value), indent=2, ensure_ascii=False))


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None where it is none: nothing is cut there."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    drop: Sequence[str] = (),
    cut: str | None = None,
    apart: bool = False,
) -> None:
    """Print rows of equal keys as aligned columns; the keys are the heading. None prints as –.

    What is wider than a terminal loses columns of `drop`, the first of them first, and of its last
    one, if it is `cut`, the ends. Where that is not enough each row becomes a block: the first
    value, and below it the others with their names, with `apart` a line each.
    """
    if not rows:
        return
    heads = list(rows[0])
    table = [heads, *([row[head] for head in heads] for row in rows)]
    texts = [[cell(value) for value in row] for row in table]
    most = terminal_width()
    lines = _aligned(texts) if most is None else _fitted(texts, most, drop, cut)
    if lines is None and most is not None:
        lines = _blocks(texts, most, drop, apart=apart)
    for line in lines or ():
        print(line)


def _aligned(texts: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    ]


def _fitted(
    texts: list[list[str]], most: int, drop: Sequence[str], cut: str | None
) -> list[str] | None:
    """The lines of a table that is no wider; None when too much of it would be lost."""
    gone = ""
    for name in ("", *drop):
        if name in texts[0] and name:
            place = texts[0].index(name)
            texts = [[*row[:place], *row[place + 1 :]] for row in texts]
            gone = "  …"
        lines = _aligned(texts)
        widest = max(map(len, lines))
        if texts[0][-1] == cut and most < widest:
            before = max(map(len, _aligned([row[:-1] for row in texts]))) + 2
            if before + _LEAST <= most:
                widest, lines = most, [beginning(line, most) for line in lines]
        if widest <= most:
            heading = lines[0] + gone
            return [heading if len(heading) <= most else lines[0], *lines[1:]]
    return None


def _blocks(
    texts: Sequence[Sequence[str]], most: int, last: Sequence[str], *, apart: bool
) -> list[str]:
    names = texts[0]
    order = sorted(range(1, len(names)), key=lambda place: names[place] in last)
    lines = []
    for row in texts[1:]:
        lines.append(middle(row[0], most))
        if apart:
            room = max(_LEAST, most - 4 - max(len(row[at]) for at in order))
            heads = [middle(names[at], room) for at in order]
            width = max(map(len, heads))
            for head, at in zip(heads, order, strict=True):
                lines += packed([f"{head:<{width}}  {row[at]}"], most, indent="  ")
        else:
            parts = [f"{names[at]} {row[at]}" for at in order if row[at] != "–"]
            lines += packed([beginning(part, 3 * most) for part in parts], most, indent="  ")
    return lines


def packed(parts: Sequence[str], most: int | None, *, indent: str = "") -> list[str]:
    """Parts on lines as long as there is room; one that is wider itself goes on in the next."""
    import textwrap

    lines: list[str] = []
    for part in parts:
        if lines and (most is None or len(lines[-1]) + 2 + len(part) <= most):
            lines[-1] += f"  {part}"
        elif most is None or len(indent) + len(part) <= most:
            lines.append(indent + part)
        else:
            lines += textwrap.wrap(
                part, max(most, 2 * _LEAST), initial_indent=indent,
                subsequent_indent=indent + "  ", break_on_hyphens=False,
            )  # fmt: skip
    return lines


def middle(text: str, most: int) -> str:
    """A text with its middle left out where it is longer."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def beginning(text: str, most: int) -> str:
    """A text with its end left out where it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def named(name: str) -> str:
    """A name that somebody gave, on one line and not too long."""
    return middle(printable(name).replace("\n", "\\n").replace("\t", "\\t"), _LONGEST_NAME)


def cell(value: Any) -> str:
    """A value on one line of a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "–"
    return " ".join(printable(str(value)).split("\n"))
