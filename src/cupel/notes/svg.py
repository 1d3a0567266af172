"""A graph as an SVG image: levels as columns, equal bytes for equal graphs.

A line that goes past a level has a place of its own there, between the boxes, and all lines from
one box go together as far as they can. Colours are those of the page it stands on, as far as
`currentColor` goes, and a blue that reads on white and on black for the longest chain. Labels are
cut where they would not fit, and whole in the tooltip of each box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape as _escaped

from cupel.notes import ids
from cupel.notes.graph import Graph

_WIDTH, _HEIGHT, _LANE = 212, 40, 8  # of a box; the height of a line that passes
_ACROSS, _DOWN = 70, 12  # between columns; between what stands in one
_MARGIN, _TOP = 16, 40
_LETTERS = 27  # that fit into a box at 12 px
_CHAIN = "#3b82f6"


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a column: a box, or the line of a box further left."""

    name: str
    column: int
    is_box: bool


def as_svg(graph: Graph) -> str:
    """The image."""
    levels, chain = graph.levels(), graph.longest()
    columns = _columns(graph, levels)
    tops = {slot: top for column in columns for slot, top in _stacked(column)}
    lowest = max((top + _height(slot) for slot, top in tops.items()), default=_TOP)
    width = 2 * _MARGIN + max(len(levels), 1) * (_WIDTH + _ACROSS) - _ACROSS
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {lowest + _MARGIN}" '
        f'width="{width}" height="{lowest + _MARGIN}" role="img" '
        'font-family="system-ui, sans-serif">',
        "<style>svg{color:#57606a}@media(prefers-color-scheme:dark){svg{color:#b1bac4}}</style>",
        f"<title>{_text(_title(graph, levels, chain))}</title>",
        *_lines(graph, levels, chain, tops),
    ]
    lines += [
        f'<text x="{_left(number)}" y="24" font-size="12" fill="currentColor">level {number}</text>'
        for number in range(len(levels))
    ]
    for slot, top in tops.items():
        if slot.is_box:
            lines += _box(graph, slot, top, marked=slot.name in chain)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _title(graph: Graph, levels: list[list[str]], chain: list[str]) -> str:
    return (
        f"{len(graph.nodes)} {graph.kind} in {len(levels)} levels; "
        f"the longest chain has {len(chain)}"
    )


# ---- where everything stands -------------------------------------------------------------------


def _columns(graph: Graph, levels: list[list[str]]) -> list[list[_Slot]]:
    """Boxes and passing lines by column, each near what it is connected to."""
    level = {name: number for number, names in enumerate(levels) for name in names}
    columns = [[_Slot(name, number, True) for name in names] for number, names in enumerate(levels)]
    for name, users in graph.used_by().items():
        furthest = max((level[user] for user in users), default=0)
        for column in range(level[name] + 1, furthest):
            columns[column].append(_Slot(name, column, False))
    before: dict[_Slot, list[_Slot]] = {slot: [] for column in columns for slot in column}
    after: dict[_Slot, list[_Slot]] = {slot: [] for column in columns for slot in column}
    for slot in before:
        sources = [slot.name] if not slot.is_box else graph.needs[slot.name]
        for source in sources:
            at = slot.column - 1
            left = _Slot(source, at, level[source] == at)
            if left in before:  # not where two boxes of a circle share a level
                before[slot].append(left)
                after[left].append(slot)
    # Forwards, backwards, forwards: each column by the middle of its neighbours.
    numbers = list(range(len(columns)))
    for order, near in ((numbers, before), (numbers[::-1], after), (numbers, before)):
        for number in order:
            columns[number].sort(key=_by_neighbours(columns, near))
    return columns


def _by_neighbours(
    columns: list[list[_Slot]], near: dict[_Slot, list[_Slot]]
) -> Callable[[_Slot], tuple[float, tuple[tuple[int, int, str], ...]]]:
    rows = {slot: row / len(column) for column in columns for row, slot in enumerate(column)}

    def key(slot: _Slot) -> tuple[float, tuple[tuple[int, int, str], ...]]:
        found = [rows[other] for other in near[slot]] or [rows[slot]]
        return sum(found) / len(found), ids.order(slot.name)

    return key


def _stacked(column: list[_Slot]) -> Iterator[tuple[_Slot, int]]:
    top = _TOP
    for slot in column:
        yield slot, top
        top += _height(slot) + _DOWN


def _height(slot: _Slot) -> int:
    return _HEIGHT if slot.is_box else _LANE


def _left(column: int) -> int:
    return _MARGIN + column * (_WIDTH + _ACROSS)


# ---- what is drawn -----------------------------------------------------------------------------


def _lines(
    graph: Graph, levels: list[list[str]], chain: list[str], tops: dict[_Slot, int]
) -> list[str]:
    """Every line once, those of the chain last, so that they lie on top."""
    level = {name: number for number, names in enumerate(levels) for name in names}
    links = set(pairwise(chain))
    drawn: dict[str, bool] = {}  # path: whether it is of the chain
    for name, needed in graph.needs.items():
        for source in needed:
            marked = (source, name) in links
            for path in _route(source, name, level, tops):
                drawn[path] = drawn.get(path, False) or marked
    look = {
        True: f'stroke="{_CHAIN}" stroke-width="2.5"',
        False: 'stroke="currentColor" stroke-width="1" opacity="0.6"',
    }
    order = sorted(drawn, key=lambda path: drawn[path])
    return [f'<path d="{path}" fill="none" {look[drawn[path]]}/>' for path in order]


def _route(source: str, name: str, level: dict[str, int], tops: dict[_Slot, int]) -> Iterator[str]:
    """A line from box to box, in pieces that other lines of the same box share."""
    slots = [
        _Slot(source, column, column == level[source])
        for column in range(level[source], level[name])
    ]
    slots = slots or [_Slot(source, level[source], True)]
    slots.append(_Slot(name, level[name], True))
    for left, right in pairwise(slots):
        x0, y0 = _left(left.column) + _WIDTH, tops[left] + _height(left) // 2
        x1, y1 = _left(right.column), tops[right] + _height(right) // 2
        bend = _ACROSS // 2
        yield f"M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}"
        if not right.is_box:
            yield f"M{x1} {y1}H{x1 + _WIDTH}"


def _box(graph: Graph, slot: _Slot, top: int, *, marked: bool) -> list[str]:
    node = graph.nodes[slot.name]
    x = _left(slot.column)
    paper, part = ids.split(slot.name)
    first = f"{part} · {paper}" if part else paper
    look = (
        f'stroke="{_CHAIN}" stroke-width="2.5"'
        if marked
        else 'stroke="currentColor" stroke-width="1"'
    )
    dashes = "" if node.main else ' stroke-dasharray="4 3"'
    return [
        f"<g><title>{_text(f'{slot.name}: {node.label}')}</title>",
        f'<rect x="{x}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="#808080" '
        f'fill-opacity="0.12" {look}{dashes}/>',
        f'<text x="{x + 9}" y="{top + 16}" font-size="11" fill="currentColor" opacity="0.85">'
        f"{_text(_cut(first))}</text>",
        f'<text x="{x + 9}" y="{top + 31}" font-size="12" fill="currentColor">'
        f"{_text(_cut(node.label))}</text></g>",
    ]


def _text(text: str) -> str:
    """A text as XML takes it: control characters are none of XML's."""
    return _escaped("".join(letter for letter in text if letter.isprintable()))


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
