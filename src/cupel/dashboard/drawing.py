"""A chart as one SVG, as the page draws it: `chart_svg(store, query, title=…, labels=…, theme=…)`.

    GET /api/v1/chart.svg?sub={"query":{…}}&title=…&labels={key: text}
                          &theme=light|dark&log_y=0|1&clip=0|1

Band from the least to the greatest value of each stretch, last values as a line, a smoothed line
with the raw one faded, triangles where values are not finite, ticks where sessions went on. Equal
records give equal bytes. Text is text, in the fonts of whoever looks, so widths are estimates;
there is no script and no style sheet. The theme "page" takes its colours from the CSS variables of
the HTML that it stands in (`VARIABLES`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard import chart, frames, grid, ticks
from cupel.dashboard.export import disposition
from cupel.dashboard.queries import ChartQuery, parse
from cupel.dashboard.standing import HELD, Reference, references
from cupel.dashboard.store import Store
from cupel.dashboard.ticks import Axis
from cupel.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Theme = Literal["light", "dark", "page"]

# Those of web/src/core/theme.ts and web/src/style.css; a test holds them equal.
COLOURS: dict[str, list[str]] = {
    "light": [
        "#0b6fb3",
        "#c2570c",
        "#00805c",
        "#a64d84",
        "#8a6d00",
        "#2b2f36",
        "#6b4fb3",
        "#8190a0",
    ],
    "dark": [
        "#56b4e9",
        "#f0a04b",
        "#33c79a",
        "#e08cc0",
        "#e6cf4a",
        "#f2f4f7",
        "#b9a3f2",
        "#85919e",
    ],
}
DASHES: list[list[int]] = [[], [7, 4], [2, 3], [10, 3, 2, 3]]
INKS: dict[str, dict[str, str]] = {
    "light": {"panel": "#ffffff", "ink": "#1c1f24", "soft": "#565d67", "line": "#dcdcd5"},
    "dark": {"panel": "#1a1d22", "ink": "#e8e9e6", "soft": "#aab0b8", "line": "#31363d"},
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

_DIM, _RAW, _BAND, _SPIKE = 0.38, 0.32, 0.2, 0.55  # as web/src/core/draw.ts has them
_FEW_POINTS = 60
_SMALL, _LARGE = 12, 15  # sizes of text
_WIDE = 0.56  # of the size: about the width of a letter
_HIGHEST = 1e308  # where the axes end
_MOST_LEGEND = 24
_LONGEST_TITLE = 300
_XML_CANNOT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def routes() -> list[BaseRoute]:
    """The drawing's address."""
    return [Route("/api/v1/chart.svg", _chart)]


def chart_svg(
    store: Store,
    query: ChartQuery,
    *,
    title: str,
    labels: Mapping[str, str] = {},
    theme: Theme = "light",
    width: int = 960,
    height: int = 540,
    log_y: bool = False,
    clip: bool = False,
    legend: bool = True,
) -> str:
    """The chart of a query; `labels` are what runs are called. Raises UnknownName.

    With `clip` the axis leaves out the outermost hundredth of all values on either side, and how
    many these are is told.
    """
    frame, _ = chart.snapshot(store, query)
    data = _read(frame, query)
    held = references(store, query.runs) if query.metric in HELD else []
    held = [one for one in held if one.metric == query.metric]
    return _Drawing(data, query, theme, width, height, log_y, clip).drawn(
        title, labels if legend else None, held
    )


def colours_of(theme: str) -> dict[str, str]:
    """The names and values of all colours of a theme, `c0` … `c7` those of curves."""
    curves = {f"c{n}": colour for n, colour in enumerate(COLOURS[theme])}
    return {**INKS[theme], **curves}


def text_of(text: str) -> str:
    """User's text as XML or HTML has it; what neither can hold becomes a visible sign."""
    return escape(_XML_CANNOT.sub("\ufffd", text))


@dataclass(slots=True)
class _Curve:
    facts: dict[str, Any]
    last: Floats
    low: Floats
    high: Floats
    smooth: Floats | None


@dataclass(slots=True)
class _Data:
    places: Floats
    curves: list[_Curve]
    begins: list[tuple[float, str, int]]  # place, what begins there, the run's number


def _reached(curve: _Curve, *, log: bool) -> Floats:
    """As web/src/core/draw.ts has it: every least and greatest value that can be drawn, once where
    they are one; a last value only where one of them cannot."""
    import numpy as np

    low, high, last = curve.low, curve.high, curve.last
    can_low, can_high, can_last = (
        np.isfinite(a) & ((a > 0) | (not log)) for a in (low, high, last)
    )
    high = high[can_high & (high != low)]
    # Where both can be drawn it lies between them.
    last = last[can_last & ~(can_low & can_high) & (last != curve.low) & (last != curve.high)]
    return np.concatenate([low[can_low], high, last])


def _read(frame: bytes, query: ChartQuery) -> _Data:
    """A frame as web/src/core/series.ts has it."""
    import numpy as np

    header, arrays = frames.unpack(frame)
    rows, *columns = (np.asarray(array) for array in arrays)
    where = grid.Grid(round(math.log2(header["grid"]["width"])), header["grid"]["log"])
    numbers = header["grid"]["first"] + header["cut"] + rows.astype(np.float64)
    places = grid.centres(where, numbers, x=query.x)
    curves = []
    for facts in header["curves"]:
        last = columns.pop(0).astype(np.float64)
        low = columns.pop(0).astype(np.float64) if facts["band"] else last
        high = columns.pop(0).astype(np.float64) if facts["band"] else last
        smooth = columns.pop(0).astype(np.float64) if facts["smooth"] else None
        curves.append(_Curve(facts, last, low, high, smooth))
    return _Data(places, curves, _begins(header["sessions"], query))


def _begins(
    sessions: Sequence[Mapping[str, Any]], query: ChartQuery
) -> list[tuple[float, str, int]]:
    """Where the sessions after the first of each run went on."""
    found = []
    for number, run in enumerate(sessions):
        for one in run["sessions"][1:]:
            place = one["step"] if query.x == "step" else one["started"]
            if place is None or query.x not in ("step", "relative", "time"):
                continue
            zero = run["zero"] if query.x == "relative" else 0.0
            found.append((place - zero, f"session {one['session']} of {run['run']}", number))
    return found


class _Drawing:
    """One chart on one sheet."""

    def __init__(
        self, data: _Data, query: ChartQuery, theme: Theme, width: int, height: int,
        log_y: bool, clip: bool,
    ) -> None:  # fmt: skip
        self._data, self._query, self._theme = data, query, theme
        self._width, self._height, self._log_y, self._clip = width, height, log_y, clip
        self._outside = 0  # values beyond the axis
        self._numbers = {key: number for number, key in enumerate(query.runs)}
        self._x0, self._x1 = self._extent_x()
        self._y0, self._y1 = self._extent_y()

    def drawn(
        self, title: str, labels: Mapping[str, str] | None, held: Sequence[Reference] = ()
    ) -> str:
        legend, rows = ([], 0) if labels is None else self._legend(labels)
        top = 18 + _LARGE + 10 + 18 * rows
        kind = ticks.LOG if self._log_y else ticks.LINEAR
        y = Axis(kind, self._y0, self._y1, self._height - 40, min(top, self._height - 60))
        marks = y.ticks(most=max(2, round((y.start - y.end) / 42)))
        left = 16 + max([_wide(text, _SMALL) for _, text in marks] or [10])
        x = Axis(self._kind_of_x(), self._x0, self._x1, left, self._width - 16)
        title = title[:_LONGEST_TITLE]
        parts = [
            self._head(title),
            self._text(16, 24, title, size=_LARGE, colour="ink", weight=620, room=self._width - 32),
            *legend,
            *self._axes(x, y, marks),
            *self._references(x, y, held),
            *self._curves(x, y),
            *self._sessions(x, y),
        ]
        if not len(self._data.places):
            middle = (x.start + x.end) / 2
            parts.append(
                self._text(middle, (y.start + y.end) / 2, "no numbers yet", anchor="middle")
            )
        return "\n".join([*parts, "</svg>\n"])

    # ---- what is shown ---------------------------------------------------------------------------

    def _extent_x(self) -> tuple[float, float]:
        low, high = self._query.low, self._query.high
        places = self._data.places
        first = float(places[0]) if len(places) else (1.0 if self._query.log_x else 0.0)
        last = float(places[-1]) if len(places) else first + 1
        low = first if low is None or (self._query.log_x and low <= 0) else low
        high = last if high is None else high
        if low < high:
            return low, high
        return (low / 2, low * 2) if self._query.log_x else (low - 0.5, low + 0.5)

    def _extent_y(self) -> tuple[float, float]:
        import numpy as np

        found = [_reached(curve, log=self._log_y) for curve in self._data.curves]
        values = np.concatenate([np.empty(0), *found])
        if not len(values):
            return (0.1, 1.0) if self._log_y else (0.0, 1.0)
        values.sort()
        cut = len(values) // 100 if self._clip else 0
        low, high = self._padded(float(values[cut]), float(values[-1 - cut]))
        self._outside = int(((values < low) | (values > high)).sum())
        return low, high

    def _padded(self, low: float, high: float) -> tuple[float, float]:
        if self._log_y:
            room = max(0.04 * (math.log(high) - math.log(low)), 0.02)
            low, high = math.exp(math.log(low) - room), high * math.exp(min(room, 20))
            return max(low, 5e-324), min(high, _HIGHEST)
        room = (high / 20 - low / 20) or abs(high) * 0.05 or 1.0
        return max(low - room, -_HIGHEST), min(high + room, _HIGHEST)

    def _kind_of_x(self) -> str:
        if self._query.log_x:
            return ticks.LOG
        return {"time": ticks.TIME, "relative": ticks.DURATION}.get(self._query.x, ticks.LINEAR)

    def _colour(self, name: str) -> str:
        return f"var(--{name})" if self._theme == "page" else colours_of(self._theme)[name]

    def _look(self, number: int) -> tuple[str, str]:
        """Colour and dashes of the n-th curve, as attributes."""
        colour = self._colour(f"c{number % len(COLOURS['light'])}")
        dash = DASHES[number // len(COLOURS["light"]) % len(DASHES)]
        return colour, f' stroke-dasharray="{" ".join(map(str, dash))}"' if dash else ""

    def _number(self, place: int) -> int:
        """Which colour a curve has: that of its run, of a group that of its place."""
        facts = self._data.curves[place].facts
        return place if facts["role"] == "group" else self._numbers[facts["run"]]

    # ---- parts -----------------------------------------------------------------------------------

    def _head(self, title: str) -> str:
        w, h = self._width, self._height
        panel = f'<rect width="{w}" height="{h}" fill="{self._colour("panel")}"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
            f'viewBox="0 0 {w} {h}" role="img" font-family="{FONT}" font-size="{_SMALL}">\n'
            f"<title>{text_of(title)}</title>\n{panel}"
        )

    def _text(
        self, x: float, y: float, text: str, *, size: int = _SMALL, colour: str = "soft",
        anchor: str = "start", weight: int = 400, room: float = math.inf,
    ) -> str:  # fmt: skip
        shown = _fitting(text, size, room)
        told = f"<title>{text_of(text)}</title>" if shown != text else ""
        bold = f' font-weight="{weight}"' if weight != 400 else ""
        big = f' font-size="{size}"' if size != _SMALL else ""
        where = f' text-anchor="{anchor}"' if anchor != "start" else ""
        return (
            f'<text x="{_n(x)}" y="{_n(y)}" fill="{self._colour(colour)}"{big}{bold}{where}>'
            f"{text_of(shown)}{told}</text>"
        )

    def _legend(self, labels: Mapping[str, str]) -> tuple[list[str], int]:
        """Names with the style of their lines, from left to right in some rows."""
        parts: list[str] = []
        x, row = 16.0, 0
        entries = self._entries(labels)
        for number, label in entries[:_MOST_LEGEND]:
            room = self._width - 32 - 34
            wide = min(_wide(label, _SMALL), room) + 34 + 14
            if x > 16 and x + wide - 14 > self._width - 16:
                x, row = 16.0, row + 1
            y = 18 + _LARGE + 14 + 18 * row
            colour, dash = self._look(number)
            parts.append(
                f'<path d="M{_n(x)} {y - 4}h26" fill="none" stroke="{colour}" '
                f'stroke-width="2"{dash}/>'
            )
            parts.append(self._text(x + 32, y, label, colour="ink", room=room))
            x += wide
        if len(entries) > _MOST_LEGEND:
            row += 1
            more = f"and {len(entries) - _MOST_LEGEND} more"
            parts.append(self._text(16, 18 + _LARGE + 14 + 18 * row, more))
        return parts, row + 1 if entries else 0

    def _entries(self, labels: Mapping[str, str]) -> list[tuple[int, str]]:
        found = []
        for place, curve in enumerate(self._data.curves):
            if curve.facts["role"] == "group":
                runs = len(curve.facts["runs"])
                told = f"{curve.facts['label']} ({runs} run{'s' * (runs != 1)})"
                found.append((self._number(place), told))
            elif curve.facts["role"] == "run":
                key = curve.facts["run"]
                found.append((self._number(place), labels.get(key, key.partition("/")[2])))
        return found

    def _axes(self, x: Axis, y: Axis, marks: Sequence[tuple[float, str]]) -> list[str]:
        line, parts = self._colour("line"), []
        for value, text in marks:
            at = y.place(value)
            parts.append(f'<path d="M{_n(x.start)} {_n(at)}H{_n(x.end)}" stroke="{line}"/>')
            parts.append(self._text(x.start - 6, at + 4, text, anchor="end"))
        for value, text in x.ticks(most=max(2, round((x.end - x.start) / 84))):
            at, half = x.place(value), _wide(text, _SMALL) / 2
            parts.append(f'<path d="M{_n(at)} {_n(y.start)}v5" stroke="{line}"/>')
            middle = min(max(at, half + 4), self._width - half - 4)
            parts.append(self._text(middle, y.start + 18, text, anchor="middle"))
        parts.append(f'<path d="M{_n(x.start)} {_n(y.start)}H{_n(x.end)}" stroke="{line}"/>')
        names = {"relative": "time since the run began", "time": "time (UTC)"}
        name = names.get(self._query.x, self._query.x)
        if self._query.smooth:
            name += f" · smoothed by {self._query.smooth:g}"
        if self._clip and self._outside:
            values = "value" if self._outside == 1 else "values"
            name += f" · {self._outside:,} {values} beyond the axis (outliers clipped)"
        middle, room = (x.start + x.end) / 2, x.end - x.start
        parts.append(self._text(middle, y.start + 34, name, anchor="middle", room=room))
        return parts

    def _references(self, x: Axis, y: Axis, held: Sequence[Reference]) -> list[str]:
        """Values to hold the curves against, where they are in view."""
        parts = []
        for one in held:
            value = float(one.value)
            if not self._y0 <= value <= self._y1:
                continue
            at = y.place(value)
            parts.append(
                f'<path d="M{_n(x.start)} {_n(at)}H{_n(x.end)}" stroke="{self._colour("soft")}" '
                'stroke-dasharray="2 3"/>'
            )
            room = x.end - x.start - 8
            parts.append(self._text(x.start + 4, at - 4, one.label, room=room))
        return parts

    def _curves(self, x: Axis, y: Axis) -> list[str]:
        """All curves, the dimmed ones below, cut off at the edges of the plot."""
        box = f'x="{_n(x.start)}" y="{_n(y.end)}" width="{_n(x.end - x.start)}" '
        parts = [f'<svg {box}height="{_n(y.start - y.end)}" viewBox="{_n(x.start)} {_n(y.end)} '
                 f'{_n(x.end - x.start)} {_n(y.start - y.end)}">']  # fmt: skip
        places = [x.place(value) for value in self._data.places.tolist()]
        order = range(len(self._data.curves))
        for number in sorted(order, key=lambda n: self._data.curves[n].facts["role"] != "tail"):
            curve = self._data.curves[number]
            colour, dash = self._look(self._number(number))
            dim = f' opacity="{_DIM}"' if curve.facts["role"] == "tail" else ""
            parts.append(f'<g stroke="{colour}" fill="{colour}" stroke-linejoin="round"{dim}>')
            if curve.facts["band"]:
                parts += _band(places, y.places(curve.high), y.places(curve.low))
            raw = f' stroke-opacity="{_RAW}"' if curve.smooth is not None else ""
            parts += _line(places, y.places(curve.last), raw, dash, 1.6 if not raw else 1)
            if curve.smooth is not None:
                parts += _line(places, y.places(curve.smooth), "", dash, 2)
            parts += _rug(places, curve.facts["marks"], y)
            parts.append("</g>")
        return [*parts, "</svg>"]

    def _sessions(self, x: Axis, y: Axis) -> list[str]:
        parts = []
        for place, what, number in self._data.begins:
            if not self._x0 <= place <= self._x1:
                continue
            colour, at = self._look(number)[0], x.place(place)
            parts.append(
                f'<path d="M{_n(at)} {_n(y.end - 4)}v9" stroke="{colour}" stroke-width="1.5">'
                f"<title>{text_of(what)}</title></path>"
            )
        return parts


Points = Sequence[float]  # in the sheet's units; NaN where nothing is drawn


def _band(places: Points, high: Points, low: Points) -> list[str]:
    rows = [n for n in range(len(places)) if high[n] == high[n] and low[n] == low[n]]
    if not rows:
        return []
    there = [f"{_n(places[n])} {_n(high[n])}" for n in rows]
    back = [f"{_n(places[n])} {_n(low[n])}" for n in reversed(rows)]
    parts = []
    if len(rows) > 1:
        path = "L".join([*there, *back])
        parts.append(f'<path d="M{path}Z" fill-opacity="{_BAND}" stroke="none"/>')
    # A stretch of one pixel: the spike of a single point has to be seen, however thin the band is.
    spikes = [f"M{_n(places[n])} {_n(high[n])}V{_n(low[n])}" for n in rows if low[n] - high[n] > 2]
    if spikes:
        parts.append(f'<path d="{"".join(spikes)}" fill="none" stroke-opacity="{_SPIKE}"/>')
    return parts


def _line(places: Points, values: Points, opacity: str, dash: str, width: float) -> list[str]:
    points = [(place, value) for place, value in zip(places, values, strict=True) if value == value]
    if not points:
        return []
    path = "L".join(f"{_n(place)} {_n(value)}" for place, value in points)
    parts = [f'<path d="M{path}" fill="none" stroke-width="{width:g}"{opacity}{dash}/>']
    if len(points) <= _FEW_POINTS:  # what lies between them was not measured
        dots = "".join(
            f"M{_n(place - 1.7)} {_n(value - 1.7)}h3.4v3.4h-3.4z" for place, value in points
        )
        faint = opacity.replace("stroke-", "fill-")
        parts.append(f'<path d="{dots}" stroke="none"{faint}/>')
    return parts


def _rug(places: Points, marks: Sequence[Sequence[float]], y: Axis) -> list[str]:
    """Triangles where values are not finite: at the lower edge, at the upper one for +∞."""
    parts = []
    for row, nan, up, down in marks:
        at, path = places[int(row)], ""
        if nan or down:
            path += f"M{_n(at)} {_n(y.start - 8)}l-3.6 8h7.2z"
        if up:
            path += f"M{_n(at)} {_n(y.end + 8)}l-3.6 -8h7.2z"
        counts = ((nan, "NaN"), (up, "+∞"), (down, "−∞"))
        told = ", ".join(f"{count:g} × {name}" for count, name in counts if count)
        parts.append(f'<path d="{path}" stroke="none"><title>{told}</title></path>')
    return parts


def _n(value: float) -> str:
    """A coordinate to a tenth."""
    text = f"{min(max(value, -1e5), 1e5):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _wide(text: str, size: float) -> float:
    """About how wide a text is; letters of East Asia are twice as wide."""
    return sum(1.0 if ord(char) > 0x2E7F else _WIDE for char in text) * size


def _fitting(text: str, size: float, room: float) -> str:
    """As much of a text as fits, with an ellipsis in its middle: names differ at their ends."""
    if _wide(text, size) <= room:
        return text
    half = len(text)
    while half > 1 and _wide(f"{text[:half]}…{text[-half:]}", size) > room:
        half -= 1
    return f"{text[:half]}…{text[-half:]}"


async def _chart(request: Request) -> Response:
    given = request.query_params
    query = parse(_json(given.get("sub", ""), "sub").get("query"))
    if not isinstance(query, ChartQuery):
        raise UsageError("sub= holds another query than that of a chart")
    labels = _json(given.get("labels", "{}"), "labels")
    theme = given.get("theme", "light")
    if theme not in COLOURS:
        raise UsageError(f"theme={theme[:40]!r} is none of: light, dark")
    chosen: Theme = "dark" if theme == "dark" else "light"
    title = given.get("title") or query.metric
    store: Store = request.app.state.store

    def draw() -> str:
        return chart_svg(
            store, query, title=title, theme=chosen, log_y=given.get("log_y") == "1",
            clip=given.get("clip") == "1",
            labels={key: text for key, text in labels.items() if isinstance(text, str)},
        )  # fmt: skip

    headers = {"content-disposition": disposition(f"{title[:100]}.svg")}
    return Response(await store.call(draw), headers=headers, media_type="image/svg+xml")


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{name}={text[:60]!r} is no JSON object") from error
