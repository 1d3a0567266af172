"""A chart as the page draws it: `snapshot(store, query)`, and what came since, `append`.

Both are functions of the record and of a cursor that the page gives back, so a server that was
started anew goes on where the one before was. An append says from which stretch on all rows are
replaced: applied to what its cursor stands for it gives what a snapshot would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from cupel.analysis.seeds import interval
from cupel.analysis.smoothing import smoothed_at
from cupel.dashboard import frames, grid, positions
from cupel.dashboard.grid import Grid
from cupel.dashboard.positions import Position
from cupel.dashboard.queries import ChartQuery
from cupel.dashboard.replies import Number
from cupel.dashboard.store import OpenRun, Store
from cupel.errors import UnknownName
from cupel.record import index, series
from cupel.record.reader import SessionInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cupel.record.curve import Buckets, Curve

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

RELATIVE = "relative"
MOST_MARKS = 2000  # of one curve
MOST_TAILS = 20
_MOST_POWER = 80  # of a width that a cursor may claim


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """What a page has: which stretches, up to which, and how much of each run."""

    grid: Grid
    first: int
    last: int
    runs: list[Position]
    """Of each run; on an axis that is a metric, of that, too."""
    groups: str = ""
    """A name of which run is in which group."""

    @property
    def name(self) -> str:
        """A short name: equal for equal cursors."""
        return blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()


def cursor_of(plain: Any) -> Cursor | None:
    """A cursor out of JSON; None for what is none, so that all is sent."""
    try:
        found = msgspec.convert(plain, type=Cursor)
    except (msgspec.ValidationError, RecursionError):
        return None
    sound = abs(found.grid.power) < _MOST_POWER and abs(found.first) < 2**60
    return found if sound and abs(found.last) < 2**60 else None


@dataclass(slots=True)
class Line:
    """One curve of a chart in some stretches; `offset` takes its places to those of the chart."""

    facts: dict[str, Any]
    last: Floats
    low: Floats
    high: Floats
    mean: Floats
    count: Ints
    marks: list[list[float]]
    smooth: Floats | None = None


@dataclass(slots=True)
class _Source:
    """One run's part of a chart, read at one moment."""

    key: str
    sessions: list[SessionInfo]
    curve: Curve
    tails: list[tuple[int, int, Curve]]  # session, the step after which it was left, all of it
    at: Position
    zero: float  # what is taken from its places
    new: float | None  # the first place that may have changed
    axis_at: Position | None  # how far the axis goes, where it is a metric


def snapshot(store: Store, query: ChartQuery) -> tuple[bytes, Cursor]:
    """All of a chart. Raises UnknownName for a run that is not there."""
    sources = [_source(store, key, query) for key in query.runs]
    extents = [extent for source in sources if (extent := _extent(source, query))]
    if not extents:
        cursor = Cursor(Grid(0, query.log_x), 0, -1, *_had(store, query, sources))
    else:
        low, high = min(a for a, _ in extents), max(b for _, b in extents)
        low = query.low if query.low is not None else low
        high = query.high if query.high is not None else high
        high = max(low, high)
        if query.log_x:
            low, high = _positive(low, high, extents)
        chosen = grid.fitting(low, high, query.px, x=query.x, log=query.log_x)
        first, last = chosen.number(low), chosen.number(high)
        cursor = Cursor(chosen, first, last, *_had(store, query, sources))
    return _frame("snapshot", store, query, sources, cursor, cursor.first, None), cursor


def append(store: Store, query: ChartQuery, seen: Cursor) -> tuple[bytes, Cursor] | None:
    """What has come since a cursor, or None when nothing has; a snapshot where that is too little.

    Raises UnknownName for a run that is not there.
    """
    if len(seen.runs) != len(query.runs) or query.x not in (series.STEP, series.TIME, RELATIVE):
        return _if_new(store, query, seen)
    pairs = zip(query.runs, seen.runs, strict=True)
    try:
        sources = [_source(store, key, query, before) for key, before in pairs]
    except positions.Changed:
        return snapshot(store, query)
    runs, groups = _had(store, query, sources)
    if groups != seen.groups:
        return snapshot(store, query)
    cuts = [seen.grid.number(s.new - s.zero) for s in sources if s.new is not None]
    if not cuts:
        return None
    extents = [extent for source in sources if (extent := _extent(source, query))]
    high = max(b for _, b in extents) if query.high is None else query.high
    low = min(a for a, _ in extents) if query.low is None else query.low
    last = max(seen.last, seen.grid.number(high)) if query.high is None else seen.last
    if (
        last - seen.first + 1 > query.px
        or seen.last < seen.first
        or (query.low is None and not query.log_x and seen.grid.number(low) != seen.first)
    ):
        return snapshot(store, query)
    cut = max(min(cuts), seen.first)
    if cut > last:
        return None  # all of it is beyond what is shown
    cursor = Cursor(seen.grid, seen.first, last, runs, groups)
    return _frame("append", store, query, sources, cursor, cut, seen), cursor


class Point(msgspec.Struct):
    """One number as it was logged."""

    run: str
    session: int | None
    x: float
    step: int
    value: Number
    smooth: Number | None
    """The exponential average up to it, if it was asked for."""
    time: float | None
    elapsed: float | None
    """Seconds since the run began."""


def points_at(store: Store, query: ChartQuery, x: float) -> list[Point]:
    """Of each run the point that is nearest to a place. Raises UnknownName."""
    found = []
    for key in query.runs:
        source = _source(store, key, query)
        point = source.curve.nearest(x + source.zero)
        if point is None:
            continue
        began = source.sessions[0].started if source.sessions else None
        smooth = None
        if query.smooth:
            smooth = float(_smoothed(source.curve, [point.x], query.smooth)[0])
        found.append(
            Point(
                run=key,
                session=_session_at(source.sessions, point.step),
                x=point.x - source.zero,
                step=point.step,
                value=point.y,
                smooth=smooth,
                time=None if math.isnan(point.time) else point.time,
                elapsed=point.time - began if began and not math.isnan(point.time) else None,
            )
        )
    return found


def _session_at(sessions: Sequence[SessionInfo], step: int) -> int | None:
    """The session that a step of the run is from."""
    found = None
    for info in sessions:
        if found is None or info.start_step is None or info.start_step < step:
            found = info.number
    return found


def _source(store: Store, key: str, query: ChartQuery, before: Position | None = None) -> _Source:
    """A run's part as it is now; with `before`, also what is new. Raises Changed."""
    axis = series.TIME if query.x == RELATIVE else query.x
    with store.reading(key) as run:
        sessions, logged = run.logged(query.metric, axis)
        curve = logged.curve(query.metric, axis)
        at = positions.position(sessions, logged, query.metric)
        own = axis not in (series.STEP, series.TIME)
        axis_at = positions.position(sessions, logged, axis) if own else None
        tails = _tails(run, sessions, query.metric, axis) if query.tails else []
        new = None
        if before is not None:
            new = positions.first_new(before, sessions, logged, query.metric, axis)
    zero = 0.0
    if query.x == RELATIVE:
        began = sessions[0].started if sessions else None
        extent = curve.extent()
        zero = float(began) if began else (extent[0] if extent else 0.0)
    return _Source(key, sessions, curve, tails, at, zero, new, axis_at)


def _tails(
    run: OpenRun, sessions: Sequence[SessionInfo], metric: str, axis: str
) -> list[tuple[int, int, Curve]]:
    """The sessions of which a later one took steps back, newest last."""
    tails = []
    for place, info in enumerate(sessions[:-1]):
        later = [s.start_step for s in sessions[place + 1 :] if s.start_step is not None]
        if not later:
            continue
        logged = run.record.logged({metric, axis} - {series.STEP, series.TIME}, [info.alone()])
        curve = logged.curve(metric, series.STEP)
        extent = curve.extent()
        if extent is not None and extent[1] > min(later):
            tails.append((info.number, min(later), logged.curve(metric, axis)))
    return tails[-MOST_TAILS:]


def _extent(source: _Source, query: ChartQuery) -> tuple[float, float] | None:
    extents = [extent for curve in (source.curve, *(tail for _, _, tail in source.tails))
               if (extent := curve.extent()) is not None]  # fmt: skip
    if not extents:
        return None
    return min(a for a, _ in extents) - source.zero, max(b for _, b in extents) - source.zero


def _positive(
    low: float, high: float, extents: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """What of a range a logarithmic axis can show; from the least positive end there is."""
    if low <= 0:
        positive = [end for extent in extents for end in extent if end > 0]
        low = min([1.0, *positive])
    return low, max(low, high)


def _had(store: Store, query: ChartQuery, sources: Sequence[_Source]) -> tuple[list[Position], str]:
    """What a page has when it has all of this."""
    runs = [source.at for source in sources]
    runs += [source.axis_at for source in sources if source.axis_at is not None]
    if not query.group:
        return runs, ""
    told = repr([_group_of(store, key, query.group) for key in query.runs])
    return runs, blake2b(told.encode(errors="replace"), digest_size=8).hexdigest()


def _group_of(store: Store, key: str, group: str) -> str:
    try:
        value = index.value(store.row(key), group)
    except UnknownName:  # begun a moment ago
        value = None
    return "—" if value is None else str(value)


def _if_new(store: Store, query: ChartQuery, seen: Cursor) -> tuple[bytes, Cursor] | None:
    """A snapshot, unless it is what is seen already."""
    frame, cursor = snapshot(store, query)
    return None if cursor == seen else (frame, cursor)


def _frame(
    kind: str, store: Store, query: ChartQuery, sources: Sequence[_Source], cursor: Cursor,
    cut: int, seen: Cursor | None,
) -> bytes:  # fmt: skip
    """The rows from the stretch `cut` on as a frame."""
    import numpy as np

    numbers = np.arange(cut, cursor.last + 1)
    lines: list[Line] = []
    if len(numbers):
        edges = cursor.grid.edges(cut, cursor.last)
        for source in sources:
            lines += _lines_of(source, query, edges)
        if query.group:
            lines = _grouped(store, query, lines)
    some = np.zeros(len(numbers), bool)
    for line in lines:
        some |= (line.count > 0) | np.isfinite(line.last)
        for place, *_ in line.marks:
            some[int(place)] = True
    arrays: list[Any] = [(numbers[some] - cursor.first).astype(np.int32)]
    curves = []
    for line in lines:
        facts, blocks = _packed(line, some)
        curves.append(facts)
        arrays += blocks
    header = {
        "type": kind,
        "grid": {"width": cursor.grid.width, "log": cursor.grid.log, "first": cursor.first},
        "x": query.x,
        "cut": cut - cursor.first,
        "curves": curves,
        "sessions": [_session_facts(source) for source in sources],
        "cursor": cursor,
        "from": seen.name if seen else None,
        "to": cursor.name,
    }
    return frames.pack(header, arrays)


def _session_facts(source: _Source) -> dict[str, Any]:
    """Where the sessions of a run began, so that a resume can be seen."""
    begins = [
        {"session": info.number, "step": info.start_step, "started": info.started}
        for info in source.sessions
    ]
    return {"run": source.key, "zero": source.zero, "sessions": begins}


def _packed(line: Line, some: Any) -> tuple[dict[str, Any], list[Any]]:
    """A line's facts and its columns: last; low and high where they differ from it; smooth."""
    import numpy as np

    columns = [line.last[some]]
    low, high = line.low[some], line.high[some]
    banded = bool((np.isfinite(low) & ((low != columns[0]) | (high != columns[0]))).any())
    if banded:
        columns += [low, high]
    if line.smooth is not None:
        columns.append(line.smooth[some])
    kind = np.float64 if frames.is_fine(*columns) else np.float32
    rows = np.cumsum(some) - 1
    marks = [[int(rows[int(place)]), *what] for place, *what in line.marks[:MOST_MARKS]]
    facts = {
        **line.facts, "band": banded, "smooth": line.smooth is not None,
        "points": int(line.count.sum()), "marks": marks, "more_marks": len(line.marks) - len(marks),
    }  # fmt: skip
    with np.errstate(over="ignore"):
        return facts, [column.astype(kind) for column in columns]


def _lines_of(source: _Source, query: ChartQuery, edges: Floats) -> list[Line]:
    newest = source.sessions[-1].number if source.sessions else 0
    facts = {"run": source.key, "session": newest, "role": "run"}
    lines = [_line(source.curve, facts, edges + source.zero, None)]
    if query.smooth and not query.group:
        lines[0].smooth = _smooth_column(source.curve, edges + source.zero, query.smooth)
    for session, step, curve in source.tails:
        facts = {"run": source.key, "session": session, "role": "tail"}
        lines.append(_line(curve, facts, edges + source.zero, step))
    return lines


def _line(curve: Curve, facts: dict[str, Any], edges: Floats, after: int | None) -> Line:
    """A curve in stretches; with `after`, only what lies behind that step."""
    import numpy as np

    low, high = float(edges[0]), float(np.nextafter(edges[-1], -np.inf))
    if after is not None and curve.pieces:
        low = max(low, _place_after(curve, after))
    buckets = curve.buckets(edges, (low, max(low, high)))
    least, greatest, marks = _finite(curve, buckets, edges)
    return Line(facts, np.where(np.isfinite(buckets.last), buckets.last, np.nan), least, greatest,
                buckets.mean, buckets.count, marks)  # fmt: skip


def _place_after(curve: Curve, step: int) -> float:
    """The place from which on a curve's steps are greater than one."""
    for piece in curve.pieces:
        steps = piece.column.rows.steps.array(piece.start, piece.stop)
        later = (steps > step).nonzero()[0]
        if len(later):
            return float(piece.x(piece.start, piece.stop)[later[0]])
    return math.inf


def _finite(curve: Curve, buckets: Buckets, edges: Floats) -> tuple[Floats, Floats, list[Any]]:
    """The finite least and greatest of each stretch, and what in it is not finite.

    An infinity hides what else is in its stretch, so such stretches are read again.
    """
    import numpy as np

    least, greatest = buckets.min.copy(), buckets.max.copy()
    bad = np.flatnonzero((buckets.nan > 0) | np.isinf(least) | np.isinf(greatest))
    marks: list[list[float]] = []
    for place in bad.tolist():
        infinite = [0, 0]
        if math.isinf(least[place]) or math.isinf(greatest[place]):
            end = float(np.nextafter(edges[place + 1], -np.inf))
            values = curve.series((float(edges[place]), end)).y
            finite = values[np.isfinite(values)]
            least[place] = finite.min() if len(finite) else np.nan
            greatest[place] = finite.max() if len(finite) else np.nan
            infinite = [int((values == np.inf).sum()), int((values == -np.inf).sum())]
        marks.append([place, int(buckets.nan[place]), *infinite])
    return least, greatest, marks


def _smooth_column(curve: Curve, edges: Floats, factor: float) -> Floats:
    """The smoothed value at the last point of each stretch that has one."""
    import numpy as np

    found = np.full(len(edges) - 1, np.nan)
    points = curve.series()
    ends = np.searchsorted(points.x, edges)
    some = np.flatnonzero(ends[1:] > ends[:-1])
    if len(some):
        rows = ends[1:][some] - 1
        found[some] = smoothed_at(points.x, points.y, rows, factor)
    return found


def _smoothed(curve: Curve, places: Sequence[float], factor: float) -> Floats:
    import numpy as np

    points = curve.series()
    rows = np.searchsorted(points.x, np.asarray(places), "right") - 1
    return smoothed_at(points.x, points.y, rows, factor)


def _grouped(store: Store, query: ChartQuery, lines: Sequence[Line]) -> list[Line]:
    """A line for each value of a column: the mean over runs of their means, and its interval."""
    import numpy as np

    assert query.group
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if line.facts["role"] == "run":
            name = _group_of(store, line.facts["run"], query.group)
            groups.setdefault(name, []).append(line)
    found = []
    for name, members in groups.items():
        means = np.array([line.mean for line in members])
        middle, low, high, count = interval(means)
        facts = {
            "run": "", "session": 0, "role": "group", "label": name,
            "runs": [line.facts["run"] for line in members],
        }  # fmt: skip
        found.append(Line(facts, middle, low, high, middle, count, []))
    return found
