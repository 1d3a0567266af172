"""Reads the runs of an MLflow SQLite database, without MLflow and without changing a byte.

Metrics come in the order in which they were written, with their times in milliseconds; those of
one step and one millisecond are one line. MLflow itself stores NaN as a flag, and infinities as
±1.7976931348623157e308, which are made infinities again: a metric that truly was the largest float
cannot be told from one. Parameters are texts there; a text that is exactly how Python prints a
number, True, False or None becomes that. Artifacts, data sets, models, traces and deleted runs are
left out. Source: the schema of mlflow 3.17.2, mlflow/store/tracking/sqlalchemy_store.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError
from cupel.record.exchange import foreign
from cupel.record.exchange.foreign import Foreign, Item, Point

HEADER = b"SQLite format 3\0"

_LARGEST = sys.float_info.max
_STATUS: dict[str, Literal["finished", "failed", "interrupted"]] = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
}
_METRICS = (
    "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY rowid"
)
_RUNS = """
    SELECT r.run_uuid, r.name, r.status, r.start_time, r.end_time, e.name
    FROM runs r LEFT JOIN experiments e ON e.experiment_id = r.experiment_id
    WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.rowid
"""


def is_database(path: Path) -> bool:
    """Whether the file begins like one of SQLite's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


def runs_in(path: Path, tell: Callable[[str], None]) -> list[Foreign]:
    """All runs of a database that are not deleted, oldest first."""
    with _reading(path) as database:
        rows = database.execute(_RUNS).fetchall()
        (deleted,) = database.execute(
            "SELECT count(*) FROM runs WHERE lifecycle_stage <> 'active'"
        ).fetchone()
        if deleted:
            tell(f"{path.name}: {deleted} runs that were deleted in MLflow are left out")
        return [_run(database, path, row) for row in rows]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Whatever SQLite finds wrong becomes a RecordError."""
    try:
        with contextlib.closing(sqlite3.connect(_uri(path), uri=True)) as database:
            database.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
            yield database
    except (sqlite3.Error, UnicodeError, OverflowError) as error:  # its messages may be no text
        raise RecordError(
            f"cannot read {path.name} as a database of MLflow: {error}; if a server has it open or "
            "was killed, stop it and open the database once with mlflow"
        ) from error


def _uri(path: Path) -> str:
    """How to open a database so that neither it nor its folder is changed.

    In WAL mode even a reader makes files beside the database, unless it is promised that nobody
    writes; a log that is absent or empty is that promise, since the last who closes removes it.
    """
    with path.open("rb") as file:
        head = file.read(20)
    log = path.with_name(f"{path.name}-wal")
    in_wal_mode = len(head) == 20 and head[18] == 2
    still = in_wal_mode and not (log.exists() and log.stat().st_size)
    return f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"


def _run(database: sqlite3.Connection, path: Path, row: tuple[Any, ...]) -> Foreign:
    run_uuid, name, status, started, ended, experiment = row
    params = _pairs(database, "params", run_uuid)
    tags = _pairs(database, "tags", run_uuid)
    name = str(name or tags.get("mlflow.runName") or run_uuid)
    commit = tags.get("mlflow.source.git.commit")
    outcome = _STATUS.get(str(status), "interrupted")
    return Foreign(
        tool="mlflow",
        name=name,
        source=path.name,
        sha256=_hash(database, run_uuid, params),
        points=lambda run: _points(run, path, run_uuid),
        version=_revision(database),
        project=None if experiment is None else str(experiment),
        foreign_id=str(run_uuid),
        created=_seconds(started),
        ended=_seconds(ended),
        status=outcome,
        error=None if outcome == "finished" else f"MLflow says {status}",
        notes=tags.get("mlflow.note.content", ""),
        tags=_tags(tags),
        config={key: _typed(text) for key, text in params.items()},
        facts={"git": {"commit": commit}} if commit else {},
    )


def _pairs(database: sqlite3.Connection, table: str, run_uuid: Any) -> dict[str, str]:
    query = f"SELECT key, value FROM {table} WHERE run_uuid = ? ORDER BY rowid"
    return {str(key): str(value or "") for key, value in database.execute(query, (run_uuid,))}


def _tags(tags: dict[str, str]) -> list[str]:
    own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
    return [f"{key}={value}" if value else key for key, value in own.items()]


def _revision(database: sqlite3.Connection) -> str | None:
    row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return f"database revision {row[0]}" if row else None


def _hash(database: sqlite3.Connection, run_uuid: Any, params: dict[str, str]) -> str:
    """What identifies the content: the run's id, its parameters and metrics, as lines of JSON."""
    digest = sha256(json.dumps([str(run_uuid), params]).encode())
    for row in database.execute(_METRICS, (run_uuid,)):
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _points(run: Foreign, path: Path, run_uuid: Any) -> Iterator[Item]:
    point: Point | None = None
    with _reading(path) as database:
        for key, value, timestamp, step, is_nan in database.execute(_METRICS, (run_uuid,)):
            number = _number(value, is_nan)
            if number is None or not isinstance(step, int) or not isinstance(timestamp, int):
                run.damaged += 1
                continue
            key, t = foreign.own_key(str(key)), timestamp / 1000
            if point and (point.step, point.t) == (step, t) and key not in point.metrics:
                point.metrics[key] = number
                continue
            if point:
                yield point
            point = Point(step, t, {key: number})
    if point:
        yield point


def _number(value: Any, is_nan: Any) -> float | None:
    if is_nan:
        return math.nan
    if not isinstance(value, int | float):
        return None
    number = float(value)
    return math.copysign(math.inf, number) if abs(number) == _LARGEST else number


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) else None


def _typed(text: str) -> Any:
    """The value that Python prints as exactly this text, or the text."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if str(value) == text and foreign.recordable(value):
                return value
    return text
