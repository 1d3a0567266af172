"""Takes runs of other tools into the record: `import_runs`.

TensorBoard event files, wandb's offline files, MLflow's SQLite database, CSV, JSON lines, Parquet,
and the zip files of `export_run`. What cannot be taken is counted and told, in one line on stderr
unless `tell` is given, and in the run's own record. The same content is never taken twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout
from cupel.record.exchange import archive, intake, mlflow, tables, tensorboard, wandb
from cupel.record.exchange.foreign import Foreign
from cupel.record.exchange.intake import IMPORTED

Kind = Literal["tensorboard", "wandb", "mlflow", "csv", "jsonl", "parquet", "zip"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".zip": "zip",
    ".wandb": "wandb",
}


def import_runs(
    path: str | Path,
    *,
    kind: Kind | None = None,
    root: str | Path | None = None,
    project: str | None = None,
    step: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Import every run that a file or a folder holds; returns the folders of the new runs.

    `kind` is found out from the content when it is not given. `project` is by default the other
    tool's own, else `imported`. `step` names a table's column of steps. Raises RecordError when
    nothing new was imported: all is imported already, or nothing readable is there.
    """
    path, tell = Path(path), tell or _tell
    root = layout.record_root(root)
    if project is not None:
        layout.check_name("project", project)
    try:
        kind = kind or _kind_of(path)
        if kind not in KINDS:
            raise UsageError(f"'{kind}' is no kind of import; there are: {', '.join(KINDS)}")
        if step is not None and kind not in get_args(tables.TableKind):
            raise UsageError(f"step= names a column of a table; {path.name} is of kind {kind}")
        files.sweep(root)
        if kind == "zip":
            return [archive.unpack(path, root, project)]
        return _take_all(_runs(path, kind, step, tell), path, root, project, tell)
    except OSError as error:
        raise RecordError(
            f"cannot import {path}: {error.strerror or error} ({error.filename or path})"
        ) from error


def _runs(
    path: Path, kind: Kind, step: str | None, tell: Callable[[str], None]
) -> Iterator[Foreign]:
    if kind == "tensorboard":
        yield from tensorboard.runs_in(path)
    elif kind == "wandb":
        yield from wandb.runs_in(path, tell)
    elif kind == "mlflow":
        for database in [path] if path.is_file() else _databases(path):
            yield from mlflow.runs_in(database, tell)
    elif kind in ("csv", "jsonl", "parquet"):
        yield tables.run_of(path, kind, step)


def _take_all(
    runs: Iterator[Foreign],
    path: Path,
    root: Path,
    project: str | None,
    tell: Callable[[str], None],
) -> list[Path]:
    before = list(_imported(root))
    known = {(tool, sha): place for tool, sha, _, place in before}
    states = {(tool, own): place for tool, _, own, place in before if own}
    new: list[Path] = []
    refused: list[str] = []
    for run in runs:
        if place := known.get((run.tool, run.sha256)):
            refused.append(f"{run.source} ({run.name}) is imported already, as {place}")
            continue
        try:
            folder = intake.take_in(run, root, project or intake.fitting(run.project))
        except RecordError as error:
            refused.append(str(error))
            continue
        new.append(folder)
        place = f"{folder.parent.name}/{folder.name}"
        known[run.tool, run.sha256] = place
        for line in intake.told(run):
            tell(line)
        if run.foreign_id and (earlier := states.get((run.tool, run.foreign_id))):
            tell(f"{place} is another state of {earlier}, which is left as it is")
    if not new:
        rest = f" (and {len(refused) - 1} more like this)" if len(refused) > 1 else ""
        raise RecordError(f"{refused[0]}{rest}" if refused else f"{path} holds no runs to import")
    for line in refused:
        tell(line)
    return new


def _imported(root: Path) -> Iterator[tuple[str, str, str | None, str]]:
    """Tool, hash, the tool's own id, and the place of every run that was imported."""
    for folder in layout.run_dirs(root):
        try:
            origin = files.read_json(folder / layout.RUN).get(IMPORTED)
        except RecordError:
            continue
        if isinstance(origin, dict):
            place = f"{folder.parent.name}/{folder.name}"
            yield str(origin.get("tool")), str(origin.get("sha256")), origin.get("id"), place


def _kind_of(path: Path) -> Kind:
    """The kind of a file by how it begins or is called, of a folder by what is in it."""
    if path.is_dir():
        return _kind_of_folder(path)
    with path.open("rb") as file:
        head = file.read(16)
    beginnings: dict[bytes, Kind] = {
        mlflow.HEADER: "mlflow",
        archive.HEADER: "zip",
        wandb.HEADER[:4]: "wandb",
        b"PAR1": "parquet",
    }
    for beginning, kind in beginnings.items():
        if head.startswith(beginning):
            return kind
    if tensorboard.MARK in path.name:
        return "tensorboard"
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    raise RecordError(f"cannot tell what {path.name} is; give kind=, one of: {', '.join(KINDS)}")


def _kind_of_folder(path: Path) -> Kind:
    found: list[Kind] = []
    if any(tensorboard.is_event_file(file) for file in path.rglob(f"*{tensorboard.MARK}*")):
        found.append("tensorboard")
    if next(path.rglob("*.wandb"), None):
        found.append("wandb")
    if _databases(path):
        found.append("mlflow")
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(f"{path} holds runs of {' and '.join(found)}; say which with kind=")
    if next(path.glob("*/*/meta.yaml"), None) or next(path.glob("*/meta.yaml"), None):
        raise RecordError(
            f"{path} is a file store of MLflow, which is not read here; make a database of it: "
            f"mlflow migrate-filestore --source {path.parent} --target sqlite:///mlflow.db"
        )
    raise RecordError(
        f"{path} holds no event files of TensorBoard, no .wandb files and no database of MLflow; "
        "give the file itself for csv, jsonl, parquet or zip"
    )


def _databases(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.db")) if mlflow.is_database(path)]


def _tell(line: str) -> None:
    sys.stderr.write(f"cupel: {line}\n")
