"""The guard of one job: how it tells of the end, and that it leaves nothing behind."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cupel.jobs import guard
from families import ALL_THERE, FAMILY, left_of, lives, pids_in, until

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


class Guarded:
    """A guard that this process is the worker of."""

    def __init__(
        self, folder: Path, *command: str, grace_s: float = 5, limit_s: str = "", before: str = ""
    ) -> None:
        self.pids, self.log = folder / "pids", folder / "log"
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(20)
        self.say(before)
        with theirs, self.log.open("ab") as log:
            given = [str(theirs.fileno()), str(os.getpid()), str(grace_s), limit_s]
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *given, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PIDS": str(self.pids)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._lines = self.channel.makefile("r")

    def say(self, words: str) -> None:
        self.channel.sendall(words.encode())

    def line(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._lines.readline())
        return told

    def end(self) -> dict[str, Any]:
        """What it tells of the end, after which it has ended itself and nothing is left."""
        told = self.line()
        while "code" not in told:
            told = self.line()
        assert self.process.wait(20) == 0
        self.close()
        assert left_of(self.pids) == []
        return told

    def close(self) -> None:
        self._lines.close()
        self.channel.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in left_of(tmp_path / "pids"):  # when a test has failed
        process.kill()


def shell(folder: Path, script: str, **given: Any) -> Guarded:
    return Guarded(folder, "sh", "-c", script, **given)


@pytest.mark.parametrize(
    "script, code",
    [("exit 0", 0), ("exit 1", 1), ("exit 75", 75), ("kill -TERM $$", -15), ("kill -9 $$", -9)],
)
def test_the_end_is_told_with_its_exit_code_or_signal(folder: Path, script: str, code: int) -> None:
    told = shell(folder, script).end()
    assert (told["code"], told["state"], told["oom_kills"]) == (code, "", 0)
    assert told.keys() == {"code", "state", "oom_kills", "wall_s", "cpu_s", "peak_mb"}


def test_a_command_that_does_not_exist_ends_like_in_a_shell(folder: Path) -> None:
    guarded = Guarded(folder, "no-such-command", "x")
    assert guarded.end()["code"] == 127
    assert guarded.log.read_text() == "cannot start no-such-command: No such file or directory\n"


def test_the_job_leads_a_session_and_has_the_usual_signals(folder: Path) -> None:
    guarded = shell(folder, "grep SigIgn /proc/self/status; cat")
    told = guarded.line()
    assert told["guard"] == guarded.process.pid
    assert os.getsid(told["pid"]) == os.getpgid(told["pid"]) == told["pid"]
    assert guarded.process.stdin is not None
    guarded.process.stdin.close()  # which is the job's, too
    assert guarded.end()["code"] == 0
    ignored = int(guarded.log.read_text().split()[1], 16)
    assert ignored & 0x7FFFFFFF == 0  # Python ignores SIGPIPE itself; above are glibc's own


@pytest.mark.slow
def test_costs_are_those_of_all_processes_also_of_killed_daemons(folder: Path) -> None:
    code = "x = bytearray(64 << 20)\nimport time\nwhile time.process_time() < 0.3: pass"
    (folder / "burn.py").write_text(code)
    burns = f"{sys.executable} -S {folder}/burn.py"
    told = shell(folder, f"({burns}; sleep 9) & {burns}; sleep 0.3").end()
    assert 0.6 <= told["cpu_s"] < 5
    assert 0.6 <= told["wall_s"] < 20
    assert 64 < told["peak_mb"] < 128


@LINUX
def test_what_outlives_the_main_process_is_killed(folder: Path) -> None:
    guarded = shell(folder, FAMILY + ALL_THERE + "exit 4")
    assert guarded.end()["code"] == 4
    assert len(pids_in(guarded.pids)) == 3
    assert not any(map(lives, pids_in(guarded.pids)))


@LINUX
@pytest.mark.parametrize("words, state", [("cancel\n", "CANCELLED"), ("signal 9\n", "")])
@pytest.mark.slow
def test_a_job_that_does_not_care_is_killed_with_its_family(
    folder: Path, words: str, state: str
) -> None:
    guarded = shell(folder, FAMILY + ALL_THERE + "trap '' TERM; echo ready; cat", grace_s=0.3)
    until(lambda: "ready" in guarded.log.read_text())
    guarded.say(words)
    told = guarded.end()
    assert (told["code"], told["state"]) == (-9, state)
    assert not any(map(lives, pids_in(guarded.pids)))


@pytest.mark.slow
def test_a_job_that_is_asked_has_its_grace_and_is_asked_once(folder: Path) -> None:
    script = "trap 'echo asked; sleep 0.3; exit 75' TERM; echo ready; while :; do sleep 0.02; done"
    guarded = shell(folder, script)
    until(lambda: "ready" in guarded.log.read_text())
    guarded.say("cancel\ncan")  # words may come in pieces
    time.sleep(0.05)
    guarded.say("cel\ncancel\n")
    told = guarded.end()
    assert (told["code"], told["state"]) == (75, "CANCELLED")
    assert guarded.log.read_text().split() == ["ready", "asked"]


def test_a_job_that_is_cancelled_before_it_begins_does_not_begin(folder: Path) -> None:
    guarded = shell(folder, "echo begun", before="cancel\n")
    told = guarded.end()
    assert (told["code"], told["state"]) == (-15, "CANCELLED")
    assert guarded.log.read_text() == ""


@pytest.mark.slow
def test_a_signal_that_comes_with_the_start_is_not_lost(folder: Path) -> None:
    """It must not meet the job while that still has the guard's handlers."""
    for _ in range(20):
        began = time.monotonic()
        assert Guarded(folder, "sleep", "60", before="signal 15\n").end()["code"] == -15
        assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_job_beyond_its_time_is_asked_then_killed(folder: Path) -> None:
    script = "trap 'echo asked' TERM; while :; do sleep 0.02; done"
    guarded = shell(folder, script, grace_s=0.3, limit_s="0.3")
    told = guarded.end()
    assert (told["code"], told["state"]) == (-9, "TIMEOUT")
    assert 0.6 <= told["wall_s"] < 10
    assert guarded.log.read_text() == "asked\n"


def test_a_guard_that_is_told_to_end_ends_its_job(folder: Path) -> None:
    guarded = shell(folder, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done")
    until(lambda: "ready" in guarded.log.read_text())
    guarded.process.terminate()
    assert guarded.end()["code"] == 3


@LINUX
@pytest.mark.slow
def test_when_the_channel_closes_the_group_is_asked_and_then_all_are_killed(folder: Path) -> None:
    asks = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    script = f"{FAMILY}{ALL_THERE} ({asks}) & trap 'echo main' TERM; cat; while :; do wait; done"
    guarded = shell(folder, script, grace_s=0.5)
    until(lambda: "ready" in guarded.log.read_text())
    closed = time.monotonic()
    guarded.close()
    assert 0.5 <= time.monotonic() - closed < 10
    assert {"asked", "main"} <= set(guarded.log.read_text().split())
    assert left_of(guarded.pids) == []


@LINUX
@pytest.mark.slow
def test_a_worker_that_dies_is_noticed_though_another_process_holds_its_channel(
    folder: Path,
) -> None:
    script = (
        "import os, sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_guard import Guarded\n"
        "guarded = Guarded(Path(sys.argv[2]), 'sh', '-c', 'echo $$ >> $PIDS; sleep 600')\n"
        "holder = os.fork()\n"
        "if holder: print(holder, flush=True)\n"
        "time.sleep(600)\n"
    )
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(folder)],
        stdout=subprocess.PIPE,
        env=surroundings,
    )
    assert worker.stdout is not None
    holder = int(worker.stdout.readline())
    try:
        until(lambda: pids_in(folder / "pids"))
        worker.kill()
        worker.wait()
        until(lambda: not left_of(folder / "pids"))
        assert lives(holder)
    finally:
        os.kill(holder, signal.SIGKILL)
        worker.stdout.close()


@LINUX
@pytest.mark.slow
def test_a_job_goes_on_when_only_the_thread_has_ended_that_started_it(folder: Path) -> None:
    """PR_SET_PDEATHSIG speaks of the thread, not of the process."""
    made: list[Guarded] = []
    thread = threading.Thread(target=lambda: made.append(shell(folder, "echo ready; cat")))
    thread.start()
    thread.join()
    (guarded,) = made
    until(lambda: "ready" in guarded.log.read_text())
    time.sleep(0.2)
    assert guarded.process.poll() is None
    assert guarded.process.stdin is not None
    guarded.process.stdin.close()
    assert guarded.end()["code"] == 0


@LINUX
def test_a_guard_that_is_killed_takes_the_main_process_with_it(folder: Path) -> None:
    guarded = shell(folder, "trap '' TERM; cat")
    pid = guarded.line()["pid"]
    guarded.process.kill()
    until(lambda: not lives(pid))
    guarded.close()


# ---- what it reads and loads -------------------------------------------------------------------


@pytest.mark.parametrize(
    "own, file, text, kills",
    [
        ("4:memory:/a/b\n0::/\n", "memory/a/b/memory.oom_control", "under_oom 0\noom_kill 3\n", 3),
        ("4:cpu,memory:/a\n", "memory/memory.oom_control", "under_oom 0\noom_kill 2\n", 2),
        ("0::/a/b:c\n", "a/b:c/memory.events", "low 0\nmax 7\noom 2\noom_kill 1\n", 1),
        ("0::/x\n", "memory.events", "oom_kill 5\n", 5),
        ("0::/a\n", "a/memory.events", "oom_kill many\n", 0),
        ("0::/a\n", "a/memory.events", "low 0\n", 0),
        ("0::/a\n", "b", "", 0),
        ("nonsense\n", "b", "", 0),
        ("", "b", "", 0),
    ],
)
def test_kills_for_lack_of_memory_are_read_from_either_kind_of_group(
    tmp_path: Path, own: str, file: str, text: str, kills: int
) -> None:
    (tmp_path / "own").write_text(own)
    path = tmp_path / "groups" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert guard.oom_kills(str(tmp_path / "groups"), str(tmp_path / "own")) == kills
    assert guard.oom_kills(str(tmp_path / "groups"), str(tmp_path / "absent")) == 0


def test_a_real_kill_for_lack_of_memory_is_counted(folder: Path) -> None:
    """A child is killed in a small group of its own; the job itself ends as it likes."""
    group = Path(guard.CGROUPS, "memory", f"cupel-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups (v1) cannot be made here")
    try:
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
        eats = f"{sys.executable} -S -c 'x = bytearray(256 << 20)'"
        (folder / "group.sh").write_text(f'echo $$ > {group}/cgroup.procs; exec "$@"\n')
        command = [sys.executable, "-I", "-S", guard.__file__]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                ["sh", str(folder / "group.sh"), *command, str(theirs.fileno()), str(os.getpid()),
                 "5", "", "sh", "-c", f"{eats}; exit 6"],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
            process.wait(20)
            told = [json.loads(line) for line in ours.recv(4096).decode().splitlines()]
        assert (told[-1]["code"], told[-1]["oom_kills"]) == (6, 1)
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_it_imports_what_python_has_loaded_anyway_or_loads_fast() -> None:
    tree = ast.parse(Path(guard.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import)]
    assert {alias.name for node in imports for alias in node.names} == {
        "os", "resource", "select", "signal", "sys", "time",
    }  # fmt: skip
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in froms] == ["__future__"]


def test_it_sees_its_children_with_and_without_the_list_of_the_kernel() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert child.pid in guard.children()
        assert guard.parent_of(child.pid) == os.getpid()
        assert {child.pid, os.getpid()} <= set(guard.processes())
        assert psutil.Process(child.pid).ppid() == os.getpid()
        assert guard.lives(child.pid)
    finally:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not guard.lives(child.pid), "who waits to be waited for has ended"
        assert guard.parent_of(child.pid) == os.getpid()
        child.wait()
    assert guard.parent_of(child.pid) == 0
    assert not guard.lives(child.pid)
