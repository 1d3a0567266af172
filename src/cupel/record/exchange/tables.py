"""Reads metrics from CSV, JSON lines and Parquet: a column for the step, one a metric.

The step is found under its usual names (STEPS) or under the one that is given; so is the time in
Unix seconds, which may be absent. In a CSV file an empty cell is no value; integers, floats, NaN
and infinities in any usual spelling, true, false and JSON arrays are numbers, any other text is
counted and left out, and so is a number that no float64 is (1e999). Cells are parted by commas, by
semicolons or by tabs, as the header shows. Rows without a step, and lines that cannot be read,
count as damaged; that the last number of a CSV file was cut short, nobody can see.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cupel.errors import MissingDependency, RecordError
from cupel.record.exchange import foreign
from cupel.record.exchange.foreign import Foreign, Item, Point, SourceFile

TableKind = Literal["csv", "jsonl", "parquet"]
STEPS = ("_step", "step", "global_step", "trainer/global_step", "iteration", "iter", "epoch")
TIMES = ("_t", "_timestamp", "timestamp", "wall_time", "wall time")

_DELIMITERS = (",", ";", "\t")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_BOOLEANS = {"true": True, "false": False}
_Rows = Callable[[Foreign], Iterator[Mapping[str, Any] | None]]


def run_of(path: Path, kind: TableKind, step: str | None = None) -> Foreign:
    """The one run that a table is."""
    file = SourceFile(path)
    rows: dict[TableKind, _Rows] = {
        "csv": lambda run: _csv_rows(run, file, step),
        "jsonl": lambda run: _jsonl_rows(file),
        "parquet": lambda run: _parquet_rows(file),
    }
    return Foreign(
        tool=kind,
        name=path.stem,
        source=path.name,
        sha256=file.sha256(),
        points=lambda run: _points(run, rows[kind], step),
        created=file.modified,
    )


def needed_polars(purpose: str) -> Any:
    """The package polars. Raises MissingDependency."""
    try:
        return importlib.import_module("polars")
    except ModuleNotFoundError as error:
        raise MissingDependency("polars", extra="analysis", purpose=purpose) from error


def _points(run: Foreign, rows: _Rows, step: str | None) -> Iterator[Item]:
    columns: tuple[str, str | None] | None = None
    first: Mapping[str, Any] | None = None
    timed = False
    for row in rows(run):
        first = first or row
        columns = columns or (_columns(row, step) if row else None)
        found = _step(row.get(columns[0])) if row and columns else None
        if row is None or columns is None or found is None:
            run.damaged += 1
            continue
        t = _time(row.get(columns[1])) if columns[1] else None
        if t is not None and not timed:
            run.created, timed = t, True
        values = {k: v for k, v in row.items() if k not in columns and v is not None}
        yield Point(found, t, foreign.sorted_out(values, run.left_out))
    if columns is None:
        raise _without_step(run, first, step)


def _columns(row: Mapping[str, Any], step: str | None) -> tuple[str, str | None] | None:
    """The names of the columns of step and time; None where there is none of the step."""
    lowered = {name.strip().lower(): name for name in reversed(list(row))}
    steps = (lowered[name] for name in STEPS if name in lowered)
    found = next(steps, None) if step is None else (step if step in row else None)
    if found is None:
        return None
    return found, next((lowered[name] for name in TIMES if name in lowered), None)


def _without_step(run: Foreign, row: Mapping[str, Any] | None, step: str | None) -> RecordError:
    if not row:
        return RecordError(f"{run.source} holds no readable row")
    expected = f"'{step}'" if step else f"one of {', '.join(STEPS)}"
    return RecordError(
        f"{run.source} has no column of the step: expected {expected}, found {_listed(row)}; "
        "name the column with step="
    )


def _listed(row: Mapping[str, Any]) -> str:
    shown = ", ".join(str(name)[:40] for name in list(row)[:12])
    return (shown or "none") + (", …" if len(row) > 12 else "")


def _step(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**64 else None


def _time(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else None


def _csv_rows(
    run: Foreign, file: SourceFile, step: str | None
) -> Iterator[Mapping[str, Any] | None]:
    with file.open() as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as text:
        try:
            reader = csv.reader(text, delimiter=_delimiter(file, step))
            names = next(reader, [])
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise RecordError(
                    f"{run.source} has several columns called '{twice[0][:60]}'; rename them"
                )
            for cells in filter(None, reader):
                whole = len(cells) == len(names)
                yield dict(zip(names, map(_cell, cells), strict=True)) if whole else None
        except (UnicodeDecodeError, csv.Error) as error:
            raise RecordError(f"{run.source} is no CSV file in UTF-8: {error}") from error


def _delimiter(file: SourceFile, step: str | None) -> str:
    """What parts the cells: the first of which the header then has a column of the step.

    Not what parts it into the most: a name may hold as many semicolons as it likes.
    """
    headers = {delimiter: _header(file, delimiter) for delimiter in _DELIMITERS}
    for delimiter, names in headers.items():
        if _columns(dict.fromkeys(names), step):
            return delimiter
    return max(_DELIMITERS, key=lambda delimiter: len(headers[delimiter]))


def _header(file: SourceFile, delimiter: str) -> list[str]:
    with file.open() as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as text:
        return next(csv.reader(text, delimiter=delimiter), [])


def _cell(cell: str) -> Any:
    if not cell:
        return None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if cell[0] == "[":
        try:
            return foreign.parsed(cell)
        except ValueError:
            return cell
    try:
        number = float(cell) if "_" not in cell else None
    except ValueError:
        return _BOOLEANS.get(cell.strip().lower(), cell)
    overflows = number is not None and math.isinf(number) and "inf" not in cell.lower()
    return cell if number is None or overflows else number


def _jsonl_rows(file: SourceFile) -> Iterator[Mapping[str, Any] | None]:
    with file.open() as opened:
        for line in opened:
            if not line.strip():
                continue
            try:
                row = foreign.parsed(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None


def _parquet_rows(file: SourceFile) -> Iterator[Mapping[str, Any] | None]:
    polars = needed_polars("reading Parquet")
    try:
        table = polars.read_parquet(file.path)
    except Exception as error:  # polars has many, and panics among them
        raise RecordError(f"{file.path.name} is no Parquet file: {_first_line(error)}") from error
    texts = [name for name, kind in table.schema.items() if kind == polars.String]
    for row in table.iter_rows(named=True):
        yield {**row, **{name: _json(row[name]) for name in texts}}


def _json(text: str | None) -> Any:
    try:
        return None if text is None else foreign.parsed(text)
    except ValueError:
        return text


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
