"""Only a process that truly runs is alive: not a zombie, not a pid used again, not after a boot."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record import files, heartbeat, processes
from cupel.record.heartbeat import Heartbeat, is_alive, sign, write_heartbeat


def write_as(path: Path, process: processes.Process) -> None:
    files.write_json(path, {"schema": 1, **process.as_json()})


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_forked_child_knows_that_it_is_another_process() -> None:
    me = processes.this_process()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        found = processes.this_process()
        os.write(theirs, f"{found.pid} {processes.lives(found.pid, found.start)}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(ours, 100).decode() == f"{pid} True"
    assert processes.this_process() == me
    os.close(ours)
    os.close(theirs)


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
    assert sign(path) == "dead"


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
    assert (sign(path), is_alive(path)) == ("alive", True)
    age(path, heartbeat.STALE_S + 1)
    assert (sign(path), is_alive(path)) == ("silent", False)
    age(
        path, -heartbeat.STALE_S - 10
    )  # its clock is ahead, or ours was set back: it proves nothing
    assert sign(path) == "silent"


def test_a_machine_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    """Two hosts called `localhost` that share a disk: one is not the other after a reboot."""
    path = tmp_path / "heartbeat.r0"
    me = processes.this_process()
    if not me.place.machine:
        pytest.skip("this system has no machine-id")
    twin = replace(me.place, machine="of another", boot_id="of another")
    write_as(path, replace(me, place=twin))
    assert sign(path) == "alive"
    write_as(path, replace(me, place=replace(twin, machine="")))  # a record of before there was one
    assert sign(path) == "dead"
    fields = replace(me, place=replace(me.place, machine="")).as_json()
    del fields["machine"]
    files.write_json(path, fields)
    assert sign(path) == "alive"


def test_the_id_of_the_machine_itself_is_not_written_down(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.r0"
    write_heartbeat(path)
    system = Path("/etc/machine-id")
    if not (system.exists() and system.read_text().strip()):
        pytest.skip("this system has no machine-id")
    assert system.read_text().strip() not in path.read_text()


LOOKS_AT_A_HIDDEN_PROCESS = """
mount -t proc -o hidepid=2 proc /proc && exec \\
  setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""


@pytest.mark.parametrize("readable", [True, False])
def test_a_process_that_is_hidden_from_us_is_believed_by_its_beat_only(readable: bool) -> None:
    code = Path(heartbeat.__file__).parents[2]
    look = f"import sys; sys.path.insert(0, {str(code)!r})\n" + (
        "from pathlib import Path; from cupel.record.heartbeat import sign\n"
        "print(sign(Path(sys.argv[1])))"
    )
    command = ["unshare", "-m", "sh", "-ec", LOOKS_AT_A_HIDDEN_PROCESS, "sh"]
    found = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        path = Path(folder) / "heartbeat.r0"
        write_heartbeat(path)
        path.chmod(0o644 if readable else 0o600)
        age(path.parent, heartbeat.STALE_S + 5)
        for seconds in (0, heartbeat.STALE_S + 5):
            age(path, seconds)
            done = subprocess.run(
                [*command, sys.executable, "-c", look, path], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"processes cannot be hidden here: {done.stderr.strip()[-200:]}")
            found.append(done.stdout.strip())
        assert sign(path) == "alive", "whoever sees the process knows better"
    assert found == ["alive", "silent"]


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


def test_the_thread_outlives_whatever_goes_wrong_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SYNC_S", 0.01)
    problems: list[Exception] = []
    reported = threading.Event()

    def sync() -> None:
        raise ZeroDivisionError("a mistake of ours")

    def on_problem(error: Exception) -> None:
        problems.append(error)
        if len(problems) == 3:
            reported.set()

    beat = Heartbeat(tmp_path / "heartbeat.r0", sync=sync, on_problem=on_problem)
    assert reported.wait(5)
    beat.stop()


def test_a_thread_that_hangs_on_a_dead_disk_does_not_keep_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SYNC_S", 0.01)
    monkeypatch.setattr(heartbeat, "_STOPPING_S", 0.05)
    hanging, over = threading.Event(), threading.Event()

    def sync() -> None:
        hanging.set()
        over.wait(20)

    beat = Heartbeat(tmp_path / "heartbeat.r0", sync=sync, on_problem=print)
    assert hanging.wait(5)
    began = time.monotonic()
    beat.stop()
    assert time.monotonic() - began < 5
    over.set()


def test_a_clock_that_jumps_does_not_stop_the_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SYNC_S", 0.01)
    monkeypatch.setattr(heartbeat, "TOUCH_S", 0.01)
    path = tmp_path / "heartbeat.r0"
    write_heartbeat(path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400)
    os.utime(path, (0, 0))
    beat = Heartbeat(path, sync=lambda: None, on_problem=print)
    until = time.monotonic() + 10
    while path.stat().st_mtime == 0 and time.monotonic() < until:
        time.sleep(0.01)
    beat.stop()
    assert path.stat().st_mtime > 0
    assert sign(path) == "alive"


def test_psutil_tells_where_there_is_no_proc() -> None:
    mine = processes._start_by_psutil(os.getpid())
    assert mine is not None
    assert mine == processes._start_by_psutil(os.getpid())
    assert processes._start_by_psutil(1 << 30) is None
