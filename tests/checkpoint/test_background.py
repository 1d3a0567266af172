"""What `begin` writes in its thread is the state of that moment, and no failure of it is silent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from cupel.checkpoint import folder
from cupel.checkpoint.buffers import Buffers
from cupel.checkpoint.codec import DTYPES, collect, content, stored
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.writing import Failed, Saved, Skipped, Waited
from cupel.errors import CheckpointError, Superseded
from cupel.record import checkpoints, files
from fakes import Box, boxed, status_of_fork


def room_of(
    run_dir: Path, *, superseded: Callable[[], bool] = bool, **chosen: Any
) -> CheckpointRoom:
    settings = CheckpointSettings.model_validate({"keep_last": 1000, **chosen})
    return CheckpointRoom(run_dir, settings=settings, superseded=superseded)


def training() -> tuple[Parts, Callable[[], None]]:
    """Parts of every kind, and a function that changes all of them at once."""
    torch.manual_seed(0)
    image = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 200))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    counter = Box({"count": 0, "tied": [model[3].weight, model[3].weight.t()]})
    parts = Parts()
    for name, part in (("model", model), ("optimizer", optimizer), ("counter", counter)):
        parts.register(name, part)

    def step() -> None:
        optimizer.zero_grad()
        model(image).square().mean().backward()
        optimizer.step()
        counter.state["count"] += 1

    step()
    return parts, step


def race(run_dir: Path, gate: threading.Event) -> tuple[dict[str, str], Saved]:
    """Hashes before an update that comes right after `begin`, and what was written after it."""
    here = room_of(run_dir)
    parts, step = training()
    before = parts.hashes()
    assert here.begin(1, parts)
    step()
    assert parts.hashes() != before
    gate.set()
    here.wait()
    (saved,) = here.news()
    assert isinstance(saved, Saved)
    return before, saved


def test_an_update_right_after_begin_is_not_in_the_file(
    tmp_path: Path, gate: threading.Event
) -> None:
    before, saved = race(tmp_path, gate)
    assert saved.hashes == before
    target, _ = training()
    room_of(tmp_path).restore(target)
    assert target.hashes() == before


def test_and_without_the_copy_it_would_be(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test before would prove nothing."""
    monkeypatch.setattr(Buffers, "copy", lambda self, packed: packed)
    before, saved = race(tmp_path, gate)
    assert saved.hashes != before


@pytest.mark.slow
def test_updates_that_never_wait_leave_every_checkpoint_as_it_was_taken(tmp_path: Path) -> None:
    here = room_of(tmp_path)
    parts, step = training()
    here.prepare(parts)
    expected = {}
    for number in range(1, 15):
        expected[number] = parts.hashes()
        assert here.begin(number, parts)
        step()
    here.close()
    for number, hashes in expected.items():
        target, _ = training()
        assert room_of(tmp_path).restore(target, step=number) is not None
        assert target.hashes() == hashes


def test_the_same_files_are_written_as_in_the_foreground(tmp_path: Path) -> None:
    parts, _ = training()
    here, there = room_of(tmp_path / "here"), room_of(tmp_path / "there")
    here.begin(1, parts)
    here.close()
    there.save(1, parts)
    for name in ("model.safetensors", "optimizer.safetensors", "counter.safetensors", "state.json"):
        one, other = (tmp_path / w / "checkpoints/step-000000001" / name for w in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_news_are_told_once_and_say_what_it_cost(tmp_path: Path, gate: threading.Event) -> None:
    here = room_of(tmp_path)
    started = time.perf_counter()
    assert here.begin(5, boxed({"w": torch.ones(9)}), metrics={"val_loss": 1.0})
    assert here.news() == []
    time.sleep(0.2)
    gate.set()
    here.wait()
    (saved,) = here.news()
    assert isinstance(saved, Saved)
    assert here.news() == []
    assert (saved.step, saved.path) == (5, checkpoints.step_dir(tmp_path, 5))
    assert saved.stalled < 0.2 <= saved.seconds <= time.perf_counter() - started
    assert here.best("val_loss") == saved.path


@pytest.mark.slow
def test_one_is_written_at_a_time_and_waiting_is_told(
    tmp_path: Path, gate: threading.Event
) -> None:
    here = room_of(tmp_path)
    here.begin(1, boxed({"w": torch.ones(9)}))
    threading.Timer(0.2, gate.set).start()
    here.begin(2, boxed({"w": torch.zeros(9)}))
    here.close()
    first, waited, second = here.news()
    assert isinstance(first, Saved)
    assert isinstance(second, Saved)
    assert isinstance(waited, Waited)
    assert (waited.step, waited.writing) == (2, 1)
    assert 0.1 < waited.seconds < 20


def test_one_that_comes_due_meanwhile_is_skipped_if_asked(
    tmp_path: Path, gate: threading.Event
) -> None:
    here = room_of(tmp_path, when_busy="skip")
    assert here.begin(1, boxed(1))
    assert not here.begin(2, boxed(2))
    gate.set()
    here.wait()
    assert here.begin(3, boxed(3))
    here.close()
    assert [type(news) for news in here.news()] == [Skipped, Saved, Saved]
    assert checkpoints.list_steps(tmp_path) == [1, 3]


@pytest.mark.slow
def test_save_and_restore_wait_for_what_is_being_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    here, target = room_of(tmp_path), boxed(None)
    here.begin(1, boxed(11))
    threading.Timer(0.2, gate.set).start()
    restored = here.restore(target)
    assert restored is not None
    assert target.state()["box"] == 11
    gate.clear()
    here.begin(2, boxed(12))
    threading.Timer(0.2, gate.set).start()
    assert here.save(3, boxed(13)).step == 3
    assert checkpoints.list_steps(tmp_path) == [1, 2, 3]


def test_without_background_begin_writes_at_once(tmp_path: Path) -> None:
    here = room_of(tmp_path, background=False)
    assert here.begin(1, boxed({"w": torch.ones(9)}))
    assert checkpoints.list_steps(tmp_path) == [1]
    (saved,) = here.news()
    assert isinstance(saved, Saved)
    assert saved.stalled == saved.seconds
    assert not here.begin(2, boxed({1, 2}))
    assert [type(news) for news in here.news()] == [Failed]


# ---- failures ----------------------------------------------------------------------------------


def broken(run_dir: Path) -> CheckpointRoom:
    (run_dir / "checkpoints").write_text("a file")
    return room_of(run_dir)


def test_a_failure_is_in_the_news(tmp_path: Path) -> None:
    here = broken(tmp_path)
    here.begin(1, boxed(1))
    here.wait()
    (failed,) = here.news()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, CheckpointError)
    here.close()


@pytest.mark.parametrize("at", ["close", "save", "begin"])
def test_a_failure_that_nobody_heard_of_is_raised(tmp_path: Path, at: str) -> None:
    here = broken(tmp_path)
    here.begin(1, boxed(1))
    here.wait()
    (tmp_path / "checkpoints").unlink()
    with pytest.raises(CheckpointError, match="step 1"):
        {
            "close": here.close,
            "save": lambda: here.save(2, boxed(2)),
            "begin": lambda: here.begin(2, boxed(2)),
        }[at]()
    assert here.begin(3, boxed(3)), "and once it is known, the next one is taken"
    here.close()
    assert checkpoints.list_steps(tmp_path) == [3]


def test_a_state_that_cannot_be_saved_is_told_by_its_part(tmp_path: Path) -> None:
    here = room_of(tmp_path)
    here.prepare(boxed({"seen": {1, 2}}))  # says nothing yet
    assert not here.begin(1, boxed({"seen": {1, 2}}))
    (failed,) = here.news()
    assert isinstance(failed, Failed)
    assert "the part 'box' cannot be saved: a builtins.set at" in str(failed.error)


def test_a_superseded_session_publishes_nothing_and_is_told(tmp_path: Path) -> None:
    room_of(tmp_path).save(1, boxed(1), metrics={"val_loss": 2.0})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    old = room_of(tmp_path, superseded=lambda: True, keep_last=1)
    old.begin(2, boxed(2), metrics={"val_loss": 1.0})
    with pytest.raises(Superseded, match="the checkpoint of step 2 was dropped"):
        old.close()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not list(checkpoints.checkpoints_dir(tmp_path).glob(".*"))


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings

class Box:
    def state_dict(self): return {"w": torch.ones(1) if small else large}
    def load_state_dict(self, state): pass

small, large = False, torch.zeros(50_000_000)
parts = Parts()
parts.register("box", Box())
room = CheckpointRoom(Path(sys.argv[1]), settings=CheckpointSettings())
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 150_000_000
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
room.prepare(parts)
assert not room.begin(1, parts)
(failed,) = room.news()
print(failed.error)
small = True
resource.setrlimit(resource.RLIMIT_AS, before)
assert room.begin(2, parts)
room.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_no_memory_for_the_copy_is_told_with_the_way_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "no memory for a copy of the state (200,000,000 bytes: " in line
    assert line.endswith("checkpoint.background=false needs none")
    assert checkpoints.list_steps(tmp_path) == [2]


def test_a_thread_that_cannot_be_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    here = room_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        here.prepare(boxed(1))
        here.begin(1, boxed(1))
        with pytest.raises(CheckpointError, match="no thread to write in: can't start new thread"):
            here.close()
        with pytest.raises(CheckpointError, match="no thread to hash in: can't start new thread"):
            here.save(2, boxed({"w": torch.ones(9)}))


@pytest.mark.slow
def test_a_ctrl_c_while_it_waits_gives_the_file_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pieces; what was written so far is removed."""
    here, write = room_of(tmp_path), folder.write
    started, interrupted = threading.Event(), threading.Event()

    def held(*given: Any, check: Callable[[], None], **named: Any) -> Any:
        def slow() -> None:
            started.set()
            assert interrupted.wait(30)
            check()

        return write(*given, check=slow, **named)

    monkeypatch.setattr(folder, "write", held)
    here.begin(1, boxed({"w": torch.ones(9)}))
    assert started.wait(30)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        here.wait()
    assert here.news() == [], "it is still being written"
    interrupted.set()
    with pytest.raises(CheckpointError, match="step 1 was given up by Ctrl-C"):
        here.close()
    assert not list(checkpoints.checkpoints_dir(tmp_path).iterdir())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_waits_for_its_parents_checkpoint_nor_calls_it_saved(
    tmp_path: Path, gate: threading.Event
) -> None:
    here = room_of(tmp_path)
    here.begin(1, boxed(1))

    def child() -> None:
        here.wait()
        (failed,) = here.news()
        assert isinstance(failed, Failed)
        assert str(failed.error) == "a forked child does not write its parent's checkpoint"

    assert status_of_fork(child) == 0
    gate.set()
    here.close()
    assert [type(news) for news in here.news()] == [Saved]


# ---- the copy ----------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of every dtype and of odd layouts."""
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    content = draw(st.binary(min_size=2 * 3 * 5 * 8, max_size=2 * 3 * 5 * 8))
    limit = 1 if dtype == torch.bool else 255
    raw = torch.tensor([min(byte, limit) for byte in content], dtype=torch.uint8)
    tensor = raw[: 30 * dtype.itemsize].view(dtype).reshape(2, 3, 5)
    if dtype.itemsize == 1 and dtype not in (torch.uint8, torch.int8, torch.bool):
        return tensor[:1]  # torch cannot copy all of these from other layouts
    changed = draw(
        st.sampled_from(["", "transposed", "strided", "broadcast", "empty", "one", "conj"])
    )
    if changed == "conj" and dtype == torch.complex64:
        return tensor.conj()
    return {
        "transposed": tensor.transpose(0, 2),
        "strided": tensor[:, ::2, 1::3],
        "broadcast": tensor[:1].expand(4, 3, 5),
        "empty": tensor[:, :0],
        "one": tensor[0, 0, 0],
    }.get(changed, tensor)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tensors(), max_size=5), st.lists(tensors(), max_size=5), st.booleans())
def test_copies_have_equal_bits_and_survive_a_change_of_the_original(
    first: list[torch.Tensor], second: list[torch.Tensor], reserved: bool
) -> None:
    """Also where another copy, of another size, lay before."""
    buffers = Buffers()
    for state in (first, second):
        packed = {"a": collect(state), "b": collect({"again": state})}
        if reserved:
            buffers.reserve(packed)
        before = [bytes(content(stored(t))) for _, held in packed.values() for t in held.values()]
        copies = buffers.copy(packed)
        for tensor in state:
            tensor.untyped_storage().fill_(7)
        for part, (skeleton, held) in copies.items():
            assert skeleton == packed[part][0]
            for name, copy in held.items():
                original = packed[part][1][name]
                assert (copy.dtype, copy.shape) == (original.dtype, original.shape)
        after = [bytes(content(stored(t))) for _, held in copies.values() for t in held.values()]
        assert after == before


def test_memory_is_used_again(tmp_path: Path) -> None:
    buffers = Buffers()
    places = set()
    for size in (1000, 10, 1000):
        copies = buffers.copy({"a": collect({"w": torch.ones(size)})})
        places.add(copies["a"][1]["w"].data_ptr())
    assert len(places) == 1


@pytest.mark.slow
def test_a_process_that_forgets_to_wait_still_finishes_the_file(tmp_path: Path) -> None:
    """Also one that ends with an exception."""
    script = (
        "import sys, torch\nfrom pathlib import Path\n"
        "from cupel.checkpoint.parts import Parts\n"
        "from cupel.checkpoint.room import CheckpointRoom\n"
        "from cupel.checkpoint.settings import CheckpointSettings\n"
        "model = torch.nn.Linear(1000, 1000)\nparts = Parts()\nparts.register('model', model)\n"
        "room = CheckpointRoom(Path(sys.argv[1]), settings=CheckpointSettings())\n"
        "room.begin(1, parts)\nraise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"")
    assert checkpoints.list_steps(tmp_path) == [1]
    assert not [
        p for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(files.TEMPORARY)
    ]
    assert room_of(tmp_path).restore(_linear()) is not None


def _linear() -> Parts:
    parts = Parts()
    parts.register("model", nn.Linear(1000, 1000))
    return parts
