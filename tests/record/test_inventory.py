"""The list of checkpoints tells the truth about each, and what is exported is what was saved."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.errors import CheckpointDamaged, RecordError, UsageError
from cupel.record import checkpoints
from cupel.record.inventory import export_model, inventory, verify


class Counter:
    """A part without tensors."""

    def state_dict(self) -> dict[str, int]:
        return {"count": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1, 2 and 3; the second one is the best."""
    folder = tmp_path / "some-run"
    parts = Parts()
    torch.manual_seed(0)
    parts.register("model", nn.Linear(3, 2))
    parts.register("counter", Counter())
    room = CheckpointRoom(folder, settings=CheckpointSettings(keep_last=10))
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        room.save(step, parts, metrics={"val_loss": loss})
    return folder


def of(run_dir: Path, step: int, name: str) -> Path:
    return checkpoints.step_dir(run_dir, step) / name


def test_every_checkpoint_is_listed_with_what_is_known_of_it(run_dir: Path) -> None:
    checkpoints.pin(run_dir, 1)
    one, two, three = inventory(run_dir)
    assert [kept.step for kept in (one, two, three)] == [1, 2, 3]
    assert (one.pinned, two.pinned, three.pinned) == (True, False, False)
    assert (one.best_of, two.best_of, three.best_of) == ([], ["val_loss"], [])
    assert (one.latest, two.latest, three.latest) == (False, False, True)
    assert two.metrics == {"val_loss": 1.0}
    assert two.time is not None
    assert 0 <= time.time() - two.time < 600
    assert two.path == checkpoints.step_dir(run_dir, 2)
    sizes = (of(run_dir, 2, name).stat().st_size for name in ("model.safetensors", "state.json"))
    assert two.bytes == sum(sizes)
    assert [kept.problem for kept in (one, two, three)] == [None, None, None]


def test_a_run_without_checkpoints_has_an_empty_list(tmp_path: Path) -> None:
    assert inventory(tmp_path) == []
    assert verify(tmp_path) == {}


def test_damage_of_every_kind_is_listed_and_the_rest_is_still_told(run_dir: Path) -> None:
    of(run_dir, 1, "model.safetensors").write_bytes(b"")
    of(run_dir, 2, "manifest.json").unlink()
    (checkpoints.checkpoints_dir(run_dir) / "latest.json").write_text("garbage")
    one, two, three = inventory(run_dir)
    assert "model.safetensors has 0 bytes" in str(one.problem)
    assert one.metrics == {"val_loss": 3.0}
    assert "manifest.json" in str(two.problem)
    assert (two.time, two.bytes, two.metrics) == (None, 0, {})
    assert three.problem is None
    assert not three.latest


def test_pins_that_cannot_be_read_are_told(run_dir: Path) -> None:
    (checkpoints.checkpoints_dir(run_dir) / "pin.json").write_text("{")
    with pytest.raises(RecordError, match=r"pin\.json"):
        inventory(run_dir)


def test_verifying_reads_every_byte(run_dir: Path) -> None:
    assert verify(run_dir) == {1: None, 2: None, 3: None}
    path = of(run_dir, 2, "state.json")
    path.write_bytes(path.read_bytes().replace(b"count", b"c0unt"))
    of(run_dir, 3, "model.safetensors").unlink()
    found = verify(run_dir)
    assert found[1] is None
    assert "state.json has changed" in str(found[2])
    assert "model.safetensors is missing" in str(found[3])
    assert verify(run_dir, [1]) == {1: None}
    with pytest.raises(UsageError, match=r"no checkpoint of step 4 \(there are: 1, 2, 3\)"):
        verify(run_dir, [4])


# ---- export ------------------------------------------------------------------------------------


def test_an_exported_model_is_a_file_of_its_own_that_safetensors_reads(
    run_dir: Path, tmp_path: Path
) -> None:
    target = export_model(run_dir, 2, tmp_path / "out.safetensors")
    assert target.read_bytes() == of(run_dir, 2, "model.safetensors").read_bytes()
    torch.manual_seed(0)
    expected = nn.Linear(3, 2).state_dict()
    loaded = safetensors.torch.load_file(target)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    with safetensors.safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_in_a_folder_it_has_its_usual_name(run_dir: Path, tmp_path: Path) -> None:
    assert export_model(run_dir, 2, tmp_path) == tmp_path / "model.safetensors"


def test_a_damaged_model_is_not_exported(run_dir: Path, tmp_path: Path) -> None:
    path = of(run_dir, 2, "model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors has changed"):
        export_model(run_dir, 2, tmp_path / "out")
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointDamaged, match="bytes; it had"):
        export_model(run_dir, 2, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_written_over_and_wrong_places_are_told(run_dir: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(UsageError, match="taken exists already; choose another name"):
        export_model(run_dir, 2, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory"):
        export_model(run_dir, 2, tmp_path / "absent" / "out")
    with pytest.raises(UsageError, match="no checkpoint of step 9"):
        export_model(run_dir, 9, tmp_path / "out")


def test_a_run_without_a_part_called_model_has_none_to_export(tmp_path: Path) -> None:
    parts = Parts()
    parts.register("counter", Counter())
    CheckpointRoom(tmp_path / "run", settings=CheckpointSettings()).save(1, parts)
    with pytest.raises(UsageError, match=r"no tensors of a part called 'model' \(parts: counter\)"):
        export_model(tmp_path / "run", 1, tmp_path / "out")
