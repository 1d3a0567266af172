"""Studies over a grid for tests of the dashboard: real records, with numbers from a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from cupel.jobs.attempts import Attempt, write_attempt
from cupel.record.session import Session
from cupel.studies.manifest import Cell, Manifest, PlannedRun, freeze, study_dir
from cupel.studies.settings import StudySettings
from planted import GPT, WAVE, Arm, arm_config, write_run

LR, WIDTH = "train.optimizer.lr", "model.width"
MODELS: Mapping[str, Mapping[str, Any]] = {"plain": GPT, "wave": WAVE}

# What became of a run: its last value, or "diverged", "failed", "interrupted", or None (no run).
Told = Callable[[str, float, int, int], float | str | None]


def gridded(
    root: Path,
    told: Told,
    *,
    name: str = "rates",
    project: str = "p",
    arms: Sequence[str] = ("plain", "wave"),
    lrs: Sequence[float] = (0.1, 0.2),
    widths: Sequence[int] = (16, 32),
    seeds: Sequence[int] = (1, 2, 3),
    question: str = "Does the wave model learn faster at any rate?",
    **study: Any,
) -> Manifest:
    """A frozen study over rates and widths with the records of its runs."""
    manifest = planned(
        root, name=name, project=project, arms=arms, lrs=lrs, widths=widths, seeds=seeds,
        question=question, **study,
    )  # fmt: skip
    freeze(manifest)
    for run in manifest.runs:
        write(manifest, run, told)
    return manifest


def planned(
    root: Path,
    *,
    name: str,
    project: str,
    arms: Sequence[str],
    lrs: Sequence[float],
    widths: Sequence[int],
    seeds: Sequence[int],
    question: str,
    **study: Any,
) -> Manifest:
    """The plan alone, not frozen."""
    settings = StudySettings(
        question=question,
        arms={arm: {"model": {"kind": MODELS[arm]["kind"]}} for arm in arms},
        seeds=tuple(seeds),
        grid={LR: tuple(lrs), WIDTH: tuple(widths)},
        **study,
    )
    cells = [
        Cell(arm, f"lr={lr},width={width}", {LR: lr, WIDTH: width}, _config(arm, lr, width))
        for arm in arms
        for lr in lrs
        for width in widths
    ]
    runs = [
        PlannedRun(
            f"{name}-{cell.arm}-{cell.point}-s{seed}-00000000".replace("=", "").replace(",", "-"),
            *(cell.arm, cell.point, seed, f"{cell.arm}{cell.point}{seed}", at),
        )
        for at, cell in enumerate(cells)
        for seed in seeds
    ]
    folder = study_dir(root, project, name)
    now = time.time()
    return Manifest(folder, name, project, "", settings, tuple(cells), tuple(runs), now)


def write(manifest: Manifest, run: PlannedRun, told: Told) -> None:
    """The record of one run, as the function tells of it."""
    config = manifest.cells[run.cell].config
    lr, width = config["train"]["optimizer"]["lr"], config["model"]["width"]
    value = told(run.arm, lr, width, run.seed)
    seed = run.seed
    if isinstance(value, str):
        ends = {name: [seed] for name in ("diverged", "failed", "interrupted") if name == value}
        arm = Arm({}, diverged=ends.get("diverged", ()), failed=ends.get("failed", ()),
                  interrupted=ends.get("interrupted", ()))  # fmt: skip
        write_run(manifest, run, arm)
        outcome = {"diverged": "diverged", "failed": "unknown"}.get(value, "interrupted")
        why = {"diverged": "loss is nan at step 12", "failed": "RuntimeError: no such file"}
        for number in (1, 2) if value == "failed" else (1,):
            fail_again = number == 2
            if fail_again:
                Session.resume(manifest.run_dir(run)).finish("failed", error=why["failed"])
            detail = why.get(value, "")
            write_attempt(
                manifest.run_dir(run),
                Attempt(number, outcome, detail, detail, begun=True, ended=time.time()),
            )
    elif value is not None:
        write_run(manifest, run, Arm({seed: value}))


def begin(manifest: Manifest, run: PlannedRun, *, step: int = 10, loss: float = 2.0) -> Session:
    """A session of this very process, at a step."""
    session = Session.start(
        root=manifest.root, project=manifest.project, name=manifest.name,
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.log({"loss": loss}, step=step)
    return session


def _config(arm: str, lr: float, width: int) -> dict[str, Any]:
    config = deepcopy(arm_config(MODELS[arm]))
    config["train"]["optimizer"]["lr"] = lr
    config["model"]["width"] = width
    return config
