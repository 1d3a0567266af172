"""One HTML file that needs nothing else: its frame, style sheet and small parts, `Sheet`.

No script, no font, no address of anything outside: a policy in its head forbids them, too. What a
user wrote is escaped here and nowhere else: parts take texts, and give HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NewType

from cupel.dashboard.drawing import colours_of, text_of

Html = NewType("Html", str)

# Those of web/src/style.css that drawings do not have.
MORE = {
    "light": {
        "paper": "#fcfcfa", "sunk": "#f3f3ef", "good": "#00694b", "warn": "#8a4b00",
        "bad": "#a8252c",
    },
    "dark": {
        "paper": "#14161a", "sunk": "#21252b", "good": "#56cfa5", "warn": "#efb25e",
        "bad": "#f58d8d",
    },
}  # fmt: skip
_LOOKS = {
    "running": "good", "starting": "good", "finished": "soft", "silent": "warn",
    "interrupted": "warn", "held": "warn", "failed": "bad", "crashed": "bad", "damaged": "bad",
    "diverged": "bad", "refused": "bad",
}  # fmt: skip
_STYLE = """
*{box-sizing:border-box}
html{font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;
background:var(--paper);color:var(--ink);-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1400px;padding:20px 16px 48px}
h1{font-size:1.35rem;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:32px 0 10px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:16px 0 6px;overflow-wrap:anywhere}
p{margin:4px 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.notes{white-space:pre-wrap;border-left:3px solid var(--line);padding-left:10px}
.state{font-weight:600;white-space:nowrap}
.state.good{color:var(--good)}.state.warn{color:var(--warn)}.state.bad{color:var(--bad)}
.state.soft{color:var(--soft)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));
gap:10px 18px;margin:14px 0 0}
.facts div{min-width:0}
.facts dt{color:var(--soft);font-size:.85rem}
.facts dd{margin:0;font-weight:560;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:12px}
.charts figure{border:1px solid var(--line);border-radius:5px;overflow:hidden;
background:var(--panel)}
figure{margin:0;break-inside:avoid}
figure svg{display:block;width:100%;height:auto}
.wide{max-width:960px;border:1px solid var(--line);border-radius:5px;overflow:hidden}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:50%}
th,td{text-align:left;vertical-align:top;padding:4px 14px 4px 0;border-bottom:1px solid var(--line)}
th{font-weight:560;color:var(--soft)}
td{overflow-wrap:anywhere}
td.number,th.number{text-align:right;white-space:nowrap}
td.id{min-width:9em}
thead{display:table-header-group}
tr{break-inside:avoid}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,220px),1fr));gap:12px}
.pictures img{display:block;width:100%;max-height:320px;object-fit:contain;background:var(--sunk)}
figcaption{color:var(--soft);font-size:.85rem;padding:3px 0;overflow-wrap:anywhere}
pre{background:var(--sunk);padding:8px 10px;margin:4px 0;white-space:pre-wrap;
overflow-wrap:anywhere;max-height:26em;overflow:auto;
font:12.5px/1.45 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media print{html{font-size:11px}body{max-width:none;padding:0}pre{max-height:none;overflow:visible}
.scroll{overflow:visible}.charts{grid-template-columns:1fr 1fr}h2{break-after:avoid}}
@page{margin:14mm}
"""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


class Sheet:
    """Collects the parts of a page; `done` is all of it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def add(self, *parts: Html) -> None:
        """Add what is HTML already."""
        self._parts += parts

    def section(self, title: str, *parts: Html) -> None:
        """Add a section, unless there is nothing in it."""
        if any(parts):
            self._parts += [f"<section><h2>{text_of(title)}</h2>", *parts, "</section>"]

    def done(self) -> str:
        """The file."""
        return "\n".join([
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{text_of(self._title)}</title>\n<style>{_themes()}{_STYLE}</style>\n</head>",
            "<body>",
            *self._parts,
            "</body>\n</html>\n",
        ])  # fmt: skip


def _themes() -> str:
    def variables(theme: str) -> str:
        return "".join(f"--{n}:{v};" for n, v in {**colours_of(theme), **MORE[theme]}.items())

    return (
        f":root{{color-scheme:light dark;{variables('light')}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}\n"
    )


def tag(name: str, text: str, look: str = "") -> Html:
    """A text in an element."""
    return Html(f"<{name}{_class(look)}>{text_of(text)}</{name}>")


def inside(name: str, parts: Iterable[Html], look: str = "") -> Html:
    """HTML in an element; nothing without any."""
    content = "\n".join(parts)
    return Html(f"<{name}{_class(look)}>{content}</{name}>" if content else "")


def state(of: str) -> Html:
    """The word for how something stands."""
    return tag("span", of, f"state {_LOOKS.get(of, 'soft')}")


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """Names and values; those that are None or empty are left out."""
    return inside(
        "dl",
        [
            Html(f"<div>{tag('dt', name)}{tag('dd', shown(value))}</div>")
            for name, value in pairs
            if value is not None and value != ""
        ],
        "facts",
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """Rows of texts, numbers and HTML; nothing without rows."""
    if not rows:
        return Html("")
    numbers = [_are_numbers([row[place] for row in rows]) for place in range(len(columns))]
    head = [_cell("th", name, right) for name, right in zip(columns, numbers, strict=True)]
    body = [
        inside("tr", [_cell("td", value, right) for value, right in zip(row, numbers, strict=True)])
        for row in rows
    ]
    whole = inside("table", [inside("thead", [inside("tr", head)]), inside("tbody", body)])
    return inside("div", [whole], "scroll")


def mapping(values: Mapping[str, Any], name: str = "setting") -> Html:
    """Names and values as a table of two columns."""
    return table(
        [name, "value"], [[key, shown(value, exact=True)] for key, value in values.items()]
    )


def chart(svg: str, look: str = "") -> Html:
    """A drawing of `cupel.dashboard.drawing`, which has escaped its texts."""
    return inside("figure", [Html(svg)], look)


def shown(value: Any, *, exact: bool = False) -> str:
    """A value as people read it; numbers in six digits unless all are wanted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        return (repr(value) if exact else f"{value:.6g}").replace("-", "−")
    if isinstance(value, int):
        return (str(value) if exact else f"{value:,}").replace("-", "−")
    if value is None:
        return "—"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def when(seconds: float | str | None) -> str | None:
    """A time in UTC; None for what is none."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return None


def duration(seconds: float | str | None) -> str | None:
    """Seconds as hours, minutes and seconds; None for what is none."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def size(count: int | None) -> str:
    """Bytes in units of 1,024."""
    if count is None:
        return "size unknown"
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:,.0f} KiB" if count < 2**20 else f"{count / 2**20:,.1f} MiB"


def _cell(name: str, value: Any, right: bool) -> Html:
    if isinstance(value, _Ready):
        return Html(f"<{name}>{value}</{name}>")
    return tag(name, shown(value), "number" if right else "")


class _Ready(str):
    """HTML that is a cell as it is."""

    __slots__ = ()


def ready(html: Html) -> str:
    """HTML for a cell of a table."""
    return _Ready(html)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether there are numbers, and nothing else."""
    kinds = set(map(type, values)) - {type(None)}
    return bool(kinds) and kinds <= {int, float}


def _class(look: str) -> str:
    return f' class="{look}"' if look else ""
