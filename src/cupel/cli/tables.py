"""How listings are shown: aligned columns for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print plain data as JSON; numbers that are not finite as the strings that the record uses."""
    import json

    from cupel.record.codec import document

    print(json.dumps(document(value), indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys as aligned columns; the keys are the heading. None prints as –."""
    if not rows:
        return
    heads = list(rows[0])
    texts = [[_text(row[head]) for head in heads] for row in rows]
    widths = [max(len(head), *(len(text[i]) for text in texts)) for i, head in enumerate(heads)]
    for line in [heads, *texts]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
