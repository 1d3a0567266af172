"""What the tables of an export are made of: rows, the types of columns, deviations.

Nothing is filled in: what a record does not say is None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.jobs.attempts import CLASSES, changes_in, read_attempt
from cupel.jobs.reasons import in_a_line
from cupel.record import codec, layout
from cupel.record.reader import RunRecord, SessionInfo, newest_lines
from cupel.studies.completeness import of_the_study
from cupel.studies.dictionary import Column, Type, flat
from cupel.studies.manifest import Manifest, PlannedRun

_NOT_COMPARED = ("name", "about", "seed")  # names, and what has a column of its own
_EXACT = 2**53

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run to be exported; `of` is the planned run that it deviates from."""

    planned: PlannedRun
    record: RunRecord
    config: Mapping[str, Any]
    of: str | None = None


def deviations_of(manifest: Manifest) -> Iterator[ExportedRun]:
    """Runs that were derived from planned ones, in the order of their ids."""
    planned = {run.run_id: run for run in manifest.runs}
    for record in of_the_study(manifest):
        if not (of := record.run.get("deviation_of")):
            continue
        origin = planned.get(str(of))
        try:
            config = record.config
        except RecordError:
            config = {}
        seed = config.get("seed", origin.seed if origin else None)
        yield ExportedRun(
            PlannedRun(
                run_id=record.run_id,
                arm=origin.arm if origin else "",
                point=origin.point if origin else "",
                seed=seed if isinstance(seed, int) else 0,
                identity=record.identity or "",
                cell=origin.cell if origin else 0,
                fold=origin.fold if origin else None,
            ),
            record,
            config,
            str(of),
        )


def results_of(record: RunRecord) -> Mapping[str, Any]:
    """The accepted results; empty without, and where they are damaged."""
    try:
        return record.results or {}
    except RecordError:
        return {}


def differing(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The dotted settings that are not the same in all of them."""
    every = [dict(flat(config)) for config in configs if config]
    names = {name: None for one in every for name in one if name not in _NOT_COMPARED}
    return [name for name in names if len({as_json_text(one.get(name)) for one in every}) > 1]


def typed(values: Sequence[Any]) -> tuple[Type, Sequence[Any]]:
    """The one type that holds all values exactly, and the values in it; else they are JSON."""
    known = [value for value in values if value is not None]
    kinds = set(map(type, known))
    if kinds == {bool}:
        return "bool", values
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in known):
        return "int64", values
    integers = [value for value in known if isinstance(value, int)]
    if kinds and kinds <= {int, float} and all(abs(value) <= _EXACT for value in integers):
        return "float64", [None if value is None else float(value) for value in values]
    if kinds <= {str}:
        return "string", values
    return "string", [None if value is None else as_json_text(value) for value in values]


def free_name(name: str, columns: Sequence[Column], kind: str) -> str:
    """A name that no column has yet."""
    taken = {column.name for column in columns}
    if name in taken:
        name = f"{kind}.{name}"
    while name in taken:
        name += "_"
    return name


def as_json_text(value: Any) -> str:
    """A value as JSON in one line; NaN and the infinities are the words of the record."""
    plain = codec.document(value)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def changes_of(run_dir: Path) -> str | None:
    """JSON: by session, what it ran with otherwise than planned; None when nothing was."""
    found = {
        str(number): changes
        for number in layout.session_numbers(run_dir)
        if (changes := changes_in(run_dir, number, read_attempt(run_dir, number)))
    }
    return as_json_text(found) if found else None


def attempt_row(run_id: str, run_dir: Path, session: SessionInfo) -> Row:
    """A session as its supervisor told of it, else as its own record does."""
    attempt = read_attempt(run_dir, session.number)
    changes = changes_in(run_dir, session.number, attempt)
    error = session.fields.get("error")
    last = next((line.get("_step") for line in newest_lines(session)), None)
    started, ended = number(session.started), number(session.ended)
    row: Row = {
        "run_id": run_id,
        "session": session.number,
        "outcome": session.status,
        "class": None,
        "detail": in_a_line(error) if isinstance(error, str) else None,
        "begun": None,
        "first_step": session.start_step,
        "last_step": session.start_step if (at := whole(last)) is None else at,
        "started": started,
        "seconds": ended - started if started is not None and ended is not None else None,
        "cpu_s": None,
        "peak_mb": None,
        "host": text(session.host),
        "device": None,
        "worker": None,
        "code": None,
        "changes": as_json_text(changes) if changes else None,
    }
    if attempt is None:
        return row
    timed = attempt.ended > 0 and attempt.started > 0
    return row | {
        "outcome": attempt.outcome,
        "class": attempt.outcome if attempt.outcome in CLASSES else None,
        "detail": attempt.detail or row["detail"],
        "begun": attempt.begun,
        "first_step": attempt.first_step,
        "last_step": attempt.last_step,
        "started": attempt.started or row["started"],
        "seconds": attempt.ended - attempt.started if timed else row["seconds"],
        "cpu_s": number(attempt.cpu_s),
        "peak_mb": number(attempt.peak_mb),
        "host": attempt.host or row["host"],
        "device": attempt.device or None,
        "worker": attempt.worker or None,
        "code": attempt.code,
    }


def number(value: Any) -> float | None:
    """A number that is one, as a float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and not math.isnan(value) else None


def whole(value: Any) -> int | None:
    """An integer that is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: Any) -> str | None:
    """Text that is some."""
    return value if isinstance(value, str) and value else None
