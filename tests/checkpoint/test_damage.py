"""Damage of any kind is found, told, and never loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    ResumeError,
)
from cupel.record import checkpoints
from fakes import Box, boxed

UNPRUNED = CheckpointSettings(keep_last=1000)


def content(parts: Parts) -> Any:
    return parts.state()["box"]


def room(run_dir: Path, **given: Any) -> CheckpointRoom:
    return CheckpointRoom(run_dir, **{"settings": UNPRUNED, **given})


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        state = {"w": torch.arange(40.0) + step, "lr": 0.1, "step": step}
        room(run_dir).save(step, boxed(state), metrics={"val_loss": 1.5})
    return run_dir


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["manifest.json", "state.json", "box.safetensors"]),
    place=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
)
@pytest.mark.slow
def test_one_changed_byte_anywhere_is_found(
    two_checkpoints: Path, name: str, place: float, mask: int
) -> None:
    """Mutations: `folder._load` compares sizes only; `read_manifest` takes any seal.

        -            manifests.check_file(path, manifest["files"][path.name])
        +            manifests.check_size(path, manifest["files"][path.name])

        -    if seal != _seal(manifest):
        +    if seal is None:

    Then `assert 'state.json' == 'manifest.json'`: the changed file was loaded as intact; and
    `{'seal': '…fc082b…'} != {'seal': '…fc083b…'}`: a manifest with another seal was taken.
    """
    path = checkpoints.step_dir(two_checkpoints, 2) / name
    intact = path.read_bytes()
    changed = bytearray(intact)
    changed[int(place * len(intact))] ^= mask
    path.write_bytes(changed)
    try:
        target = boxed(None)
        restored = room(two_checkpoints).restore(target)
    finally:
        path.write_bytes(intact)
    assert restored is not None
    # Blanks of the manifest may become other blanks: then it says what it said.
    if restored.step == 2:
        assert name == "manifest.json"
        assert json.loads(bytes(changed)) == json.loads(intact)
    else:
        assert restored.step == content(target)["step"] == 1
        assert restored.skipped[0].startswith("step 2: ")
        assert name in restored.skipped[0]


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=40) | st.just(b"{}") | st.just(b'{"schema": 1, "files": {}}'))
def test_a_garbage_manifest_is_called_damaged(two_checkpoints: Path, garbage: bytes) -> None:
    copy = two_checkpoints / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(checkpoints.step_dir(two_checkpoints, 1), copy)
    (copy / "manifest.json").write_bytes(garbage)
    with pytest.raises(CheckpointDamaged):
        folder.load_states(copy)


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "box.safetensors"])
@pytest.mark.parametrize("how", ["absent", "empty", "short", "long"])
def test_lost_and_cut_files_are_found(two_checkpoints: Path, name: str, how: str) -> None:
    """Mutations of `CheckpointRoom.restore`: a damaged one ends the search; none is told of.

        -                continue
        +                break

        -                skipped.append(f"step {candidate}: {damage}")

    Then `CheckpointDamaged: no intact checkpoint: step 2: …/box.safetensors is missing`, though
    that of step 1 is intact; and `DID NOT RAISE CheckpointDamaged` where step 2 was asked for.
    """
    path = checkpoints.step_dir(two_checkpoints, 2) / name
    intact = path.read_bytes()
    changed = {"empty": b"", "short": intact[:-2], "long": intact + b"x"}
    path.write_bytes(changed[how]) if how in changed else path.unlink()
    try:
        restored = room(two_checkpoints).restore(boxed(None))
        with pytest.raises(CheckpointDamaged, match=name):
            room(two_checkpoints).restore(boxed(None), step=2)
    finally:
        path.write_bytes(intact)
    assert restored is not None
    assert restored.step == 1
    assert len(restored.skipped) == 1


def test_a_step_can_be_asked_for(two_checkpoints: Path) -> None:
    target = boxed(None)
    restored = room(two_checkpoints).restore(target, step=1)
    assert restored is not None
    assert content(target)["step"] == restored.step == 1
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3 \(there are: \[1, 2\]\)"):
        room(two_checkpoints).restore(target, step=3)


def test_when_all_are_damaged_training_does_not_start_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        saved = room(tmp_path).save(step, boxed({"w": torch.ones(step)}))
        (saved.path / "manifest.json").unlink()
    target = boxed("untouched")
    with pytest.raises(CheckpointDamaged, match=r"no intact checkpoint: step 2: .*; step 1: "):
        room(tmp_path).restore(target)
    assert content(target) == "untouched"


def test_a_manifest_of_a_newer_cupel_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(folder, "SCHEMA", 2)
        room(tmp_path).save(1, boxed(1))
    with pytest.raises(CheckpointError, match="has schema 2, and this cupel reads up to 1") as told:
        room(tmp_path).restore(boxed(None))
    assert not isinstance(told.value, CheckpointDamaged)


def test_a_checkpoint_of_other_parts_or_shapes_is_refused_and_not_skipped(tmp_path: Path) -> None:
    room(tmp_path).save(1, boxed({"w": torch.ones(2)}))
    other = boxed({"w": torch.zeros(3)})
    with pytest.raises(ResumeError, match=r"w: \(2,\) in the checkpoint, \(3,\) in this run"):
        room(tmp_path).restore(other)
    assert torch.equal(content(other)["w"], torch.zeros(3))
    other.register("ema", Box())
    with pytest.raises(CheckpointError, match="the checkpoint has no 'ema'"):
        room(tmp_path).restore(other)
