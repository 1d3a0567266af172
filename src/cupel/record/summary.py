"""What a run came to, in one number a metric: `summarise`.

By default a metric's last number; what `define_metric` says instead (the first, the least, the
greatest, the mean, the best by its goal, or none); and over all of them what `set_summary` was
given. Of a run that ended in order within one session last numbers stand in session.json, and of a
large run that is compacted no column is read for them either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cupel.record import layout
from cupel.record.history import View

if TYPE_CHECKING:
    from cupel.record.metrics import Metrics
    from cupel.record.reader import SessionInfo
    from cupel.record.series import Logged

Event = Mapping[str, Any]

_RULES = ("last", "first", "min", "max", "mean", "none")


@dataclass(frozen=True, slots=True)
class Summary:
    """The last step that was logged (0 without any), a value a name, and where that is known
    without another look at the lines, the step of each value that is a metric's last."""

    step: int
    values: dict[str, Any]
    steps: dict[str, int] = field(default_factory=dict, compare=False)


def summarise(
    metrics: Metrics, sessions: Sequence[SessionInfo], events: Sequence[Event]
) -> Summary:
    """The summary of the metrics of rank 0."""
    definitions = [event for event in events if event.get("_event") == "define_metric"]

    def rule(key: str) -> str:
        return rule_of(key, definitions)

    found = _told(sessions, rule)
    if found is None and metrics.is_large(sessions, 0):
        found = _of_columns(metrics, sessions, rule)
    if found is None:
        found = _of_rows(metrics.history(sessions, None, View(), 0), rule)
    for event in events:
        if event.get("_event") == "summary" and isinstance(event.get("set"), dict):
            found.values.update(event["set"])
    return found


def rule_of(key: str, definitions: Iterable[Event]) -> str:
    """One of last, first, min, max, mean and none: what was said last of this very metric, else of
    all that begin like it (`val/*`)."""
    best = (False, "last")
    for event in definitions:
        name, rule = event.get("name"), event.get("summary")
        if rule == "best":
            rule = event.get("goal")
        if not isinstance(name, str) or rule not in _RULES:
            continue
        fits = name.endswith("*") and key.startswith(name[:-1])
        if name == key or (fits and not best[0]):
            best = (name == key, str(rule))
    return best[1]


def _told(sessions: Sequence[SessionInfo], rule: Callable[[str], str]) -> Summary | None:
    """What the only session said of its last numbers at its end; None where lines must be read:
    there is more, they are not what they were, or more than last numbers is wanted."""
    if len(sessions) != 1 or not sessions[0].is_over:
        return None
    last, written = sessions[0].fields.get("last"), sessions[0].fields.get("files")
    if not isinstance(last, dict) or not isinstance(written, dict):
        return None
    segments = layout.segments(sessions[0].dir, "metrics")
    stats = {path.name: path.stat() for path in segments}
    there = {name: stat.st_size for name, stat in stats.items()}
    were = {
        name: file.get("bytes")
        for name, file in written.items()
        if name.startswith("metrics.") and isinstance(file, dict)
    }
    if not there or there != were:
        return None
    said = (sessions[0].dir / layout.SESSION).stat().st_mtime_ns
    if any(stat.st_mtime_ns > said for stat in stats.values()):  # changed since, or copied
        return None
    step, values, steps = last.get("step"), last.get("values"), last.get("steps")
    if not isinstance(step, int) or not isinstance(values, dict) or not isinstance(steps, dict):
        return None
    rules = {key: rule(key) for key in values}
    numbers = all(isinstance(value, int | float) for value in values.values())
    if not numbers or not {"last", "none"} >= {*rules.values()}:
        return None
    if not all(isinstance(steps.get(key, step), int) for key in values):
        return None
    kept = [key for key in values if rules[key] == "last"]
    return Summary(
        step, {key: values[key] for key in kept}, {key: steps.get(key, step) for key in kept}
    )


def _of_rows(rows: Sequence[Mapping[str, Any]], rule: Callable[[str], str]) -> Summary:
    last: dict[str, Any] = {}
    for row in rows:
        last.update(row)
    step = next((row["_step"] for row in reversed(rows) if any(_numbers(row))), 0)
    values: dict[str, Any] = {}
    for key in last.keys() - {"_step", "_t"}:
        if (how := rule(key)) == "last" and isinstance(last[key], int | float):
            values[key] = last[key]
        elif how != "none":
            numbers = [row[key] for row in rows if isinstance(row.get(key), int | float)]
            if numbers:
                values[key] = _folded(numbers, how)
    return Summary(step, {key: values[key] for key in last if key in values})


def _numbers(row: Mapping[str, Any]) -> Iterable[str]:
    return (key for key, value in row.items() if key != "_step" and isinstance(value, int | float))


def _folded(values: Sequence[float], rule: str) -> float:
    """One of some values; the least, greatest and mean of what is not NaN, NaN without any."""
    if rule in ("last", "first"):
        return values[-1] if rule == "last" else values[0]
    kept = [value for value in values if value == value]
    if not kept:
        return math.nan
    if rule == "mean":
        return _mean(kept)
    return min(kept) if rule == "min" else max(kept)


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond all floats
        return sum(float(value) / len(values) for value in values)


def _of_columns(
    metrics: Metrics, sessions: Sequence[SessionInfo], rule: Callable[[str], str]
) -> Summary | None:
    logged = metrics.logged(sessions, 0)
    if not all(table.whole for table in logged.tables):
        return None
    values: dict[str, Any] = {}
    steps: list[int] = []
    unsaid: list[str] = []
    for key in logged.kinds():
        if (last := logged.last(key)) is None:
            continue
        steps.append(last[0])
        if key == "_t" or (how := rule(key)) == "none":
            continue
        values[key] = last[1] if how == "last" else _of_column(logged, key, how)
        if values[key] is None:
            unsaid.append(key)
    if unsaid:
        rows = metrics.history(sessions, unsaid, View(), 0)
        values |= {
            key: value for key, value in _of_rows(rows, rule).values.items() if key in unsaid
        }
    return Summary(max(steps, default=0), values)


def _of_column(logged: Logged, key: str, how: str) -> Any:
    from cupel.record.curve import edges_of

    if how == "first":
        return logged.first(key)
    curve = logged.curve(key)
    buckets = curve.buckets(edges_of([curve], (None, None), 1))
    return float({"min": buckets.min, "max": buckets.max, "mean": buckets.mean}[how][0])
