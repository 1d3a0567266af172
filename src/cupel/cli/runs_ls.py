"""`cupel runs ls`: the runs that a filter means, in the order of a column, a line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json

_STATUSES = ("running", "finished", "failed", "interrupted", "crashed", "silent", "damaged")
_LESS = ("sessions", "about", "project", "curve", "step")  # what a narrow terminal can lack
_MOST_SPARKS = 200  # runs whose curves are read without being asked for


def list_(
    where: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="As 'val_loss<1.5 and arm=wave'; see the examples."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's runs.")] = None,
    status: Annotated[str | None, typer.Option(help=f"One of {', '.join(_STATUSES)}.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The least first; with a minus before it the most."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many runs at most.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="These columns instead of the usual ones.")
    ] = None,
    spark: Annotated[
        bool | None,
        typer.Option("--spark/--no-spark", help="Draw each loss; by default on a terminal."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List runs, newest first.

    A filter compares what a run is (status, project, tags, arm, created …), what it came to
    (val_loss) and how it was set (train.optimizer.lr), with = != < <= > >= ~ !~ and in.
    lr=none finds runs without lr. Where names are the same, summary.step is the metric and
    config.seed the setting.

    \b
    cupel runs ls --status crashed
    cupel runs ls 'val_loss<1.5 and arm=wave' --sort val_loss --limit 20
    cupel runs ls 'created>2026-11-01 and not tags=slow' --columns id,val_loss,train.optimizer.lr
    cupel runs ls --json
    """
    from cupel.cli.tables import print_json, print_table
    from cupel.cli.working import Working
    from cupel.errors import UnknownName, UsageError
    from cupel.record import filters, index

    if status is not None and status not in _STATUSES:
        raise UnknownName("status", status, _STATUSES)
    folder = runs_root(root)
    shown = _columns(columns)
    if columns is not None and not shown:
        raise UsageError("--columns names no column; as in: --columns id,val_loss")
    if sort is not None and not sort.removeprefix("-"):
        raise UsageError("--sort names no column; as in: --sort val_loss or --sort -val_loss")
    meant = filters.parse(where) if where is not None else None
    with Working("reading") as working:
        every = index.Index(folder).rows(project, tell=working)
    if project is not None and not every:
        require_project(folder, project)
    rows = index.chosen(every, where=meant, sort=sort)
    index.check_names(shown, every)
    rows = [row for row in rows if status in (None, row["status"])][:limit]
    if json:
        print_json([_facts(row, shown) for row in rows])
    elif rows:
        wanted = sys.stdout.isatty() and len(rows) <= _MOST_SPARKS if spark is None else spark
        lines = _lines(rows, shown, folder if wanted else None)
        print_table(lines, drop=() if shown else _LESS, cut="about")
    elif every:
        of = "is" if where is None and status else "is meant by that"
        print(f"none of {len(every)} runs in {folder} {of}" + (f" {status}" if of == "is" else ""))
        if others := index.shadowed(every, meant.names() if meant else ()):
            print(f"settings and metrics of the same name are asked for as {' or '.join(others)}")
    else:
        print(f"no runs in {folder}; start one with: cupel run gpt-tiny")


def _columns(given: str | None) -> list[str]:
    return list(dict.fromkeys(filter(None, (name.strip() for name in (given or "").split(",")))))


def require_project(root: Path, project: str) -> None:
    """Refuse a project without runs, unless there are no runs at all."""
    from cupel.errors import UnknownName
    from cupel.record.reader import list_runs

    known = {record.run_dir.parent.name for record in list_runs(root)}
    if known:
        raise UnknownName("project", project, known, hint=f"looked in {root}")


def _facts(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """A run as JSON."""
    from cupel.record import index

    if columns:
        return {name: index.value(row, name) for name in columns}
    more = ("name", "created", "seconds", "tags", "group", "study", "arm", "point", "seed")
    return {**_usual(row), **{name: row[name] for name in more}, "summary": row["summary"]}


def _usual(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": row["id"],
        "project": row["project"],
        "status": row["status"],
        "sessions": row["sessions"],
        "step": row["step"],
        "val_loss": row["summary"].get("val_loss"),
        "about": row["problem"] or row["about"] or row["notes"],
    }


def _lines(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], spark_in: Path | None
) -> list[dict[str, Any]]:
    """The rows of the table for people."""
    from cupel.cli.runs_common import moment
    from cupel.record import index

    lines: list[dict[str, Any]] = []
    for row in rows:
        if columns:
            line = {name: index.value(row, name) for name in columns}
            if "created" in line:
                line["created"] = moment(line["created"])
        else:
            line = _usual(row)
        lines.append(line)
    if not columns and all(line["val_loss"] is None for line in lines):
        loss = _common_loss(rows)
        lines = [
            {(loss or key) if key == "val_loss" else key: value for key, value in line.items()}
            for line in lines
        ]
        for line, row in zip(lines, rows, strict=True):
            if loss:
                line[loss] = row["summary"].get(loss)
    if spark_in is not None:
        _draw(lines, rows, spark_in)
    return lines


def _common_loss(rows: Sequence[dict[str, Any]]) -> str | None:
    """What stands for val_loss where no run has it."""
    from cupel.cli.sparks import main_metrics

    return next(iter(main_metrics({key: 0 for row in rows for key in row["summary"]})), None)


def _draw(lines: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], root: Path) -> None:
    """Put each run's loss before the last column."""
    from cupel.cli.sparks import curves
    from cupel.cli.working import Working
    from cupel.record.reader import RunRecord

    drawn = []
    with Working("drawing the loss of") as working:
        for row in rows:
            working(row["id"])
            try:
                record = RunRecord(root / row["project"] / row["id"])
                drawn.append(next(iter(curves(record, row["summary"], most=1).items()), None))
            except OSError:  # deleted just now
                drawn.append(None)
    if not any(drawn):
        return
    for line, one in zip(lines, drawn, strict=True):
        last = list(line)[-1]
        value = line.pop(last)
        line["curve"] = one[1] if one else None
        line[last] = value
