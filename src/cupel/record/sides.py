"""Runs side by side: in which settings they differ, and numbers that may stand beside each other.

Two numbers are alike only when they are the same statistic of the same metric: what `define_metric`
made the least of one run is another line than the last value of another one. Which of them is
better is said only where somebody said which way is good.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from cupel.errors import RecordError
from cupel.record import checkpoints
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.summary import rule_of

ACCEPTED = "accepted"  # the statistic of a number in a run's results
SET = "set"  # of one that `set_summary` was given
GOALS = ("min", "max")

_NUMBER = (int, float)

Event = Mapping[str, Any]
Pair = tuple[str, str]  # a metric and a statistic of it


@dataclass(frozen=True, slots=True)
class Side:
    """What one run came to: of each metric and statistic the value and its step, and the goals."""

    numbers: dict[Pair, tuple[Any, int | None]]
    goals: dict[str, str]


def side_of(record: RunRecord, sessions: Sequence[SessionInfo]) -> Side:
    """The numbers of a run, by what its summary and its accepted results say."""
    events, summarised = record.events(), record.summarised(sessions)
    summary = summarised.values
    said = [event for event in events if event["_event"] == "define_metric"]
    given = _given(events)
    rules = {name: SET if name in given else rule_of(name, said) for name in summary}
    steps = _steps(record, sessions, rules, summarised.steps)
    numbers = {(name, rules[name]): (value, steps.get(name)) for name, value in summary.items()}
    try:
        results = record.results or {}
    except RecordError:
        results = {}
    final, step = results.get("final"), results.get("step")
    for name, value in final.items() if isinstance(final, dict) else ():
        if isinstance(value, int | float):
            numbers[name, ACCEPTED] = value, step if isinstance(step, int) else None
    goals = _pointed(record) | {
        name: goal for name, _ in numbers if (goal := goal_of(name, said)) is not None
    }
    return Side(numbers, goals)


def goal_of(name: str, said: Iterable[Event]) -> str | None:
    """Which way is good by `define_metric`: what was said last of this very metric counts, else
    of all that begin like it (`val/*`)."""
    exact: str | None = None
    alike: str | None = None
    for event in said:
        of, goal = event.get("name"), event.get("goal")
        if not isinstance(of, str) or goal not in GOALS:
            continue
        if of == name:
            exact = str(goal)
        elif of.endswith("*") and name.startswith(of[:-1]):
            alike = str(goal)
    return exact or alike


def common_goal(name: str, sides: Iterable[Side]) -> str | None:
    """The goal of a metric, unless runs contradict each other."""
    found = {side.goals[name] for side in sides if name in side.goals}
    return found.pop() if len(found) == 1 else None


def best_of(values: Sequence[Any], goal: str | None) -> list[int]:
    """The places of the best of some values; none without a goal, or without two to compare."""
    finite = {
        place: value
        for place, value in enumerate(values)
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    }
    if goal is None or len(finite) < 2:
        return []
    top = min(finite.values()) if goal == "min" else max(finite.values())
    return [place for place, value in finite.items() if value == top]


def differing(sides: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The names under which mappings differ, and those of which all have the same.

    By their text: NaN is NaN, True is not 1, and 1 is not 1.0.
    """
    names = dict.fromkeys(name for side in sides for name in side)
    apart = {
        name for name in names if len({(name in side, repr(side.get(name))) for side in sides}) > 1
    }
    return [name for name in names if name in apart], [name for name in names if name not in apart]


def _given(events: Iterable[Event]) -> set[str]:
    given: set[str] = set()
    for event in events:
        if event["_event"] == "summary" and isinstance(event.get("set"), dict):
            given.update(event["set"])
    return given


def _pointed(record: RunRecord) -> dict[str, str]:
    """The goals by which checkpoints were called the best."""
    found: dict[str, str] = {}
    for name in checkpoints.pointed_steps(record.run_dir):
        try:
            pointer = checkpoints.read_pointer(record.run_dir, f"best-{name}") or {}
        except RecordError:
            continue
        if pointer.get("goal") in GOALS:
            found[name] = pointer["goal"]
    return found


def _steps(
    record: RunRecord,
    sessions: Sequence[SessionInfo],
    rules: Mapping[str, str],
    known: Mapping[str, int],
) -> dict[str, int]:
    """The step of each metric's last, first, least or greatest number; `known` are some of them."""
    found = {name: known[name] for name, rule in rules.items() if rule == "last" and name in known}
    rules = {name: rule for name, rule in rules.items() if name not in found}
    if not (columns := _columns(rules)):
        return found
    if not record.is_large(sessions):
        return found | _steps_of_rows(record.history(columns), rules)
    logged = record.logged(columns, sessions)
    for name, rule in rules.items():
        if rule == "last":
            if (last := logged.last(name)) is not None:
                found[name] = last[0]
        elif rule in ("first", *GOALS):
            series = logged.curve(name).series()
            if (place := _place(series.y, rule)) is not None:
                found[name] = int(series.x[place])
    return found


def _steps_of_rows(rows: Sequence[Mapping[str, Any]], rules: Mapping[str, str]) -> dict[str, int]:
    """The same of a small run, without numpy."""
    found: dict[str, int] = {}
    for name, rule in rules.items():
        points = [(row[name], row["_step"]) for row in rows if isinstance(row.get(name), _NUMBER)]
        if rule in GOALS:
            points = [point for point in points if point[0] == point[0]]
        if not points or rule not in ("last", "first", *GOALS):
            continue
        place = {"last": points[-1:], "first": points[:1]}.get(rule, points)
        best = min if rule == "min" else max
        found[name] = best(place, key=itemgetter(0))[1]
    return found


def _columns(rules: Mapping[str, str]) -> Collection[str]:
    return {name for name, rule in rules.items() if rule in ("last", "first", *GOALS)}


def _place(values: Any, rule: str) -> int | None:
    import numpy as np

    if not len(values) or rule == "first":
        return 0 if len(values) else None
    if np.isnan(values).all():
        return None
    return int(np.nanargmin(values) if rule == "min" else np.nanargmax(values))


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)
