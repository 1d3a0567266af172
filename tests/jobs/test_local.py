"""Processes on this machine: their ends, their log, their stdin, and that none outlives its worker.

What every backend owes is in `tests/testing/test_backend.py`, what a guard does in `test_guard.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cupel.errors import JobsError, RecordError
from cupel.jobs import guard, local
from cupel.jobs.backend import Ended, Handle, Job, Report, Resources
from cupel.jobs.local import LocalBackend, tail
from families import ALL_THERE, FAMILY, left_of, lives, pids_in, until

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


# Of a job of this process alone: tests that run beside us look for theirs on the same machine.
OWN = f"test-{uuid.uuid4().hex}"
MARK = f"{local.TOKEN}={OWN}".encode()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    with LocalBackend(grace_s=0.5) as backend:
        yield backend
    left = left_of(tmp_path / "pids")
    for process in left:
        process.kill()
    assert not left


def shell(tmp_path: Path, script: str, name: str = "job", **environment: str) -> Job:
    environment = {"PIDS": str(tmp_path / "pids"), **environment}
    return Job(name, ("sh", "-c", script), tmp_path / "logs" / f"{name}.log", environment)


def start(backend: LocalBackend, *jobs: Job) -> Handle:
    return backend.submit(jobs)[0]


def end_of(backend: LocalBackend, handle: Handle) -> Ended:
    until(lambda: backend.poll([handle])[0].ended is not None)
    ended = backend.poll([handle])[0].ended
    assert ended is not None
    return ended


def pid_of(backend: LocalBackend, handle: Handle) -> int:
    until(lambda: backend.poll([handle])[0].state == "running")
    return int(backend.poll([handle])[0].detail.removeprefix("pid "))


def guard_of(backend: LocalBackend, handle: Handle) -> psutil.Process:
    parent = psutil.Process(pid_of(backend, handle)).parent()
    assert parent is not None
    return parent


# ---- logs --------------------------------------------------------------------------------------


def test_a_job_has_its_variables_and_its_output_goes_to_its_log(
    backend: LocalBackend, tmp_path: Path
) -> None:
    handle = start(backend, shell(tmp_path, "echo $WORD; echo wrong >&2; exit 3", WORD="hello"))
    assert end_of(backend, handle).code == 3
    assert backend.logs(handle) == "hello\nwrong"
    assert backend.logs(handle, lines=1) == "wrong"


def test_only_the_end_of_a_long_log_is_read(backend: LocalBackend, tmp_path: Path) -> None:
    handle = start(backend, shell(tmp_path, "seq 100000"))
    end_of(backend, handle)
    assert backend.logs(handle, lines=2) == "99999\n100000"
    assert tail(tmp_path / "absent", lines=2) == ""


def test_a_log_that_cannot_be_written_is_told_in_one_line(
    backend: LocalBackend, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(RecordError, match="cannot write the log"):
        backend.submit([shell(tmp_path, "true")])


def test_when_one_job_cannot_be_started_none_is_left_of_those_before_it(
    backend: LocalBackend, tmp_path: Path
) -> None:
    good = shell(tmp_path, "sleep 600")
    bad = replace(good, name="bad", environment={"A=B": "no name of a variable"})
    with pytest.raises(JobsError, match="cannot start bad: illegal environment variable name"):
        backend.submit([good, bad])
    assert left_of(tmp_path / "pids") == []


# ---- waiting, and what is told -----------------------------------------------------------------


@pytest.mark.slow
def test_an_end_wakes_whoever_waits_and_a_wait_has_its_limit(
    backend: LocalBackend, tmp_path: Path
) -> None:
    began = time.monotonic()
    assert not backend.wait(0.2)  # there is no job at all
    assert 0.2 <= time.monotonic() - began < 5
    handles = backend.submit([shell(tmp_path, "sleep 600"), shell(tmp_path, "sleep 0.3", "two")])
    began = time.monotonic()
    assert not backend.wait(0.05)
    assert backend.wait(60)
    assert 0.05 <= time.monotonic() - began < 20
    assert [report.state for report in backend.poll(handles)] == ["running", "ended"]
    assert not backend.wait(0.05), "the same end was told twice"


@pytest.mark.slow
def test_an_end_that_comes_before_the_wait_is_not_missed(
    backend: LocalBackend, tmp_path: Path
) -> None:
    handle = start(backend, shell(tmp_path, "echo done"))
    until(lambda: backend.logs(handle))
    time.sleep(0.2)
    assert backend.wait(0)
    assert backend.poll([handle])[0].state == "ended"


@pytest.mark.slow
def test_costs_come_with_the_end(backend: LocalBackend, tmp_path: Path) -> None:
    ended = end_of(backend, start(backend, shell(tmp_path, "sleep 0.2; exit 5")))
    assert ended.wall_s is not None
    assert ended.cpu_s is not None
    assert ended.peak_mb is not None
    assert ended == Ended(5, "", 0, ended.wall_s, ended.cpu_s, ended.peak_mb)
    assert 0.2 <= ended.wall_s < 10
    assert 0 <= ended.cpu_s < 0.2
    assert 0 < ended.peak_mb < 64


def test_each_start_of_one_job_is_told_of_by_its_own_handle(
    backend: LocalBackend, tmp_path: Path
) -> None:
    job = shell(tmp_path, 'mkdir "$PIDS" || exit 9; cat')
    first = start(backend, job)
    until((tmp_path / "pids").is_dir)
    second = start(backend, job)
    assert end_of(backend, second).code == 9
    assert backend.poll([first])[0].state == "running"
    backend.signal([Handle(replace(job), first.id)], signal.SIGKILL)
    until(lambda: backend.poll([first])[0].state == "ended")
    assert [report.ended and report.ended.code for report in backend.poll([second, first])] == [
        9, -9,
    ]  # fmt: skip


def test_a_handle_of_another_process_is_unknown(backend: LocalBackend, tmp_path: Path) -> None:
    handle = start(backend, shell(tmp_path, "sleep 600"))
    pid = pid_of(backend, handle)
    script = (
        "import sys\nfrom pathlib import Path\nfrom signal import SIGKILL\n"
        "from cupel.jobs.backend import Handle, Job\nfrom cupel.jobs.local import LocalBackend\n"
        "backend = LocalBackend()\n"
        "handle = Handle(Job('job', ('true',), Path(sys.argv[1])), sys.argv[2])\n"
        "print(backend.poll([handle])[0].state)\n"
        "backend.cancel([handle])\nbackend.signal([handle], SIGKILL)\n"
    )
    other = [sys.executable, "-c", script, str(handle.job.log), handle.id]
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "unknown\n"
    assert backend.poll([handle]) == [Report("running", detail=f"pid {pid}")]


@pytest.mark.slow
def test_a_job_beyond_its_time_says_so(backend: LocalBackend, tmp_path: Path) -> None:
    job = replace(shell(tmp_path, "sleep 600"), resources=Resources(time_s=0.2))
    ended = end_of(backend, start(backend, job))
    assert (ended.code, ended.state) == (-signal.SIGTERM, "TIMEOUT")


@pytest.mark.slow
def test_many_short_jobs_leave_no_process_and_no_descriptor(
    backend: LocalBackend, tmp_path: Path
) -> None:
    me = psutil.Process()
    before = me.num_fds(), set(me.children())
    handles = backend.submit([shell(tmp_path, f"exit {n}", f"job{n}") for n in range(20)])
    assert [end_of(backend, handle).code for handle in handles] == list(range(20))
    assert (me.num_fds(), set(me.children())) == before


# ---- nothing is left ---------------------------------------------------------------------------


def test_a_job_is_out_of_reach_of_ctrl_c(backend: LocalBackend, tmp_path: Path) -> None:
    handle = start(backend, shell(tmp_path, "exec sleep 60"))
    pid = pid_of(backend, handle)
    assert os.getsid(pid) == pid != os.getsid(0)
    assert guard_of(backend, handle).pid == os.getsid(guard_of(backend, handle).pid)


@LINUX
@pytest.mark.slow
def test_closing_ends_all_that_was_started(tmp_path: Path) -> None:
    with LocalBackend(grace_s=0.3) as backend:
        job = shell(tmp_path, f"{FAMILY}{ALL_THERE} trap '' TERM; echo ready; cat")
        stubborn = start(backend, job)
        polite = start(backend, shell(tmp_path, "sleep 600", "polite"))
        until(lambda: backend.logs(stubborn) == "ready")
        pid_of(backend, polite)
    assert [report.ended and report.ended.code for report in backend.poll([stubborn, polite])] == [
        -signal.SIGKILL, -signal.SIGTERM,
    ]  # fmt: skip
    assert left_of(tmp_path / "pids") == []
    backend.close()


@LINUX
@pytest.mark.slow
def test_of_a_job_whose_guard_is_killed_nothing_is_left_and_its_end_is_a_kill(
    backend: LocalBackend, tmp_path: Path
) -> None:
    before = {child.pid for child in psutil.Process().children()}
    handle = start(backend, shell(tmp_path, f"{FAMILY}{ALL_THERE} trap '' TERM; echo ready; cat"))
    spared = start(backend, shell(tmp_path, "exec sleep 600", "spared", PIDS="spared"))
    until(lambda: backend.logs(handle) == "ready")
    stranger = subprocess.Popen(["sleep", "600"])  # another child of ours, which is no job
    try:
        guard_of(backend, handle).kill()
        assert end_of(backend, handle) == Ended(-signal.SIGKILL)
        assert len(pids_in(tmp_path / "pids")) == 3
        assert left_of(tmp_path / "pids") == []
        children = {child.pid for child in psutil.Process().children()} - before
        assert children == {stranger.pid, guard_of(backend, spared).pid}, "zombies are left"
        assert stranger.poll() is None
        backend.cancel([handle])
        assert backend.poll([handle])[0].ended == Ended(-signal.SIGKILL)
    finally:
        stranger.kill()
        stranger.wait()


@LINUX
def test_what_a_job_leaves_is_waited_for_though_it_dies_while_we_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The dead have no environment by which to know them; those of a session of their own least."""
    timers = []

    def send(kill: Callable[[int, int], None], pid: int, number: int) -> bool:
        timers.append(threading.Timer(0.03, sent, (kill, pid, number)))  # within the next look
        timers[-1].start()
        return True

    def processes() -> list[int]:
        time.sleep(0.06)
        return seen()

    job = shell(tmp_path, "")
    marked = {**os.environ, local.TOKEN: OWN}
    child = subprocess.Popen(["sleep", "600"], env=marked, start_new_session=True)
    until(lambda: local._is_of(child.pid, 0, MARK))  # a moment after it was started
    ours, other = socket.socketpair()
    seen, sent = guard.processes, guard.send
    with ours, other, monkeypatch.context() as patch:
        patch.setattr(guard, "send", send)
        patch.setattr(guard, "processes", processes)
        local._end_orphans(local._Started(OWN, job, ours, 0, None))
    for timer in timers:
        timer.join()
    with pytest.raises(ChildProcessError):  # it has been waited for
        os.waitpid(child.pid, os.WNOHANG)
    child.wait()


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """We become the parent of orphans, as a backend makes us."""
    guard.adopt_orphans()
    try:
        yield
    finally:
        guard.leave_orphans()


# A guard on its way out of the kernel: its channel is closed, and the dead are still its children.
LEAVING = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], env={**os.environ, "CUPEL_JOB": sys.argv[2]})
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
os._exit(0)
"""


@LINUX
@pytest.mark.parametrize("known", ["by its process", "by its pid"])
@pytest.mark.slow
def test_what_a_job_leaves_is_waited_for_though_its_guard_is_not_quite_gone(
    known: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", LEAVING, "0.5", OWN]
    with adopting(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leaving:
        assert leaving.stdout is not None
        pid = int(leaving.stdout.readline())
        until(lambda: local._is_of(pid, 0, MARK))
        ours, other = socket.socketpair()
        with ours, other:
            one = local._Started(OWN, shell(tmp_path, ""), ours, 0, None, guard_pid=leaving.pid)
            if known == "by its process":
                one = replace(one, guard=leaving, guard_pid=0)
            local._end_orphans(one)
        with pytest.raises(ChildProcessError):  # it is no child of ours, so it has been waited for
            os.waitpid(pid, os.WNOHANG)
        assert not psutil.pid_exists(pid)


@LINUX
def test_nobody_is_signalled_who_was_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The pid may be another's by then."""
    waited, marked = set(), {**os.environ, local.TOKEN: OWN}
    lead = subprocess.Popen(["sh", "-c", "sleep 600 & exit 0"], env=marked, start_new_session=True)
    until(lambda: psutil.Process(lead.pid).status() == psutil.STATUS_ZOMBIE)
    real = os.waitpid

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        found = real(pid, options)
        waited.add(found[0])
        return found

    def send(kill: Callable[[int, int], None], pid: int, number: int) -> bool:
        assert pid not in waited
        return sent(kill, pid, number)

    ours, other = socket.socketpair()
    sent = guard.send
    with ours, other, adopting(), monkeypatch.context() as patch:
        patch.setattr(guard, "send", send)
        patch.setattr(os, "waitpid", waitpid)
        local._end_orphans(local._Started(OWN, shell(tmp_path, ""), ours, 0, None, pid=lead.pid))
    assert lead.pid in waited
    lead.wait()


WORKER = """
import sys
from pathlib import Path
from cupel.jobs.backend import Job
from cupel.jobs.local import LocalBackend
script, folder = sys.argv[1:]
backend = LocalBackend(grace_s=0.5)
jobs = [
    Job(n, ("sh", "-c", script), Path(folder, n), {"PIDS": f"{folder}/pids{n}"}) for n in "12"
]
backend.submit(jobs)
while True:
    backend.wait(60)
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_of_a_worker_that_dies_no_job_is_left(tmp_path: Path, number: signal.Signals) -> None:
    asked = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, FAMILY + ALL_THERE + asked, str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    logs, marks = [tmp_path / n for n in "12"], [tmp_path / f"pids{n}" for n in "12"]
    until(lambda: all("ready" in tail(log, lines=9) for log in logs))
    guards = psutil.Process(worker.pid).children()
    assert len(guards) == 2
    worker.send_signal(number)
    worker.wait()
    until(lambda: not any(map(left_of, marks)))
    until(lambda: not any(lives(process.pid) for process in guards))
    assert all("asked" in log.read_text() for log in logs)


def test_stdin_ends_when_whoever_started_the_job_is_killed(tmp_path: Path) -> None:
    """The starter starts two, so the second must not hold the first one's pipe open."""
    wait = "trap '' TERM; echo ready; cat; echo ended >> $PIDS"
    starter = subprocess.Popen([sys.executable, "-c", WORKER, wait, str(tmp_path)])
    logs, ended = [tmp_path / n for n in "12"], [tmp_path / f"pids{n}" for n in "12"]
    until(lambda: all("ready" in tail(log, lines=9) for log in logs))
    assert not ended[0].exists()
    starter.kill()
    starter.wait()
    until(lambda: all(file.exists() for file in ended))
