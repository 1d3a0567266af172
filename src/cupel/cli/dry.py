"""Dry runs: every branch of a recipe in a few steps, every arm of a study in a few seconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cupel.cli.streams import tell
from cupel.errors import CupelError

if TYPE_CHECKING:
    from cupel.cli.worker import Failure
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


def dry_study(planned: Manifest, slots: int) -> None:
    """Every arm with two seeds, cut to a few steps, in a folder that goes away.

    Raises typer.Exit when a run fails, after all others; UsageError without the primary metric.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cupel.cli.compare import print_comparison
    from cupel.report.build import build_report
    from cupel.studies.manifest import freeze

    with tempfile.TemporaryDirectory(prefix="cupel-dry-run-") as folder:
        manifest = freeze(_cut(planned, Path(folder)))
        failures = _try_all(manifest, slots)
        _tell_failures(failures, of=len(manifest.runs))
        if len(failures) < len(manifest.runs):
            _require_values(manifest)
            print_comparison(manifest)
            written = build_report(manifest, Path(folder) / "report")
        problems = _problems(manifest)
    if failures:
        raise typer.Exit(min(code for code, _ in failures.values()))  # 2 if all were refused
    print(
        f"\ndry run passed: {len(manifest.runs)} runs, {len(written)} files of the report, "
        f"{problems} problems; four steps say nothing about the arms"
    )


def _try_all(manifest: Manifest, slots: int) -> dict[str, Failure]:
    """Try every run, telling each; how runs failed, by label.

    A few processes share the runs: to load torch takes longer than to try one of them.
    """
    from cupel.cli.board import label
    from cupel.cli.worker import begin_trying, try_run

    # Runs of one cell draw the same figures, and the report shows those of the first.
    drawing = {run.cell: run for run in reversed(manifest.runs)}
    # Spawned: a fork would take what this process has begun with it.
    pool = ProcessPoolExecutor(slots, get_context("spawn"), initializer=begin_trying)
    tell(f"{manifest.name}: {len(manifest.runs)} runs of a few steps, {slots} at a time")
    failures = {}
    try:
        begun = [
            (run, pool.submit(try_run, manifest, run, figures=drawing[run.cell] is run))
            for run in manifest.runs
        ]
        for run, future in begun:
            failure = future.result()
            if failure is not None:
                failures[label(run)] = failure
            tell(f"dry run: {run.run_id}" if failure is None else f"failed:  {run.run_id}")
    except BrokenProcessPool as broken:
        raise CupelError(
            "a process of the dry run was killed, perhaps for lack of memory; try --workers 1"
        ) from broken
    except KeyboardInterrupt:
        for process in active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def _problems(manifest: Manifest) -> int:
    """How often something failed that does not stop training, each kind once a run; it is told."""
    from cupel.record.reader import RunRecord

    records = [RunRecord(manifest.run_dir(run)) for run in manifest.runs]
    return sum(row["_event"] == "problem" for record in records for row in record.events())


def _tell_failures(failures: Mapping[str, Failure], *, of: int) -> None:
    """A line for each reason with the runs that it stopped, after the traceback where it is one."""
    if failures:
        tell(f"dry run failed: {len(failures)} of {of} runs")
    for text in dict.fromkeys(text for _, text in failures.values()):
        lines = text.splitlines()
        if len(lines) > 1:
            tell(*lines)
        runs = ", ".join(run for run, (_, why) in failures.items() if why == text)
        tell(f"  {runs}: {lines[-1]}")


def _require_values(manifest: Manifest) -> None:
    """Raises UsageError when runs finish without the study's primary metric."""
    from cupel.errors import UnknownName
    from cupel.studies.state import metrics_of

    metric = manifest.study.primary.metric
    for run in manifest.runs:
        known = metrics_of(manifest, run)
        if known is not None and metric not in known:
            raise UnknownName("study.primary.metric", metric, known)


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
