"""All runs as rows of one table, from a cache that is asked with two stats a run: `table`.

    root/.cache/index.msgpack    the rows of runs that have ended

A row of an ended run holds until its run.json is replaced (edited tags, a resume) or a session is
added; a run that lives is looked at each time (about 3 ms, of a large one what was added). Without
the cache, where it is damaged, or cannot be written, everything is the same but slower: 10,000 runs
take about 0.3 s with it, and 1.5 ms each without. Damaged runs have rows too, with `problem`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from cupel.errors import RecordError, UnknownName
from cupel.record import compaction, files, filters, layout
from cupel.record.metrics import Metrics
from cupel.record.reader import RunRecord, SessionInfo, holds_part_of_a_run
from cupel.record.summary import summarise

FORMAT = 1
FIELDS = (
    "id", "project", "name", "status", "created", "step", "sessions", "seconds", "tags", "notes",
    "group", "study", "arm", "point", "seed", "about", "workload", "identity", "problem",
)  # fmt: skip

_FILE = "index.msgpack"
_ALIASES = {"run": "id", "tag": "tags"}
_RECORDED = ("group", "study", "arm", "point", "seed", "about", "workload")
_DIGEST = 16
_LONGEST_LIST = 32  # values of a list in a configuration; longer ones are no column

Row = dict[str, Any]
Signature = tuple[int, int, int, int]


class _Entry(msgspec.Struct, array_like=True, gc=False):
    signature: Signature
    row: Row


class _Cached(msgspec.Struct):
    format: int
    entries: dict[str, _Entry]


class Index:
    """The rows of one root; kept alive, it looks only at what has changed since it was asked.

    A row holds `FIELDS` (None for what was not recorded), `config` with dotted names, and
    `summary`: the run's summary, and over it the numbers of its accepted results. Rows are shared:
    copy one to change it.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = layout.record_root(root)
        self._entries: dict[str, _Entry] = _read(self._path)
        self._live: dict[str, Metrics] = {}

    @property
    def _path(self) -> Path:
        return self.root / layout.CACHE / _FILE

    def rows(self, project: str | None = None) -> list[Row]:
        """The rows of all runs, newest first, as they are now."""
        rows: list[Row] = []
        seen: set[str] = set()
        changed = False
        for run_dir in layout.run_dirs(self.root, project):
            key = f"{run_dir.parent.name}/{run_dir.name}"
            seen.add(key)
            now, entry = _signature(run_dir), self._entries.get(key)
            if now is not None and entry is not None and entry.signature == now:
                rows.append(entry.row)
                continue
            row, over = self._looked_at(run_dir, key)
            if row is None:
                continue
            rows.append(row)
            if now is not None and over and _can_be_kept(key, row):
                self._entries[key] = _Entry(now, row)
                self._live.pop(key, None)
                changed = True
        gone = [key for key in self._entries if key not in seen and _is_of(key, project)]
        for key in gone:
            del self._entries[key]
            compaction.discard(self.root, *key.split("/", 1))
        for key in [key for key in self._live if key not in seen and _is_of(key, project)]:
            del self._live[key]
        if changed or gone:
            self._keep()
        return sorted(rows, key=lambda row: (row["created"], row["id"]), reverse=True)

    def _looked_at(self, run_dir: Path, key: str) -> tuple[Row | None, bool]:
        """A run's row, and whether it stays so; no row for a folder that holds nothing of a run."""
        record = RunRecord(run_dir)
        if record.problem and not holds_part_of_a_run(run_dir):
            return None, False
        metrics = self._live.get(key)
        if metrics is None:
            metrics = Metrics(compaction.cache_folder(run_dir, record.run))
        sessions = record.sessions
        row = _row(record, sessions, metrics)
        over = not record.problem and bool(sessions) and sessions[-1].is_over
        if not over:
            self._live[key] = metrics
        return row, over

    def _keep(self) -> None:
        """Write the cache; a root that is read-only or full has none."""
        body = msgspec.msgpack.encode(_Cached(FORMAT, self._entries))
        temporary = self._path.with_name(files.temporary_name(_FILE))
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            try:
                temporary.write_bytes(blake2b(body, digest_size=_DIGEST).digest() + body)
                temporary.replace(self._path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            files.sweep(self._path.parent)


def table(
    root: str | Path | None = None,
    *,
    project: str | None = None,
    where: str | filters.Filter | None = None,
    sort: str | None = None,
    index: Index | None = None,
) -> list[Row]:
    """The rows of the runs that a filter means, newest first, or in the order of a column.

    `sort="val_loss"` begins with the least, `"-val_loss"` with the greatest; runs without it come
    last. Names are `FIELDS`, then names of `summary`, then of `config`; `summary.…` and `config.…`
    say which is meant. Raises UsageError for a filter that cannot be read, and UnknownName for a
    name that no run has.
    """
    wanted = filters.parse(where) if isinstance(where, str) else where
    rows = (index or Index(root)).rows(project)
    asked = wanted.names() if wanted else set()
    _check_names(asked | ({sort.removeprefix("-")} if sort else set()), rows)
    if wanted:
        rows = [row for row in rows if wanted.matches(partial(value, row))]
    if sort:
        rows = _sorted(rows, sort.removeprefix("-"), backwards=sort.startswith("-"))
    return rows


def value(row: Row, name: str) -> Any:
    """What a row has under a name of a field, a summary or a configuration; None for nothing."""
    name = _ALIASES.get(name, name)
    if name in FIELDS:
        return row[name]
    place, _, inner = name.partition(".")
    if place in ("summary", "config") and inner in row[place]:
        return row[place][inner]
    found = row["summary"].get(name)
    return row["config"].get(name) if found is None else found


def names(rows: Iterable[Row]) -> list[str]:
    """Every name that some of the rows have, fields first."""
    found = dict.fromkeys(FIELDS)
    for place in ("summary", "config"):
        for row in rows:
            found.update(dict.fromkeys(row[place]))
    return list(found)


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with dotted names: `{"train": {"lr": 1}}` is `{"train.lr": 1}`."""
    flat: dict[str, Any] = {}
    for name, item in config.items():
        if isinstance(item, Mapping) and item:
            flat |= {f"{name}.{inner}": found for inner, found in flattened(item).items()}
        elif not isinstance(item, list) or len(item) <= _LONGEST_LIST:
            flat[name] = item
    return flat


def _row(record: RunRecord, sessions: list[SessionInfo], metrics: Metrics) -> Row:
    problem = record.problem
    try:
        results = record.results or {}
    except RecordError as error:
        results, problem = {}, problem or str(error)
    try:
        config = flattened(record.config)
    except (RecordError, RecursionError) as error:
        config, problem = {}, problem or str(error)
    found = summarise(metrics, sessions, record.events())
    final, step = results.get("final"), results.get("step")
    numbers = final.items() if isinstance(final, dict) else ()
    run = record.run
    tags = run.get("tags")
    return {
        "id": record.run_id,
        "project": record.run_dir.parent.name,
        "name": run.get("name"),
        "status": record.status,
        "created": record.created,
        "step": step if isinstance(step, int) else found.step,
        "sessions": len(sessions),
        "seconds": sum(map(_seconds, sessions)),
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
        "notes": run.get("notes") or None,
        **{name: run.get(name) for name in _RECORDED},
        "identity": record.identity,
        "problem": problem,
        "summary": found.values | {k: v for k, v in numbers if isinstance(v, int | float)},
        "config": config,
    }


def _seconds(session: SessionInfo) -> float:
    """From a session's start to its end, or to the last sign of it."""
    started, ended = session.started, session.ended
    if not isinstance(started, int | float):
        return 0.0
    if not isinstance(ended, int | float):
        try:
            ended = (session.dir / layout.heartbeat_name()).stat().st_mtime
        except OSError:
            return 0.0
    return max(0.0, ended - started)


def _sorted(rows: list[Row], name: str, *, backwards: bool) -> list[Row]:
    """Numbers before texts, and what is missing or NaN last, either way."""
    placed = [(value(row, name), row) for row in rows]
    there = [(found, row) for found, row in placed if not _is_missing(found)]
    there.sort(key=lambda pair: _order(pair[0]), reverse=backwards)
    return [row for _, row in there] + [row for found, row in placed if _is_missing(found)]


def _order(found: Any) -> tuple[int, float, str]:
    if isinstance(found, int | float):
        return 0, found, ""
    return 1, 0.0, ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _is_missing(found: Any) -> bool:
    return found is None or (isinstance(found, float) and math.isnan(found))


def _check_names(asked: set[str], rows: list[Row]) -> None:
    """Refuse a name that no run has, unless there are no runs: it is a mistake in typing."""
    unknown = asked - set(FIELDS) - _ALIASES.keys()
    for name in sorted(unknown) if rows else ():
        if all(value(row, name) is None for row in rows):
            raise UnknownName("column", name, names(rows))


def _signature(run_dir: Path) -> Signature | None:
    """What changes whenever an ended run's row may: run.json is replaced, or a session begins."""
    try:
        run = os.stat(f"{run_dir}/{layout.RUN}")  # noqa: PTH116 - 20,000 of them
        sessions = os.stat(f"{run_dir}/{layout.SESSIONS}")  # noqa: PTH116
    except OSError:
        return None
    return run.st_size, run.st_mtime_ns, run.st_ino, sessions.st_mtime_ns


def _can_be_kept(key: str, row: Row) -> bool:
    try:
        msgspec.msgpack.encode((key, row))
    except (UnicodeEncodeError, OverflowError):  # a name that is no text, a number of 30 digits
        return False
    return True


def _is_of(key: str, project: str | None) -> bool:
    return project is None or key.startswith(f"{project}/")


def _read(path: Path) -> dict[str, _Entry]:
    """The entries of a cache; none where it is absent, damaged or of another version."""
    try:
        content = path.read_bytes()
        digest, body = content[:_DIGEST], content[_DIGEST:]
        if blake2b(body, digest_size=_DIGEST).digest() != digest:
            return {}
        cached = msgspec.msgpack.decode(body, type=_Cached)
    except (OSError, ValueError, RecursionError):
        return {}
    return cached.entries if cached.format == FORMAT else {}
