"""Killed writers and refusing disks leave what was saved before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.errors import CheckpointError
from cupel.record import checkpoints, files
from fakes import boxed

UNPRUNED = CheckpointSettings(keep_last=1000)


def room(run_dir: Path, **given: Any) -> CheckpointRoom:
    return CheckpointRoom(run_dir, **{"settings": UNPRUNED, **given})


def test_what_dead_writers_left_is_swept(tmp_path: Path) -> None:
    name = "from cupel.record import files; print(files.temporary_name('step-000000001'))"
    left = subprocess.run([sys.executable, "-c", name], capture_output=True, text=True, check=True)
    parent = checkpoints.checkpoints_dir(tmp_path)
    stale, alive = parent / left.stdout.strip(), parent / files.temporary_name("step-000000002")
    for path in (stale, alive, parent / f"{files.TRASH}step-000000003~ab"):
        path.mkdir(parents=True)
    room(tmp_path).save(4, boxed(4))
    assert [path.name for path in parent.glob(".*")] == [alive.name]


KILLED_AT_EVERY_CALL = """
import os, signal, sys
from pathlib import Path
import torch
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings

torch.set_num_threads(1)
CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}

class Box:
    def __init__(self, state): self.state = state
    def state_dict(self): return self.state
    def load_state_dict(self, state): self.state = state

def parts(step):
    made = Parts()
    made.register("box", Box({"step": step, "w": torch.full((1000,), float(step))}))
    return made

def room():
    return CheckpointRoom(Path(sys.argv[1]), settings=CheckpointSettings(keep_last=1))

def die_at(call):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in CALLS:
            seen += 1
            if seen > call:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def killed(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL

room().save(1, parts(1))
kills, reached, dropped, published = 0, 1, [], []
while True:
    step = reached + 1
    def child():
        here = room()
        die_at(kills)
        if sys.argv[2] == "save":
            here.save(step, parts(step))
        else:
            here.begin(step, parts(step))
            here.close()
    if not killed(child):
        break
    kills += 1
    target = parts(0)
    restored = room().restore(target)
    state = target.state()["box"]
    assert restored.step in (reached, step), (restored, reached, step)
    assert not restored.skipped, restored
    assert state["step"] == restored.step and bool((state["w"] == restored.step).all())
    (published if restored.step == step else dropped).append(kills)
    reached = step + 1
    room().save(reached, parts(reached))  # prunes and sweeps, or there would be ever more to do
print(kills, len(dropped), len(published))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["save", "begin"])
def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(
    tmp_path: Path, how: str
) -> None:
    """Mutation: `CheckpointRoom._publish` copies the folder to its name.

        -        temporary.rename(path)
        +        shutil.copytree(temporary, path)

    Then `assert not restored.skipped`, for a kill came in between: `step 20: cannot read
    …/step-000000020/manifest.json: No such file or directory`.
    """
    command = [sys.executable, "-c", KILLED_AT_EVERY_CALL, str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, dropped, published = map(int, done.stdout.split())
    assert kills > 20  # a save is at least that many operations
    assert min(dropped, published) > 5  # some kills came before the rename, some after
    room(tmp_path).save(10**6, boxed(0))
    assert not list(checkpoints.checkpoints_dir(tmp_path).glob(".*"))


SAVES_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
import torch
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings

torch.set_num_threads(1)
model = torch.nn.Linear(700, 700)
parts = Parts()
parts.register("model", model)
room = CheckpointRoom(Path(sys.argv[1]), settings=CheckpointSettings(keep_last=1))
for step in itertools.count(int(sys.argv[2])):
    torch.nn.init.constant_(model.weight, step)
    torch.nn.init.constant_(model.bias, step)
    print(room.save(step, parts).step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.003, 0.011, 0.018])
def test_a_kill_at_any_moment_loses_no_finished_save(tmp_path: Path, after: float) -> None:
    command = [sys.executable, "-c", SAVES_UNTIL_KILLED, str(tmp_path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(3)]
        try:
            writer.wait(after)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -signal.SIGKILL
    model, parts = nn.Linear(700, 700), Parts()
    parts.register("model", model)
    restored = room(tmp_path).restore(parts)
    assert restored is not None
    assert restored.step >= told[-1]
    assert restored.skipped == []
    assert bool((model.weight == restored.step).all() and (model.bias == restored.step).all())


BEGINS_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
import torch
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.writing import Saved

torch.set_num_threads(1)
model = torch.nn.Linear(1500, 1500)
parts = Parts()
parts.register("model", model)
parts.register("twin", torch.nn.Linear(1500, 1500))
room = CheckpointRoom(Path(sys.argv[1]), settings=CheckpointSettings(keep_last=1))
for step in itertools.count(1):
    for part in (model, parts._parts["twin"]):
        torch.nn.init.constant_(part.weight, step)  # while the one before is being written
        torch.nn.init.constant_(part.bias, step)
    room.begin(step, parts)
    for news in room.news():
        if isinstance(news, Saved):
            print(news.step, flush=True)
"""


@pytest.mark.slow
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(after=st.floats(0, 0.15))
def test_a_kill_at_any_moment_of_writing_in_the_background_loses_nothing_that_was_told(
    tmp_path_factory: pytest.TempPathFactory, after: float
) -> None:
    """A write takes about 0.1 s here, so kills come at all of its stages."""
    run_dir = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-c", BEGINS_UNTIL_KILLED, str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(2)]
        try:
            writer.wait(after)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -signal.SIGKILL
    parts = Parts()
    for name in ("model", "twin"):
        parts.register(name, nn.Linear(1500, 1500))
    restored = room(run_dir).restore(parts)
    assert restored is not None
    assert restored.step >= told[-1]
    assert restored.skipped == []
    for state in parts.state().values():
        assert all(bool((tensor == restored.step).all()) for tensor in state.values())
    room(run_dir).save(restored.step + 1, parts)  # and what the dead one left is swept
    assert not list(checkpoints.checkpoints_dir(run_dir).glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this test mounts a small tmpfs, and mounting is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_told_and_what_was_there_stays(small_disk: Path) -> None:
    """Mutation: `CheckpointRoom._write` goes on as if it had saved.

        -        except (OSError, RecordError) as error:
        -            raise CheckpointError(f"checkpoint of step {step}: {error}") from error
        +        except (OSError, RecordError, CheckpointError):
        +            return Saved(temporary, step, 0.0, 0, {})

    Then `DID NOT RAISE CheckpointError`.
    """
    here = room(small_disk)
    here.save(1, boxed({"w": torch.ones(100)}), metrics={"val_loss": 1.0})
    with pytest.raises(CheckpointError, match=r"No space left.*it needs 400,000 bytes.*untouched"):
        here.save(2, boxed({"w": torch.ones(100_000)}), metrics={"val_loss": 0.5})
    assert not list(checkpoints.checkpoints_dir(small_disk).glob(".*"))
    restored = here.restore(boxed(None))
    assert restored is not None
    assert restored.step == 1
    assert here.best("val_loss") == restored.path
    here.save(3, boxed({"w": torch.ones(100)}))  # and there is room again for a smaller one


def test_a_disk_that_refuses_any_sync_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, real = room(tmp_path), os.fsync
    here.save(1, boxed({"w": torch.ones(1)}))
    until_refusal = 0

    def fsync(fd: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    while True:
        left = until_refusal
        try:
            here.save(2, boxed({"w": torch.ones(1)}), metrics={"val_loss": -until_refusal})
            break
        except CheckpointError as error:
            told = str(error)
        until_refusal += 1
        assert "Input/output error" in told
        restored = here.restore(boxed(None))
        assert restored is not None
        assert not restored.skipped
        assert not list(checkpoints.checkpoints_dir(tmp_path).glob(".tmp-*"))
    # tensors, state, manifest; the new folder and its place; two pointers, their folder after each
    assert until_refusal == 9


def test_a_full_disk_in_the_background_is_told_and_what_was_there_stays(small_disk: Path) -> None:
    """Mutation: `CheckpointRoom._raise_unheard` lets a failure be forgotten.

        -            raise failed[0].error

    Then `DID NOT RAISE CheckpointError`, from `close`.
    """
    here = room(small_disk)
    here.save(1, boxed({"w": torch.ones(100)}), metrics={"val_loss": 1.0})
    here.begin(2, boxed({"w": torch.ones(100_000)}), metrics={"val_loss": 0.5})
    with pytest.raises(CheckpointError, match=r"No space left.*it needs 400,000 bytes.*untouched"):
        here.close()
    assert not list(checkpoints.checkpoints_dir(small_disk).glob(".*"))
    assert checkpoints.list_steps(small_disk) == [1]
    assert here.begin(3, boxed({"w": torch.ones(100)}))
    here.close()


def test_a_place_that_cannot_hold_checkpoints_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match="checkpoint of step 1"):
        room(tmp_path).save(1, boxed(1))
