"""A loss curve as text, for a terminal: braille dots, or plain ASCII where there is no UTF-8.

Every finite point is drawn: neighbours are joined by a line of dots, two across and four down in a
character, so a spike between two columns still shows. Points that are not finite are crosses in
the top row, never a number. Standard library only; 10,000 points take about 10 ms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Points = tuple[Sequence[float], Sequence[float]]

# The bit of each dot in a braille character: columns across, rows down (Unicode, chapter 21).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_UPPER_HALF, _LOWER_HALF = 0x01 | 0x02 | 0x08 | 0x10, 0x04 | 0x40 | 0x20 | 0x80
_COLOURS = {"curve": "34", "val": "33", "reference": "32", "bad": "31"}
LEAST_WIDTH, _LEAST_HEIGHT = 48, 6


@dataclass(frozen=True, slots=True)
class _Glyphs:
    axis: str
    tick: str
    val: str
    bad: str
    reference: str
    legend: str
    ellipsis: str


_UTF8 = _Glyphs("│", "┤", "●", "✗", "┈", "⠒", "…")
_ASCII = _Glyphs("|", "+", "o", "x", "-", ".", "~")


def terminal_curve(
    steps: Sequence[float],
    loss: Sequence[float],
    *,
    val: Points | None = None,
    references: Mapping[str, float] | None = None,
    width: int = 72,
    height: int = 14,
    colour: bool,
    encoding: str = "utf-8",
) -> str:
    """`height` lines of at most `width` characters: the chart, the steps, and a legend.

    `val` is (steps, losses) of the evaluations; `references` are levels by name, dotted and named
    to the right. `encoding` is that of the stream to be written to. At least 48 × 6.
    Returns one line that says so when no value is finite.
    """
    assert len(steps) == len(loss), (len(steps), len(loss))
    assert width >= LEAST_WIDTH, width
    assert height >= _LEAST_HEIGHT, height
    val, references = val or ((), ()), references or {}
    levels = [v for v in (*loss, *val[1]) if math.isfinite(v)]
    if not levels:
        return f"no finite loss to draw ({len(loss):,} points)"
    glyphs = _UTF8 if encoding.lower().replace("-", "").replace("_", "") == "utf8" else _ASCII
    levels += references.values()
    names = _names(references, room=width // 3, glyphs=glyphs)
    y_labels = _y_labels(max(levels), min(levels), rows=height - 2)
    left = max(len(label) for label in y_labels)
    right = max((len(name) + 1 for name in names), default=0)
    chart = _Chart(
        columns=width - left - 2 - right,
        rows=height - 2,
        x=_range([*steps, *val[0]]),
        y=(min(levels), max(levels)),
    )
    _fill(chart, (steps, loss), val, references, glyphs)
    gutter = _placed(names, [chart.down(level) // 4 for level in references.values()], chart.rows)
    lines = []
    for row, label in enumerate(y_labels):
        axis = glyphs.tick if label else glyphs.axis
        named = _painted(gutter[row], "reference", colour) if gutter[row] else ""
        text = f"{label:>{left}} {axis}{chart.line(row, colour, glyphs)}" + named
        lines.append(text.rstrip())
    lines.append(" " * (left + 2) + _x_labels(chart.x, chart.columns))
    lines.append(" " * (left + 2) + _legend(loss, val, glyphs, colour))
    text = "\n".join(lines)
    return text if glyphs is _UTF8 else text.encode("ascii", "replace").decode()


@dataclass(slots=True)
class _Chart:
    """Characters in `rows` × `columns`, each of 2 × 4 dots; x and y are (smallest, largest)."""

    columns: int
    rows: int
    x: tuple[float, float]
    y: tuple[float, float]
    dots: dict[tuple[int, int], int] = field(default_factory=dict)
    marks: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def across(self, x: float) -> int:
        """The column of dots of a step."""
        return round(_share(x, *self.x) * (2 * self.columns - 1))

    def down(self, y: float) -> int:
        """The row of dots of a loss."""
        return round((1 - _share(y, *self.y)) * (4 * self.rows - 1))

    def mark(self, x: float, y: float, glyph: str, kind: str) -> None:
        """Put a character where a value is."""
        self.marks[self.across(x) // 2, self.down(y) // 4] = (glyph, kind)

    def join(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Set the dots of a straight line, both ends included."""
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        count = max(abs(dx), abs(dy), 1)
        for i in range(count + 1):
            across, down = x + round(dx * i / count), y + round(dy * i / count)
            place = across // 2, down // 4
            self.dots[place] = self.dots.get(place, 0) | _BITS[across % 2][down % 4]

    def line(self, row: int, colour: bool, glyphs: _Glyphs) -> str:
        """One row of characters: marks before the curve, the curve before references."""
        cells = (self._at((column, row), glyphs) for column in range(self.columns))
        runs = itertools.groupby(cells, key=lambda cell: cell[1])
        return "".join(_painted("".join(c for c, _ in run), kind, colour) for kind, run in runs)

    def _at(self, place: tuple[int, int], glyphs: _Glyphs) -> tuple[str, str]:
        mark, kind = self.marks.get(place, (" ", ""))
        if place in self.dots and kind in ("", "reference"):
            bits = self.dots[place]
            return (chr(0x2800 + bits) if glyphs is _UTF8 else _ascii(bits)), "curve"
        return mark, kind


def _fill(
    chart: _Chart, train: Points, val: Points, references: Mapping[str, float], glyphs: _Glyphs
) -> None:
    for level in references.values():
        for column in range(0, chart.columns, 1 if glyphs is _UTF8 else 2):
            chart.marks[column, chart.down(level) // 4] = (glyphs.reference, "reference")
    _draw(chart, train)
    for step, value in zip(*val, strict=True):
        if math.isfinite(value):
            chart.mark(step, value, glyphs.val, "val")
    for step, value in itertools.chain(zip(*train, strict=True), zip(*val, strict=True)):
        if not math.isfinite(value):
            chart.mark(step, chart.y[1], glyphs.bad, "bad")


def _draw(chart: _Chart, train: Points) -> None:
    """Join neighbours, a column of dots at a time; a value that is not finite breaks the line."""
    placed = (
        (chart.across(step), chart.down(value)) if math.isfinite(value) else (None, 0)
        for step, value in zip(*train, strict=True)
    )
    last: tuple[int, int] | None = None
    for across, run in itertools.groupby(placed, key=lambda place: place[0]):
        if across is None:
            last = None
            continue
        downs = [down for _, down in run]
        chart.join(last or (across, downs[0]), (across, downs[0]))
        chart.join((across, min(downs)), (across, max(downs)))
        last = across, downs[-1]


def _ascii(bits: int) -> str:
    if bits & _UPPER_HALF:
        return ":" if bits & _LOWER_HALF else "'"
    return "."


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two: 0 to 1, or the middle when they are one."""
    # Halves, because the difference of two huge floats overflows.
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5


def _range(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _y_labels(high: float, low: float, *, rows: int) -> list[str]:
    """A label for every fourth row and the last, of the value in its middle; "" for the rest."""
    labels = [""] * rows
    for row in {*range(0, rows - 2, 4), rows - 1}:
        share = (4 * row + 1.5) / (4 * rows - 1)
        value = high * (1 - share) + low * share
        labels[row] = f"{value:.4g}" if high > low else ""
    if high == low:
        labels[rows // 2] = f"{high:.4g}"
    return labels


def _x_labels(ends: tuple[float, float], columns: int) -> str:
    first, last = (f"{step:,.0f}" for step in ends)
    if ends[0] == ends[1]:
        return f"step {first}".center(columns).rstrip()
    return first + "step".center(columns - len(first) - len(last)) + last


def _names(references: Mapping[str, float], *, room: int, glyphs: _Glyphs) -> list[str]:
    """`name 2.45` for each level, the name cut where it does not fit."""
    names = []
    for name, level in references.items():
        value = f"{level:.4g}"
        most = room - len(value) - 2
        if len(name) > most:
            name = name[: most - 1] + glyphs.ellipsis
        names.append(f"{name} {value}")
    return names


def _placed(names: Sequence[str], wanted: Sequence[int], rows: int) -> list[str]:
    """Each name in the free row nearest to the one that it wants; a name too many is left out."""
    placed = [""] * rows
    for name, row in zip(names, wanted, strict=True):
        free = [r for r in range(rows) if not placed[r]]
        if free:
            placed[min(free, key=lambda r: abs(r - row))] = f" {name}"
    return placed


def _legend(loss: Sequence[float], val: Points, glyphs: _Glyphs, colour: bool) -> str:
    entries = [_painted(glyphs.legend * 2, "curve", colour) + " train"]
    if len(val[1]):
        entries.append(_painted(glyphs.val, "val", colour) + " val")
    bad = sum(not math.isfinite(value) for value in (*loss, *val[1]))
    if bad:
        entries.append(_painted(glyphs.bad, "bad", colour) + f" not finite: {bad:,}")
    return "  ".join(entries)


def _painted(text: str, kind: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if colour and kind else text
