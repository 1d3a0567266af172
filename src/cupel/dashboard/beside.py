"""Some runs side by side: settings that differ and that are equal, metrics, what is best.

What is unlike is marked rather than left out: of a metric that runs summarise by different rules
each rule has a line of its own, and numbers of different steps are told to be such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cupel.dashboard.one_run import plain
from cupel.dashboard.store import Store
from cupel.dashboard.table import Cell, TableRow, brief, table_row
from cupel.record.sides import ACCEPTED, Pair, Side, best_of, common_goal, differing, side_of

MOST = 50


class Setting(msgspec.Struct):
    """A setting of which the runs have different values."""

    name: str
    values: list[Any]
    there: list[bool]
    """Whether the run has it at all: null may be a value."""


class Common(msgspec.Struct):
    """A setting that is the same in all runs."""

    name: str
    value: Any


class MetricLine(msgspec.Struct):
    """One statistic of one metric in all runs."""

    name: str
    statistic: str
    """"last", "first", "min", "max", "mean"; "set" by the script; "accepted" in the results."""
    values: list[Cell]
    """Null where a run has none."""
    steps: list[int | None]
    goal: str | None
    """"min" or "max", where somebody said so and nobody the opposite."""
    best: list[int]
    """The places of the best values; empty without a goal."""
    unlike: str | None
    """Why these numbers are not quite comparable, in a few words."""


class Comparison(msgspec.Struct):
    """Runs in the order in which they were asked for."""

    content: str
    runs: list[TableRow]
    differ: list[Setting]
    equal: list[Common]
    metrics: list[MetricLine]


def comparison(store: Store, keys: Sequence[str]) -> Comparison:
    """The comparison, but for `content`. Raises UnknownName."""
    rows = [store.row(key) for key in keys]
    configs = [row["config"] for row in rows]
    sides = [_side(store, key) for key in keys]
    apart, equal = differing(configs)
    return Comparison(
        content="",
        runs=[table_row(row) for row in rows],
        differ=[
            Setting(
                name,
                [plain(config.get(name)) for config in configs],
                [name in config for config in configs],
            )
            for name in apart
        ],
        equal=[Common(name, plain(configs[0][name])) for name in equal],
        metrics=_lines(sides),
    )


def _side(store: Store, key: str) -> Side:
    with store.reading(key) as opened:
        return side_of(opened.record, opened.sessions())


def _lines(sides: Sequence[Side]) -> list[MetricLine]:
    """Losses first; of one metric its statistics beside each other."""
    pairs = dict.fromkeys(pair for side in sides for pair in side.numbers)
    pairs = {pair: None for pair in pairs if not _says_the_same(pair, sides)}
    order = {name: (_rank(name), name) for name, _ in pairs}
    return [
        _line(name, how, sides) for name, how in sorted(pairs, key=lambda p: (order[p[0]], p[1]))
    ]


def _says_the_same(pair: Pair, sides: Sequence[Side]) -> bool:
    """Whether a line of accepted numbers would repeat what the other lines of its metric say."""
    name, statistic = pair
    return statistic == ACCEPTED and all(
        side.numbers[pair] in [found for other, found in side.numbers.items()
                               if other != pair and other[0] == name]
        for side in sides
        if pair in side.numbers
    )  # fmt: skip


def _rank(name: str) -> int:
    last = name.rsplit("/", 1)[-1].lower()
    known = {"loss": 0, "train_loss": 1, "val_loss": 2}
    if last in known:
        return known[last]
    low = name.lower()
    return 3 if "loss" in low else 4 if any(s in low for s in ("acc", "score", "ppl")) else 5


def _line(name: str, statistic: str, sides: Sequence[Side]) -> MetricLine:
    found = [side.numbers.get((name, statistic), (None, None)) for side in sides]
    values, steps = [value for value, _ in found], [step for _, step in found]
    goal = common_goal(name, sides)
    return MetricLine(
        name=name,
        statistic=statistic,
        values=[brief(value) for value in values],
        steps=steps,
        goal=goal,
        best=best_of(values, goal),
        unlike=_unlike(name, statistic, sides, steps),
    )


def _unlike(
    name: str, statistic: str, sides: Sequence[Side], steps: Sequence[int | None]
) -> str | None:
    others = {
        how
        for side in sides
        for metric, how in side.numbers
        if metric == name and (name, statistic) not in side.numbers and how != ACCEPTED
    }
    if others:
        return f"other runs give {' and '.join(sorted(others))} instead"
    known = {step for step in steps if step is not None}
    if len(known) > 1 and statistic not in ("min", "max"):
        return f"of different steps, {min(known):,} to {max(known):,}"
    return None
