"""Saves and restores are exact, and pointers and retention keep what they should."""

from __future__ import annotations

import math
import os
import shutil
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.writing import Saved
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    Superseded,
    UnknownName,
    UsageError,
)
from cupel.record import checkpoints
from fakes import Box, boxed

UNPRUNED = CheckpointSettings(keep_last=1000)


def content(parts: Parts) -> Any:
    return parts.state()["box"]


def room(run_dir: Path, **given: Any) -> CheckpointRoom:
    return CheckpointRoom(run_dir, **{"settings": UNPRUNED, **given})


def steps_on_disk(run_dir: Path) -> list[int]:
    return checkpoints.list_steps(run_dir)


def training(optimizer: str, schedule: str) -> tuple[Parts, nn.Module, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 1))
    made: Any = {
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=0.01),
        "fused": lambda: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True),
        "amsgrad": lambda: torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True),
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    }[optimizer]()
    schedules = torch.optim.lr_scheduler
    scheduler = {
        "cosine": lambda: schedules.CosineAnnealingLR(made, 10),
        "milestones": lambda: schedules.MultiStepLR(made, [2, 4]),
        "plateau": lambda: schedules.ReduceLROnPlateau(made),
        "lambda": lambda: schedules.LambdaLR(made, lambda step: 1 / (1 + step)),
        "sequential": lambda: schedules.SequentialLR(
            made, [schedules.ConstantLR(made), schedules.ExponentialLR(made, 0.9)], [2]
        ),
    }[schedule]()
    average = torch.optim.swa_utils.AveragedModel(model)
    parts = Parts()
    for name, part in [("model", model), ("optimizer", made), ("schedule", scheduler)]:
        parts.register(name, part)
    parts.register("ema", average)
    parts.register("scaler", torch.amp.GradScaler("cpu"))
    return parts, model, made, scheduler


def train(model: nn.Module, optimizer: Any, scheduler: Any, steps: range) -> None:
    for step in steps:
        x = torch.sin(torch.arange(100.0) * (step + 1)).reshape(4, 1, 5, 5)
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        scheduler.step(*([loss.item()] if plateau else []))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler:UserWarning")
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR's own call
@pytest.mark.parametrize(
    "optimizer, schedule",
    [
        ("adamw", "cosine"),
        ("fused", "milestones"),
        ("amsgrad", "plateau"),
        ("sgd", "lambda"),
        ("sgd", "sequential"),
    ],
)
@pytest.mark.slow
def test_training_goes_on_bit_for_bit_after_restoring(
    tmp_path: Path, optimizer: str, schedule: str
) -> None:
    parts, *rest = training(optimizer, schedule)
    train(*rest, range(3))
    saved = room(tmp_path).save(3, parts)
    assert saved.hashes == parts.hashes()
    train(*rest, range(3, 6))

    resumed, *others = training(optimizer, schedule)
    train(*others, range(7, 8))  # something to overwrite
    assert room(tmp_path).restore(resumed) is not None
    assert resumed.hashes() == saved.hashes
    train(*others, range(3, 6))
    assert resumed.hashes() == parts.hashes()


def test_saved_and_restored_say_what_happened(tmp_path: Path) -> None:
    state = {"weight": torch.ones(1000), "note": "NaN"}
    saved = room(tmp_path, about={"config": "abc"}).save(7, boxed(state), metrics={"a": math.inf})
    assert saved.path == tmp_path / "checkpoints" / "step-000000007"
    assert 4000 < saved.bytes < 5000
    assert saved.seconds > 0
    target = boxed(None)
    restored = room(tmp_path).restore(target)
    assert restored is not None
    assert (restored.step, restored.path, restored.skipped) == (7, saved.path, [])
    assert restored.metrics == {"a": math.inf}
    assert content(target)["note"] == "NaN"
    assert folder.read_manifest(saved.path)["about"] == {"config": "abc"}
    assert folder.read_manifest(saved.path)["parts"] == saved.hashes


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    assert room(tmp_path).restore(boxed(1)) is None
    assert room(tmp_path).best("val_loss") is None


def test_what_changes_right_after_save_is_not_in_the_file(tmp_path: Path) -> None:
    weight = torch.ones(5)
    room(tmp_path).save(1, boxed({"w": weight}))
    weight.fill_(2)
    target = boxed(None)
    room(tmp_path).restore(target)
    assert torch.equal(content(target)["w"], torch.ones(5))


def test_what_was_restored_outlives_its_files(tmp_path: Path) -> None:
    saved = room(tmp_path).save(1, boxed({"w": torch.ones(5)}))
    target = boxed(None)
    room(tmp_path).restore(target)
    with (saved.path / "box.safetensors").open("r+b") as file:
        file.write(bytes(saved.bytes))  # in place, as a mapping would see it
    assert torch.equal(content(target)["w"], torch.ones(5))


def test_tied_weights_stay_tied_in_the_model_and_are_stored_once(tmp_path: Path) -> None:
    """Mutation: the codec takes every tensor for another one (`_Collected.add`).

        -        identity = _identity(tensor)
        +        identity = object()

    Then the file was larger than two tables: `assert 3376 < 2 * 50 * 8 * 4`.
    """

    def tied() -> tuple[Parts, nn.Sequential]:
        model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
        model[1].weight = model[0].weight
        parts = Parts()
        parts.register("model", model)
        return parts, model

    (parts, model), (target, loaded) = tied(), tied()
    saved = room(tmp_path).save(1, parts)
    assert (saved.path / "model.safetensors").stat().st_size < 2 * 50 * 8 * 4
    room(tmp_path).restore(target)
    assert loaded[1].weight is loaded[0].weight
    assert torch.equal(loaded[0].weight, model[0].weight)


def test_one_part_is_loaded_alone(tmp_path: Path) -> None:
    parts = boxed({"w": torch.ones(2)})
    parts.register("other", Box({"v": torch.zeros(2)}))
    saved = room(tmp_path).save(1, parts)
    (saved.path / "other.safetensors").unlink()
    assert torch.equal(folder.load_part(saved.path, "box")["w"], torch.ones(2))
    with pytest.raises(UnknownName, match="did you mean 'box'"):
        folder.load_part(saved.path, "bos")
    with pytest.raises(CheckpointDamaged, match=r"other.safetensors is missing"):
        folder.load_states(saved.path)


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    saved = room(tmp_path).save(1, boxed({"w": torch.ones(2)}))
    expected = stat.S_IMODE(saved.path.stat().st_mode) & 0o666
    assert {stat.S_IMODE(path.stat().st_mode) for path in saved.path.iterdir()} == {expected}


def test_a_state_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"the part 'box' cannot be saved: a builtins\.set at"
    ):
        room(tmp_path).save(1, boxed({"seen": {1, 2}}))
    assert steps_on_disk(tmp_path) == []


@settings(deadline=None, max_examples=15)
@given(
    losses=st.lists(st.floats(allow_nan=True), min_size=1, max_size=6),
    keep_last=st.integers(1, 3),
    keep_every=st.none() | st.integers(1, 3),
    goal=st.sampled_from(["min", "max"]),
)
@pytest.mark.slow
def test_the_last_the_spaced_and_the_best_stay(
    tmp_path_factory: pytest.TempPathFactory,
    losses: list[float],
    keep_last: int,
    keep_every: int | None,
    goal: Any,
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    chosen = CheckpointSettings(keep_last=keep_last, keep_every=keep_every, goal=goal)
    here = room(run_dir, settings=chosen)
    for step, loss in enumerate(losses, start=1):
        here.save(step, boxed(step), metrics={"val_loss": loss})
        assert step in steps_on_disk(run_dir)
    steps = range(1, len(losses) + 1)
    known = [step for step in steps if math.isfinite(losses[step - 1])]
    sign = 1 if goal == "min" else -1
    best = min(known, key=lambda step: sign * losses[step - 1], default=None)
    expected = set(steps[-keep_last:]) | {s for s in steps if keep_every and s % keep_every == 0}
    assert set(steps_on_disk(run_dir)) == expected | ({best} if best else set())
    assert here.best("val_loss") == (checkpoints.step_dir(run_dir, best) if best else None)
    latest = checkpoints.read_pointer(run_dir, "latest")
    assert latest is not None
    assert latest["step"] == steps[-1]
    left = {path.name for path in checkpoints.checkpoints_dir(run_dir).iterdir()}
    assert not [name for name in left if name.startswith(".")]


@settings(deadline=None, max_examples=15)
@given(
    losses=st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=7),
    count=st.integers(2, 3),
    goal=st.sampled_from(["min", "max"]),
    background=st.booleans(),
)
@pytest.mark.slow
def test_several_best_stay_and_each_is_known_as_one_when_it_comes(
    tmp_path_factory: pytest.TempPathFactory,
    losses: list[float],
    count: int,
    goal: Any,
    background: bool,
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    chosen = CheckpointSettings(keep_last=1, keep_best=count, goal=goal, background=background)
    here = room(run_dir, settings=chosen)
    sign = 1 if goal == "min" else -1
    before: list[float] = []
    for step, loss in enumerate(losses, start=1):
        best = not math.isnan(loss) and sum(rival <= sign * loss for rival in before) < count
        assert here.is_best(step, {"val_loss": loss}) == best
        here.begin(step, boxed(step), metrics={"val_loss": loss})
        # What was deleted is no rival any more; it was worse than `count` others.
        before = sorted([*before, *([] if math.isnan(loss) else [sign * loss])])[: count + 1]
    here.close()
    known = [(sign * loss, step) for step, loss in enumerate(losses, 1) if not math.isnan(loss)]
    expected = {step for _, step in sorted(known)[:count]} | {len(losses)}
    assert set(steps_on_disk(run_dir)) == expected


def test_what_is_pinned_stays_while_the_run_goes_on(tmp_path: Path) -> None:
    here = room(tmp_path, settings=CheckpointSettings(keep_last=1, best=None))
    here.save(1, boxed(1))
    checkpoints.pin(tmp_path, 1)
    for step in (2, 3):
        here.save(step, boxed(step))
    assert steps_on_disk(tmp_path) == [1, 3]
    checkpoints.unpin(tmp_path, 1)
    here.save(4, boxed(4))
    assert steps_on_disk(tmp_path) == [4]


def test_pins_that_cannot_be_read_stop_deleting_and_not_saving(tmp_path: Path) -> None:
    here = room(tmp_path, settings=CheckpointSettings(keep_last=1, best=None))
    assert here.save(1, boxed(1)).notes == []
    (tmp_path / "checkpoints" / "pin.json").write_text("{")
    (note,) = here.save(2, boxed(2)).notes
    assert "no checkpoint was deleted" in note
    assert "pin.json is damaged" in note
    assert steps_on_disk(tmp_path) == [1, 2]


def test_damaged_newer_checkpoints_do_not_crowd_out_the_newest_intact_one(tmp_path: Path) -> None:
    """As when a run went back to step 1 and is asked to keep one."""
    here = room(tmp_path, settings=UNPRUNED)
    for step in (1, 8, 9):
        saved = here.save(step, boxed({"w": torch.ones(3)}))
        if step > 1:
            (saved.path / "box.safetensors").write_bytes(b"")
    checkpoints.prune(tmp_path, keep={9})
    assert steps_on_disk(tmp_path) == [1, 9]
    restored = here.restore(boxed(None))
    assert restored is not None
    assert restored.step == 1


def test_a_save_after_going_back_is_kept_though_it_is_not_the_newest(tmp_path: Path) -> None:
    here = room(tmp_path, settings=CheckpointSettings(keep_last=1))
    here.save(10, boxed(10))
    here.save(5, boxed(5))
    assert steps_on_disk(tmp_path) == [5, 10]


def test_a_kill_before_the_pointer_moved_does_not_cost_the_best(tmp_path: Path) -> None:
    here = room(tmp_path, settings=CheckpointSettings(keep_last=1))
    here.save(1, boxed(1), metrics={"val_loss": 3.0})
    pointer = tmp_path / "checkpoints" / "best-val_loss.json"
    before = pointer.read_bytes()
    best = here.save(2, boxed(2), metrics={"val_loss": 1.0}).path
    pointer.write_bytes(before)  # what a kill right after the rename leaves
    for step, loss in ((3, 2.0), (4, 2.5)):
        here.save(step, boxed(step), metrics={"val_loss": loss})
    assert here.best("val_loss") == best
    assert steps_on_disk(tmp_path) == [2, 4]


def test_metrics_that_are_not_watched_move_no_best_pointer(tmp_path: Path) -> None:
    here = room(tmp_path, settings=CheckpointSettings(best=None))
    here.save(1, boxed(1), metrics={"val_loss": 1.0})
    assert here.best("val_loss") is None
    other = room(tmp_path / "other")
    other.save(2, boxed(2), metrics={"loss": 1.0})
    assert other.best("val_loss") is None


def test_the_best_of_a_folder_that_is_gone_is_not_told(tmp_path: Path) -> None:
    saved = room(tmp_path).save(1, boxed(1), metrics={"val_loss": 1.0})
    assert room(tmp_path).best("val_loss") == saved.path
    shutil.rmtree(saved.path)
    assert room(tmp_path).best("val_loss") is None


def test_a_step_that_an_older_session_left_is_replaced(tmp_path: Path) -> None:
    room(tmp_path).save(1, boxed({"w": torch.zeros(2)}))
    room(tmp_path).save(1, boxed({"w": torch.ones(2)}))
    target = boxed(None)
    room(tmp_path).restore(target)
    assert torch.equal(content(target)["w"], torch.ones(2))
    left = {path.name for path in checkpoints.checkpoints_dir(tmp_path).iterdir()}
    assert left == {"step-000000001", "latest.json"}


def test_a_superseded_session_changes_nothing(tmp_path: Path) -> None:
    def listing() -> dict[str, bytes]:
        found = (path for path in tmp_path.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found}

    room(tmp_path).save(1, boxed(1), metrics={"val_loss": 2.0})
    before = listing()
    old = room(tmp_path, superseded=lambda: True, settings=CheckpointSettings(keep_last=1))
    for step in (1, 2):
        with pytest.raises(Superseded, match=f"the checkpoint of step {step} was dropped"):
            old.save(step, boxed(2), metrics={"val_loss": 1.0})
        assert listing() == before
    assert not list(checkpoints.checkpoints_dir(tmp_path).glob(".*"))


@pytest.mark.parametrize("background", [True, False])
def test_a_run_that_is_moved_has_its_next_checkpoint_where_it_then_lies(
    tmp_path: Path, background: bool
) -> None:
    place = [tmp_path / "here"]
    place[0].mkdir()
    chosen = CheckpointSettings(background=background)
    here = CheckpointRoom(lambda: place[0], settings=chosen)
    here.save(1, boxed({"w": torch.ones(3)}), metrics={"val_loss": 1.0})
    place.append(place[0].rename(tmp_path / "there"))
    del place[0]
    assert here.best("val_loss") == checkpoints.step_dir(tmp_path / "there", 1)
    assert not here.is_best(2, {"val_loss": 2.0})
    assert here.begin(2, boxed({"w": torch.zeros(3)}), metrics={"val_loss": 2.0})
    here.close()
    (saved,) = here.news()
    assert isinstance(saved, Saved)
    assert saved.path == checkpoints.step_dir(tmp_path / "there", 2)
    assert steps_on_disk(tmp_path / "there") == [1, 2]
    assert not (tmp_path / "here").exists()
    target = boxed(None)
    restored = here.restore(target)
    assert restored is not None
    assert (restored.step, content(target)["w"].tolist()) == (2, [0, 0, 0])


def test_what_is_being_written_when_a_run_is_moved_is_written_again_at_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved at the first sync or rename of the write, at the second, … until there is none."""
    parts = boxed({"w": torch.ones(3)})
    stages = 0
    while True:
        stages += 1
        place = [tmp_path / f"here-{stages}"]
        place[0].mkdir()
        calls = 0

        def count(call: Any, *given: Any, at: int, place: list[Path]) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                monkeypatch.undo()
                place[0] = place[0].rename(tmp_path / f"there-{at}")
            return call(*given)

        counted = partial(count, at=stages, place=place)
        monkeypatch.setattr(os, "fsync", partial(counted, os.fsync))
        monkeypatch.setattr(os, "rename", partial(counted, os.rename))
        room = CheckpointRoom(partial(place.__getitem__, 0), settings=UNPRUNED)
        room.save(1, parts, metrics={"val_loss": 1.0})
        monkeypatch.undo()
        if calls < stages:
            break
        there = tmp_path / f"there-{stages}"
        assert steps_on_disk(there) == [1]
        target = boxed(None)
        assert CheckpointRoom(there, settings=UNPRUNED).restore(target) is not None
        assert content(target)["w"].tolist() == [1, 1, 1]
        assert checkpoints.read_pointer(there, "latest") is not None
        # A pointer's temporary may stay; it goes once this process is dead.
        assert not list(checkpoints.checkpoints_dir(there).glob(".*step*"))
        assert not (tmp_path / f"here-{stages}").exists()
    assert stages > 8


def test_metrics_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    here = CheckpointRoom(tmp_path, settings=CheckpointSettings())
    for save in (here.save, here.begin):
        with pytest.raises(UsageError, match="the metric 'val_loss' of a checkpoint is 'x'"):
            save(1, boxed({"w": torch.ones(2)}), metrics={"val_loss": "x"})  # type: ignore[dict-item]
    assert here.news() == []
    assert not (tmp_path / "checkpoints").exists()
