"""What one run is, apart from its curves: `facts(store, key)`; and the end of what it printed.

A session's environment is compared with that of the one before it; of a run with hundreds of
sessions only the last 50 are told. Damage is told in `problem`, and what can be read is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from cupel.dashboard.replies import Number
from cupel.dashboard.store import OpenRun, Store
from cupel.dashboard.table import Cell, TableRow, brief, table_row, text
from cupel.errors import RecordError
from cupel.record import checkpoints, editing, environment, files, layout
from cupel.record.index import flattened
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.sides import goal_of
from cupel.record.summary import rule_of

MOST_SESSIONS = 50
MOST_LINES = 5000
LONGEST_LINE = 4000


class SessionFacts(msgspec.Struct):
    """One process start within a run."""

    number: int
    status: str
    started: Number | None
    """Unix seconds."""
    ended: Number | None
    """Null while it runs, and for ever after a kill."""
    start_step: int | None
    host: str | None
    pid: int | None
    seconds: Number | None
    """From its start to its end, or to its last sign of life."""
    lost: int
    """Lines that the disk did not take."""
    problems: dict[str, int]
    """What failed beside training, and how often."""
    error: str | None
    """What it ended with, if it failed."""
    changed: list[str]
    """What differs from the session before and may change bits."""


class MetricFacts(msgspec.Struct):
    """One metric of a run."""

    name: str
    kind: str
    """"int", "float", "bool", or "mixed"."""
    value: Cell
    """Its number in the summary; null when define_metric keeps it out of that."""
    rule: str
    """Which number that is: "last", "first", "min", "max", "mean", "none", or "set"."""
    goal: str | None
    """"min" or "max", where somebody said so."""


class Checkpoint(msgspec.Struct):
    """A complete checkpoint."""

    step: int
    best: list[str]
    """The metrics by which it is the best."""
    latest: bool
    pinned: bool


class Environment(msgspec.Struct):
    """On what and from what the newest session ran."""

    commit: str | None
    branch: str | None
    dirty: bool | None
    """Whether tracked files differed from the commit; null where nobody knows."""
    python: str | None
    torch: str | None
    platform: str | None
    cpu: str | None
    memory_bytes: int | None
    gpus: list[str]
    host: str | None
    command: list[str]
    packages: dict[str, str]


class RunFacts(msgspec.Struct):
    """What a run is."""

    row: TableRow
    problem: str | None
    notes: str
    config: dict[str, Any]
    settings: dict[str, Any]
    """The configuration with dotted names."""
    origins: dict[str, str]
    """Where each setting was written, of runs of recipes."""
    sessions: list[SessionFacts]
    metrics: list[MetricFacts]
    summary: dict[str, Any]
    results: dict[str, Any] | None
    checkpoints: list[Checkpoint]
    environment: Environment | None
    damaged_lines: int


class ConsoleTail(msgspec.Struct):
    """The end of what a run printed."""

    lines: list[str]
    whole: bool
    """Whether that is all of it."""


def facts(store: Store, key: str) -> RunFacts:
    """Everything that is told of a run on its page. Raises UnknownName."""
    row = store.row(key)
    with store.reading(key) as opened:
        record, sessions = opened.record, opened.sessions()
        problem = row["problem"]
        try:
            config = record.config
        except (RecordError, RecursionError) as error:
            config, problem = {}, problem or str(error)
        try:
            results = record.results
        except RecordError as error:
            results, problem = None, problem or str(error)
        summary = record.summary
        run = _run(record)
        return RunFacts(
            row=table_row(row),
            problem=problem,
            notes=editing.notes_of(run),
            config=plain(config),
            settings=plain(flattened(config)),
            origins=_origins(record.run_dir),
            sessions=_sessions(sessions),
            metrics=_metrics(opened, summary),
            summary=plain(summary),
            results=plain(results),
            checkpoints=_checkpoints(record.run_dir),
            environment=_environment(sessions),
            damaged_lines=record.damaged_lines,
        )


def console(store: Store, key: str, last: int) -> ConsoleTail:
    """The last lines of what a run printed. Raises UnknownName."""
    with store.reading(key) as opened:
        lines = opened.record.console(last=last + 1)
    cut = [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in lines]
    return ConsoleTail(cut[-last:], len(lines) <= last)


def _run(record: RunRecord) -> Mapping[str, Any]:
    """run.json as it is now; the record that is kept open has that of its opening."""
    try:
        return files.read_json(record.run_dir / layout.RUN)
    except RecordError:
        return record.run


def plain(value: Any) -> Any:
    """What a browser can hold: an integer beyond 2^53 becomes a text."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return brief(value) if isinstance(value, int) else value


def _origins(run_dir: Path) -> dict[str, str]:
    try:
        found = files.read_json(run_dir / layout.CONFIG).get("origins")
    except RecordError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {name: origin for name, origin in items if isinstance(origin, str)}


def _sessions(sessions: Sequence[SessionInfo]) -> list[SessionFacts]:
    told = sessions[-MOST_SESSIONS:]
    found = [_environment_of(session) for session in told]
    changes = [
        environment.changes(before, now) if before and now else []
        for before, now in pairwise([{}, *found])
    ]
    return [_session(session, change) for session, change in zip(told, changes, strict=True)]


def _session(session: SessionInfo, changed: list[str]) -> SessionFacts:
    problems = session.fields.get("problems")
    items = problems.items() if isinstance(problems, dict) else ()
    return SessionFacts(
        number=session.number,
        status=session.status,
        started=_number(session.started),
        ended=_number(session.ended),
        start_step=_int(session.start_step),
        host=text(session.host),
        pid=_int(session.pid),
        seconds=_seconds(session),
        lost=_int(session.fields.get("lost")) or 0,
        problems={str(name): count for name, count in items if _int(count)},
        error=text(session.fields.get("error")),
        changed=[text(line) or "" for line in changed],
    )


def _seconds(session: SessionInfo) -> float | None:
    started, ended = _number(session.started), _number(session.ended)
    if started is None:
        return None
    if ended is None:
        with contextlib.suppress(OSError):
            ended = (session.dir / layout.heartbeat_name()).stat().st_mtime
    return None if ended is None else max(0.0, ended - started)


def _metrics(opened: OpenRun, summary: Mapping[str, Any]) -> list[MetricFacts]:
    """All metrics, those of the curves first, then what the summary has besides."""
    record = opened.record
    events = record.events()
    said = [event for event in events if event["_event"] == "define_metric"]
    given = {name for event in events if event["_event"] == "summary"
             and isinstance(event.get("set"), dict) for name in event["set"]}  # fmt: skip
    kinds: dict[str, str] = dict(record.logged(None, opened.sessions()).kinds())
    kinds.pop("_t", None)
    for name in given:
        kinds.setdefault(name, "mixed")
    return [
        MetricFacts(
            name=name,
            kind=kind,
            value=brief(summary.get(name)),
            rule="set" if name in given else rule_of(name, said),
            goal=goal_of(name, said),
        )
        for name, kind in kinds.items()
    ]


def _checkpoints(run_dir: Path) -> list[Checkpoint]:
    steps = checkpoints.list_steps(run_dir)
    best = checkpoints.pointed_steps(run_dir)
    try:
        pinned = checkpoints.pinned_steps(run_dir)
    except RecordError:
        pinned = set()
    try:
        latest = (checkpoints.read_pointer(run_dir, checkpoints.LATEST) or {}).get("step")
    except RecordError:
        latest = None
    return [
        Checkpoint(
            step, sorted(name for name, at in best.items() if at == step), step == latest,
            step in pinned,
        )
        for step in steps
    ]  # fmt: skip


def _environment_of(session: SessionInfo) -> dict[str, Any]:
    try:
        return session.environment
    except RecordError:
        return {}


def _environment(sessions: Sequence[SessionInfo]) -> Environment | None:
    found = _environment_of(sessions[-1]) if sessions else {}
    if not found:
        return None
    git, cpu, packages = (_mapping(found.get(name)) for name in ("git", "cpu", "packages"))
    gpus, argv, dirty = found.get("gpus"), found.get("argv"), git.get("dirty")
    return Environment(
        commit=text(git.get("commit")),
        branch=text(git.get("branch")),
        dirty=dirty if isinstance(dirty, bool) else None,
        python=text(found.get("python")),
        torch=text(found.get("torch") or packages.get("torch")),
        platform=text(found.get("platform")),
        cpu=text(cpu.get("model")),
        memory_bytes=_int(found.get("memory_bytes")),
        gpus=[str(_mapping(gpu).get("name")) for gpu in gpus] if isinstance(gpus, list) else [],
        host=text(found.get("host")),
        command=[text(word) or "" for word in argv] if isinstance(argv, list) else [],
        packages={str(name): str(version) for name, version in packages.items()},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e18 else None


def _int(value: Any) -> int | None:
    found = brief(value)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
