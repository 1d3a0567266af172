"""A document as Markdown, as GitHub shows it: tables, TeX between dollars, figures by theme."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from cupel.report.blocks import Block, Bullets, Code, Figure, Heading, Maths, Paragraph, Table


def as_markdown(document: Sequence[Block]) -> str:
    """The whole text, with a newline at its end."""
    return "\n\n".join(_block(block) for block in document) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text, lead):
            return f"> {text}" if lead else text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Maths(tex):
            return f"$$\n{tex}\n$$"
        case Code():
            return _code(block)


def _table(table: Table) -> str:
    mark = "---:" if table.numbers else "---"
    rules = ["---", *[mark] * (len(table.head) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (table.head, rules, *table.rows)]
    return "\n".join([*lines, "", f"*{table.caption}*"])


def _figure(figure: Figure) -> str:
    alt = html.escape(figure.alt)
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{figure.dark}">\n'
        f'  <img alt="{alt}" src="{figure.light}">\n'
        f"</picture>\n\n*{figure.caption}*"
    )


def _code(code: Code) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code.text)), default=0))
    block = f"{fence}{code.language}\n{code.text.rstrip()}\n{fence}"
    if not code.summary:
        return block
    summary = html.escape(code.summary)
    return f"<details><summary>{summary}</summary>\n\n{block}\n\n</details>"
