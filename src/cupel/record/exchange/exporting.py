"""Hands a run to other tools: `export_run`.

TensorBoard event files, CSV, JSON lines and Parquet hold the metrics of rank 0, each line that
counts with its own step and time; a zip file holds the whole run, for `import_runs` elsewhere.
What was left out is told in one line on stderr, unless `tell` is given.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout
from cupel.record.exchange import archive, tables_export, tensorboard, tensorboard_export
from cupel.record.exchange.points import Lines

Kind = Literal["tensorboard", "csv", "jsonl", "parquet", "zip"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_LAST_SECOND = 253402300800  # of the year 9999: TensorBoard shows times as dates
_TABLES = {
    "csv": tables_export.write_csv,
    "jsonl": tables_export.write_jsonl,
    "parquet": tables_export.write_parquet,
}


def export_run(
    run_dir: str | Path,
    path: str | Path,
    *,
    kind: Kind,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write a run as a file of another kind; returns the file.

    For `tensorboard` the path is a folder, as TensorBoard wants it, else the file. The file appears
    whole or not at all. Raises RecordError when there is one already, when the run cannot be read
    and when the disk refuses.
    """
    run_dir, path, tell = Path(run_dir), Path(path), tell or _tell
    if kind not in KINDS:
        raise UsageError(f"'{kind}' is no kind of export; there are: {', '.join(KINDS)}")
    if not (run_dir / layout.RUN).is_file():
        raise RecordError(f"{run_dir} is not the folder of a run: there is no {layout.RUN} in it")
    try:
        if kind == "tensorboard":
            return _tensorboard(run_dir, path, tell)
        if path.exists():
            raise RecordError(f"{path} exists already; delete it, or choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "zip":
            return _zip(run_dir, path, tell)
        lines = Lines(run_dir)
        written = _written(path, lambda file: _TABLES[kind](file, lines))
        _tell_of_lines(lines, tell)
        return written
    except OSError as error:
        raise RecordError(
            f"cannot export to {path}: {error.strerror or error} ({error.filename or path})"
        ) from error


def _tensorboard(run_dir: Path, folder: Path, tell: Callable[[str], None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    there = next((file.name for file in folder.iterdir() if tensorboard.MARK in file.name), None)
    if there:
        raise RecordError(
            f"{folder} holds an event file already ({there}), and TensorBoard would show both as "
            "one run; choose an empty folder"
        )
    lines = Lines(run_dir)
    record = lines.record
    try:
        config = record.config
    except RecordError as error:
        config = {}
        tell(f"without hyperparameters: {error}")
    created = record.created if 0 <= record.created < _LAST_SECOND else 0.0
    name = f"events.out.{tensorboard.MARK}.{int(created):010d}.{run_dir.name}.cupel"
    left_out: Counter[str] = Counter()

    def write(file: BinaryIO) -> None:
        left_out.update(
            tensorboard_export.write(
                file, lines, created=created, config=config, status=record.status
            )
        )

    written = _written(folder / name, write)
    for kind, count in left_out.items():
        tell(f"{run_dir.name}: left out, as TensorBoard's scalars cannot be them: {count} {kind}")
    _tell_of_lines(lines, tell)
    return written


def _zip(run_dir: Path, path: Path, tell: Callable[[str], None]) -> Path:
    left_out: list[str] = []
    written = _written(path, lambda file: left_out.extend(archive.pack(run_dir, file)))
    if left_out:
        tell(f"{run_dir.name}: left out (links and names that are no text): {', '.join(left_out)}")
    if Lines(run_dir).record.status == "running":
        tell(f"{run_dir.name} is running: the archive holds it as it was while it was packed")
    return written


def _written(path: Path, write: Callable[[BinaryIO], None]) -> Path:
    """Write a file beside its place, wait for the disk, and give it its name."""
    temporary = path.with_name(files.temporary_name("export"))
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # Ctrl-C too leaves no temporary
        temporary.unlink(missing_ok=True)
        raise
    files.sync_folder(path.parent)
    return path


def _tell_of_lines(lines: Lines, tell: Callable[[str], None]) -> None:
    name = lines.record.run_id
    if lines.damaged:
        tell(f"{name}: {lines.damaged} damaged lines of metrics are left out")
    if ranks := lines.further_ranks():
        tell(f"{name}: only rank 0 is exported; other ranks have {ranks} files of metrics")


def _tell(line: str) -> None:
    sys.stderr.write(f"cupel: {line}\n")
