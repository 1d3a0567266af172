"""A document as one HTML file: nothing is fetched, figures and style are inside.

Figures are SVG as data URIs, so that ids of two drawings cannot meet; the reader's theme chooses.
Formulas become MathML (latex2mathml), code is coloured by pygments, inline Markdown is read by
markdown-it with HTML switched off. At 360 pixels tables and code scroll in boxes of their own.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cupel.errors import MissingDependency
from cupel.report.blocks import Block, Bullets, Code, Figure, Heading, Maths, Paragraph, Table

_INLINE_TEX = re.compile(r"(?<!\\)\$([^$]+?)(?<!\\)\$")

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1b1f24; --muted: #57606a;
  --line: #d7dbe0; --box: #f4f6f8; --lead: #0072B2; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --text: #e6e8eb;
  --muted: #a2aab5; --line: #333a44; --box: #1d222a; --lead: #56B4E9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 46rem; background: var(--page);
  color: var(--text); font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .6rem 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 1.6rem 0 .4rem; }
p.lead { border-left: 4px solid var(--lead); padding: .1rem 0 .1rem .9rem; font-size: 1.06rem; }
a { color: var(--lead); }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap; }
td.wide { white-space: normal; min-width: 11rem; }
.numbers td + td, .numbers th + th { text-align: right; }
figure { margin: 1.4rem 0; } figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .4rem; }
pre { background: var(--box); padding: .8rem; overflow-x: auto; border-radius: 6px;
  font-size: .84rem; line-height: 1.45; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
p code, li code, td code { background: var(--box); padding: .05em .3em; border-radius: 4px;
  font-size: .9em; }
details { margin: .6rem 0; } summary { cursor: pointer; }
math[display="block"] { padding: .4rem 0; }
"""


def as_page(document: Sequence[Block], *, title: str, folder: Path) -> str:
    """The whole page; files of figures are read from `folder`. Raises MissingDependency."""
    body = "\n".join(_block(block, folder) for block in document)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{_code_style()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _block(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{inline(text)}</h{level}>"
        case Paragraph(text, lead):
            kind = ' class="lead"' if lead else ""
            return f"<p{kind}>{inline(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Figure():
            return _figure(block, folder)
        case Maths(tex):
            return f'<div class="scroll" tabindex="0">{_mathml(tex, display="block")}</div>'
        case Code():
            return _code(block)


def inline(text: str) -> str:
    """Inline Markdown and TeX as HTML; HTML in the text itself comes out as text."""
    formulas: list[str] = []

    def kept(match: re.Match[str]) -> str:
        formulas.append(_mathml(match[1], display="inline"))
        return f"\ue000{len(formulas) - 1}\ue001"  # private characters, which Markdown lets be

    written: str = _markdown().renderInline(_INLINE_TEX.sub(kept, text))
    return re.sub("\ue000(\\d+)\ue001", lambda match: formulas[int(match[1])], written)


def _table(table: Table) -> str:
    kind = ' class="numbers"' if table.numbers else ""
    head = "".join(f'<th scope="col">{inline(cell)}</th>' for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td{_wide(cell)}>{inline(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        '<figure><div class="scroll" tabindex="0">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<figcaption>{inline(table.caption)}</figcaption></figure>"
    )


def _wide(cell: str) -> str:
    return ' class="wide"' if len(cell) > 48 else ""


def _figure(figure: Figure, folder: Path) -> str:
    light, dark = (_data_uri(folder / name) for name in (figure.light, figure.dark))
    return (
        '<figure><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{dark}"><img alt="{html.escape(figure.alt)}" src="{light}"></picture>'
        f"<figcaption>{inline(figure.caption)}</figcaption></figure>"
    )


def _data_uri(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _code(code: Code) -> str:
    block = _coloured(code.text.rstrip() + "\n", code.language)
    if not code.summary:
        return block
    return f"<details><summary>{html.escape(code.summary)}</summary>{block}</details>"


def _coloured(text: str, language: str) -> str:
    pygments, formatters, lexers = _pygments()
    if language not in ("python", "console", "bash"):
        return f"<pre><code>{html.escape(text)}</code></pre>"
    lexer = lexers.get_lexer_by_name(language)
    inner = pygments.highlight(text, lexer, formatters.HtmlFormatter(nowrap=True))
    return f'<pre class="highlight"><code>{inner}</code></pre>'


def _code_style() -> str:
    """Colours of both themes."""
    _, formatters, _ = _pygments()
    light, dark = (
        re.sub(
            r"background(-color)?: #[0-9a-fA-F]+;?",
            "",
            formatters.HtmlFormatter(style=style).get_style_defs(".highlight"),
        )
        for style in ("default", "github-dark")
    )
    return f"\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _pygments() -> tuple[Any, Any, Any]:
    try:
        import pygments
        from pygments import formatters, lexers
    except ModuleNotFoundError as missing:
        raise MissingDependency("pygments", extra="analysis", purpose="a report") from missing
    return pygments, formatters, lexers


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False})


def _mathml(tex: str, *, display: str) -> str:
    try:
        from latex2mathml.converter import convert
    except ModuleNotFoundError as missing:
        raise MissingDependency("latex2mathml", extra="analysis", purpose="a report") from missing
    return str(convert(tex, display=display))
