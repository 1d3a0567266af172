"""Dry runs: every branch of a recipe in a few steps, every arm of a study in a few seconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.cli.streams import tell

if TYPE_CHECKING:
    from cupel.config import Recipe
    from cupel.studies.manifest import Cell, Manifest, PlannedRun


def shrunk(recipe: Recipe) -> Recipe:
    """The recipe cut to four steps that pass through evaluation, checkpoint, figure and sample."""
    changes: dict[str, Any] = {
        "train.steps": 4,
        "train.evaluate_every": 2,
        "train.log_every": 1,
        "checkpoint.every": 3,
        "checkpoint.keep_last": 1,
        "figures.every": 2,
        "monitors": {name: {"every": 2} for name in recipe.monitors},
        **getattr(type(recipe.workload_settings), "dry_run", {}),
    }
    return recipe.with_changes(changes)


def dry_study(planned: Manifest) -> None:
    """Every arm with two seeds, cut to a few steps, in this process and a folder that goes away."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cupel.cli.compare import print_comparison
    from cupel.cli.worker import train_run
    from cupel.report.build import build_report
    from cupel.studies.manifest import freeze
    from cupel.studies.state import counts, study_state

    with tempfile.TemporaryDirectory(prefix="cupel-dry-run-") as folder:
        manifest = freeze(_cut(planned, Path(folder)))
        for run in manifest.runs:
            tell(f"dry run: {run.run_id}")
            train_run(manifest, run)
        _require_values(manifest)
        print_comparison(manifest)
        written = build_report(manifest, Path(folder) / "report")
        finished = counts(study_state(manifest)).get("finished", 0)
    print(
        f"\ndry run passed: {finished} runs, {len(written)} files of the report; "
        "four steps say nothing about the arms"
    )


def _require_values(manifest: Manifest) -> None:
    """Raises UsageError when runs finish without the study's primary metric."""
    from cupel.errors import UnknownName
    from cupel.record.reader import RunRecord

    metric = manifest.study.primary.metric
    for run in manifest.runs:
        results = RunRecord(manifest.run_dir(run)).results
        if results is not None and metric not in results["final"]:
            raise UnknownName("study.primary.metric", metric, results["final"])


def _cut(planned: Manifest, root: Path) -> Manifest:
    """A study of every arm at its first point with two seeds, each run a few steps long."""
    from cupel.studies.manifest import study_dir

    first = {cell.arm: cell for cell in reversed(planned.cells)}
    arms = list(planned.study.arms)
    cells = [replace(first[arm], config=_short(first[arm].config)) for arm in arms]
    seeds = planned.study.seeds[:2]
    chosen = [
        replace(run, cell=arms.index(run.arm), identity=_identity(cells[arms.index(run.arm)], run))
        for run in planned.runs
        if run.seed in seeds and run.point == first[run.arm].point
    ]
    return replace(
        planned,
        folder=study_dir(root, planned.project, planned.name),
        study=planned.study.model_copy(update={"seeds": seeds, "grid": {}}),
        cells=tuple(cells),
        runs=tuple(chosen),
    )


def _short(config: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's settings as in the dry run of one recipe, but each figure drawn once, in one format
    and one theme: most of the time goes into them."""
    from cupel.config import from_config

    small = shrunk(from_config(config, where=""))
    drawn = small.resolved()["figures"]
    fewer = {f"figures.{name}": drawn[name][:1] for name in ("formats", "themes")}
    return small.with_changes({"figures.every": None, **fewer}).resolved()


def _identity(cell: Cell, run: PlannedRun) -> str:
    from cupel.config import from_config

    return from_config({**cell.config, "seed": run.seed}, where="").identity()
