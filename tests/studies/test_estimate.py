"""Time and disk are those of runs that there were; without one they are unknown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cupel.jobs.attempts import Attempt, write_attempt
from cupel.record import layout
from cupel.record.session import Session
from cupel.record.usage import usage_of
from cupel.studies.estimate import cost_of, estimate, shape_of
from cupel.studies.manifest import Manifest, PlannedRun, freeze
from plans import Plans

GRID = "seeds: [1, 2]\ngrid: {batch: [4, 8]}\n"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def write(manifest: Manifest, run: PlannedRun, step_s: float, *, steps: int = 40) -> Path:
    """The record of an accepted run with so many seconds a step; nothing of it is invented else."""
    session = Session.start(
        root=manifest.root, project=manifest.project, name=manifest.name,
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.log({"val_loss": 1.0}, step=steps)
    results: Mapping[str, Any] = {
        "step": steps,
        "final": {"val_loss": 1.0},
        "last_session": {"steps": steps, "wall_s": steps * step_s, "cpu_s": 1.0},
    }
    session.finish("finished", results=results)
    return manifest.run_dir(run)


def runs_at(manifest: Manifest, arm: str, point: str) -> list[PlannedRun]:
    return [run for run in manifest.runs if (run.arm, run.point) == (arm, point)]


def test_without_a_run_of_that_shape_nothing_is_said(plan: Plans) -> None:
    found = estimate(plan(GRID))
    assert (found.left, found.accepted) == (8, 0)
    assert (found.seconds, found.bytes, found.too_large) == (None, None, False)
    assert found.unknown == ("plain", "drop")
    assert found.free_bytes
    assert found.free_bytes > 0


def test_one_shape_without_a_like_leaves_the_whole_unknown_and_names_its_arm(plan: Plans) -> None:
    manifest = freeze(plan("seeds: [1, 2]\n", arms="arms: {plain: {}, large: {batch: 64}}"))
    write(manifest, runs_at(manifest, "plain", "")[0], 0.5)
    found = estimate(manifest)
    assert found.seconds is None
    assert found.unknown == ("large",)
    (plain,) = (one for one in found.arms if one.arm == "plain")
    assert (plain.left, plain.step_s, plain.run_s, plain.by) == (1, 0.5, 20.0, 1)


@pytest.mark.slow
def test_time_is_the_median_of_the_own_runs_given_to_the_workers_in_order(plan: Plans) -> None:
    manifest = freeze(plan("seeds: [1, 2, 3, 4, 5, 6, 7]\n", arms="arms: {plain: {}}"))
    for run, step_s in zip(manifest.runs, (0.1, 0.2, 0.9), strict=False):
        write(manifest, run, step_s)
    found = estimate(manifest, workers=3)
    assert (found.accepted, found.left) == (3, 4)
    # Four runs of 40 × 0.2 s by three workers: one of them takes two.
    assert found.seconds == pytest.approx(16.0)
    assert estimate(manifest, workers=4).seconds == pytest.approx(8.0)
    assert estimate(manifest).workers == manifest.study.workers == 2


def test_steps_that_a_point_has_more_take_longer(plan: Plans) -> None:
    manifest = freeze(
        plan("seeds: [1]\ngrid: {train.steps: [40, 400]}\n", arms="arms: {plain: {}}")
    )
    write(manifest, manifest.runs[0], 0.1)
    assert estimate(manifest).seconds == pytest.approx(40.0)


def test_what_a_process_takes_beside_its_steps_is_known_from_whoever_watched_it(
    plan: Plans,
) -> None:
    manifest = freeze(plan("seeds: [1, 2]\n", arms="arms: {plain: {}}"))
    folder = write(manifest, manifest.runs[0], 0.1)
    write_attempt(folder, Attempt(1, "finished", begun=True, started=100.0, ended=111.0))
    assert estimate(manifest).seconds == pytest.approx(11.0)


@pytest.mark.slow
def test_earlier_runs_of_the_record_root_count_and_whose_machine_it_was_is_told(
    plan: Plans,
) -> None:
    earlier = freeze(plan("seeds: [1, 2]\n", "name=earlier"))
    for run in earlier.runs:
        write(earlier, run, 0.25)
    later = plan("seeds: [5]\n", "name=later", "train.optimizer.lr=0.5", "train.steps=80")
    found = estimate(later)
    assert found.seconds == pytest.approx(20.0)
    assert {one.by for one in found.arms} == {4}  # a rate is no shape, nor is dropout
    assert found.hosts == (os.uname().nodename,)


def test_disk_is_what_runs_take_and_more_than_is_free_is_too_large(
    plan: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = freeze(plan("seeds: [1, 2, 3]\n", arms="arms: {plain: {}}"))
    folder = write(manifest, manifest.runs[0], 0.1)
    (folder / layout.CHECKPOINTS).mkdir(exist_ok=True)
    (folder / layout.CHECKPOINTS / "weights").write_bytes(bytes(1_000_000))
    found = estimate(manifest)
    assert found.bytes == pytest.approx(2 * usage_of(folder).total)
    assert not found.too_large
    import shutil

    full = shutil.disk_usage(manifest.root)._replace(free=1_500_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert estimate(manifest).too_large


def test_lines_of_metrics_grow_with_the_steps_and_checkpoints_do_not(plan: Plans) -> None:
    manifest = freeze(
        plan("seeds: [1]\ngrid: {train.steps: [40, 400]}\n", arms="arms: {plain: {}}")
    )
    folder = write(manifest, manifest.runs[0], 0.1)
    used = usage_of(folder)
    found = estimate(manifest)
    assert found.bytes == pytest.approx(used.total - used.metrics + 10 * used.metrics)


def test_a_finished_study_has_nothing_left(plan: Plans) -> None:
    manifest = freeze(plan("seeds: [1]\n", arms="arms: {plain: {}}"))
    write(manifest, manifest.runs[0], 0.1)
    found = estimate(manifest)
    assert (found.left, found.accepted, found.seconds) == (0, 1, None)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"step": 0}', '{"step": 9, "last_session": {"steps": 0, "wall_s": 1}}']
)
def test_results_that_tell_no_time_are_no_sample(plan: Plans, content: str) -> None:
    manifest = freeze(plan("seeds: [1, 2]\n", arms="arms: {plain: {}}"))
    folder = write(manifest, manifest.runs[0], 0.1)
    (folder / layout.RESULTS).write_text(content)
    assert cost_of(folder) is None
    assert estimate(manifest).seconds is None


def test_a_shape_is_sizes_and_kinds_and_neither_seeds_rates_nor_steps(plan: Plans) -> None:
    config = json.loads(json.dumps(plan("seeds: [1]\n").cells[0].config.plain()))  # type: ignore[attr-defined]
    shape = shape_of(config)
    alike = {**config, "seed": 9, "name": "other", "dropout": 0.3}
    alike["train"] = {**config["train"], "steps": 7, "evaluate_every": 3}
    assert shape_of(alike) == shape
    assert shape_of({**config, "batch": 16}) != shape
    other = {**config["train"], "optimizer": {**config["train"]["optimizer"], "kind": "sgd"}}
    assert shape_of({**config, "train": other}) != shape
    assert shape_of(dict(reversed(config.items()))) == shape
