"""A run that is moved, deleted or cut off while it runs goes on as far as it can, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import RecordError
from cupel.record import files, layout, writer
from cupel.record.folder import OpenFolder
from cupel.record.reader import RunRecord
from cupel.record.session import Session


def start(root: Path, **changes: Any) -> Session:
    given = {"project": "p", "name": "a run", "config": {"lr": 0.1}, "identity": "hash"}
    return Session.start(root=root, **{**given, **changes})


@pytest.mark.parametrize("what", ["the run", "the project", "the root"])
def test_a_run_that_is_moved_while_it_runs_finishes_where_it_then_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 200)
    session = start(tmp_path / "runs", console=True)
    for step in range(1, 6):
        session.log({"loss": 1 / step}, step=step)
    old = session.run_dir
    new = {
        "the run": old.with_name("renamed"),
        "the project": tmp_path / "runs" / "q" / old.name,
        "the root": tmp_path / "elsewhere" / "p" / old.name,
    }[what]
    {"the run": old, "the project": old.parent, "the root": tmp_path / "runs"}[what].rename(
        {"the run": new, "the project": new.parent, "the root": tmp_path / "elsewhere"}[what]
    )
    assert (session.run_dir, session.dir) == (new, new / "sessions" / "0001")
    assert RunRecord(new).status == "running"
    for step in range(6, 11):
        session.log({"loss": 1 / step}, step=step)
    print("printed after the move")
    session.begin_at(0)
    session.describe(data="x")
    session.write_run_json("model.json", {})
    session.set_config({"lr": 0.2})
    session._heartbeat._sync()
    session.finish("finished", results={"val_loss": 1.0})
    assert session.run_dir == new
    run = RunRecord(new)
    assert (run.status, run.config, session.problems) == ("finished", {"lr": 0.2}, {})
    assert [row["_step"] for row in run.history()] == list(range(1, 11))
    assert len(layout.segments(session.dir, "metrics")) > 2
    assert "printed after the move" in (session.dir / layout.CONSOLE).read_text()
    assert run.sessions[0].environment["data"] == "x"
    assert run.run["status"] == "finished"
    assert not old.exists(), "nothing is written where it lay"


def test_a_moved_run_keeps_its_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.record import heartbeat

    monkeypatch.setattr(heartbeat, "SYNC_S", 0.01)
    monkeypatch.setattr(heartbeat, "TOUCH_S", 0.01)
    session = start(tmp_path)
    beat = session.run_dir.with_name("renamed") / "sessions" / "0001" / "heartbeat.r0"
    session.run_dir.rename(session.run_dir.with_name("renamed"))
    os.utime(beat, (0, 0))
    waited = threading.Event()
    for _ in range(500):
        if beat.stat().st_mtime > 0:
            break
        waited.wait(0.01)
    assert beat.stat().st_mtime > 0
    session.finish("interrupted")
    assert session.problems == {}


def test_a_process_that_changes_its_folder_does_not_lose_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = start(Path("runs"))
    assert not session.run_dir.is_absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session.log({"loss": 1.0}, step=1)
    session.finish("finished")
    assert RunRecord(tmp_path / "runs" / "p" / session.run_id).status == "finished"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_that_is_deleted_while_it_runs_is_told_and_not_made_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = start(tmp_path)
    session.log({"loss": 1.0}, step=1)
    session._looking.join()
    session._sync()
    shutil.rmtree(session.run_dir)
    for step in (2, 3):
        session.log({"loss": 1.0}, step=step)
    session._sync()
    assert session._metrics.lost == 2
    session.log({"loss": 1.0}, step=4)
    session.finish("failed")
    assert "syncing metrics.r0.000.jsonl" in session.problems
    assert "was deleted, or moved to another disk: lines are lost" in capfd.readouterr().err
    assert not list((tmp_path / "p").iterdir())


def test_results_of_a_deleted_run_are_not_lost_silently(tmp_path: Path) -> None:
    session = start(tmp_path)
    shutil.rmtree(session.run_dir)
    with pytest.raises(RecordError, match="cannot write the record to"):
        session.finish("finished", results={"val_loss": 1.0})


@pytest.fixture
def breaking_disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 of its own, and the file that makes it find an error and turn read-only."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    for command in (
        ["mkfs.ext4", "-q", image],
        ["mount", "-o", "loop,errors=remount-ro", image, disk],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no disk can be made to break here: {error}")
        if done.returncode:
            pytest.skip(f"no disk can be made to break here: {done.stderr.strip()}")
    try:
        device = subprocess.run(["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True)
        trigger = Path("/sys/fs/ext4") / Path(device.stdout.strip()).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("this kernel's ext4 cannot be made to find an error")
        yield disk, trigger
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_turns_read_only_never_stops_training(
    breaking_disk: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    disk, trigger = breaking_disk
    session = start(disk / "runs", console=True, system_every=0.01)
    for step in range(1, 11):
        session.log({"loss": 1.0}, step=step)
    session._looking.join()
    trigger.write_text("1")
    for step in range(11, 21):
        session.log({"loss": 1.0}, step=step)
        print("still here")
        session.event("x")
        session.note("y")
        session.set_summary({"z": 1})
        session.set_config({"w": 1})
        session.begin_at(0)
    session._sync()
    assert session.lost >= 10 + 10 + 10 + 10
    with pytest.raises(RecordError, match="Read-only file system"):
        session.finish("finished", results={})
    session.finish("failed")
    run = RunRecord(session.run_dir)
    assert [row["_step"] for row in run.history()] == list(range(1, 11))
    told = capfd.readouterr()
    assert told.out == "still here\n" * 10
    assert told.err.count("writing metrics.r0.000.jsonl: OSError: [Errno 30] Read-only") == 1
    assert len(told.err.splitlines()) < 15


def test_the_newest_state_is_written_last_whoever_interrupts_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[tuple[str, Exception]] = []
    folder = OpenFolder(tmp_path, 0, "process", lambda *problem: problems.append(problem))
    state = {"status": "running"}
    write = files.write_json

    def interrupted(path: Path, fields: dict[str, Any], *, named: bool) -> None:
        monkeypatch.setattr(files, "write_json", write)
        state["status"] = "finished"
        folder.publish("a.json", state)  # a signal's handler, before the first has written
        write(path, fields, named=named)

    monkeypatch.setattr(files, "write_json", interrupted)
    folder.publish("a.json", state)
    assert files.read_json(tmp_path / "a.json") == {"schema": 1, "status": "finished"}
    folder.close()
    folder.close()
    assert problems == []


def test_one_sync_makes_all_names_last_that_were_published_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = OpenFolder(tmp_path, 0, "process", lambda name, error: pytest.fail(f"{name}: {error}"))
    synced: list[str] = []
    fsync = os.fsync

    def told(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name.partition("~")[0])
        fsync(fd)

    monkeypatch.setattr(os, "fsync", told)
    folder.publish("a.json", {})
    folder.publish("b.json", {})
    assert synced == [".tmp-a.json", ".tmp-b.json"]  # what they hold lasts, or they are the old
    folder.sync()
    folder.sync()
    assert synced[2:] == [tmp_path.name]
    folder.publish("a.json", {}, named=True)
    assert synced[3:] == [".tmp-a.json", tmp_path.name]
    folder.publish("a.json", {})
    folder.close()
    assert synced[5:] == [".tmp-a.json", tmp_path.name]


def test_what_cannot_be_published_is_a_problem_and_raises_nothing(tmp_path: Path) -> None:
    problems: list[str] = []
    folder = OpenFolder(tmp_path, 0, "process", lambda name, _: problems.append(name))
    folder.publish("a.json", {"x": object()})
    folder.publish("absent/a.json", {})
    assert problems == ["writing a.json", "writing absent/a.json"]
    folder.close()
