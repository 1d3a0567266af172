"""`cupel runs compare RUN RUN…`: how runs were set differently, then what they came to.

Which numbers may stand beside each other says `cupel.record.sides`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Runs, called, found

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord


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
        settings = apart([flat_config(record) for record in records])
        numbers = []
        for record in records:
            working(record.run_id)
            numbers.append(_numbers(record))
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


def apart(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The names under which mappings differ, with each one's value; None where it has none."""
    from cupel.record.sides import differing

    return {name: [side.get(name) for side in sides] for name in differing(sides)[0]}


Number = tuple[Any, int | None]


def _numbers(record: RunRecord) -> dict[tuple[str, str], Number]:
    """By metric and statistic: the value, and the step at which it was logged."""
    from cupel.record.sides import side_of

    return side_of(record, record.sessions).numbers


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
