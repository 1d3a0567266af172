"""Writes a run's metrics as CSV, JSON lines or Parquet, a row for each call of `log`.

JSON lines are those of the record. In CSV a number is written as JSON writes it, so it comes back
in all its bits (with pandas: float_precision="round_trip"); NaN and the infinities are words, an
empty cell is no value, an array is JSON. In Parquet a column has one type: Boolean, Int64, UInt64
or Float64; null is no value and NaN is NaN; what fits none of these types is text of JSON.
CSV reads the metrics twice, Parquet holds them in memory.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from typing import Any, BinaryIO

from cupel.record import codec
from cupel.record.exchange.points import Line
from cupel.record.exchange.tables import needed_polars

_EXACT_IN_FLOAT = 2**53


def write_jsonl(file: BinaryIO, lines: Iterable[Line]) -> None:
    """A line of JSON a row: `_step`, `_t` and the metrics."""
    for line in lines:
        fields = _fields(line)
        try:
            file.write(codec.encode_line(fields))
        except TypeError:  # what no `log` takes: something else wrote it, and it is JSON
            file.write(_plain(_worded(fields)).encode() + b"\n")


def write_csv(file: BinaryIO, lines: Iterable[Line]) -> None:
    """A header and a row a line; `lines` is gone through twice."""
    names = {"_step": None, "_t": None} | {name: None for line in lines for name in line.metrics}
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    odd = any("\r" in name for name in names)  # which the writer would not quote by itself
    header = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL) if odd else writer
    header.writerow(names)
    for line in lines:
        fields = {key: _json(value) for key, value in _fields(line).items()}
        writer.writerow([fields.get(name, "") for name in names])
    text.detach()


def write_parquet(file: BinaryIO, lines: Iterable[Line]) -> None:
    """A table with a row a line, compressed by zstd. Raises MissingDependency without polars."""
    polars = needed_polars("writing Parquet")
    columns: dict[str, list[Any]] = {"_step": [], "_t": []}
    rows = 0
    for line in lines:
        for name, value in _fields(line).items():
            column = columns.setdefault(name, [])
            column += [None] * (rows - len(column))
            column.append(value)
        rows += 1
    types = {
        "bool": polars.Boolean,
        "int": polars.Int64,
        "unsigned": polars.UInt64,
        "float": polars.Float64,
        "text": polars.String,
    }
    series = {}
    for name, column in columns.items():
        column += [None] * (rows - len(column))
        kind = "float" if name == "_t" else _type_of(column)
        values = [None if v is None else _json(v) for v in column] if kind == "text" else column
        series[name] = polars.Series(name, values, types[kind], strict=False)
    polars.DataFrame(series).write_parquet(file, compression="zstd")


def _fields(line: Line) -> dict[str, Any]:
    return {"_step": line.step, "_t": line.t, **line.metrics}


def _type_of(column: list[Any]) -> str:
    """The one type that holds all values of a column exactly."""
    values = [value for value in column if value is not None]
    kinds = set(map(type, values))
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        if min(values) >= -(2**63) and max(values) < 2**63:
            return "int"
        return "unsigned" if min(values) >= 0 else "text"
    if kinds <= {float}:
        return "float"
    whole = [value for value in values if isinstance(value, int)]
    fits = kinds == {int, float} and max(map(abs, whole)) <= _EXACT_IN_FLOAT
    return "float" if fits else "text"


def _json(value: Any) -> str:
    """A number or array as JSON, with the bare words NaN, Infinity and -Infinity."""
    if isinstance(value, list):
        return f"[{','.join(map(_json, value))}]"
    try:
        encoded = codec.encode_line({"": value})
    except TypeError:
        return _plain(_worded(value))
    return encoded[4:-2].strip(b'"').decode()


def _plain(value: Any) -> str:
    """Any JSON, integers of any length among it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _worded(value: Any) -> Any:
    """The same with the words of the record for NaN and the infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, list):
        return [_worded(item) for item in value]
    if isinstance(value, dict):
        return {key: _worded(item) for key, item in value.items()}
    return value
