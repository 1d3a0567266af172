"""`cupel runs compare RUN RUN…`: how runs were set differently, then what they came to.

Numbers stand beside each other only when they are the same statistic of the same metric: what
`define_metric` made the least of one run is another line than the last value of another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Runs, called, found

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

_LARGE = 1 << 20  # bytes of metrics above which columns are worth their making
_WHERE = ("last", "first", "min", "max")  # statistics that have a step


def compare(runs: Runs, root: Root = None, json: Json = False) -> None:
    """Put runs side by side: settings first, then metrics.

    Settings that differ, then metrics with their steps.
    A metric is given by its last value, or as define_metric said; "accepted" is the number in the
    run's results. For arms of a study, with intervals: cupel study compare.

    \b
    cupel runs compare 20261121-1 20261121-2
    cupel runs compare demo/a demo/b demo/c --json
    """
    from cupel.cli.tables import print_json
    from cupel.cli.working import Working
    from cupel.errors import UsageError
    from cupel.record.reader import RunRecord

    folders = found(runs_root(root), runs)
    if len(folders) < 2:
        raise UsageError(f"{called(folders[0])} alone cannot be compared; give two or more runs")
    records = [RunRecord(folder) for folder in folders]
    names = _names(folders)
    with Working("reading") as working:
        settings = differing([flat_config(record) for record in records])
        numbers = [_numbers(record, working) for record in records]
    if json:
        print_json(
            {
                "runs": [called(folder) for folder in folders],
                "status": [record.status for record in records],
                "settings": settings,
                "metrics": _as_json(numbers),
            }
        )
        return
    _print_settings(names, records, settings)
    _print_numbers(names, numbers)


def _names(folders: Sequence[Path]) -> list[str]:
    """Ids, with their projects where ids alone could be mistaken."""
    ids = [folder.name for folder in folders]
    return ids if len(set(ids)) == len(ids) else [called(folder) for folder in folders]


def flat_config(record: RunRecord) -> dict[str, Any]:
    """A run's settings with dotted names; none when they cannot be read, and that is told."""
    from cupel.cli.streams import tell
    from cupel.errors import RecordError
    from cupel.record.index import flattened

    try:
        return flattened(record.config)
    except (RecordError, RecursionError) as error:
        tell(f"cupel: {record.run_id}: {error}")
        return {}


def differing(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The names under which mappings differ, with each one's value; None where it has none."""
    names = dict.fromkeys(name for side in sides for name in side)
    return {
        name: [side.get(name) for side in sides]
        for name in names
        if any(_unequal(sides[0], side, name) for side in sides[1:])
    }


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    # By their text: NaN is NaN, True is not 1, and 1 is not 1.0.
    return (name in one) != (name in other) or repr(one.get(name)) != repr(other.get(name))


Number = tuple[Any, int | None]


def _numbers(record: RunRecord, working: Any) -> dict[tuple[str, str], Number]:
    """By metric and statistic: the value, and the step at which it was logged."""
    from cupel.errors import RecordError
    from cupel.record.summary import rule_of

    summary = record.summary
    events = record.events()
    definitions = [event for event in events if event["_event"] == "define_metric"]
    given: dict[str, Any] = {}
    for event in events:
        if event["_event"] == "summary" and isinstance(event.get("set"), dict):
            given.update(event["set"])
    found: dict[tuple[str, str], Number] = {}
    steps = _steps(record, {k: rule_of(k, definitions) for k in summary if k not in given}, working)
    for key, value in summary.items():
        how = "set" if key in given else rule_of(key, definitions)
        found[key, how] = value, steps.get(key)
    try:
        results = record.results or {}
    except RecordError:
        results = {}
    final, step = results.get("final"), results.get("step")
    if isinstance(final, dict):
        for key, value in final.items():
            if isinstance(value, int | float):
                found[key, "accepted"] = value, step if isinstance(step, int) else None
    return found


def _steps(record: RunRecord, rules: Mapping[str, str], working: Any) -> dict[str, int]:
    """The step of each metric's last, first, least or greatest number."""
    from cupel.record import layout

    rules = {key: how for key, how in rules.items() if how in _WHERE}
    size = sum(
        path.stat().st_size
        for session in record.sessions
        for path in layout.segments(session.dir, "metrics")
    )
    if size < _LARGE:
        points: dict[str, list[tuple[int, float]]] = {key: [] for key in rules}
        for row in record.history(list(rules)):
            for key in row.keys() & points.keys():
                if isinstance(row[key], int | float):
                    points[key].append((row["_step"], row[key]))
        return {
            key: step
            for key, how in rules.items()
            if (step := _step_of(points[key], how)) is not None
        }
    found: dict[str, int] = {}
    for key, how in rules.items():
        working(f"{record.run_id}: {key}")
        series = record.series(key)
        if len(series.x):
            from numpy import nanargmax, nanargmin

            place = {"last": -1, "first": 0}.get(how)
            if place is None:
                try:
                    place = int(nanargmin(series.y) if how == "min" else nanargmax(series.y))
                except ValueError:  # all of it is NaN
                    continue
            found[key] = int(series.x[place])
    return found


def _step_of(points: Sequence[tuple[int, float]], how: str) -> int | None:
    kept = points if how in ("last", "first") else [p for p in points if not math.isnan(p[1])]
    if not kept:
        return None
    if how in ("last", "first"):
        return kept[-1 if how == "last" else 0][0]
    least = min if how == "min" else max
    return least(kept, key=lambda point: point[1])[0]


def _order(numbers: Iterable[Mapping[tuple[str, str], Number]]) -> list[tuple[str, str]]:
    """All metrics, losses first; of one metric its statistics beside each other."""
    from cupel.cli.sparks import main_metrics

    pairs = list(dict.fromkeys(pair for one in numbers for pair in one))
    names = list(dict.fromkeys(name for name, _ in pairs))
    first = main_metrics(names)
    ordered = [*first, *sorted(name for name in names if name not in first)]
    return sorted(pairs, key=lambda pair: (ordered.index(pair[0]), pair[1]))


def _as_json(numbers: Sequence[Mapping[tuple[str, str], Number]]) -> list[dict[str, Any]]:
    return [
        {
            "metric": name,
            "statistic": how,
            "values": [one.get((name, how), (None, None))[0] for one in numbers],
            "steps": [one.get((name, how), (None, None))[1] for one in numbers],
        }
        for name, how in _order(numbers)
    ]


def _print_settings(
    names: Sequence[str], records: Sequence[RunRecord], settings: Mapping[str, list[Any]]
) -> None:
    from cupel.cli.tables import print_table

    status = [record.status for record in records]
    rows = [{"setting": "status", **dict(zip(names, status, strict=True))}] if status else []
    rows += [
        {"setting": name, **dict(zip(names, map(_shown, values), strict=True))}
        for name, values in settings.items()
    ]
    print_table(rows, apart=True)
    if not settings:
        print("no setting differs")


def _shown(value: Any) -> Any:
    """A setting as it was written: 1e-05 is not 0.0000."""
    return repr(value) if isinstance(value, float) else value


def _print_numbers(
    names: Sequence[str], numbers: Sequence[Mapping[tuple[str, str], Number]]
) -> None:
    from cupel.cli.tables import cell, named, print_table

    rows = []
    for name, how in _order(numbers):
        row = {"metric": f"{named(name)}, {how}"}
        for run, one in zip(names, numbers, strict=True):
            value, step = one.get((name, how), (None, None))
            row[run] = cell(value) + (f" @ {step:,}" if step is not None else "")
        rows.append(row)
    print()
    print_table(rows, apart=True)
    if not rows:
        print("no metrics")
