"""How two plans of one study differ, and a frozen one grown: `extend(frozen, planned)`.

Seeds, arms and points may be added. What decides (question, primary metric, comparison) and the
settings of what is frozen may not change: then it would be another study.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cupel.config import differences, from_config
from cupel.errors import UsageError
from cupel.studies.planned import Cell, Manifest
from cupel.studies.settings import StudySettings
from cupel.studies.stored import MANIFEST

# Where points, arms and runs come from: every cell and every run stands in the manifest itself.
_SOURCES = ("arms", "ablation", "grid", "zip", "points", "random", "folds", "where")
# How runs are carried out, in which order, and who is told.
_CARRIED_OUT = (
    "workers", "priority", "priorities", "tags", "tag_by", "resources", "not_before", "lease_s",
    "hung_s", "code_changed", "quality", "alerts",
)  # fmt: skip
# What may differ from the frozen study: it decides nothing, or a difference in the cells tells it.
_FREE: dict[str, Any] = {
    **dict.fromkeys((*_SOURCES, *_CARRIED_OUT), True),
    "search": {"trials": True, "at_once": True},
}
# What counts from the moment it is changed, for every worker; it needs no further run.
_TAKEN_OVER = (
    "resources", "not_before", "lease_s", "hung_s", "code_changed", "quality", "alerts",
)  # fmt: skip
_LISTED = 6  # differences in a message


def changes(frozen: Manifest, planned: Manifest) -> list[str]:
    """What differs, as `arm wave: train.steps: 100 -> 200`; without the arm where all share it."""
    return [*_of_the_study(frozen, planned), *_of_cells(frozen, planned, growing=False)]


def refuse(manifest: Manifest, found: list[str]) -> None:
    """Raises UsageError that lists what differs, when something does."""
    if found := list(dict.fromkeys(found)):
        listed = "; ".join(found[:_LISTED]) + ("; …" if len(found) > _LISTED else "")
        raise UsageError(
            f"study {manifest.name} was begun with other settings ({listed}); give this one "
            f"another name (name=NAME), or delete {manifest.folder}"
        )


def extend(frozen: Manifest, planned: Manifest) -> Manifest:
    """The frozen study with what the plan has besides; every frozen cell and run stays as it is.

    What the plan leaves out stays, too. How runs are carried out (resources, leases, alerts, …) is
    as the plan says now. Raises UsageError when something that decides differs, or when a new run
    would repeat a frozen one under another name.
    """
    found = [*_of_the_study(frozen, planned, but="seeds")]
    if frozen.baseline != planned.baseline:
        found.append(f"compare.baseline: {frozen.baseline} -> {planned.baseline}")
    refuse(frozen, [*dict.fromkeys(found), *_of_cells(frozen, planned, growing=True)])

    index = {(cell.arm, cell.point): n for n, cell in enumerate(frozen.cells)}
    there = {(run.arm, run.point, run.seed) for run in frozen.runs}
    identities = {run.identity: run.run_id for run in frozen.runs}
    cells, runs = list(frozen.cells), list(frozen.runs)
    for run in planned.runs:
        if (run.arm, run.point, run.seed) in there:
            continue
        if run.identity in identities:
            raise UsageError(
                f"the new run {run.run_id} has the settings of {identities[run.identity]}, which "
                "the study has already; leave that arm or point out"
            )
        at = index.setdefault((run.arm, run.point), len(cells))
        if at == len(cells):
            cells.append(planned.cells[run.cell])
        runs.append(replace(run, cell=at))
    if len(runs) == len(frozen.runs):
        told = {name: getattr(planned.study, name) for name in _TAKEN_OVER}
        if all(getattr(frozen.study, name) == value for name, value in told.items()):
            return frozen
        study = frozen.study.model_copy(update=told)
        return replace(frozen, study=study, frozen_hash=None)
    study = _grown(frozen.study, planned.study)
    return replace(frozen, study=study, cells=tuple(cells), runs=tuple(runs), frozen_hash=None)


def _grown(old: StudySettings, new: StudySettings) -> StudySettings:
    """The plan's settings with the frozen study's arms, seeds and points among them."""
    merged: dict[str, Any] = {
        "arms": {**old.arms, **{k: v for k, v in new.arms.items() if k not in old.arms}},
        "seeds": tuple(dict.fromkeys((*old.seeds, *new.seeds))),
        "grid": {
            key: _union(old.grid.get(key, ()), new.grid.get(key, ()))
            for key in dict.fromkeys((*old.grid, *new.grid))
        },
        "points": _union(old.points, new.points),
        "zip": new.zip or old.zip,
        "random": new.random or old.random,
        "ablation": new.ablation or old.ablation,
        "folds": new.folds or old.folds,
        "compare": old.compare,
    }
    return new.model_copy(update=merged)


def _union(old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*old, *(one for one in new if one not in old))


def _of_the_study(frozen: Manifest, planned: Manifest, *, but: str = "") -> list[str]:
    left_out = {**_FREE, but: True} if but else _FREE
    return differences(*(one.study.model_dump(exclude=left_out) for one in (frozen, planned)))


def _of_cells(frozen: Manifest, planned: Manifest, *, growing: bool) -> Iterator[str]:
    old, new = ({(c.arm, c.point): c for c in one.cells} for one in (frozen, planned))
    if not growing:
        for arm, point in sorted(old.keys() ^ new.keys()):
            change = "absent -> planned" if (arm, point) in new else "planned -> absent"
            yield f"{_cell_name(arm, point)}: {change}"
    both = [key for key in old if key in new]
    changed = {key: _between(old[key], new[key]) for key in both}
    often = Counter(line for lines in changed.values() for line in lines)
    for key, lines in changed.items():
        for line in lines:
            shared = often[line] == len(both)
            yield line if shared else f"{_cell_name(*key)}: {line}"


def _between(old: Cell, new: Cell) -> list[str]:
    """What differs between a frozen cell and a planned one."""
    if _numbers(old.config) == _numbers(new.config):
        return []
    return differences(_today(old.config), _numbers(new.config))


def _cell_name(arm: str, point: str) -> str:
    return f"arm {arm} at {point}" if point else f"arm {arm}"


def _today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen settings with what this cupel adds to them, so that an update changes no study."""
    try:
        return _numbers(from_config(config, where=MANIFEST).resolved())
    except UsageError:
        return _numbers(config)


def _numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the seed, which is the study's, and without words about them."""
    return {name: value for name, value in config.items() if name not in ("seed", "about", "name")}
