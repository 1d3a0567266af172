"""Writes a study as tables for statistics: `export_study`, Parquet or CSV with a data dictionary.

    runs.parquet              a row a run: its settings, what it came to, on what
    attempts.parquet          a row a session
    trajectories/<arm>.parquet    every number that was logged: run_id, step, time, key, value
    deviations.parquet        the same of runs that never count, where there are any
    dictionary.json, dictionary.md    what every column means; size and SHA-256 of every file

Numbers are those of the record, bit for bit: a rate of 0.1 is the float64 0.1, NaN is NaN and what
is not there is null. The same records give the same bytes (of one version of polars). Read and
written arm by arm, so that memory holds the numbers of one arm (about 60 bytes each). What is no
number (arrays, text) is not in the trajectories; nor are other ranks than 0.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from cupel.errors import RecordError, UnknownName
from cupel.names import refusal
from cupel.record import compaction, files, layout
from cupel.record.exchange.tables import needed_polars
from cupel.record.metrics import Metrics
from cupel.record.reader import RunRecord
from cupel.studies.completeness import Standings, environment_of
from cupel.studies.dictionary import (
    ATTEMPT_COLUMNS,
    POINT_COLUMNS,
    RUN_COLUMNS,
    Column,
    Described,
    as_json,
    as_markdown,
    flat,
    meanings,
)
from cupel.studies.export_rows import (
    ExportedRun,
    Row,
    as_json_text,
    attempt_row,
    changes_of,
    deviations_of,
    differing,
    free_name,
    results_of,
    text,
    typed,
    whole,
)
from cupel.studies.manifest import Manifest
from cupel.studies.runs import read_runs

Format = Literal["parquet", "csv", "both"]
FORMATS: tuple[Format, ...] = get_args(Format)

FOLDER = "export"  # in the study's folder
DICTIONARY, TEXT = "dictionary.json", "dictionary.md"
TRAJECTORIES = "trajectories"
DEVIATION = "deviation"


@dataclass(frozen=True, slots=True)
class Exported:
    """An export as it lies on disk: its folder, its files (relative), rows by table."""

    folder: Path
    files: tuple[str, ...]
    rows: Mapping[str, int]


def export_study(
    manifest: Manifest,
    folder: Path | None = None,
    *,
    format: Format = "parquet",
    tell: Callable[[str], object] = lambda doing: None,
) -> Exported:
    """Write the study into a folder (None: `export/` in its own), in place of an older export.

    The folder appears whole, or stays as it was. `tell` hears of each run. Raises RecordError when
    the folder holds anything but an export of this study or the disk refuses, MissingDependency
    without polars.
    """
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    polars = needed_polars("exporting a study")
    target = (manifest.folder / FOLDER if folder is None else folder).absolute()
    target = target.resolve()  # a link to another disk is its owner's choice
    _refuse_other(manifest, target)
    staged = target.parent / files.temporary_name(target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent == manifest.folder.resolve():
            files.sweep(target.parent)
        staged.mkdir()
        exported = _Export(manifest, staged, format, polars, tell).all()
        _refuse_other(manifest, target)  # somebody may have written into it meanwhile
        _replace(target, staged)
    except OSError as error:
        raise RecordError(
            f"cannot export to {target}: {error.strerror or error}; choose another folder with --to"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return replace(exported, folder=target)


def _refuse_other(manifest: Manifest, target: Path) -> None:
    """Raise RecordError for a folder whose contents are not an export of this study."""
    told = f"{target} is not an export of study {manifest.name}"
    if not target.exists():
        return
    if not target.is_dir():
        raise RecordError(f"{told}: it is no folder; choose another with --to")
    there = [path for path in target.rglob("*") if not path.is_dir() or path.is_symlink()]
    if not there:
        return
    try:
        found = files.read_json(target / DICTIONARY)
    except RecordError:
        why = f"it holds no {DICTIONARY} of one"
    else:
        of = (found.get("project"), found.get("study"), found.get("planned"))
        known = found.get("files")
        known = {*known, DICTIONARY, TEXT} if isinstance(known, dict) else set()
        strange = sorted({path.relative_to(target).as_posix() for path in there} - known)
        if of != (manifest.project, manifest.name, manifest.created):
            why = f"it is one of {of[0]}/{of[1]}, planned at another time or place"
        elif strange:
            why = f"it holds {strange[0]}, which no export wrote"
        else:
            return
    raise RecordError(f"{told}: {why}; choose another folder with --to, or empty it")


def _replace(target: Path, staged: Path) -> None:
    """Put a finished folder in the place of an older one."""
    files.sync_folder(staged)
    if not target.exists():
        staged.rename(target)
    else:
        old = target.with_name(files.temporary_name(f"old-{target.name}"))
        target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    files.sync_folder(target.parent)


class _Export:
    """One writing of all files into an empty folder."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        format: Format,
        polars: Any,
        tell: Callable[[str], object],
    ) -> None:
        self.manifest, self.folder, self.polars, self.tell = manifest, folder, polars, tell
        self.formats = ("parquet", "csv") if format == "both" else (format,)
        self.written: dict[str, dict[str, Any]] = {}
        self.deviations = list(deviations_of(manifest))

    def all(self) -> Exported:
        tables = [self._runs(), self._attempts(), *self._trajectories()]
        dictionary = as_json(self.manifest, tables, self.written)
        files.write_bytes(self.folder / TEXT, as_markdown(dictionary).encode())
        files.write_json(self.folder / DICTIONARY, dictionary)
        names = (*self.written, DICTIONARY, TEXT)
        return Exported(self.folder, names, {table.name: table.rows for table in tables})

    def _planned(self, arm: str | None = None) -> Iterator[ExportedRun]:
        for run in self.manifest.runs:
            if arm in (None, run.arm):
                record = RunRecord(self.manifest.run_dir(run))
                yield ExportedRun(run, record, self.manifest.config_of(run))

    def _runs(self) -> Described:
        rows: list[Row] = []
        final: dict[str, list[Any]] = {}
        settings: dict[str, list[Any]] = {}
        named = differing([*(c.config for c in self.manifest.cells), *self._other_configs()])
        standings = Standings(self.manifest)
        try:
            for number, run in enumerate(chain(self._planned(), self.deviations)):
                self.tell(run.planned.run_id)
                row, results = self._row(run, standings)
                rows.append(row)
                own = dict(flat(run.config))
                for name in named:
                    settings.setdefault(name, []).append(own.get(name))
                values = results.get("final")
                for key, value in values.items() if isinstance(values, Mapping) else ():
                    column = final.setdefault(key, [])
                    column += [None] * (number - len(column))
                    column.append(value)
        finally:
            standings.close()
        for column in final.values():
            column += [None] * (len(rows) - len(column))
        columns = [one for one in RUN_COLUMNS if one.name != "fold" or self.manifest.study.folds]
        about = meanings(self.manifest)
        made = {name: ("", about.get(name, "a setting of the workload")) for name in settings}
        told = {key: ("final.", f"{key} in the accepted results, as logged") for key in final}
        for given, words in ((settings, made), (final, told)):
            for key in sorted(given):
                prefix, meaning = words[key]
                kind, values = typed(given[key])
                name = free_name(
                    f"{prefix}{key}", columns, "setting" if given is settings else "final"
                )
                columns.append(Column(name, kind, meaning))
                for row, value in zip(rows, values, strict=True):
                    row[name] = value
        table = Described("runs", "A row a run, in the order of the plan.", columns)
        self._write("runs", self._frame(columns, rows), table)
        return table

    def _other_configs(self) -> Iterator[Mapping[str, Any]]:
        return (run.config for run in self.deviations)

    def _row(self, run: ExportedRun, standings: Standings) -> tuple[Row, Mapping[str, Any]]:
        """What runs.parquet says of a run, but for its settings and metrics; and its results."""
        planned, record, manifest = run.planned, run.record, self.manifest
        (found,) = read_runs(replace(manifest, runs=(planned,)))
        stands = None if run.of else standings.of(planned, record)
        results = results_of(record)
        session = whole(results.get("accepted_session"))
        facts = environment_of(record, session)
        git = facts.get("git")
        git = git if isinstance(git, Mapping) else {}
        row = {
            "study": manifest.name,
            "arm": planned.arm or None,
            "point": planned.point,
            "fold": planned.fold,
            "seed": whole(run.config.get("seed")),
            "run_id": planned.run_id,
            "identity": planned.identity or None,
            "status": stands.state if stands else DEVIATION,
            "failure": stands.failure if stands else None,
            "reason": (stands.reason or None) if stands else None,
            "primary": manifest.study.primary.metric,
            "primary_last": found.last,
            "primary_best": found.best,
            "primary_best_step": found.best_step,
            "steps": found.steps,
            "attempts": len(layout.session_numbers(record.run_dir)),
            "accepted_session": session,
            "deviation_of": run.of,
            "changes": changes_of(record.run_dir),
            "wall_s": found.wall_s,
            "cpu_s": found.cpu_s,
            "git_commit": text(git.get("commit")),
            "git_dirty": git["dirty"] if isinstance(git.get("dirty"), bool) else None,
            "torch": text(facts.get("torch")),
            "host": text(facts.get("host")),
            "config_json": as_json_text(run.config),
        }
        return row, results

    def _attempts(self) -> Described:
        rows = [
            attempt_row(run.planned.run_id, run.record.run_dir, session)
            for run in chain(self._planned(), self.deviations)
            for session in run.record.sessions
        ]
        about = "A row a session: one process start within a run."
        table = Described("attempts", about, ATTEMPT_COLUMNS)
        self._write("attempts", self._frame(ATTEMPT_COLUMNS, rows), table)
        return table

    def _trajectories(self) -> Iterator[Described]:
        about = "Every number that was logged and counts, a row each; ordered by run, key, step."
        table = Described(TRAJECTORIES, about, POINT_COLUMNS)
        (self.folder / TRAJECTORIES).mkdir()
        for arm in dict.fromkeys(run.arm for run in self.manifest.runs):
            if why := refusal(arm):
                raise RecordError(f"the arm {arm!r} cannot be the name of a file: {why}")
            self._write(f"{TRAJECTORIES}/{arm}", self._points(self._planned(arm)), table)
        yield table
        if self.deviations:
            table = Described("deviations", f"{about} Of runs that never count.", POINT_COLUMNS)
            self._write("deviations", self._points(self.deviations), table)
            yield table

    def _points(self, runs: Iterable[ExportedRun]) -> Any:
        frames = [self._frame(POINT_COLUMNS, [])]
        for run in runs:
            self.tell(run.planned.run_id)
            frames += self._points_of(run.record)
        return self.polars.concat(frames)

    def _points_of(self, record: RunRecord) -> Iterator[Any]:
        """The points of each key of a run, which is one frame."""
        import numpy as np

        polars = self.polars
        cache = compaction.cache_folder(record.run_dir, record.run)
        logged = Metrics(cache).logged(record.sessions, 0)
        for key in sorted(set(logged.kinds()) - {"_t", "_step"}):
            curve = logged.curve(key)
            if not curve.pieces:
                continue
            series = curve.series()
            times = np.concatenate([p.column.rows.times[p.start : p.stop] for p in curve.pieces])
            named = (polars.lit(record.run_id).alias("run_id"), polars.lit(key).alias("key"))
            yield (
                polars.DataFrame({"step": series.x, "time": times, "value": series.y})
                .with_columns(*named, polars.col("time").fill_nan(None))
                .select([column.name for column in POINT_COLUMNS])
            )

    def _frame(self, columns: Sequence[Column], rows: Sequence[Row]) -> Any:
        polars = self.polars
        types = {
            "float64": polars.Float64,
            "int64": polars.Int64,
            "string": polars.String,
            "bool": polars.Boolean,
        }
        made = [
            polars.Series(one.name, [row[one.name] for row in rows], types[one.type], strict=True)
            for one in columns
        ]
        return polars.DataFrame(made)

    def _write(self, name: str, frame: Any, table: Described) -> None:
        for kind in self.formats:
            path = self.folder / f"{name}.{kind}"
            with path.open("xb") as file:
                if kind == "parquet":
                    frame.write_parquet(file, compression="zstd")
                else:
                    frame.write_csv(file)
                file.flush()
                os.fsync(file.fileno())
            place = path.relative_to(self.folder).as_posix()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.written[place] = {"bytes": path.stat().st_size, "sha256": digest}
            table.files.append(place)
        files.sync_folder((self.folder / name).parent)
        nulls = {column: int(frame[column].null_count()) for column in frame.columns}
        table.count(frame.height, nulls)
