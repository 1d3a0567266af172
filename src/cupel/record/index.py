"""All runs as rows of one table, from a cache that is asked with two stats a run: `table`.

    root/.cache/index.msgpack    the rows of runs that have ended

A row of an ended run holds until its run.json is replaced (edited tags, a resume) or a session is
added; a run that lives is looked at each time (about 3 ms, of a large one what was added). Without
the cache, where it is damaged, or cannot be written, everything is the same but slower: 10,000 runs
take about 0.3 s with it, and without 3 s, or 15 s from a disk (six small files a run, each opened
once). Damaged runs have rows too, with `problem`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from cupel.errors import RecordError, UnknownName
from cupel.record import compaction, files, filters, layout
from cupel.record.metrics import Metrics
from cupel.record.reader import RunRecord, SessionInfo, Status, holds_part_of_a_run
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
_FIRST, _QUICK_S = 50, 0.001  # runs that are timed; a run of 0.5 ms lies in memory
_AT_ONCE = 8
_LONGEST_LIST = 32  # values of a list in a configuration; longer ones are no column

Row = dict[str, Any]
Signature = tuple[int, int, int, int]
_Place = tuple[Path, str, Signature | None]  # a run's folder, its key, and its state


class _Entry(msgspec.Struct, array_like=True, gc=False):
    signature: Signature
    row: Row


class _Cached(msgspec.Struct):
    format: int
    entries: dict[str, _Entry]


class _Moment(RunRecord):
    """A record as it is now: of what the row of an ended run needs, each file is read once."""

    @cached_property
    def sessions(self) -> list[SessionInfo]:
        return super().sessions

    @cached_property
    def results(self) -> dict[str, Any] | None:
        return super().results

    @property
    def status(self) -> Status:
        if self.problem:
            return "damaged"
        if self.has_results():
            return "finished"
        return self.sessions[-1].status if self.sessions else "crashed"

    def has_results(self) -> bool:
        """Whether results were accepted, also where they cannot be read."""
        try:
            return self.results is not None
        except RecordError:
            return True

    def events(self, *, rank: int = 0) -> list[dict[str, Any]]:
        if rank not in self._told:
            self._told[rank] = super().events(rank=rank)
        return self._told[rank]

    @cached_property
    def _told(self) -> dict[int, list[dict[str, Any]]]:
        return {}


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

    def rows(
        self, project: str | None = None, *, tell: Callable[[str], object] = lambda run: None
    ) -> list[Row]:
        """The rows of all runs, newest first, as they are now.

        `tell` hears of each run whose files are read.
        """
        rows: list[Row] = []
        seen: set[str] = set()
        changed = False
        unknown: list[_Place] = []
        for run_dir in layout.run_dirs(self.root, project):
            key = f"{run_dir.parent.name}/{run_dir.name}"
            seen.add(key)
            now, entry = _signature(run_dir), self._entries.get(key)
            if now is not None and entry is not None and entry.signature == now:
                rows.append(entry.row)
            else:
                unknown.append((run_dir, key, now))
        with contextlib.closing(self._all_looked_at(unknown, tell)) as looked_at:
            for (_, key, now), (row, over) in looked_at:
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

    def _all_looked_at(
        self, places: Sequence[_Place], tell: Callable[[str], object]
    ) -> Generator[tuple[_Place, tuple[Row | None, bool]]]:
        """Of each run what `_looked_at` says; several at once where the disk is waited for."""
        begun, some = time.perf_counter(), places[:_FIRST]
        for place in some:
            tell(place[1])
            yield place, self._looked_at(place)
        rest = places[_FIRST:]
        if not rest:
            return
        if time.perf_counter() - begun < _FIRST * _QUICK_S:  # threads would cost a quarter more
            for place in rest:
                tell(place[1])
                yield place, self._looked_at(place)
            return
        with ThreadPoolExecutor(_AT_ONCE, "cupel-table") as pool:
            try:
                for place, found in zip(rest, pool.map(self._looked_at, rest), strict=True):
                    tell(place[1])
                    yield place, found
            finally:  # after Ctrl-C the runs that wait are not read
                pool.shutdown(cancel_futures=True)

    def _looked_at(self, place: _Place) -> tuple[Row | None, bool]:
        """A run's row, and whether it stays so; no row for a folder that holds nothing of a run."""
        run_dir, key, _ = place
        record = _Moment(run_dir)
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
    last. A name is that of a field, where the run has it, or else of `config`, then of `summary`; a
    name that is no field's is one of `summary`, then of `config`. `summary.…` and `config.…` say
    which is meant. Raises UsageError for a filter that cannot be read, and UnknownName for a
    name that no run has.
    """
    where = filters.parse(where) if isinstance(where, str) else where  # before any run is read
    return chosen((index or Index(root)).rows(project), where=where, sort=sort)


def chosen(
    rows: list[Row], *, where: str | filters.Filter | None = None, sort: str | None = None
) -> list[Row]:
    """Of some rows those that a filter means, as they come or in the order of a column.

    As `table`, which says what is raised.
    """
    wanted = filters.parse(where) if isinstance(where, str) else where
    asked = wanted.names() if wanted else set()
    check_names(sorted(asked | ({sort.removeprefix("-")} if sort else set())), rows)
    if wanted:
        rows = [row for row in rows if wanted.matches(partial(value, row))]
    if sort:
        rows = _sorted(rows, sort.removeprefix("-"), backwards=sort.startswith("-"))
    return rows


def value(row: Row, name: str) -> Any:
    """What a row has under a name of a field, a summary or a configuration; None for nothing."""
    field = _ALIASES.get(name, name)
    places = ("summary", "config")
    if field in FIELDS:
        if row[field] not in (None, []):
            return row[field]
        places = ("config", "summary")  # of a loop of one's own seed, arm … are settings
    else:
        place, _, inner = name.partition(".")
        if place in places and inner in row[place]:
            return row[place][inner]
    found = (row[place].get(name) for place in places)
    return next((one for one in found if one is not None), row.get(field))


def has(row: Row, name: str) -> bool:
    """Whether a row has something under a name, even if that is None; it has all fields."""
    place, _, inner = name.partition(".")
    return (
        name in FIELDS
        or name in _ALIASES
        or name in row["summary"]
        or name in row["config"]
        or (place in ("summary", "config") and inner in row[place])
    )


def shadowed(rows: Iterable[Row], asked: Iterable[str]) -> list[str]:
    """How to ask for settings and metrics of the rows that are called like fields asked for."""
    rows, fields = list(rows), [name for name in asked if name in FIELDS or name in _ALIASES]
    return [
        f"{place}.{name}"
        for name in sorted(fields)
        for place in ("config", "summary")
        if any(name in row[place] for row in rows)
    ]


def check_names(asked: Iterable[str], rows: Sequence[Row]) -> None:
    """Refuse a name that no run has, unless there are no runs: it is a mistake in typing."""
    for name in asked if rows else ():
        if not any(has(row, name) for row in rows):
            raise UnknownName("column", name, names(rows))


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
