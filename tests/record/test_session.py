"""A session's promises: nothing lost to a kill, one winner of a resume, training never stopped."""

from __future__ import annotations

import contextlib
import math
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupel.errors import RecordError, ResumeError, Superseded, UsageError
from cupel.record import files, layout
from cupel.record.reader import RunRecord
from cupel.record.session import Session

# Publishes how many `log` calls have returned, in memory that outlives the process.
LOGS_FOREVER = """
import mmap, struct, sys
from cupel.record.session import Session
root, counter = sys.argv[1:]
with open(counter, "r+b") as file:
    shared = mmap.mmap(file.fileno(), 8)
session = Session.start(root=root, project="p", name="kill", config={}, identity="i")
for step in range(1, 10**9):
    session.log({"loss": 1 / step, "filling": [step] * (step % 300)}, step=step)
    struct.pack_into("<q", shared, 0, step)
"""


def start(root: Path, **changes: Any) -> Session:
    given = {"project": "p", "name": "a run", "config": {"lr": 0.1}, "identity": "hash"}
    return Session.start(root=root, **{**given, **changes})


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = start(tmp_path)
    yield made
    made.finish("interrupted")


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_after_log_loses_nothing(tmp_path: Path, kills: int) -> None:
    torn = 0
    for trial in range(kills):
        root, counter = tmp_path / str(trial), tmp_path / f"{trial}.count"
        counter.write_bytes(bytes(8))
        with counter.open("r+b") as file:
            shared = mmap.mmap(file.fileno(), 8)
        child = subprocess.Popen([sys.executable, "-c", LOGS_FOREVER, root, counter])
        while not struct.unpack_from("<q", shared)[0]:
            assert child.poll() is None
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.03))
        child.kill()
        child.wait()
        returned = struct.unpack_from("<q", shared)[0]
        run = RunRecord(next(layout.run_dirs(root)))
        rows = run.history()
        # One call more than was published may have got its line down.
        assert len(rows) in (returned, returned + 1)
        for step, row in enumerate(rows, start=1):
            assert (row["_step"], row["loss"]) == (step, 1 / step)
            assert row["filling"] == [step] * (step % 300)
        assert run.damaged_lines in (0, 1)
        assert run.status == "crashed"
        torn += run.damaged_lines
        shared.close()
        shutil.rmtree(root)
    print(f"{torn} torn tails in {kills} kills")


def test_a_killed_run_is_crashed_even_before_its_parent_has_waited(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_bytes(bytes(8))
    root = tmp_path / "runs"
    child = subprocess.Popen([sys.executable, "-c", LOGS_FOREVER, root, counter])
    while not list(root.glob("p/*/sessions/0001/metrics*")):
        time.sleep(0.005)
    run = RunRecord(next(layout.run_dirs(root)))
    assert run.status == "running"
    with pytest.raises(
        ResumeError, match=rf"is running: pid {child.pid} on .*, session 0001; stop"
    ):
        Session.resume(run.run_dir)
    os.kill(child.pid, signal.SIGSTOP)  # stopped is not dead
    assert run.status == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert run.status == "crashed"
    child.wait()


def test_a_pid_used_again_does_not_make_a_dead_run_alive(tmp_path: Path) -> None:
    session = start(tmp_path)
    beat = session.dir / layout.heartbeat_name()
    files.write_json(beat, {**files.read_json(beat), "start": "1"})
    assert RunRecord(session.run_dir).status == "crashed"
    session.finish("failed")


def _resume(run_dir: Path, ready: Any, done: Any, told: Any) -> None:
    ready.wait()
    try:
        told.put(str(Session.resume(run_dir).number))
    except ResumeError as error:
        told.put(str(error))
    done.wait()  # the winner stays alive until everybody has tried


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("repetition", range(3))
def test_of_processes_that_resume_at_once_exactly_one_wins(tmp_path: Path, repetition: int) -> None:
    session = start(tmp_path)
    session.finish("interrupted")
    context = multiprocessing.get_context("fork")
    ready, done, told = context.Barrier(4), context.Barrier(4), context.SimpleQueue()
    racers = [
        context.Process(target=_resume, args=(session.run_dir, ready, done, told)) for _ in range(4)
    ]
    for racer in racers:
        racer.start()
    answers = [told.get() for _ in racers]
    for racer in racers:
        racer.join()
    assert answers.count("2") == 1
    assert all("another process" in a or "is running" in a for a in answers if a != "2")
    assert layout.session_numbers(session.run_dir) == [1, 2]


def test_a_run_folder_holds_what_the_architecture_says(tmp_path: Path) -> None:
    session = start(tmp_path, tags=["a"], notes="why", origins={"lr": "default"})
    session.log({"loss": 1.0}, step=1)
    session.describe(data="sha256:0")
    session.write_run_json("model.json", {"modules": []})
    session.finish("finished", results={"val_loss": math.nan, "samples": ["text"]})
    run_dir = session.run_dir
    found = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    inside = {"session.json", "env.json", "heartbeat.r0", "training.log"}
    inside |= {"metrics.r0.000.jsonl", "events.r0.000.jsonl"}
    of_the_session = {f"sessions/0001/{name}" for name in inside}
    assert found - {"sessions/0001/dirty.patch"} == of_the_session | {
        "run.json",
        "config.json",
        "model.json",
        "results.json",
    }
    assert all(files.read_json(p)["schema"] == 1 for p in run_dir.rglob("*.json"))
    run = RunRecord(run_dir)
    assert (run.run["tags"], run.run["notes"], run.run["status"]) == (["a"], "why", "finished")
    assert run.config == {"lr": 0.1}
    assert run.results is not None
    assert math.isnan(run.results["val_loss"])
    assert run.sessions[0].environment["data"] == "sha256:0"
    assert run.sessions[0].fields["problems"] == {}


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    session = start(tmp_path)
    session.finish("finished")
    session.finish("failed", error="too late")
    assert RunRecord(session.run_dir).status == "finished"
    with pytest.raises(ResumeError, match="is finished and its results are accepted; start a new"):
        Session.resume(session.run_dir)


def test_a_resume_is_a_new_session_and_leaves_the_old_one_untouched(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.log({"loss": 1.0}, step=1)
    first.finish("failed", error="ValueError: x")
    before = {path: path.read_bytes() for path in first.dir.iterdir()}
    second = Session.resume(first.run_dir)
    assert (second.number, second.resumed, first.resumed) == (2, True, False)
    assert RunRecord(first.run_dir).run["session"] == 2
    second.begin_at(1)
    second.log({"loss": 0.5}, step=2)
    second.finish("finished")
    assert {path: path.read_bytes() for path in first.dir.iterdir()} == before
    assert [session.status for session in RunRecord(first.run_dir).sessions] == [
        "failed",
        "finished",
    ]


def test_a_superseded_session_moves_no_pointer(tmp_path: Path) -> None:
    late = start(tmp_path)
    beat = late.dir / layout.heartbeat_name()
    files.write_json(beat, {**files.read_json(beat), "start": "1"})  # believed dead
    successor = Session.resume(late.run_dir)
    assert late.superseded()
    assert not successor.superseded()
    with pytest.raises(Superseded, match=r"session 0001 .* may not write model\.json"):
        late.write_run_json("model.json", {})
    late.log({"loss": 1.0}, step=1)
    late.finish("finished", results={"val_loss": 0.0})
    run = RunRecord(late.run_dir)
    assert (run.results, run.status, run.run["status"]) == (None, "running", "running")
    successor.finish("finished", results={"val_loss": 1.0})
    assert run.results == {"schema": 1, "run": run.run_id, "accepted_session": 2, "val_loss": 1.0}


def test_values_that_are_no_numbers_are_dropped_counted_and_told_once(
    session: Session, capfd: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        session.log({"loss": np.float32(0.5), "text": "no", "_t": 0, "big": [0] * 2000}, step=step)
    rows = RunRecord(session.run_dir).history()
    assert [(row["_step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.5)]
    assert all(set(row) == {"_step", "_t", "loss"} and row["_t"] > 1e9 for row in rows)
    assert session.problems == {"metric text": 2, "metric _t": 2, "metric big": 2}
    told = capfd.readouterr().err
    assert told.count("cupel: metric text") == 1
    assert (session.dir / layout.TRAINING_LOG).read_text().count("metric text") == 1
    events = RunRecord(session.run_dir).events()
    assert [event["name"] for event in events] == ["metric text", "metric _t", "metric big"]


def test_what_comes_after_the_end_is_counted_and_told_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = start(tmp_path)
    session.finish("finished")
    for step in (1, 2):
        session.log({"loss": 1.0}, step=step)
    assert session.lost == 2
    assert session.problems == {"writing metrics.r0.000.jsonl": 2}
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "metrics.r0.000.jsonl: OSError: the session is finished" in told


def test_strict_raises_on_what_cannot_be_recorded(tmp_path: Path) -> None:
    session = start(tmp_path, strict=True)
    for metrics in ({"text": "no"}, {"_step": 3}):
        with pytest.raises(TypeError, match=r"text|_step"):
            session.log(metrics, step=1)
    with pytest.raises(TypeError):
        session.event("x", what=object())
    session.finish("interrupted")


def test_events_and_notes_take_any_text(session: Session) -> None:
    session.event("saved", path=Path("/a"), nested={"name": [None, "\udcff"]}, name="own")
    session.note("first\nsecond \udcff")
    (event,) = RunRecord(session.run_dir).events()
    assert (event["_event"], event["path"], event["name"]) == ("saved", "/a", "own")
    assert event["_session"] == 1
    assert "first\n    second \\udcff\n" in (session.dir / layout.TRAINING_LOG).read_text()


def test_results_that_cannot_be_written_are_not_lost_silently(tmp_path: Path) -> None:
    session = start(tmp_path)
    with pytest.raises(TypeError):
        session.finish("finished", results={"model": object()})
    run = RunRecord(session.run_dir)
    assert run.status == "failed"
    assert "object" in run.sessions[0].fields["error"]


def test_a_root_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RecordError, match=r"cannot write the record to .*/file: Not a directory; ch"
    ):
        start(tmp_path / "file")


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"config": {"x": object()}}, "config.json cannot be written: <object object at"),
        ({"config": {"x": 2**64}}, "config.json cannot be written: 18446744073709551616"),
        ({"tags": [set()]}, r"run.json cannot be written: set\(\)"),
        ({"details": {"data": np.array([[object()]] * 2)}}, "run.json cannot be written: <object"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        start(tmp_path / "runs", **wrong)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"project": "../p"}, {"run_id": "a/b"}, {"run_id": ".a"}])
def test_impossible_names_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        start(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_one_id_is_started_once_and_keeps_its_first_configuration(tmp_path: Path) -> None:
    session = start(tmp_path, run_id="study-arm-s1")
    with pytest.raises(RecordError, match=r"study-arm-s1 exists already in .*; resume it"):
        start(tmp_path, run_id="study-arm-s1", config={"lr": 9})
    assert RunRecord(session.run_dir).config == {"lr": 0.1}
    session.finish("interrupted")


def test_a_run_killed_before_its_first_session_can_be_resumed(tmp_path: Path) -> None:
    session = start(tmp_path)
    session.finish("interrupted")
    shutil.rmtree(session.run_dir / layout.SESSIONS)
    assert RunRecord(session.run_dir).status == "crashed"
    resumed = Session.resume(session.run_dir)
    assert (resumed.number, resumed.resumed) == (1, False)
    resumed.finish("interrupted")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_writes_nor_finishes(tmp_path: Path) -> None:
    session = start(tmp_path)
    before = (session.dir / layout.SESSION).read_bytes()
    child = os.fork()
    if child == 0:
        session.log({"loss": 0.0}, step=1)
        session.begin_at(7)
        session.finish("failed")
        os._exit(0 if session.lost else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (session.dir / layout.SESSION).read_bytes() == before
    assert RunRecord(session.run_dir).run["status"] == "running"
    assert RunRecord(session.run_dir).history() == []
    assert session.lost == 0
    session.finish("interrupted")


def test_a_signal_handler_may_log_in_the_midst_of_logging(session: Session) -> None:
    done = threading.Event()

    def handler(*_: object) -> None:
        session.log({"in_handler": 1}, step=10**6)
        session.note("signal")

    previous = signal.signal(signal.SIGUSR1, handler)

    def pester() -> None:
        while not done.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.0005)

    thread = threading.Thread(target=pester)
    thread.start()
    for step in range(3000):
        session.log({"loss": 1.0}, step=step)
    done.set()
    thread.join()
    signal.signal(signal.SIGUSR1, previous)
    run = RunRecord(session.run_dir)
    assert sum("loss" in row for row in run.history()) == 3000
    assert (run.damaged_lines, session.lost) == (0, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB; mounting one needs the right to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_never_stops_training_and_what_was_lost_is_told(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = start(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 120_000)
    step = 0
    while session.lost < 5:
        step += 1
        session.log({"loss": 0.5}, step=step)
        session.begin_at(0)  # a JSON file does not fit either
    lost = session.lost
    filler.unlink()
    for later in range(step + 1, step + 11):
        session.log({"loss": 0.25}, step=later)
    assert session.lost == lost
    session.finish("finished", results={"val_loss": 1.0})
    run = RunRecord(session.run_dir)
    rows = run.history()
    assert [row["_step"] for row in rows if row["loss"] == 0.25] == [*range(step + 1, step + 11)]
    assert run.damaged_lines <= 3
    assert run.sessions[0].fields["lost"] == lost
    assert "No space left" in capfd.readouterr().err


def test_a_start_that_the_disk_refuses_leaves_no_session_that_seems_alive(
    small_disk: Path,
) -> None:
    session = start(small_disk)
    session.finish("interrupted")
    with (small_disk / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * 1024)
    with pytest.raises(RecordError, match=r"cannot write the record to .*: No space left"):
        Session.resume(session.run_dir)
    assert RunRecord(session.run_dir).status == "interrupted"
