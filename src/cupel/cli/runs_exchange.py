"""`cupel runs export` and `cupel runs import`: runs to other tools, and theirs to us."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Run, called, opened
from cupel.cli.streams import tell
from cupel.errors import UsageError

_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".zip": "zip"}


def export(
    run: Run,
    path: Annotated[str, typer.Argument(help="The new file; for tensorboard a folder.")],
    to: Annotated[
        str | None,
        typer.Option(help="tensorboard, csv, jsonl, parquet or zip; else what the name ends with."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Write a run for another tool, or as one zip file.

    For tensorboard, csv, jsonl and parquet its metrics; a zip file holds all of it.

    \b
    cupel runs export 20261121 losses.csv
    cupel runs export 20261121 tb/run1 --to tensorboard
    cupel runs export 20261121 run.zip
    """
    from cupel.cli.tables import print_json
    from cupel.errors import UnknownName
    from cupel.record.exchange import exporting

    folder = opened(runs_root(root), run).run_dir
    kind = to or _SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise UsageError(f"cannot tell from the name {path} what is wanted; say it with --to")
    if kind not in exporting.KINDS:
        raise UnknownName("kind of export", kind, exporting.KINDS)
    with _Telling(f"exporting {called(folder)} to {path}") as said:
        written = exporting.export_run(folder, path, kind=kind, tell=said)
    if json:
        print_json({"run": called(folder), "kind": kind, "path": str(written)})
    else:
        print(f"wrote {written}")


def import_(
    path: Annotated[str, typer.Argument(help="A file, or a folder of another tool's files.")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="tensorboard, wandb, mlflow, csv, jsonl, parquet or zip; else found out."
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Into this project; else the other tool's own, or `imported`."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of a table: the column of steps.")
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Take in runs of TensorBoard, wandb, MLflow, tables.

    Or of the zip file of another cupel. What was taken in before is not taken twice.

    \b
    cupel runs import tb_logs --project old
    cupel runs import wandb/offline-run-20261121_101010-abc
    cupel runs import mlflow.db
    cupel runs import losses.csv --step epoch
    """
    from cupel.cli.tables import print_json
    from cupel.errors import UnknownName
    from cupel.record.exchange import importing

    if kind is not None and kind not in importing.KINDS:
        raise UnknownName("kind of import", kind, importing.KINDS)
    where = runs_root(root)
    with _in_options(Path(path).name), _Telling(f"importing {path}") as said:
        new = importing.import_runs(
            path, kind=kind, root=where, project=project, step=step, tell=said
        )
    if json:
        print_json([str(folder) for folder in new])
        return
    for folder in new:
        print(f"imported {called(folder)}")


@contextmanager
def _in_options(name: str) -> Iterator[None]:
    """A context in which what a message calls `kind=` and `step=` is called as it is typed here.

    But for `name`, which is a file's.
    """
    try:
        yield
    except UsageError as error:
        parts = str(error).split(name) if name else [str(error)]
        option = re.compile(r"(?<!\S)(kind|step)=(?=[\s,]|\Z)")
        told = name.join(option.sub(r"--\1", part) for part in parts)
        if told == str(error):
            raise
        raise UsageError(told) from error


class _Telling:
    """Tells each line; and after two seconds, once, what takes so long."""

    def __init__(self, doing: str) -> None:
        import threading

        self._timer = threading.Timer(2.0, tell, (f"cupel: {doing} …",))
        self._timer.daemon = True

    def __enter__(self) -> _Telling:
        self._timer.start()
        return self

    def __call__(self, line: str) -> None:
        tell(f"cupel: {line}")

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
