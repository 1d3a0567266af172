"""A loop of one's own is not held up by its checkpoints, and hears of each that failed."""

from __future__ import annotations

import shutil
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

import cupel
from cupel.checkpoint import folder
from cupel.errors import CheckpointError, Superseded, UsageError
from cupel.record import checkpoints, layout
from cupel.record.manifests import read_manifest
from cupel.record.reader import RunRecord, list_runs
from fakes import Box

Init = Callable[..., cupel.Run]
Script = Callable[..., subprocess.CompletedProcess[str]]


def events(run_dir: Path) -> list[tuple[str, int]]:
    """Which events of checkpoints there are, and of which steps."""
    return [
        (event["_event"].removeprefix("checkpoint_"), event["step"])
        for event in RunRecord(run_dir).events()
        if event["_event"].startswith("checkpoint_")
    ]


def block(run: cupel.Run) -> Path:
    """Let a file stand where the checkpoints go: the disk takes none until it is removed."""
    place = run.dir / "checkpoints"
    if place.is_dir():
        place.rename(place.with_name("before"))
    place.write_text("a file")
    return place


def unblock(place: Path) -> None:
    place.unlink()
    if place.with_name("before").is_dir():
        place.with_name("before").rename(place)


def until_written() -> None:
    """Wait until no thread writes a checkpoint; what became of it nobody has asked yet."""
    while any(thread.name.startswith("cupel-checkpoint") for thread in threading.enumerate()):
        time.sleep(0.005)


# ---- what is saved -----------------------------------------------------------------------------


def test_training_goes_on_while_a_checkpoint_is_written_and_its_path_comes_true(
    init: Init, gate: threading.Event
) -> None:
    weight = torch.ones(1000)
    with init() as run:
        run.register(box=Box({"w": weight}))
        run.log({"loss": 1.0}, step=7)
        path = run.save_checkpoint({"val_loss": 0.5})
        weight.fill_(2.0)
        assert (path, path.exists()) == (checkpoints.step_dir(run.dir, 7), False)
        assert events(run.dir) == []
        gate.set()
    assert events(run.dir) == [("saved", 7)]
    assert torch.equal(folder.load_part(path, "box")["w"], torch.ones(1000))
    (saved,) = [e for e in RunRecord(run.dir).events() if e["_event"] == "checkpoint_saved"]
    assert 0 < saved["stalled"] < saved["seconds"]
    assert saved["bytes"] > 4000
    assert (run.dir / "checkpoints" / "best-val_loss.json").is_file()


def test_with_wait_it_is_on_the_disk_when_the_call_returns(init: Init) -> None:
    with init() as run:
        run.register(box=Box({"w": torch.ones(9)}))
        path = run.save_checkpoint(wait=True)
        assert torch.equal(folder.load_part(path, "box")["w"], torch.ones(9))
        assert events(run.dir) == [("saved", 0)]


@pytest.mark.slow
def test_what_is_written_by_the_way_is_recorded_at_the_next_one(
    init: Init, gate: threading.Event
) -> None:
    with init() as run:
        run.register(box=Box())
        run.step = 1
        run.save_checkpoint()
        threading.Timer(0.2, gate.set).start()
        run.step = 2
        run.save_checkpoint()
        assert events(run.dir)[:2] == [("saved", 1), ("waited", 2)]
    assert events(run.dir) == [("saved", 1), ("waited", 2), ("saved", 2)]


def test_between_two_steps_what_is_on_the_disk_is_recorded(init: Init) -> None:
    with init() as run:
        run.register(box=Box())
        for step in run.steps(10_000):
            if step == 3:
                run.save_checkpoint()
            if ("saved", 3) in events(run.dir):
                break
            time.sleep(0.01)
        assert 3 < run.step < 10_000


@pytest.mark.slow
def test_the_memory_for_copies_is_got_once(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    empty = torch.empty

    def counted(*given: Any, **named: Any) -> Any:
        if named.get("dtype") is torch.uint8:
            got.append(given[0])
        return empty(*given, **named)

    monkeypatch.setattr(torch, "empty", counted)
    with init() as run:
        run.register(box=Box({"w": torch.ones(100_000)}))
        for _ in run.steps(20, save_every=2):
            pass
    assert len(got) == 1
    assert RunRecord(run.dir).checkpoints() == [18, 20]


@pytest.mark.slow
def test_loading_waits_for_what_is_being_written(init: Init, gate: threading.Event) -> None:
    box = Box({"count": 1})
    with init() as run:
        run.register(box=box)
        run.step = 3
        run.save_checkpoint()
        box.state = {"count": 2}
        threading.Timer(0.2, gate.set).start()
        assert run.load_checkpoint() == 3
        assert box.state == {"count": 1}
        assert events(run.dir) == [("saved", 3)]


def test_the_last_of_steps_is_on_the_disk_when_the_loop_ends(init: Init) -> None:
    with init() as run:
        run.register(box=Box())
        assert list(run.steps(5, save_every=2)) == [1, 2, 3, 4, 5]
        saved = [step for name, step in events(run.dir) if name == "saved"]
        assert saved == [2, 4, 5]


# ---- settings ----------------------------------------------------------------------------------


def test_settings_of_checkpoints_are_those_of_a_recipe(init: Init) -> None:
    chosen = {"background": False, "keep_last": 3, "best": "acc", "goal": "max"}
    with init(settings={"checkpoint": chosen}) as run:
        run.register(box=Box())
        for step, acc in enumerate((0.9, 0.1, 0.2, 0.3, 0.4), start=1):
            run.step = step
            path = run.save_checkpoint({"acc": acc})
            assert (path / "manifest.json").is_file()  # nothing is left to a thread
            assert events(run.dir)[-1] == ("saved", step)
    assert RunRecord(run.dir).checkpoints() == [1, 3, 4, 5]


def test_one_that_is_skipped_gives_the_folder_of_the_one_being_written(
    init: Init, gate: threading.Event
) -> None:
    with init(settings={"checkpoint": {"when_busy": "skip"}}) as run:
        run.register(box=Box())
        paths = []
        for run.step in (4, 5):
            paths.append(run.save_checkpoint())
        assert [path.name for path in paths] == ["step-000000004"] * 2
        gate.set()
    assert events(run.dir) == [("skipped", 5), ("saved", 4)]
    assert paths[1].is_dir()


@pytest.mark.parametrize(
    "given, told",
    [
        ({"keep_lats": 3}, "settings: checkpoint.keep_lats: .*did you mean 'keep_last'"),
        ({"keep_last": 0}, "settings: checkpoint.keep_last: .*1"),
        ({"every": 50}, r"checkpoint\.every has no effect .*run\.steps\(…, save_every=50\)"),
        (3, "settings: checkpoint must be a dict, as {'keep_last': 5}, not int"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_there_is_a_run(
    init: Init, root: Path, given: Any, told: str
) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        init(settings={"checkpoint": given})
    assert len(str(raised.value).splitlines()) == 1
    assert not root.exists()


# ---- failures ----------------------------------------------------------------------------------


def test_a_failure_is_recorded_and_told_and_the_next_one_is_taken(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        run.register(box=Box())
        place = block(run)
        run.step = 1
        run.save_checkpoint()
        until_written()
        unblock(place)
        run.step = 2
        run.save_checkpoint()
    told = [line for line in capsys.readouterr().err.splitlines() if "step 1" in line]
    assert len(told) == 1
    assert told[0].startswith("cupel: ")
    assert events(run.dir) == [("failed", 1), ("saved", 2)]
    assert "step 1 FAILED" in (run.dir / "sessions/0001/training.log").read_text()
    assert RunRecord(run.dir).status == "finished"


def test_when_the_last_one_failed_finish_closes_the_record_and_raises(init: Init) -> None:
    run = init()
    run.register(box=Box())
    run.step = 1
    run.save_checkpoint(wait=True)
    block(run)
    run.step = 2
    run.save_checkpoint()
    with pytest.raises(CheckpointError, match="step 2") as raised:
        run.finish()
    record = RunRecord(run.dir)
    assert (record.status, record.results) == ("failed", None)
    assert record.sessions[0].fields["error"] == str(raised.value)
    assert events(run.dir) == [("saved", 1), ("failed", 2)]
    run.finish()  # a second call does nothing
    with init():
        pass


def test_one_that_failed_in_steps_and_was_followed_by_none_is_raised_too(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    run = init()
    run.register(box=Box())
    place = block(run)
    for step in run.steps(9, save_every=2):
        if step > 2 and ("failed", 2) in events(run.dir):
            break
        time.sleep(0.05)
        assert step < 4 or place.exists()
    assert "step 2" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="step"):
        run.finish()
    assert RunRecord(run.dir).status == "failed"


def test_a_failure_that_was_raised_already_is_not_raised_again(init: Init) -> None:
    run = init()
    run.register(box=Box())
    place = block(run)
    with pytest.raises(CheckpointError, match="step 0"):
        run.save_checkpoint(wait=True)
    run.register(odd=Box({1, 2}))
    with pytest.raises(CheckpointError, match="the part 'odd' cannot be saved"):
        run.save_checkpoint()
    unblock(place)
    assert events(run.dir) == [("failed", 0), ("failed", 0)]
    run.finish("interrupted")
    assert RunRecord(run.dir).status == "interrupted"


def test_the_last_of_steps_that_cannot_be_written_is_raised_in_the_loop(init: Init) -> None:
    def train(run: cupel.Run) -> None:
        with run:
            run.register(box=Box())
            for step in run.steps(3):
                if step == 2:
                    run.save_checkpoint(wait=True)
                    block(run)

    run = init()
    with pytest.raises(CheckpointError, match="step 3"):
        train(run)
    assert RunRecord(run.dir).status == "failed"
    assert events(run.dir) == [("saved", 2), ("failed", 3)]


@pytest.mark.parametrize(
    "error, status", [(RuntimeError("died"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_the_error_that_ends_a_run_is_raised_and_not_that_of_its_checkpoint(
    init: Init, capsys: pytest.CaptureFixture[str], error: BaseException, status: str
) -> None:
    run = init()
    run.register(box=Box())
    block(run)
    run.save_checkpoint()
    with pytest.raises(type(error)) as raised, run:
        raise error
    assert raised.value is error
    assert "cupel: " in capsys.readouterr().err
    assert (RunRecord(run.dir).status, events(run.dir)) == (status, [("failed", 0)])


@pytest.mark.slow
def test_a_run_that_is_left_in_the_midst_of_a_checkpoint_keeps_it(
    init: Init, gate: threading.Event
) -> None:
    run = init()
    run.register(box=Box())
    run.save_checkpoint()
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(RuntimeError, match="died"), run:
        raise RuntimeError("died")
    assert (RunRecord(run.dir).status, events(run.dir)) == ("failed", [("saved", 0)])


@pytest.mark.slow
def test_ctrl_c_while_finish_waits_gives_the_file_up_and_says_so(
    init: Init, gate: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    run = init()
    run.register(box=Box({"w": torch.ones(9)}))
    run.save_checkpoint()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)
        gate.set()

    threading.Timer(0.5, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert "given up by Ctrl-C" in capsys.readouterr().err
    record = RunRecord(run.dir)
    assert (record.status, record.results) == ("interrupted", None)
    assert (events(run.dir), record.checkpoints()) == ([("failed", 0)], [])


def test_a_newer_session_ends_the_saving_of_an_older_one(init: Init) -> None:
    run = init()
    run.register(box=Box())
    run.save_checkpoint(wait=True)
    layout.session_dir(run.dir, 2).mkdir()
    run.step = 1
    run.save_checkpoint()
    until_written()
    run.step = 2
    with pytest.raises(Superseded, match="the checkpoint of step 1 was dropped"):
        run.save_checkpoint()
    with pytest.raises(Superseded):
        run.finish()
    assert RunRecord(run.dir).checkpoints() == [0]


FAILS_AT_ITS_END = """
import sys, cupel
from cupel.compat import SummaryWriter
class Part:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
writer = SummaryWriter("logs/p/beside")
run = cupel.init("p", "n")
run.register(part=Part())
(run.dir / "checkpoints").write_text("a file")
run.save_checkpoint()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending, said, code",
    [("", None, 0), ("sys.exit(3)", "sys.exit(3)", 3), ("1 / 0", "", 1)],
)
def test_a_script_that_just_ends_tells_of_its_last_checkpoint_and_ends_its_other_runs(
    script: Script, root: Path, ending: str, said: str | None, code: int
) -> None:
    done = script(FAILS_AT_ITS_END + ending)
    assert "CheckpointError: " in done.stderr
    assert done.returncode == code
    runs = {run.run["name"]: run for run in list_runs(root)}
    assert runs["n"].status == "failed"
    assert runs["beside"].status == ("finished" if not ending else "failed")
    assert events(runs["n"].run_dir) == [("failed", 0)]
    error = runs["n"].sessions[0].fields["error"]
    assert (said if said is not None else "checkpoint") in error
    if ending == "1 / 0":
        assert "ZeroDivisionError" in done.stderr.splitlines()[-1]  # Python's own report comes last
        assert "line" in error


# ---- kills -------------------------------------------------------------------------------------

WRITES = """
import sys, time, cupel
from cupel.checkpoint import folder
class Part:
    count = 0
    def state_dict(self): return {"count": self.count}
    def load_state_dict(self, state): self.count = state["count"]
part = Part()
run = cupel.init("p", "n", resume="auto")
run.register(part=part)
restored = run.load_checkpoint()
print("restored", restored, part.count, flush=True)
if restored: sys.exit()
write = folder.write
def slowly(path, step, *given, **named):
    path.mkdir(parents=True)
    (path / "half").write_text("half")
    print("writing", step, flush=True)
    time.sleep(SECONDS if step == 2 else 0)
    (path / "half").unlink()
    path.rmdir()
    return write(path, step, *given, **named)
folder.write = slowly
for run.step in (1, 2):
    part.count = 10 * run.step
    run.save_checkpoint()
while True:
    time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals, seconds, restored",
    [
        ([signal.SIGTERM], 1, "2 20"),
        ([signal.SIGTERM, signal.SIGTERM], 600, "1 10"),
        ([signal.SIGKILL], 600, "1 10"),
    ],
    ids=["once", "twice", "kill -9"],
)
def test_a_stop_in_the_midst_of_a_checkpoint_lets_it_be_written_and_a_kill_leaves_the_one_before(
    script: Script, tmp_path: Path, root: Path, signals: list[Any], seconds: int, restored: str
) -> None:
    path = tmp_path / "writes.py"
    path.write_text(WRITES.replace("SECONDS", str(seconds)))
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("writing 2"):
                break
        for number in signals:
            time.sleep(0.5)
            child.send_signal(number)
        assert child.wait(60) == -signals[0]
    (run,) = list_runs(root)
    assert run.status == "crashed"
    done = script(path.read_text())
    assert done.stdout == f"restored {restored}\n", done.stderr
    assert not list((run.run_dir / "checkpoints").glob(".*")) or restored == "1 10"


def test_sigterm_is_left_alone_where_the_script_hears_it_and_given_back_at_the_end(
    init: Init,
) -> None:
    def own(number: int, frame: Any) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        with init() as run:
            run.register(box=Box())
            run.save_checkpoint()
            assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with init() as run:
            run.register(box=Box())
            run.save_checkpoint()
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_request_to_stop_waits_for_what_is_written_and_writes_its_own(
    init: Init, gate: threading.Event
) -> None:
    def train(run: cupel.Run) -> None:
        run.register(box=Box())
        for step in run.steps(9, save_every=2):
            if step == 3:
                threading.Timer(0.2, gate.set).start()
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    run = init()
    with pytest.raises(SystemExit) as left:
        train(run)
    assert left.value.code == 75
    assert events(run.dir) == [("saved", 2), ("saved", 3)]
    assert RunRecord(run.dir).status == "interrupted"


# ---- a run that is moved -----------------------------------------------------------------------


def test_a_run_that_is_moved_saves_where_it_then_lies_and_is_resumed_there(
    init: Init, root: Path
) -> None:
    box = Box({"count": 1})
    run = init()
    run.register(box=box)
    run.step = 1
    run.save_checkpoint(wait=True)
    old = run.dir
    old.rename(old.with_name("renamed"))
    box.state, run.step = {"count": 2}, 2
    path = run.save_checkpoint()
    assert path.parents[1] == old.with_name("renamed")
    run.finish("interrupted")
    assert RunRecord(run.dir).checkpoints() == [1, 2]
    assert events(run.dir) == [("saved", 1), ("saved", 2)]
    assert not old.exists()
    shutil.move(old.with_name("renamed"), old)
    with init(resume="auto") as resumed:
        again = Box()
        resumed.register(box=again)
        assert (resumed.dir, resumed.load_checkpoint(), again.state) == (old, 2, {"count": 2})


def test_one_that_is_being_written_when_its_run_is_moved_is_written_again_there(
    init: Init, gate: threading.Event
) -> None:
    with init() as run:
        run.register(box=Box({"w": torch.ones(9)}))
        run.save_checkpoint()
        old = run.dir
        old.rename(old.with_name("renamed"))
        gate.set()
    assert run.dir == old.with_name("renamed")
    assert events(run.dir) == [("saved", 0)]
    assert RunRecord(run.dir).checkpoints() == [0]


# ---- the metrics of a checkpoint ---------------------------------------------------------------


def test_metrics_are_taken_as_they_are_at_the_call(init: Init, gate: threading.Event) -> None:
    loss = torch.tensor(1.0)
    with init() as run:
        run.register(box=Box())
        path = run.save_checkpoint(metrics={"val_loss": loss})
        loss.fill_(99.0)
        gate.set()
    assert read_manifest(path)["metrics"] == {"val_loss": 1.0}


@pytest.mark.parametrize("mode", ["online", "disabled"])
@pytest.mark.parametrize(
    "metrics, told",
    [
        (
            {"val_loss": "x"},
            "the metric 'val_loss' of a checkpoint is 'x' \\(str\\); it must be one",
        ),
        ({"val_loss": None}, "the metric 'val_loss' of a checkpoint is None \\(NoneType\\)"),
        ({"acc": torch.ones(2)}, "the metric 'acc' of a checkpoint is tensor\\(\\[1., 1.\\]\\)"),
        ({5: 1.0}, "the metric 5 of a checkpoint: its name must be text"),
        (0.5, "the metrics of a checkpoint must be a dict, as .* not float"),
    ],
)
def test_a_metric_that_is_no_number_is_refused_at_the_call(
    init: Init, mode: str, metrics: Any, told: str
) -> None:
    with init(mode=mode) as run:
        run.register(box=Box())
        with pytest.raises(UsageError, match=told):
            run.save_checkpoint(metrics=metrics)
        run.save_checkpoint({"val_loss": 0.5}, wait=True)
    if not run.disabled:
        assert events(run.dir) == [("saved", 0)]


# ---- a disk that is full at the end ------------------------------------------------------------

FULL_AT_ITS_END = """
import resource, signal, cupel
with cupel.init("p", "n", settings={"console": False}) as run:
    run.log({"loss": 0.5})
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as a full disk: no file takes a byte
print("the model is saved")
"""


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_end_is_told_and_the_script_goes_on(
    script: Script, root: Path
) -> None:
    done = script(FULL_AT_ITS_END)
    assert (done.returncode, done.stdout) == (0, "the model is saved\n"), done.stderr
    (run,) = list_runs(root)
    assert f"cupel: run {run.run_id} has failed at its end: cannot write the record" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.status != "finished"
    assert run.results is None
    assert [row["loss"] for row in run.history()] == [0.5]
