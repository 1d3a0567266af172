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


def print_table(rows: Sequence[Mapping[str, Any]], *, fit: bool = False) -> None:
    """Print rows of equal keys as aligned columns; the keys are the heading. None prints as –.

    With `fit`, lines are cut to the width of a terminal; what goes elsewhere is never cut.
    """
    if not rows:
        return
    heads = list(rows[0])
    texts = [[cell(row[head]) for head in heads] for row in rows]
    names = [cell(head) for head in heads]
    widths = [max(len(name), *(len(text[i]) for text in texts)) for i, name in enumerate(names)]
    most = shutil.get_terminal_size().columns if fit and sys.stdout.isatty() else None
    for line in [names, *texts]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        text = text.rstrip()
        print(text if most is None or len(text) <= most else f"{text[: most - 1]}…")


def cell(value: Any) -> str:
    """A value on one line of a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "–"
    return " ".join(printable(str(value)).split("\n"))
