"""`cupel study plan | run | status | compare`: many runs that answer one question.

The parent imports no torch. It starts a process for each run (`cupel study work`, hidden), a few
at a time, and reads in their records how they stand. Killed at any moment, the same command goes
on: what is accepted is never trained again.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.compare import compare
from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell
from cupel.cli.tables import print_json, print_table, program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cupel.jobs.supervisor import Change, Task
    from cupel.studies.manifest import Manifest, PlannedRun
    from cupel.studies.state import RunState

app = typer.Typer(
    help="Ask a question with many runs: arms × grid × seeds, planned before the first one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("compare")(compare)

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A study's recipe: name or file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[A.B=VALUE]...", help="Settings of all arms, or study.seeds=[1,2]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_STATES = {"finished": "accepted"}  # to people, as everywhere else in a study


@app.command()
def plan(
    recipe: Recipe, overrides: Overrides = None, root: Root = None, json: Json = False
) -> None:
    """Show every run that a study would make; nothing is written.

    \b
    cupel study plan quickstart
    cupel study plan mine.yaml study.seeds=[1,2,3,4,5]
    """
    from cupel.studies.spec import plan_study

    manifest = plan_study(recipe, overrides or [], root=runs_root(root))
    if json:
        print_json(_facts(manifest))
        return
    print(f"{manifest.name}: {manifest.study.question}\n")
    print_table(_cell_rows(manifest))
    print()
    print_table([{"run": run.run_id, "arm": run.arm, "seed": run.seed} for run in manifest.runs])
    study = manifest.study
    print(
        f"\n{len(manifest.runs)} runs: {len(manifest.cells)} cells × {len(study.seeds)} seeds; "
        f"{study.workers} at a time, CPU threads each: {study.threads}"
    )
    print(f"Next: {_typed('run', recipe, overrides, root)}")


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; else study.workers.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that failed in themselves.")
    ] = False,
    root: Root = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="A few steps of every arm with two seeds, compared and reported, in a temporary "
            "folder.",
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it; then compare its arms and write the report.

    The first time its plan is frozen in RUNS/PROJECT/studies/NAME. Ctrl-C once has every run write
    a checkpoint and stops (exit code 75); the same command goes on. Exit code 1 when runs failed, 2
    when none could begin or no run has the primary metric.

    \b
    cupel study run quickstart
    cupel study run mine.yaml train.steps=500 --workers 4
    """
    from cupel.cli.dry import dry_study
    from cupel.studies.manifest import freeze
    from cupel.studies.spec import plan_study

    planned = plan_study(recipe, overrides or [], root=runs_root(root))
    slots = workers or planned.study.workers
    if dry_run:
        dry_study(planned, slots)
        return
    manifest = freeze(planned)
    _require_metric(manifest)
    stopped, failures = _supervised(manifest, slots, retry_failed=retry_failed)
    _require_metric(manifest)
    _end(manifest, stopped, failures, again=_typed("run", recipe, overrides, root))


@app.command()
def status(
    study: Annotated[str, typer.Argument(help="A study's name, project/name or folder.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """Show how every run of a study stands.

    \b
    cupel study status quickstart
    cupel study status default/quickstart --json
    """
    from cupel.studies.manifest import find_study, load_manifest
    from cupel.studies.state import counts, study_state

    manifest = load_manifest(find_study(runs_root(root), study))
    states = study_state(manifest)
    if json:
        runs = [_state_facts(state) for state in states]
        print_json({**_heading(manifest), "counts": counts(states), "runs": runs})
        return
    print(f"{manifest.name}: {manifest.study.question}\n")
    print_table([_state_row(state) for state in states])
    for state in states:
        if state.reason:
            print(f"\n{state.run.run_id}: {state.reason}")
    listed = ", ".join(
        f"{count} {_STATES.get(name, name)}" for name, count in counts(states).items()
    )
    print(f"\n{len(states)} runs: {listed}; {manifest.folder}")


@app.command(hidden=True)
def work(
    folder: Annotated[Path, typer.Argument(help="The study's folder.")],
    run_id: Annotated[str, typer.Argument(help="The run's id.")],
) -> None:
    """Train one run of a frozen study, or go on with it; started by `cupel study run`."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `cupel run` does
    from cupel.cli.worker import end_with_parent, train_run
    from cupel.record import layout
    from cupel.studies.manifest import load_manifest

    end_with_parent()
    manifest = load_manifest(folder)
    chosen = manifest.run(run_id)
    if not (manifest.run_dir(chosen) / layout.RESULTS).exists():
        train_run(manifest, chosen)


# ---- the parent --------------------------------------------------------------------------------


def _supervised(
    manifest: Manifest, slots: int, *, retry_failed: bool
) -> tuple[str | None, dict[str, Change]]:
    """Run what is left to run; what stopped it, if anything did, and how runs failed.

    It stops when there are results and none of them can decide the study.
    """
    from cupel.cli.board import Board
    from cupel.jobs.local import LocalBackend
    from cupel.jobs.stopping import Stopping
    from cupel.jobs.supervisor import Supervisor
    from cupel.studies.state import unknown_metric

    board = Board(manifest)
    tasks = _left_to_run(manifest, retry_failed=retry_failed)
    failures: dict[str, Change] = {}
    if tasks:
        board.line(f"{len(tasks)} runs, {slots} at a time; {manifest.folder}")
    with Stopping() as stop:
        board.start()
        try:
            for change in Supervisor(LocalBackend(), slots, stop).changes(tasks):
                if change is None:
                    board.tick()
                    continue
                board.change(change)
                if change.kind in ("failed", "refused"):
                    failures[change.name] = change
                elif change.kind == "finished" and unknown_metric(manifest):
                    stop.ask("no run has the primary metric")
        finally:
            board.stop()
        return stop.name, failures


def _left_to_run(manifest: Manifest, *, retry_failed: bool) -> list[Task]:
    """The runs that are neither accepted nor failed for good; says how many are left out."""
    from cupel.cli.board import label
    from cupel.studies.state import study_state

    states = study_state(manifest)
    done = [state for state in states if state.status == "finished"]
    failed = [state for state in states if state.status == "failed" and not retry_failed]
    if done:
        tell(f"{manifest.name}: {len(done)} of {len(states)} runs are accepted already")
    if failed:
        tell(f"{len(failed)} runs failed before; --retry-failed tries them again:")
        _tell_reasons({label(state.run): state.reason or "" for state in failed})
    settled = {state.run.run_id for state in (*done, *failed)}
    return [_task(manifest, run) for run in manifest.runs if run.run_id not in settled]


def _task(manifest: Manifest, run: PlannedRun) -> Task:
    from cupel.jobs.backend import Job
    from cupel.jobs.supervisor import Task
    from cupel.studies.state import log_of

    folder = str(manifest.folder.absolute())
    command = (sys.executable, "-m", "cupel", "study", "work", folder, run.run_id)
    job = Job(run.run_id, command, log_of(manifest, run), _environment(manifest, run))
    return Task(job, manifest.run_dir(run), kin=f"{run.arm} {run.point}")


def _environment(manifest: Manifest, run: PlannedRun) -> dict[str, str]:
    """Threads must be known before torch is imported, and must not spin while they wait."""
    threads = manifest.config_of(run)["train"]["threads"]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {"OMP_WAIT_POLICY": "PASSIVE", **(limits if threads is not None else {})}


def _require_metric(manifest: Manifest) -> None:
    """Raises UsageError when there are results and none of them can decide the study."""
    from cupel.errors import UsageError
    from cupel.studies.state import unknown_metric

    if told := unknown_metric(manifest):
        raise UsageError(told)


def _end(
    manifest: Manifest, stopped: str | None, failures: Mapping[str, Change], *, again: str
) -> None:
    """What the study came to, and what to type next."""
    from cupel.jobs.supervisor import INTERRUPTED
    from cupel.studies.state import study_state

    states = study_state(manifest)
    accepted = sum(state.status == "finished" for state in states)
    if stopped is not None and accepted < len(states):
        tell(f"stopped by {stopped}; {accepted} of {len(states)} runs are accepted")
        tell(f"go on with: {again}")
        raise typer.Exit(INTERRUPTED)
    if accepted:
        _compare(manifest)
    if accepted < len(states):
        tell(f"{len(states) - accepted} of {len(states)} runs have no accepted results:")
        _tell_reasons(_reasons(states, failures))
        begun = any(state.status not in ("planned", "refused") for state in states)
        refused = all(change.kind == "refused" for change in failures.values())
        raise typer.Exit(2 if refused and not begun else 1)


def _reasons(states: Sequence[RunState], failures: Mapping[str, Change]) -> dict[str, str]:
    """Why each run has no accepted results."""
    from cupel.cli.board import label

    reasons = {}
    for state in states:
        if state.status != "finished":
            change = failures.get(state.run.run_id)
            why = change.detail if change else state.reason
            unknown = "not started" if state.status == "planned" else state.status
            reasons[label(state.run)] = why or unknown
    return reasons


def _tell_reasons(reasons: Mapping[str, str]) -> None:
    """A line for each reason, with the runs that it stopped."""
    for reason in dict.fromkeys(reasons.values()):
        tell(f"  {', '.join(run for run, why in reasons.items() if why == reason)}: {reason}")


def _compare(manifest: Manifest) -> None:
    """The comparison and the report, as far as there are results; without the packages for them,
    what to install."""
    from cupel.cli.compare import print_comparison
    from cupel.cli.report import write_report
    from cupel.errors import MissingDependency

    try:
        print_comparison(manifest)
        print()
        write_report(manifest, manifest.folder / "report")
    except MissingDependency as missing:
        tell(f"the runs are accepted; {missing}")


# ---- what is shown -----------------------------------------------------------------------------


def _typed(command: str, recipe: str, overrides: Sequence[str] | None, root: str | None) -> str:
    rest = [recipe, *(overrides or []), *(["--root", root] if root else [])]
    return f"{program()} study {command} {shlex.join(rest)}"


def _heading(manifest: Manifest) -> dict[str, Any]:
    return {
        "study": manifest.name,
        "project": manifest.project,
        "folder": str(manifest.folder),
        "question": manifest.study.question,
    }


def _facts(manifest: Manifest) -> dict[str, Any]:
    from dataclasses import asdict

    settings = manifest.study.model_dump(mode="json")
    return {
        **_heading(manifest),
        **{name: settings[name] for name in ("primary", "compare", "seeds", "workers", "threads")},
        "cells": [asdict(cell) for cell in manifest.cells],
        "runs": [asdict(run) for run in manifest.runs],
    }


def _cell_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """Each cell with what it sets, as far as others have it otherwise."""
    from cupel.origins import DEFAULT, planted
    from cupel.wording import as_yaml

    configs = [
        {
            ".".join(path): as_yaml(leaf.value)
            for path, leaf in planted(cell.config, DEFAULT).leaves()
        }
        for cell in manifest.cells
    ]
    rows = []
    for cell, own in zip(manifest.cells, configs, strict=True):
        differing = [
            f"{name}={own[name]}"
            for name in cell.changes
            if name in own and any(own[name] != other.get(name) for other in configs)
        ]
        sets = ", ".join(differing) or "nothing"
        rows.append({"arm": cell.arm, "point": cell.point or None, "sets": sets})
    return rows


def _state_facts(state: RunState) -> dict[str, Any]:
    from dataclasses import asdict

    run, rest = asdict(state.run), asdict(state)
    del rest["run"]
    return {**run, **rest}


def _state_row(state: RunState) -> dict[str, Any]:
    from cupel.cli.progress import duration

    return {
        "run": state.run.run_id,
        "state": _STATES.get(state.status, state.status),
        "step": f"{state.step}/{state.steps}",
        "loss": state.loss,
        "val_loss": state.val_loss,
        "sessions": state.sessions,
        "time": duration(state.seconds),
    }
