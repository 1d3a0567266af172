"""Reads the `.wandb` file that wandb leaves of a run, offline or not, without wandb.

History comes as wandb kept it: it has put calls of one step together before it wrote them, dropped
steps that went back, and written 3.0 as 3; those losses are its own. Nested names are joined by
dots, as its pages show them. Configuration, summary, tags, notes and the exit code are taken;
media, console lines, system metrics and artifacts are counted. The names of user and program are
not taken. Source: wandb/proto/wandb_internal.proto of wandb 0.31.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.record.exchange import foreign, protobuf
from cupel.record.exchange.foreign import Definition, Foreign, Item, Point, SourceFile
from cupel.record.exchange.leveldb import Records
from cupel.record.exchange.protobuf import Malformed

HEADER = b":W&B\xe1\xbe\x00"  # the name, a magic number, version 0

_HISTORY, _SUMMARY, _OUTPUT, _CONFIG, _STATS, _ARTIFACT, _ALERT = 2, 3, 4, 5, 7, 8, 10
_METRIC, _OUTPUT_RAW, _RUN, _EXIT, _HEADER, _USE_ARTIFACT, _ENVIRONMENT = 12, 13, 17, 18, 21, 25, 26
_COUNTED = {
    _OUTPUT: "console lines",
    _OUTPUT_RAW: "console lines",
    _STATS: "lines of system metrics",
    _ARTIFACT: "artifacts",
    _USE_ARTIFACT: "artifacts",
    _ALERT: "alerts",
}
_DEEPEST = 100
_RULES = {1: "min", 2: "max", 3: "mean", 4: "best", 5: "last", 6: "none", 8: "first"}
_OWN = ("_step", "_timestamp", "_runtime", "_wandb")


def is_wandb_file(path: Path) -> bool:
    """Whether the file begins like one of wandb's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == HEADER[:4]


def runs_in(path: Path, tell: Callable[[str], None]) -> Iterator[Foreign]:
    """The run of a file, or those of all `.wandb` files below a folder.

    Of several files, one that is not wandb's is told and passed over; a single one raises.
    """
    if path.is_file():
        yield _run(SourceFile(path))
        return
    for file in dict.fromkeys(file.resolve() for file in sorted(path.rglob("*.wandb"))):
        try:
            yield _run(SourceFile(file))
        except RecordError as error:
            tell(str(error))


def _run(file: SourceFile) -> Foreign:
    with file.open() as opened:
        found = opened.read(len(HEADER))
    if found != HEADER:
        raise RecordError(
            f"{file.path.name} begins with {found.hex() or 'nothing'}, not with wandb's "
            f"{HEADER.hex()}: it is damaged, or of a version of wandb that is not known here"
        )
    run = Foreign(
        tool="wandb",
        name=file.path.stem.removeprefix("run-"),
        source=file.path.name,
        sha256=file.sha256(),
        points=lambda run: _points(run, file),
        status="interrupted",
        error="wandb recorded no exit: the run was killed, or goes on still",
    )
    with file.open() as opened:  # who it is stands at the beginning
        for number, record in zip(range(20), Records(opened, start=len(HEADER)), strict=False):
            try:
                kinds = _take(run, record)
            except Malformed:
                continue
            if _RUN in kinds or number == 19:
                break
    run.left_out.clear()
    run.definitions.clear()
    return run


def _points(run: Foreign, file: SourceFile) -> Iterator[Item]:
    readable = 0
    with file.open() as opened:
        records = Records(opened, start=len(HEADER))
        for record in records:
            try:
                kinds = _take(run, record)
                readable += bool(kinds)
                if history := kinds.get(_HISTORY):
                    point = _point(run, history)
                    if point.metrics:
                        yield point
            except Malformed:
                run.damaged += 1
        run.damaged += records.damaged
    if not readable:
        raise RecordError(f"{run.source} holds no readable record of wandb")
    run.config.pop("_wandb", None)
    values = {key: value for key, value in run.summary.items() if key not in _OWN}
    run.summary = {
        key: value
        for key, value in foreign.flattened(values)
        if isinstance(value, str) or foreign.recordable(value)
    }


def _take(run: Foreign, record: bytes) -> dict[int, bytes]:
    """Take the facts of one Record into the run; returns its parts by their field numbers."""
    parts = {n: v for n, _, v in protobuf.fields(record) if isinstance(v, bytes)}
    for number, part in parts.items():
        if number in _COUNTED:
            run.left_out[_COUNTED[number]] += 1
        elif number == _CONFIG:
            _update(run.config, part)
        elif number == _SUMMARY:
            _update(run.summary, part)
        elif number == _RUN:
            _take_run(run, part)
        elif number == _METRIC:
            _take_definition(run, part)
        elif number == _EXIT:
            code = next((protobuf.signed(v) for n, _, v in protobuf.fields(part) if n == 1), 0)
            run.status = "failed" if code else "finished"
            run.error = f"exit code {code}" if code else None
        elif number == _HEADER:
            _take_version(run, part)
        elif number == _ENVIRONMENT:
            _take_environment(run, part)
    return parts


def _take_run(run: Foreign, message: bytes) -> None:
    tags = []
    for number, _, value in protobuf.fields(message):
        if number == 1:
            run.foreign_id = protobuf.text(value)
        elif number == 3:
            run.project = protobuf.text(value) or None
        elif number == 4:
            _update(run.config, protobuf.inside(value))
        elif number == 5:
            _update(run.summary, protobuf.inside(value))
        elif number == 6:
            run.group = protobuf.text(value) or None
        elif number in (7, 12):
            run.facts["job_type" if number == 7 else "sweep"] = protobuf.text(value)
        elif number == 8:
            run.name = protobuf.text(value) or run.name
        elif number == 9:
            run.notes = protobuf.text(value)
        elif number == 10:
            tags.append(protobuf.text(value))
        elif number == 13:
            run.facts["host"] = protobuf.text(value)
        elif number == 17:
            run.created = _timestamp(protobuf.inside(value))
        elif number == 21:
            commit = [
                protobuf.text(v) for n, _, v in protobuf.fields(protobuf.inside(value)) if n == 2
            ]
            run.facts["git"] = {"commit": commit[-1]} if commit else None
    run.tags = tags


def _take_version(run: Foreign, message: bytes) -> None:
    for number, _, value in protobuf.fields(message):
        if number == 1:
            producer = [
                protobuf.text(v) for n, _, v in protobuf.fields(protobuf.inside(value)) if n == 1
            ]
            run.version = producer[-1].partition("+")[0] if producer else run.version


def _take_environment(run: Foreign, message: bytes) -> None:
    for number, _, value in protobuf.fields(message):
        if number in (1, 2):
            run.facts["platform" if number == 1 else "python"] = protobuf.text(value)


def _take_definition(run: Foreign, message: bytes) -> None:
    """What `define_metric` said; a name with a star stands for all that begin so, as here."""
    found = Definition("")
    for number, _, value in protobuf.fields(message):
        if number in (1, 2):
            found = found._replace(name=protobuf.text(value) or found.name)
        elif number == 4:
            found = found._replace(step_metric=protobuf.text(value) or None)
        elif number == 7:
            rules = [n for n, _, v in protobuf.fields(protobuf.inside(value)) if v]
            rule = next((_RULES[rule] for rule in rules if rule in _RULES), None)
            found = found._replace(summary=rule)
        elif number == 8:
            found = found._replace(goal={1: "min", 2: "max"}.get(protobuf.signed(value)))
    if found.summary == "best" and found.goal is None:
        found = found._replace(summary=None)
    if found.name and any(found[1:]):
        run.definitions.append(found)


def _timestamp(message: bytes) -> float:
    parts = {number: protobuf.signed(value) for number, _, value in protobuf.fields(message)}
    return parts.get(1, 0) + parts.get(2, 0) / 1e9


def _update(document: dict[str, Any], message: bytes) -> None:
    """Apply a ConfigRecord or SummaryRecord: updates, then removals."""
    for number, _, item in protobuf.fields(message):
        if number not in (1, 2):
            continue
        path, value = _item(protobuf.inside(item))
        if not path:
            continue
        if len(path) > _DEEPEST:
            raise Malformed("names nested too deeply")
        *outer, last = path
        place = document
        for name in outer:
            inner = place.get(name)
            if not isinstance(inner, dict):
                inner = place[name] = {}
            place = inner
        if number == 1:
            place[last] = value
        else:
            place.pop(last, None)


def _item(message: bytes) -> tuple[list[str], Any]:
    """Name (nested ones in parts) and value of a ConfigItem, SummaryItem or HistoryItem."""
    path: list[str] = []
    value: Any = None
    for number, _, part in protobuf.fields(message):
        if number in (1, 2):
            path.append(protobuf.text(part))
        elif number == 16:
            try:
                value = foreign.parsed(protobuf.inside(part))
            except ValueError as error:
                raise Malformed(f"a value that is no JSON: {error}") from error
    return path, value


def _point(run: Foreign, message: bytes) -> Point:
    values: dict[str, Any] = {}
    step: int | None = None
    _update(values, b"".join(_items_only(message)))
    for number, _, part in protobuf.fields(message):
        if number == 2:
            numbers = [v for n, _, v in protobuf.fields(protobuf.inside(part)) if n == 1]
            step = protobuf.signed(numbers[-1]) if numbers else 0
    if step is None:
        step = values.get("_step")
    if not isinstance(step, int):
        raise Malformed("a line of history without a step")
    t = values.get("_timestamp")
    for name in _OWN:
        values.pop(name, None)
    metrics = foreign.sorted_out(values, run.left_out)
    return Point(step, float(t) if isinstance(t, int | float) else None, metrics)


def _items_only(message: bytes) -> Iterator[bytes]:
    for number, _, part in protobuf.fields(message):
        if number == 1:
            yield protobuf.written_bytes(1, protobuf.inside(part))
