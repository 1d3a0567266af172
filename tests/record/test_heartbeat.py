"""Only a process that truly runs is alive: not a zombie, not a pid used again, not after a boot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record import files, heartbeat, processes
from cupel.record.heartbeat import Heartbeat, is_alive, write_heartbeat


def write_as(path: Path, process: processes.Process) -> None:
    files.write_json(path, {"schema": 1, **process.as_json()})


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_this_process_is_alive_however_old_its_file(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.r0"
    write_heartbeat(path)
    age(path, 10_000)
    assert is_alive(path)


def test_a_pid_used_again_is_not_alive(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.r0"
    me = processes.this_process()
    write_as(path, replace(me, start=str(int(me.start) - 1)))
    assert not is_alive(path)


def test_after_a_reboot_nothing_from_before_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.r0"
    me = processes.this_process()
    write_as(path, replace(me, place=replace(me.place, boot_id="before")))
    assert not is_alive(path)


@pytest.mark.parametrize("place", [{"host": "another"}, {"pid_namespace": "a container"}])
def test_elsewhere_only_the_age_of_the_file_tells(tmp_path: Path, place: dict[str, str]) -> None:
    path = tmp_path / "heartbeat.r0"
    me = processes.this_process()
    write_as(path, replace(me, pid=1 << 30, place=replace(me.place, **place)))
    assert is_alive(path)
    age(path, heartbeat.STALE_S + 1)
    assert not is_alive(path)


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.r0"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = processes.start_of(child.pid)
    assert start is not None
    write_as(path, processes.Process(child.pid, start, processes.this_place()))
    assert is_alive(path)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but not yet waited for
    assert not is_alive(path)
    child.communicate()


@settings(deadline=None, max_examples=40)
@given(st.binary() | st.just(b'{"pid": "x"}') | st.just(b'{"pid": []}'))
def test_a_session_without_a_readable_heartbeat_is_alive_while_it_is_young(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("session")
    assert is_alive(folder / "heartbeat.r0")
    (folder / "heartbeat.r0").write_bytes(garbage)
    assert is_alive(folder / "heartbeat.r0")
    age(folder, heartbeat.STALE_S + 1)
    assert not is_alive(folder / "heartbeat.r0")
    assert not is_alive(folder / "absent" / "heartbeat.r0")


def test_the_thread_touches_the_file_syncs_and_reports_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SYNC_S", 0.01)
    monkeypatch.setattr(heartbeat, "TOUCH_S", 0.01)
    path = tmp_path / "heartbeat.r0"
    write_heartbeat(path)
    age(path, 100)
    problems, reported = [], threading.Event()

    def sync() -> None:
        raise OSError("the disk refuses")

    def on_problem(error: OSError) -> None:
        problems.append(error)
        reported.set()

    beat = Heartbeat(path, sync=sync, on_problem=on_problem)
    assert reported.wait(5)
    beat.stop()
    assert "the disk refuses" in str(problems[0])
    assert time.time() - path.stat().st_mtime < 50
    count = len(problems)
    time.sleep(0.05)
    assert len(problems) == count


def test_psutil_tells_where_there_is_no_proc() -> None:
    mine = processes._start_by_psutil(os.getpid())
    assert mine is not None
    assert mine == processes._start_by_psutil(os.getpid())
    assert processes._start_by_psutil(1 << 30) is None
