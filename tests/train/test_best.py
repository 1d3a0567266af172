"""Which checkpoint is the best, and that a broken model is not saved over healthy ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.errors import TrainingFailed, UsageError
from cupel.record import checkpoints
from cupel.record.reader import RunRecord, list_runs


class Counter:
    """The smallest stateful part."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state == {"count": 1}


def room_and_parts(folder: Path, **settings: Any) -> tuple[CheckpointRoom, Parts]:
    parts = Parts()
    parts.register("counter", Counter())
    return CheckpointRoom(folder, settings=CheckpointSettings(**settings)), parts


def best_step(folder: Path, metric: str = "val_loss") -> int:
    pointer = checkpoints.read_pointer(folder, f"best-{metric}")
    assert pointer is not None
    step: int = pointer["step"]
    return step


def test_the_goal_decides_which_value_is_better(tmp_path: Path) -> None:
    room, parts = room_and_parts(tmp_path, goal="max")
    for step, value in ((1, 0.5), (2, 0.9), (3, 0.7)):
        assert room.is_best(step, {"val_loss": value}) == (step < 3)
        room.save(step, parts, metrics={"val_loss": value})
    assert best_step(tmp_path) == 2


def test_a_metric_that_no_evaluation_gives_is_refused(tmp_path: Path) -> None:
    room, _ = room_and_parts(tmp_path, best="val_acc")
    with pytest.raises(UsageError, match=r"checkpoint\.best is 'val_acc', .* gives val_loss;"):
        room.is_best(1, {"val_loss": 1.0})


def test_a_damaged_best_pointer_is_rebuilt_from_the_manifests(tmp_path: Path) -> None:
    """Saving goes on, and a worse value does not become the best because the pointer was lost."""
    room, parts = room_and_parts(tmp_path, keep_last=5)
    room.save(1, parts, metrics={"val_loss": 1.0})
    (tmp_path / "checkpoints" / "best-val_loss.json").write_text("")
    assert not room.is_best(2, {"val_loss": 2.0})
    room.save(2, parts, metrics={"val_loss": 2.0})
    room.save(3, parts, metrics={"val_loss": 0.5})
    assert best_step(tmp_path) == 3


@pytest.mark.parametrize("content", ["", "{}", '{"step": "x"}', "garbage"])
def test_damaged_pointers_do_not_stop_saving(tmp_path: Path, content: str) -> None:
    room, parts = room_and_parts(tmp_path)
    room.save(1, parts, metrics={"val_loss": 1.0})
    for pointer in (tmp_path / "checkpoints").glob("*.json"):
        pointer.write_text(content)
    room.save(2, parts, metrics={"val_loss": 0.5})
    assert best_step(tmp_path) == 2
    assert checkpoints.list_steps(tmp_path) == [1, 2]


def run_of(tmp_path: Path, *overrides: str) -> RunRecord:
    """Train the tiny recipe in this process, whatever comes of it; its record."""
    from cupel.config import load
    from cupel.workloads.training import train
    from desk import new_desk

    desk = new_desk(tmp_path / "desk")
    text, cache = desk.folder / "text.txt", desk.folder / "cache"
    recipe = load(
        desk.folder / "tiny.yaml", [f"data.path={text}", f"data.cache={cache}", *overrides]
    )
    try:
        train(recipe, root=desk.runs)
    except (TrainingFailed, UsageError):
        assert list_runs(desk.runs)[0].status == "failed"
    return list_runs(desk.runs)[0]


def test_a_loss_that_is_not_finite_stops_before_it_is_saved_although_it_is_not_logged(
    tmp_path: Path,
) -> None:
    run = run_of(
        tmp_path, "train.log_every=1000", "train.optimizer.lr=1e30", "train.schedule.warmup=5",
        "train.steps=100", "checkpoint.every=1", "checkpoint.keep_last=100",
    )  # fmt: skip
    assert run.status == "failed"
    error = run.sessions[-1].fields["error"]
    assert "is nan at step" in error
    broken = int(error.split("at step ")[1].split(";")[0])
    assert max(run.checkpoints(), default=0) < broken


def test_an_evaluation_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, "train.log_every=1000", "train.optimizer.lr=1e30", "train.steps=100",
        "train.evaluate_every=7", "checkpoint.every=1000",
    )  # fmt: skip
    assert "val_loss is nan at step 7" in run.sessions[-1].fields["error"]
    assert run.checkpoints() == []


def test_nonfinite_continue_goes_on(tmp_path: Path) -> None:
    run = run_of(tmp_path, "train.optimizer.lr=1e30", "train.nonfinite=continue", "train.steps=12")
    assert run.status == "finished"
    assert math.isnan(run.history(["loss"])[-1]["loss"])


@pytest.mark.slow
def test_the_best_by_the_average_is_saved_whenever_it_comes(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, "train.ema=0.5", "checkpoint.best=val_loss_ema", "checkpoint.every=1000",
        "train.evaluate_every=3", "train.steps=40", "train.optimizer.lr=0.05",
    )  # fmt: skip
    values = {row["_step"]: row["val_loss_ema"] for row in run.history(["val_loss_ema"])}
    assert best_step(run.run_dir, "val_loss_ema") == min(values, key=values.__getitem__)


@pytest.mark.slow
def test_the_last_logged_loss_says_of_which_step_it_is(tmp_path: Path) -> None:
    run = run_of(
        tmp_path, "train.log_every=7", "train.evaluate_every=5", "train.steps=40",
        "train.stopping={patience: 1, min_delta: 1}",
    )  # fmt: skip
    results = run.results or {}
    assert results["step"] == 10
    assert results["last_logged"]["step"] == 7
    assert results["last_logged"]["loss"] == run.history(["loss"])[-1]["loss"]


def test_a_broken_monitor_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from cupel.config import load
    from cupel.workloads.training import train
    from desk import new_desk

    desk = new_desk(tmp_path / "desk")
    recipe = load(
        desk.folder / "tiny.yaml",
        [
            f"data.path={desk.folder / 'text.txt'}",
            f"data.cache={desk.folder / 'cache'}",
            "monitors={norms: {total: true}}",
        ],
    )
    with pytest.raises(UsageError, match="'grad_norm/total' would be written twice"):
        train(recipe, root=desk.runs)
    assert not desk.runs.exists()
