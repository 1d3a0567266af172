"""All runs as a table: `cupel.runs("runs", where="val_loss<1.5 and tag=night")`.

A DataFrame of polars where that is installed, else a list of dicts. From the record's index: about
0.1 ms a run that has ended, 3 ms one that lives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cupel.errors import MissingDependency
from cupel.record.index import FIELDS, names, table, value
from cupel.record.layout import record_root


def runs(
    root: str | Path | None = None,
    *,
    project: str | None = None,
    where: str | None = None,
    sort: str | None = None,
    frame: bool | None = None,
) -> Any:
    """A row a run, newest first; `where` and `sort` are those of `cupel runs ls`.

    Columns are what was recorded of the run, its summary's names and its config's. A setting whose
    name is also another column's is `config.NAME` as well, and such a metric `summary.NAME`; under
    NAME is what a filter finds there. Missing values are null. `frame=False` gives a
    list of dicts, True a DataFrame. Raises UsageError for a filter that cannot be read, UnknownName
    for a name that no run has, and MissingDependency for a DataFrame without polars.
    """
    rows = table(record_root(root), project=project, where=where, sort=sort)
    taken = {*FIELDS, *(name for row in rows for name in row["summary"])}
    hidden = {f"config.{name}" for row in rows for name in row["config"] if name in taken}
    hidden |= {f"summary.{name}" for row in rows for name in row["summary"] if name in FIELDS}
    columns = list(dict.fromkeys([*names(rows), *sorted(hidden)]))
    found = [{name: value(row, name) for name in columns} for row in rows]
    try:
        return found if frame is False else _framed(columns, found)
    except MissingDependency:
        if frame:
            raise
        return found


def _framed(columns: list[str], rows: list[dict[str, Any]]) -> Any:
    try:
        import polars
    except ModuleNotFoundError as missing:
        raise MissingDependency("polars", extra="analysis", purpose="a DataFrame") from missing

    def column(name: str) -> Any:
        values = [row[name] for row in rows]
        try:
            return polars.Series(name, values, strict=True)
        except (TypeError, OverflowError, polars.exceptions.PolarsError):
            # Of several kinds: as texts all of them stay what they are.
            texts = [None if one is None else str(one) for one in values]
            return polars.Series(name, texts)

    return polars.DataFrame([column(name) for name in columns])
