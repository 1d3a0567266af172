"""Checkpoints that are written while the loop goes on: equal bits, and nothing is left untold."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from cupel.checkpoint import folder
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.stop import StopRequest
from cupel.errors import CheckpointError, Superseded, TrainingFailed
from cupel.events import Dispatcher, Event, StepView
from cupel.record.checkpoints import list_steps, step_dir
from cupel.record.manifests import read_manifest
from cupel.record.reader import RunRecord
from cupel.train.loop import Loop, Outcome
from cupel.train.parallel import World
from cupel.train.settings import TrainSettings
from fakes import Regression, RegressionSettings

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
STEPS = 12


class Memory:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None:
        self.rows.setdefault(step, {}).update(metrics)

    def event(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields))

    def note(self, line: str) -> None:
        pass

    def steps(self, name: str) -> list[int]:
        return [fields["step"] for found, fields in self.events if found == name]


class At:
    """A monitor that does something within one step."""

    on, every = Event.AFTER_BACKWARD, 1

    def __init__(self, step: int, does: Callable[[], Any]) -> None:
        self.step, self.does = step, does

    def keys(self, model: Any) -> list[str]:
        return []

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self.step:
            self.does()
        return {}


def room(run_dir: Path, *, superseded: Callable[[], bool] = bool, **chosen: Any) -> CheckpointRoom:
    settings = CheckpointSettings.model_validate({"best": None, "keep_last": 100, **chosen})
    return CheckpointRoom(run_dir, settings=settings, superseded=superseded)


def make(room: CheckpointRoom, *, every: int = 3, workload: Any = None, **train: Any) -> Any:
    memory, dispatcher = Memory(), Dispatcher(debug=True)
    chosen = {"steps": STEPS, "evaluate_every": 4, "device": "cpu", "ema": 0.9, **train}
    loop = Loop(
        workload or Regression.build(RegressionSettings(dropout=0.3), seed=1),
        TrainSettings.model_validate(chosen),
        seed=1,
        room=room,
        recorder=memory,
        dispatcher=dispatcher,
        world=ALONE,
        checkpoint_every=every,
    )
    return loop, memory, dispatcher


def run(loop: Loop) -> Outcome:
    with StopRequest() as stop:
        return loop.run(stop)


@pytest.mark.slow
def test_what_is_saved_and_trained_has_the_bits_of_a_loop_that_waits(tmp_path: Path) -> None:
    finished = []
    for background in (False, True):
        run_dir = tmp_path / str(background)
        loop, memory, _ = make(room(run_dir, background=background), every=1)
        run(loop)
        parts = [read_manifest(step_dir(run_dir, s))["parts"] for s in list_steps(run_dir)]
        assert memory.steps("checkpoint_saved") == list_steps(run_dir) == list(range(1, STEPS + 1))
        finished.append((loop.parts.hashes(), memory.rows, parts))
    assert finished[0] == finished[1]


@pytest.mark.parametrize("at", [2, 4, 7, 11])
def test_a_loop_restored_from_any_step_goes_on_with_equal_bits(tmp_path: Path, at: int) -> None:
    whole, expected, _ = make(room(tmp_path / "whole"))
    run(whole)
    here = room(tmp_path / "stopped")
    stopped, *_ = make(here, every=at)
    while stopped.progress.step < at + 1:  # one more, right after the copy was made
        stopped._step()
        stopped._between_steps()
    here.wait()
    resumed, found, _ = make(room(tmp_path / "stopped"))
    restored = resumed.restore()
    assert restored is not None
    assert restored.step == at
    run(resumed)
    assert found.rows == {step: row for step, row in expected.rows.items() if step > at}
    assert resumed.parts.hashes() == whole.parts.hashes()


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    loop, memory, dispatcher = make(room(tmp_path), every=3)
    dispatcher.add_monitor("open", At(6, gate.set))
    run(loop)
    # Step 6 was made before anything of step 3's was written; then step 6's waited for it.
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [3, 6, 9, 12]
    waited = [fields for name, fields in memory.events if name == "checkpoint_waited"]
    assert all(fields["writing"] < fields["step"] for fields in waited)


def test_a_checkpoint_that_comes_due_meanwhile_is_skipped_if_asked_and_that_is_recorded(
    tmp_path: Path, gate: threading.Event
) -> None:
    loop, memory, dispatcher = make(room(tmp_path, when_busy="skip"), every=2)
    dispatcher.add_monitor("open", At(9, gate.set))
    run(loop)
    skipped = [fields for name, fields in memory.events if name == "checkpoint_skipped"]
    assert skipped[:3] == [{"step": step, "writing": 2} for step in (4, 6, 8)]
    assert list_steps(tmp_path) == memory.steps("checkpoint_saved")
    on_disk = set(list_steps(tmp_path)) - {STEPS}  # the last one is written whatever was skipped
    assert on_disk.isdisjoint(fields["step"] for fields in skipped)
    assert list_steps(tmp_path)[-1] == STEPS


@pytest.mark.slow
def test_waiting_is_recorded(tmp_path: Path, gate: threading.Event) -> None:
    loop, memory, _ = make(room(tmp_path), every=2)
    threading.Timer(0.3, gate.set).start()
    run(loop)
    (first, *_) = [fields for name, fields in memory.events if name == "checkpoint_waited"]
    assert (first["step"], first["writing"]) == (4, 2)
    assert 0.1 < first["seconds"] < 20
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [2, 4, 6, 8, 10, 12]


def failing(monkeypatch: pytest.MonkeyPatch, *at: int) -> None:
    """A disk that takes no checkpoint of some steps."""
    write = folder.write

    def write_or_fail(path: Path, step: int, *given: Any, **named: Any) -> Any:
        if step in at:
            raise CheckpointError(f"the disk is full at step {step}")
        return write(path, step, *given, **named)

    monkeypatch.setattr(folder, "write", write_or_fail)


def test_a_failure_is_told_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 3, 9)
    loop, memory, dispatcher = make(room(tmp_path), every=3)
    told: list[Any] = []
    dispatcher.add_listener("told", lambda event, error: told.append(error), [Event.FAILURE])
    assert run(loop).status == "finished"
    assert memory.steps("checkpoint_failed") == [3, 9]
    assert [str(error) for error in told] == [f"the disk is full at step {step}" for step in (3, 9)]
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [6, 12]


@pytest.mark.parametrize("every", [4, 5], ids=["due at the end", "not due at the end"])
def test_the_last_one_is_tried_again_and_its_failure_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    failing(monkeypatch, STEPS)
    loop, memory, _ = make(room(tmp_path), every=every)
    with pytest.raises(CheckpointError, match="full at step 12"):
        run(loop)
    assert set(memory.steps("checkpoint_failed")) == {STEPS}


@pytest.mark.slow
def test_a_failure_that_is_noticed_only_at_the_end_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    failing(monkeypatch, 9)
    loop, memory, _ = make(room(tmp_path), every=9)
    threading.Timer(0.5, gate.set).start()
    assert run(loop).status == "finished"
    assert memory.steps("checkpoint_failed") == [9]
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [12]


@pytest.mark.slow
def test_a_request_to_stop_waits_for_what_is_written_and_writes_its_own(
    tmp_path: Path, gate: threading.Event
) -> None:
    loop, memory, dispatcher = make(room(tmp_path), every=3)
    dispatcher.add_monitor("stop", At(5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    threading.Timer(0.3, gate.set).start()
    outcome = run(loop)
    assert (outcome.status, outcome.step) == ("interrupted", 5)
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [3, 5]


@pytest.mark.slow
def test_a_request_to_stop_in_the_step_of_a_checkpoint_waits_for_that_one(
    tmp_path: Path, gate: threading.Event
) -> None:
    loop, memory, dispatcher = make(room(tmp_path), every=3)
    dispatcher.add_monitor("stop", At(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    threading.Timer(0.3, gate.set).start()
    assert run(loop).step == 3
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [3]


class Exploding(Regression):
    """Its loss is NaN at step 5."""

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        return super().batch(step, part=part) * (math.nan if step == 5 else 1.0)


@pytest.mark.slow
def test_a_run_that_fails_keeps_the_checkpoint_that_was_being_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    workload = Exploding.build(RegressionSettings(), seed=1)
    loop, memory, _ = make(room(tmp_path), every=4, workload=workload)
    threading.Timer(0.3, gate.set).start()
    with pytest.raises(TrainingFailed):
        run(loop)
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [4]


@pytest.mark.slow
def test_two_ctrl_c_abort_and_keep_what_was_being_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    loop, memory, dispatcher = make(room(tmp_path), every=4)
    dispatcher.add_monitor("stop", At(5, twice))
    threading.Timer(0.5, gate.set).start()
    with pytest.raises(KeyboardInterrupt):
        run(loop)
    assert memory.steps("checkpoint_saved") == list_steps(tmp_path) == [4]


def test_a_newer_session_ends_the_run_and_nothing_is_published(tmp_path: Path) -> None:
    loop, memory, _ = make(room(tmp_path, superseded=lambda: True), every=3)
    with pytest.raises(Superseded):
        run(loop)
    assert list_steps(tmp_path) == []
    assert memory.steps("checkpoint_failed") in ([3], [3, 6])  # told before step 6, or waited for


@pytest.mark.slow
def test_the_best_is_not_saved_twice_because_the_first_is_still_being_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    """Its evaluations get better at step 4, then worse."""
    losses = iter([3.0, 1.0, 2.0, 2.5])

    class Planned(Regression):
        def evaluate(self) -> dict[str, float]:
            return {"val_loss": next(losses)}

    workload = Planned.build(RegressionSettings(), seed=1)
    here = room(tmp_path, best="val_loss")
    loop, memory, dispatcher = make(
        here, every=1000, workload=workload, ema=None, evaluate_every=2, steps=8
    )
    dispatcher.add_monitor("open", At(7, gate.set))
    threading.Timer(0.2, gate.set).start()
    run(loop)
    assert memory.steps("checkpoint_saved") == [2, 4, 8]
    assert here.best("val_loss") == step_dir(tmp_path, 4)


@pytest.mark.slow
def test_a_run_that_is_moved_saves_where_it_then_lies_and_is_resumed_there(tmp_path: Path) -> None:
    from cupel.config import load
    from cupel.workloads.training import Display, train
    from desk import new_desk

    desk = new_desk(tmp_path / "desk")
    recipe = load(
        desk.folder / "tiny.yaml",
        [
            f"data.path={desk.folder / 'text.txt'}",
            f"data.cache={desk.folder / 'cache'}",
            *("train.steps=6", "train.evaluate_every=6", "train.log_every=1"),
            *("checkpoint.every=2", "checkpoint.keep_last=9", "figures.formats=[]"),
        ],
    )

    class Moves(Display):
        """Renames the run's folder at step 3, and fails at step 5."""

        def ready(self, run_dir: Path, references: Mapping[str, float]) -> None:
            self.old, self.new = run_dir, run_dir.with_name("renamed")

        def __call__(self, event: Event, payload: Any) -> None:
            if event == Event.STEP_END and payload["step"] == 3:
                self.old.rename(self.new)
            if event == Event.STEP_END and payload["step"] == 5:
                raise KeyboardInterrupt

    display = Moves()
    with pytest.raises(KeyboardInterrupt):
        train(recipe, root=desk.runs, display=display)
    assert list_steps(display.new) == [2, 4]
    assert list_steps(display.old) == []
    trained = train(recipe, root=desk.runs, resume=display.new)
    assert (trained.run_dir, trained.step) == (display.new, 6)
    assert RunRecord(display.new).sessions[1].start_step == 4
    assert list_steps(display.new) == [2, 4, 6]
