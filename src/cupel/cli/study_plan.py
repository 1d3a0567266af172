"""`cupel study plan`: what a study would run, what that costs, and whether it can decide anything.

Up to thirty runs are listed one by one, more of them by arm and point; `--json` has all. Nothing is
written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.study_run import Arms, Overrides, Params, Recipe, Tags, typed
from cupel.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from cupel.studies.estimate import ArmEstimate, Estimate
    from cupel.studies.manifest import Manifest, PlannedRun
    from cupel.studies.settings import ResourceSettings

LISTED = 30  # runs, and cells, that are shown one by one


def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    param: Params = None,
    arm: Arms = None,
    tags: Tags = None,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every run that a study would make, what it takes, and what it can decide.

    Nothing is written. Tests that no result could reject are refused here as by `run` (exit code
    2). Time and disk are those of earlier runs of the same shape in the record root, if there are.

    \b
    cupel study plan quickstart
    cupel study plan mine.yaml study.seeds=[1,2,3,4,5]
    """
    from cupel.cli.working import Working
    from cupel.studies.estimate import estimate
    from cupel.studies.power import check_plan
    from cupel.studies.spec import plan_study

    with Working("planning:") as at:
        manifest = plan_study(
            recipe,
            overrides or [],
            root=runs_root(root),
            params=tuple(param or ()),
            arms=tuple(arm or ()),
            tags=tuple(tags or ()),
            tell=lambda done, of: at(f"{done} of {of} cells are checked"),
        )
        power = check_plan(manifest)
        found = estimate(manifest, tell=at)
        if json:
            print_json(_facts(manifest, found, power))
            return
        rows = _cell_rows(manifest, at)
    print(f"{manifest.name}: {manifest.study.question}\n")
    _show_cells(manifest, rows)
    _show_runs(manifest)
    print(f"\n{_size(manifest)}")
    for name, line in (
        ("given", _given(manifest.study.resources)),
        ("time", _time(found)),
        ("disk", _disk(found)),
        ("decides", str(power)),
    ):
        if line:
            print(f"{name:<8} {line}")
    narrowed = [*_options("--param", param), *_options("--arm", arm), *_options("--tags", tags)]
    print(f"Next: {' '.join([typed('run', recipe, overrides, root), *narrowed])}")


# ---- cells and runs ----------------------------------------------------------------------------


def _show_cells(manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> None:
    print_table(rows)
    if (more := len(manifest.cells) - len(rows)) > 0:
        print(f"… and {more} more cells; --json has them all")
    if search := manifest.study.search:
        print(
            f"searched by {search.sampler}, seed {search.seed}: {search.trials} points, "
            f"{search.at_once} at once, each for all arms and seeds"
        )
        print_table([{"setting": k, "within": _within(v)} for k, v in search.space.items()])


def _within(given: Any) -> str:
    from cupel.wording import as_yaml

    return as_yaml(given)


def _show_runs(manifest: Manifest) -> None:
    runs = manifest.runs
    if not runs:
        return
    print()
    if len(runs) <= LISTED:
        more = _differing(runs)
        print_table(
            [
                {"run": run.run_id, "arm": run.arm, "seed": run.seed, **_more(run, more)}
                for run in runs
            ]
        )
        return
    by_cell: dict[tuple[str, str], list[PlannedRun]] = {}
    by_arm: dict[str, list[PlannedRun]] = {}
    for run in runs:
        by_cell.setdefault((run.arm, run.point), []).append(run)
        by_arm.setdefault(run.arm, []).append(run)
    if len(by_cell) <= LISTED:
        print_table(
            [{"arm": a, "point": p or None, **_sum(own)} for (a, p), own in by_cell.items()]
        )
    else:
        print_table(
            [
                {"arm": arm, "points": len({run.point for run in own}), **_sum(own)}
                for arm, own in by_arm.items()
            ]
        )


def _differing(runs: Sequence[PlannedRun]) -> list[str]:
    """What besides arm and seed is worth a column."""
    from cupel.studies.planned import PRIORITY

    shown = ["priority"] if any(run.priority != PRIORITY for run in runs) else []
    return [*shown, "tags"] if any(run.tags for run in runs) else shown


def _more(run: PlannedRun, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(run, name) for name in names}


def _sum(runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """Runs of one row: their number, seeds, priorities and tags."""
    priorities = [run.priority for run in runs]
    low, high = min(priorities), max(priorities)
    tags = list(dict.fromkeys(tag for run in runs for tag in run.tags))
    shown = tags if len(tags) <= 4 else [*tags[:4], f"… {len(tags) - 4} more"]
    return {
        "runs": len(runs),
        "seeds": len({run.seed for run in runs}),
        "priority": str(low) if low == high else f"{low} to {high}",
        "tags": shown,
    }


def _cell_rows(manifest: Manifest, at: Any) -> list[dict[str, Any]]:
    """The first cells with what each sets, as far as others have it otherwise."""
    from cupel.origins import DEFAULT, planted
    from cupel.wording import as_yaml

    values: dict[str, set[str]] = {}  # by setting, what the cells have; "" where one lacks it
    had: dict[str, int] = {}
    shown: list[dict[str, str]] = []
    for number, cell in enumerate(manifest.cells, 1):
        at(f"{number} of {len(manifest.cells)} cells are read")
        leaves = planted(cell.config, DEFAULT).leaves()
        own = {".".join(path): as_yaml(leaf.value) for path, leaf in leaves}
        for name, text in own.items():
            values.setdefault(name, set()).add(text)
            had[name] = had.get(name, 0) + 1
        if len(shown) < LISTED:
            shown.append(own)
    rows = []
    for cell, own in zip(manifest.cells, shown, strict=False):
        differing = [
            f"{name}={own[name]}"
            for name in cell.changes
            if name in own and (len(values[name]) > 1 or had[name] < len(manifest.cells))
        ]
        sets = ", ".join(differing) or "nothing"
        rows.append({"arm": cell.arm, "point": cell.point or None, "sets": sets})
    return rows


# ---- what it takes -----------------------------------------------------------------------------


def _size(manifest: Manifest) -> str:
    study = manifest.study
    told = f"{study.workers} at a time, CPU threads each: {study.threads}"
    if study.search and not manifest.runs:
        arms, seeds = len(study.arms), len(study.seeds)
        return (
            f"{study.search.trials} points × {arms} arm{'s' * (arms != 1)} × {seeds} "
            f"seed{'s' * (seeds != 1)}, asked for as results come; {told}"
        )
    return (
        f"{len(manifest.runs)} runs: {len(manifest.cells)} cells × {len(study.seeds)} seeds; {told}"
    )


def _given(resources: ResourceSettings) -> str:
    """What one run is given, as far as anything is said of it."""
    own = {
        name: getattr(resources, name)
        for name, field in type(resources).model_fields.items()
        if getattr(resources, name) != field.default
    }
    return ", ".join(f"{name} {value:g}" for name, value in own.items())


def _time(found: Estimate) -> str:
    from cupel.cli.progress import duration

    if not found.left:
        return "nothing: all runs are accepted" if found.accepted else ""
    if found.seconds is None:
        return (
            f"unknown for {_names(found.unknown)}: no such run is in the record root yet; run one, "
            "or cupel jobs probe tells"
        )
    of = f" of {found.left} runs that are left" if found.accepted else ""
    on = f" on {_names(found.hosts)}" if found.hosts else ""
    each = ", ".join(f"{one.arm} {_each(one)}" for one in found.arms[:LISTED])
    return (
        f"about {duration(found.seconds)}{of}, {found.workers} at a time, by {found.by} "
        f"earlier run{'s' * (found.by != 1)}{on} ({each})"
    )


def _each(one: ArmEstimate) -> str:
    assert one.step_s is not None
    return f"{one.step_s:.3g} s a step" if one.step_s >= 1 else f"{1000 * one.step_s:.3g} ms a step"


def _disk(found: Estimate) -> str:
    if found.bytes is None:
        return ""
    free = "" if found.free_bytes is None else f"; {_bytes(found.free_bytes)} are free"
    warning = (
        ": too little; lower checkpoint.keep_last, or choose another place with --root"
        if found.too_large
        else ""
    )
    return f"about {_bytes(found.bytes)}{free}{warning}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _options(name: str, values: Iterable[str] | None) -> list[str]:
    return [f"{name} {shlex.quote(value)}" for value in values or ()]


def _facts(manifest: Manifest, found: Estimate, power: Any) -> dict[str, Any]:
    from dataclasses import asdict

    settings = manifest.study.model_dump(mode="json")
    decides = ("primary", "compare", "seeds", "workers", "threads", "resources", "search")
    return {
        "study": manifest.name,
        "project": manifest.project,
        "folder": str(manifest.folder),
        "question": manifest.study.question,
        **{name: settings[name] for name in decides},
        "estimate": {**asdict(found), "unknown": found.unknown, "too_large": found.too_large},
        "power": {**asdict(power), "able": power.able, "statement": str(power)},
        "cells": [asdict(cell) for cell in manifest.cells],
        "runs": [asdict(run) for run in manifest.runs],
    }
