"""Planted studies for tests: real records, written by the real writer, with invented numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cupel.record.session import Session
from cupel.studies.manifest import Cell, Manifest, PlannedRun, freeze, study_dir
from cupel.studies.settings import StudySettings

STEPS, EVERY = 40, 10
FAILURE = """\
Traceback (most recent call last):
  File "planted.py", line 1, in <module>
RuntimeError: a planted failure
"""
GPT = {"kind": "gpt", "layers": 1, "heads": 2, "width": 16, "block": 16, "dropout": 0.0}
WAVE = {
    **{"kind": "wave", "layers": 1, "heads": 2, "width": 16, "block": 16, "dropout": 0.0},
    **{"waves": 8, "harmonics": 2, "embedding": "packet", "attention": "interference"},
    **{"ratio": "scheduled", "mlp": "gelu_sine"},
}
ADAMW = {"kind": "adamw", "lr": 0.001, "weight_decay": 0.1}
RGD = {"kind": "rgd", "lr": 0.001, "weight_decay": 0.1}


def arm_config(
    model: Mapping[str, Any] = GPT,
    optimizer: Mapping[str, Any] = ADAMW,
    objective: str = "cross_entropy",
    **train: Any,
) -> dict[str, Any]:
    """A resolved configuration with the sections that comparisons read."""
    return {
        "workload": "gpt",
        "seed": 1,
        "data": {"batch": 4, "path": "text.txt", "tokens": "byte"},
        "model": dict(model),
        "objective": {"kind": objective},
        "train": {
            **{"steps": STEPS, "optimizer": dict(optimizer), "precision": "fp32", "threads": 1},
            **{"schedule": {"kind": "cosine", "warmup": 0, "floor": 0.0}, "clip": 1.0},
            **{"ema": None, "stopping": None, **train},
        },
    }


@dataclass
class Arm:
    """What an arm's runs shall have recorded; a value of a seed that is left out is no run."""

    values: Mapping[int, float]
    config: Mapping[str, Any] = field(default_factory=arm_config)
    changes: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 10_000
    cpu_s: float = 10.0
    flops: float | None = 4.0e9
    failed: Sequence[int] = ()
    error: str = FAILURE  # of those that failed
    diverged: Sequence[int] = ()
    interrupted: Sequence[int] = ()
    model: Mapping[str, Any] = field(default_factory=dict)  # more of model.json
    beside: Mapping[str, float] = field(default_factory=dict)  # metrics, by what they are above it


def plant(
    root: Path,
    arms: Mapping[str, Arm],
    *,
    seeds: Sequence[int] = (1, 2, 3),
    points: Sequence[str] = ("",),
    **study: Any,
) -> Manifest:
    """A frozen study with the records of its runs, which are the same at every point."""
    settings = StudySettings(
        question=study.pop("question", "Is the wave model better?"),
        arms={name: dict(arm.changes) for name, arm in arms.items()},
        seeds=tuple(seeds),
        **study,
    )
    cells = tuple(
        Cell(name, point, arm.changes, arm.config) for name, arm in arms.items() for point in points
    )
    runs = tuple(
        PlannedRun(
            f"planted-{cell.arm}-{cell.point}{'-' if cell.point else ''}s{seed}-00000000",
            *(cell.arm, cell.point, seed, f"{cell.arm}{cell.point}{seed}", index),
        )
        for index, cell in enumerate(cells)
        for seed in seeds
    )
    folder = study_dir(root, "p", "planted")
    manifest = Manifest(folder, "planted", "p", "Planted numbers", settings, cells, runs, 1.7e9)
    freeze(manifest)
    for run in runs:
        write_run(manifest, run, arms[run.arm])
    return manifest


def write_run(manifest: Manifest, run: PlannedRun, arm: Arm) -> None:
    """Write the record of one run, unless it is to be absent."""
    seed = run.seed
    unfinished = [*arm.failed, *arm.diverged, *arm.interrupted]
    if seed not in arm.values and seed not in unfinished:
        return
    session = Session.start(
        root=manifest.root,
        project=manifest.project,
        name="planted",
        config=manifest.config_of(run),
        identity=run.identity,
        run_id=run.run_id,
        details={
            "data": {
                "sha256": "ab" * 32,
                "validation": "val-1x2x16",
                "bytes_per_token": {"train": 1.0, "val": 2.0},
            }
        },
    )
    session.begin_at(0)
    session.write_run_json("model.json", {"parameters": arm.parameters, **arm.model})
    if seed in unfinished:
        session.log({"loss": 5.0, "val_loss": 4.0}, step=EVERY)
        if seed in arm.diverged:
            session.finish("failed", error="loss is nan at step 12; try a lower learning rate")
        elif seed in arm.failed:
            session.finish("failed", error=arm.error)
        else:
            session.finish("interrupted", error="asked to stop by SIGTERM")
        return
    session.finish("finished", results=_results(session, arm, arm.values[seed]))


def _results(session: Session, arm: Arm, last: float) -> dict[str, Any]:
    """Log a curve whose last evaluation is `last` and whose best one, at step 30, is 0.05 lower."""
    curve = {10: last + 1.0, 20: last + 0.4, 30: last - 0.05, 40: last}
    for step, value in curve.items():
        session.log({"loss": value + 0.1, "val_loss": value}, step=step)
    wall = 2 * arm.cpu_s
    return {
        "step": STEPS,
        "final": {"val_loss": last} | {key: last + more for key, more in arm.beside.items()},
        "best": {"val_loss": curve[30], "step": 30, "rule": "lowest"},
        "last_session": {
            "steps": STEPS,
            "wall_s": wall,
            "cpu_s": arm.cpu_s,
            "tokens_per_s": STEPS * 64 / wall,
            "tokens_per_cpu_s": STEPS * 64 / arm.cpu_s,
        },
        "totals": {
            "updates": STEPS,
            "tokens": STEPS * 64,
            "flops": arm.flops,
            "wall_s": wall,
            "cpu_s": arm.cpu_s,
            "sessions": 1,
        },
        "samples": [{"prompt": "a", "text": " planted `sample`"}],
    }


def around(
    centre: float, spread: float = 0.01, seeds: Sequence[int] = (1, 2, 3)
) -> dict[int, float]:
    """Values of seeds that scatter about a centre, not the same way for every centre."""
    return {seed: centre + spread * math.sin(7 * seed + 3 * centre) for seed in seeds}
