"""The images workload keeps the contract, judges plainly, and is resumed with its running means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from cupel.analysis.exactness import compare
from cupel.checkpoint import folder
from cupel.cli.main import main
from cupel.config import load
from cupel.errors import DataError, UsageError
from cupel.record.checkpoints import step_dir
from cupel.record.reader import RunRecord
from cupel.testing.workload import WorkloadContract
from cupel.workloads import images
from cupel.workloads.images import ImagesWorkload
from cupel.workloads.settings import ImagesSettings
from cupel.workloads.training import Trained, train


class TestImages(WorkloadContract):
    workload = "images"
    settings = {"data": {"batch": 8}}


class TestImagesWithEverythingOn(WorkloadContract):
    workload = "images"
    settings: ClassVar[dict[str, Any]] = {
        "data": {"batch": 8, "folds": 3, "fold": 2},
        "model": {"norm": "none", "width_multiplier": 0.5, "blocks": 2},
        "label_smoothing": 0.1,
    }


def build(*, seed: int = 1, **settings: Any) -> ImagesWorkload:
    return ImagesWorkload.build(ImagesSettings.model_validate(settings), seed=seed)


def test_channels_and_classes_come_from_the_data() -> None:
    settings = build(model={"stages": [8]}).model.settings
    assert (settings.channels_in, settings.classes) == (1, 10)
    assert build(model={"classes": 12}).model.settings.classes == 12


def test_the_loss_is_smoothed_cross_entropy_and_acc_the_share_that_is_right() -> None:
    workload = build(label_smoothing=0.2)
    workload.model.eval()
    x_BCHW, y_B = workload.batch(3)
    with torch.no_grad():
        loss, numbers = workload.loss((x_BCHW, y_B))
        logp_BK = workload.model(x_BCHW).double().log_softmax(1)
    target_BK = torch.nn.functional.one_hot(y_B, 10) * 0.8 + 0.02
    assert float(loss) == pytest.approx(float(-(target_BK * logp_BK).sum(1).mean()), abs=1e-6)
    right = [int(row.argmax()) == int(y) for row, y in zip(logp_BK, y_B, strict=True)]
    assert float(numbers["acc"]) == pytest.approx(sum(right) / 64)
    assert not numbers["acc"].requires_grad


@pytest.mark.parametrize("at_once", [7, 360, 512])
def test_an_evaluation_is_plain_cross_entropy_over_every_validation_image(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_AT_ONCE", at_once)
    workload = build(label_smoothing=0.2)
    workload.model.eval()
    x_NCHW, y_N = map(torch.from_numpy, workload.images.take(workload.images.val))
    with torch.no_grad():
        found = workload.evaluate()
        logp_NK = workload.model(x_NCHW).double().log_softmax(1)
    expected = -logp_NK.gather(1, y_N[:, None]).mean()
    assert found["val_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert found["val_acc"] == int((logp_NK.argmax(1) == y_N).sum()) / 360
    # Labels that the model makes itself are all right: the share is one of images, not of batches.
    workload.images.labels[workload.images.val] = logp_NK.argmax(1).numpy()
    with torch.no_grad():
        assert workload.evaluate()["val_acc"] == 1


def test_validation_does_not_depend_on_the_seed_and_training_does() -> None:
    one, two = build(seed=1), build(seed=2)
    two.model.load_state_dict(one.model.state_dict())
    for workload in (one, two):
        workload.model.eval()
    with torch.no_grad():
        assert one.evaluate() == two.evaluate()
    assert not torch.equal(one.batch(1)[1], two.batch(1)[1])


def test_no_validation_image_is_trained_on() -> None:
    workload = build(data={"folds": 5, "fold": 1})
    unseen = {image.tobytes() for image in workload.images.take(workload.images.val)[0]}
    assert len(unseen) == len(workload.images.val), "two images are equal"
    epoch = range(1, math.ceil(len(workload.images.train) / 64) + 1)
    seen = {image.numpy().tobytes() for step in epoch for image in workload.batch(step)[0]}
    assert len(seen) == len(workload.images.train)
    assert not seen & unseen


def test_a_model_that_does_not_fit_the_data_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"model.channels_in is 3, but the images have 1; leave"):
        build(model={"channels_in": 3})
    with pytest.raises(UsageError, match=r"model.classes is 9, but the data has 10; leave it out"):
        build(model={"classes": 9})
    with pytest.raises(DataError, match=r"data.batch is 2000, and digits has 1437 training images"):
        build(data={"batch": 2000})


OWN_MODEL = """
from typing import Literal
import torch
from torch import nn
from cupel.config import Settings

class Linear(nn.Module):
    class Settings(Settings):
        kind: Literal["own_images:Linear"] = "own_images:Linear"
        channels_in: int | None = None
        classes: int | None = None

    def __init__(self, settings):
        super().__init__()
        self.head = nn.LazyLinear(settings.classes)
        self(torch.zeros(1, settings.channels_in, 8, 8))

    def forward(self, x_BCHW):
        return self.head(x_BCHW.flatten(1))
"""


def test_a_model_of_ones_own_is_given_channels_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_images.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    workload = build(model={"kind": "own_images:Linear"})
    assert workload.model.head.weight.shape == (10, 64)
    with torch.no_grad():
        assert math.isfinite(workload.evaluate()["val_loss"])


# ---- with the real loop ------------------------------------------------------------------------

STEPS = 14
SMALL = [
    *("data.batch=16", "model.stages=[8, 16]", "label_smoothing=0.1"),
    *(f"train.steps={STEPS}", "train.evaluate_every=4", "train.ema=0.9", "train.accumulate=2"),
    *("train.threads=1", "train.device=cpu", "checkpoint.every=3", "checkpoint.best=null"),
    "figures.formats=[]",
]


def trained(root: Path, *overrides: str, resume: Path | None = None) -> Trained:
    threads = torch.get_num_threads()
    try:
        return train(load("digits", [*SMALL, *overrides]), root=root, resume=resume)
    finally:
        torch.set_num_threads(threads)


def recorded(run: Trained) -> RunRecord:
    assert run.run_dir is not None
    return RunRecord(run.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_run_that_was_interrupted_twice_equals_one_that_was_not(
    norm: str, tmp_path: Path
) -> None:
    """The second stop comes in another epoch of the images than the first."""
    given = [f"model.norm={norm}", "data.batch=200"]
    undisturbed = trained(tmp_path / "undisturbed", *given)
    run_dir = None
    for step in (5, 11):
        stop = f"monitors.fakes:Stop={{step: {step}}}"
        stopped = trained(tmp_path / "stopped", *given, stop, resume=run_dir)
        assert (stopped.status, stopped.step) == ("interrupted", step)
        run_dir = stopped.run_dir
    finished = trained(tmp_path / "stopped", *given, resume=run_dir)
    assert finished.status == "finished"
    assert [one.start_step for one in recorded(finished).sessions] == [0, 5, 11]
    comparison = compare(recorded(undisturbed), recorded(finished))
    assert comparison.equal, comparison
    assert comparison.steps == STEPS
    assert "model" in comparison.compared_parts


@pytest.mark.slow
def test_running_means_are_in_the_checkpoint_and_what_is_recorded_says_what_was_seen(
    tmp_path: Path,
) -> None:
    run = recorded(trained(tmp_path))
    state = folder.load_part(step_dir(run.run_dir, STEPS), "model")
    buffers = {name for name in state if name.endswith(("running_mean", "running_var"))}
    assert len(buffers) == 2 * 6  # the stem, two blocks of two, a shortcut
    assert all(state[name].std() > 0 for name in buffers)  # as made they are 0 and 1 throughout
    # Two micro-steps an update: the means moved twice as often.
    assert int(state["stem.norm.num_batches_tracked"]) == 2 * STEPS
    rows = run.history(["loss", "acc", "val_loss", "val_acc"])
    assert sum("acc" in row and "loss" in row for row in rows) == STEPS
    assert [row["_step"] for row in rows if "val_acc" in row] == [4, 8, 12, 14]
    assert all(0 <= row[key] <= 1 for row in rows for key in ("acc", "val_acc") if key in row)
    assert run.run["data"]["sha256"] == build().describe()["sha256"]
    results = json.loads((run.run_dir / "results.json").read_text())
    assert results["totals"]["images"] == 16 * STEPS
    assert results["totals"]["flops"] > 0


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_equal_bits(capsys: pytest.CaptureFixture[str]) -> None:
    slowed = "monitors.fakes:Slow.every=1"
    options = ["--steps", "16", "--kill-at", "9", "--json"]
    with pytest.raises(SystemExit) as left:
        main(["verify", "resume", "digits", *SMALL, slowed, *options])
    verdict = json.loads(capsys.readouterr().out)
    assert (left.value.code, verdict["equal"]) == (0, True), verdict["lines"]
    assert 3 <= verdict["facts"]["resumed_from"] <= verdict["facts"]["killed_at"] < 16


@pytest.mark.slow
def test_monitors_do_not_move_the_running_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["verify", "monitors", "digits", *SMALL, "--steps", "8", "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert (left.value.code, verdict["equal"]) == (0, True), verdict["lines"]


@pytest.mark.slow
def test_the_recipe_learns_the_digits(tmp_path: Path) -> None:
    """0.994 on the machine that this was written on; other sums may differ in the last images."""
    recipe = load("digits", ["figures.formats=[]", "train.threads=1", "train.device=cpu"])
    threads = torch.get_num_threads()
    results = train(recipe, root=tmp_path).results
    torch.set_num_threads(threads)
    assert results["final"]["val_acc"] > 0.97
    assert results["final"]["val_loss"] < 0.1
    assert np.isfinite(results["last_logged"]["loss"])
