"""The table of runs as the page shows it: a window of rows, groups, and what columns there are.

Functions of rows (`Store.rows`) alone; rows and names mean what they mean to `cupel runs ls`. Of a
text at most 200 characters are given here, of a list at most 32 items.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import msgspec

from cupel.dashboard.replies import Number
from cupel.dashboard.store import key_of
from cupel.errors import UnknownName, UsageError
from cupel.record import filters, index
from cupel.record.index import Row

MOST_GROUPS = 500
MOST_COLUMNS = 100
LONGEST_TEXT = 200
_LONGEST_LIST = 32
_MOST_DISTINCT = 100
_EXAMPLES = 8
_LARGEST = 2**53  # beyond it a browser rounds integers
_KEPT = 12  # answers

Getter = Callable[[Row], Any]
Cell = float | int | bool | str | list[Any] | None


class TableRow(msgspec.Struct):
    """One run in the table."""

    key: str
    """"<project>/<run id>"."""
    id: str
    project: str
    name: str | None
    status: str
    created: Number
    """Unix seconds; 0 where that is damaged."""
    step: int | None
    sessions: int
    seconds: Number
    tags: list[str]
    notes: str | None
    """Their beginning."""
    study: str | None
    arm: str | None
    seed: Cell
    problem: str | None
    """What is damaged, in one line."""
    values: dict[str, Cell] = msgspec.field(default_factory=dict)
    """Of the columns that were asked for."""


class Spread(msgspec.Struct):
    """What the numbers of a column come to in a group; all three are null without a finite one."""

    mean: float | None
    min: float | None
    max: float | None
    n: int
    """Runs with a finite number."""
    not_finite: int
    """Runs with NaN or an infinity, which do not count."""


class Group(msgspec.Struct):
    """The runs that have one value in common."""

    name: str | None
    """The value as a text; null for the runs that have none."""
    count: int
    by_status: dict[str, int]
    numbers: dict[str, Spread]
    """Of those columns asked for in which there are numbers."""


class Table(msgspec.Struct):
    """A window of the runs that a filter means."""

    content: str
    """Equal as long as the same question has the same answer."""
    total: int
    """Runs of the project, or of all."""
    matched: int
    offset: int
    rows: list[TableRow]
    """In the order of the groups, if any, and in each as sorted."""
    by_status: dict[str, int]
    """Of all that match."""
    groups: list[Group]
    """In the order of their values; empty unless asked for."""
    unknown: list[str]
    """Columns asked for that no run has."""


class Column(msgspec.Struct):
    """Something that runs have."""

    name: str
    place: str
    """"field", "summary" or "config"."""
    ask: str
    """The name under which filter, order and columns find just this."""
    kind: str
    """"number" or "text"."""
    runs: int
    """How many have it."""
    distinct: int
    """How many different values there are, counted up to 100."""
    examples: list[str]


class Columns(msgspec.Struct):
    """All columns: fields, then what runs came to, then how they were set."""

    total: int
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class TableQuery:
    """What is asked of the table."""

    where: str = ""
    sort: str = ""
    project: str | None = None
    group: str | None = None
    columns: tuple[str, ...] = ()
    offset: int = 0
    limit: int = 100


class Tables:
    """Answers about the table of one store; the last few are kept, for who scrolls asks again.

    An answer holds as long as the rows are the same, and those of ended runs are the same objects.
    Of 10,000 runs a window takes about 10 ms; first a filter or groups of them 0.1 to 0.2 s.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[TableQuery, tuple[Sequence[Row], _Answer]] = OrderedDict()

    def window(self, rows: Sequence[Row], query: TableQuery) -> Table:
        """The answer, but for `content`. Raises UsageError, UnknownName for a project without
        runs."""
        answer = self._answer(rows, replace(query, offset=0, limit=0))
        end = query.offset + query.limit
        return Table(
            content="",
            total=answer.total,
            matched=len(answer.rows),
            offset=query.offset,
            rows=[table_row(row, answer.columns) for row in answer.rows[query.offset : end]],
            by_status=answer.by_status,
            groups=answer.groups,
            unknown=answer.unknown,
        )

    def _answer(self, rows: Sequence[Row], query: TableQuery) -> _Answer:
        with self._lock:
            before = self._kept.get(query)
        if before is not None and before[0] == rows:  # 0.1 ms: most are the very same objects
            answer = before[1]
        else:
            answer = _answer(rows, query)
        with self._lock:
            self._kept[query] = rows, answer
            self._kept.move_to_end(query)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return answer


@dataclass(frozen=True, slots=True)
class _Answer:
    """Everything but which window is shown."""

    total: int
    rows: list[Row]
    groups: list[Group]
    by_status: dict[str, int]
    columns: dict[str, Getter]
    unknown: list[str]


def _answer(rows: Sequence[Row], query: TableQuery) -> _Answer:
    every = of_project(rows, query.project)
    found = _chosen(every, query)
    columns = {
        name: getter(name) for name in query.columns if any(index.has(row, name) for row in every)
    }
    groups: list[Group] = []
    if query.group is not None:
        parts = _grouped(found, query.group)
        found = [row for _, part in parts for row in part]
        groups = [
            Group(name, len(part), _statuses(part), _spreads(part, columns)) for name, part in parts
        ]
    unknown = [name for name in query.columns if name not in columns] if every else []
    return _Answer(len(every), found, groups, _statuses(found), columns, unknown)


def getter(name: str) -> Getter:
    """`index.value` for one name, several times as fast over thousands of rows."""
    field = {"run": "id", "tag": "tags"}.get(name, name)
    if field in index.FIELDS:  # and what is none is looked for among settings

        def of_field(row: Row) -> Any:
            found = row[field]
            if found is not None and found != []:
                return found
            if (other := row["config"].get(name)) is not None:
                return other
            return found if (other := row["summary"].get(name)) is None else other

        return of_field
    if name.partition(".")[0] in ("summary", "config"):
        return lambda row: index.value(row, name)

    def of_inner(row: Row) -> Any:
        found = row["summary"].get(name)
        return row["config"].get(name) if found is None else found

    return of_inner


_FIELDS = {name: getter(name) for name in index.FIELDS}


def of_project(rows: Sequence[Row], project: str | None) -> list[Row]:
    """The rows of one project, or all. Raises UnknownName, unless there are no runs at all."""
    if project is None:
        return list(rows)
    found = [row for row in rows if row["project"] == project]
    if rows and not found:
        raise UnknownName("project", project[:LONGEST_TEXT], {row["project"] for row in rows})
    return found


def table_row(row: Row, columns: Mapping[str, Getter] | None = None) -> TableRow:
    """A row as it is told; arm and seed may be settings, of a loop of one's own."""
    return TableRow(
        key=key_of(row),
        id=row["id"],
        project=row["project"],
        name=text(row["name"]),
        status=row["status"],
        created=row["created"],
        step=_whole(row["step"]),
        sessions=row["sessions"],
        seconds=row["seconds"],
        tags=row["tags"],
        notes=text(row["notes"]),
        study=text(index.value(row, "study")),
        arm=text(index.value(row, "arm")),
        seed=brief(index.value(row, "seed")),
        problem=text(row["problem"]),
        values={name: brief(get(row)) for name, get in (columns or {}).items()},
    )


def columns(rows: Sequence[Row], query: TableQuery) -> Columns:
    """What columns the runs of a project have that a filter means, and what is in them.

    About 0.4 s for 10,000 runs of 60 settings. Raises as `Tables.window` does.
    """
    rows = _chosen(of_project(rows, query.project), query)
    of_fields = {name: [get(row) for row in rows] for name, get in _FIELDS.items()}
    found = [_column("field", name, name, cells) for name, cells in of_fields.items()]
    summaries = dict.fromkeys(name for row in rows for name in row["summary"])
    for place in ("summary", "config"):
        inner: list[dict[str, Any]] = [row[place] for row in rows]
        for name in dict.fromkeys(chain.from_iterable(inner)):
            cells = [one.get(name) for one in inner]
            if place == "config" and cells == of_fields.get(name):
                continue  # of a loop of one's own arm and seed are settings, and fields by that
            # `index.value` takes a field first, then a summary; the place says which is meant.
            hidden = name in _FIELDS or (place == "config" and name in summaries)
            found.append(_column(place, name, f"{place}.{name}" if hidden else name, cells))
    return Columns(total=len(rows), columns=[column for column in found if column.runs])


def _column(place: str, name: str, ask: str, cells: Sequence[Any]) -> Column:
    values = [value for value in cells if value is not None and value != []]
    kinds = set(map(type, values))
    if list in kinds:
        distinct = {name_of(value): value for value in values}
        each = chain.from_iterable(one if isinstance(one, list) else [one] for one in values)
        examples = {name_of(one): one for one in each}
    else:
        some = islice(dict.fromkeys(values), _MOST_DISTINCT)
        examples = distinct = {name_of(value): value for value in some}
    shown = sorted(islice(examples, _MOST_DISTINCT), key=lambda name: _place(name, examples[name]))
    return Column(
        name=name,
        place=place,
        ask=ask,
        kind="number" if kinds <= {int, float} else "text",
        runs=len(values),
        distinct=min(len(distinct), _MOST_DISTINCT),
        examples=[one[:LONGEST_TEXT] for one in shown[:_EXAMPLES]],
    )


def brief(value: Any) -> Cell:
    """A value as a cell of the table: cut where it is long, a text where JSON has nothing."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_LARGEST <= value < _LARGEST else str(value)[:LONGEST_TEXT]
    if isinstance(value, list):
        return [brief(one) for one in value[:_LONGEST_LIST]]
    return text(value)


def text(value: Any) -> str | None:
    """The beginning of a text; None stays None."""
    if value is None:
        return None
    told = str(value)
    return told if len(told) <= LONGEST_TEXT else f"{told[: LONGEST_TEXT - 1]}…"


def is_number(value: Any) -> bool:
    """Whether a value is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def name_of(value: Any) -> str:
    """A value as a filter would ask for it: `1` for 1.0, too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    return ", ".join(map(name_of, value)) if isinstance(value, list) else str(value)


def _chosen(rows: list[Row], query: TableQuery) -> list[Row]:
    """As `index.chosen`, which the tests hold it against; faster where there are thousands."""
    meant = filters.parse(query.where) if query.where.strip() else None
    by = query.sort.removeprefix("-")
    asked = (meant.names() if meant else set()) | ({by} if by else set())
    if query.group is not None:
        asked.add(query.group)
    try:
        index.check_names(sorted(asked), rows)
    except UnknownName as error:  # of the question, not of the address
        raise UsageError(str(error)) from error
    if meant:
        gets = {name: getter(name) for name in meant.names()}
        rows = [row for row in rows if meant.matches(partial(_value, gets, row))]
    return _sorted(rows, by, backwards=query.sort.startswith("-")) if by else rows


def _value(gets: Mapping[str, Getter], row: Row, name: str) -> Any:
    return gets[name](row)


def _sorted(rows: Sequence[Row], name: str, *, backwards: bool) -> list[Row]:
    """Numbers before texts, and what is missing or NaN last, either way."""
    get = getter(name)
    numbers: list[tuple[float, Row]] = []
    texts: list[tuple[str, Row]] = []
    missing: list[Row] = []
    for row in rows:
        found = get(row)
        if found is None or found != found:
            missing.append(row)
        elif isinstance(found, int | float):
            numbers.append((found, row))
        else:
            shown = ", ".join(map(str, found)) if isinstance(found, list) else str(found)
            texts.append((shown, row))
    numbers.sort(key=itemgetter(0), reverse=backwards)
    texts.sort(key=itemgetter(0), reverse=backwards)
    parts: list[list[Row]] = [[row for _, row in numbers], [row for _, row in texts]]
    return [*chain.from_iterable(reversed(parts) if backwards else parts), *missing]


def _grouped(rows: Sequence[Row], column: str) -> list[tuple[str | None, list[Row]]]:
    """The rows of each value, numbers before texts and runs without it last."""
    found: dict[str | None, list[Row]] = {}
    values: dict[str | None, Any] = {}
    get = getter(column)
    for row in rows:
        value = get(row)
        name = None if value is None or value == [] else name_of(value)
        found.setdefault(name, []).append(row)
        values.setdefault(name, value)
    if len(found) > MOST_GROUPS:
        raise UsageError(
            f"group={column[:LONGEST_TEXT]}: the runs have {len(found):,} different values there; "
            f"group by a column with at most {MOST_GROUPS}, or narrow the filter"
        )
    ordered = sorted(found, key=lambda name: _place(name, values[name]))
    return [(name, found[name]) for name in ordered]


def _place(name: str | None, value: Any) -> tuple[int, float, str]:
    if name is None:
        return 3, 0.0, ""
    if is_number(value):
        return (1, 0.0, "") if math.isnan(value) else (0, value, "")
    return 2, 0.0, name


def _statuses(rows: Iterable[Row]) -> dict[str, int]:
    return dict(sorted(Counter(row["status"] for row in rows).items()))


def _spreads(rows: Sequence[Row], columns: Mapping[str, Getter]) -> dict[str, Spread]:
    found: dict[str, Spread] = {}
    for name, get in columns.items():
        numbers = [value for row in rows if is_number(value := get(row))]
        if numbers:
            found[name] = _spread(numbers)
    return found


def _spread(numbers: Sequence[float]) -> Spread:
    finite = [float(one) for one in numbers if abs(one) < 1.7e308]  # NaN is not less
    left = len(numbers) - len(finite)
    if not finite:
        return Spread(None, None, None, 0, left)
    mean = math.fsum(one / len(finite) for one in finite)  # a sum might be beyond all floats
    return Spread(mean, min(finite), max(finite), len(finite), left)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and -_LARGEST <= value < _LARGEST else None
