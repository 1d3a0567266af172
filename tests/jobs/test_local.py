"""Processes on this machine: their own session, their log, their stdin that ends with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cupel.errors import RecordError
from cupel.jobs.backend import Handle, Job
from cupel.jobs.local import LocalBackend


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend()


def shell(tmp_path: Path, script: str, **environment: str) -> Job:
    return Job("job", ("sh", "-c", script), tmp_path / "logs" / "job.log", environment)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


def end_of(backend: LocalBackend, handle: Handle) -> int:
    until(lambda: backend.poll(handle) is not None)
    code = backend.poll(handle)
    assert code is not None
    return code


def test_a_job_has_its_variables_and_its_output_goes_to_its_log(
    backend: LocalBackend, tmp_path: Path
) -> None:
    job = shell(tmp_path, "echo $WORD; echo wrong >&2; exit 3", WORD="hello")
    assert end_of(backend, backend.submit(job)) == 3
    assert backend.logs(job) == "hello\nwrong"
    assert backend.logs(job, lines=1) == "wrong"


def test_a_second_start_of_a_job_adds_to_its_log(backend: LocalBackend, tmp_path: Path) -> None:
    job = shell(tmp_path, "echo again")
    handles = [backend.submit(job), backend.submit(job)]
    assert [end_of(backend, handle) for handle in handles] == [0, 0]
    assert handles[0].id != handles[1].id
    assert backend.logs(job) == "again\nagain"


def test_a_job_without_a_log_printed_nothing(backend: LocalBackend, tmp_path: Path) -> None:
    assert backend.logs(shell(tmp_path, "true")) == ""


def test_only_the_end_of_a_long_log_is_read(backend: LocalBackend, tmp_path: Path) -> None:
    job = shell(tmp_path, "seq 100000")
    end_of(backend, backend.submit(job))
    assert backend.logs(job, lines=2) == "99999\n100000"


def test_a_log_that_cannot_be_written_is_told_in_one_line(
    backend: LocalBackend, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(RecordError, match="cannot write the log"):
        backend.submit(shell(tmp_path, "true"))


def test_a_signal_shows_in_the_exit_code(backend: LocalBackend, tmp_path: Path) -> None:
    handle = backend.submit(shell(tmp_path, "exec sleep 60"))
    assert backend.poll(handle) is None
    backend.signal(handle, signal.SIGTERM)
    assert end_of(backend, handle) == -signal.SIGTERM
    backend.signal(handle, signal.SIGTERM)  # it has ended: nobody is hit, nothing raised


def test_sigkill_takes_what_the_job_has_started_with_it(
    backend: LocalBackend, tmp_path: Path
) -> None:
    job = shell(tmp_path, "sleep 60 & echo $!; wait")
    handle = backend.submit(job)
    until(lambda: backend.logs(job))
    child = int(backend.logs(job))
    backend.signal(handle, signal.SIGKILL)
    assert end_of(backend, handle) == -signal.SIGKILL
    until(lambda: not is_running(child))


def test_a_job_is_out_of_reach_of_ctrl_c(backend: LocalBackend, tmp_path: Path) -> None:
    handle = backend.submit(shell(tmp_path, "exec sleep 60"))
    pid = int(handle.id.split(":")[1])
    try:
        assert os.getsid(pid) == pid != os.getsid(0)
    finally:
        backend.signal(handle, signal.SIGKILL)
        end_of(backend, handle)


def test_stdin_ends_when_whoever_started_the_job_is_killed(tmp_path: Path) -> None:
    """The starter starts two, so the second must not hold the first one's pipe open."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from cupel.jobs.backend import Job\n"
        "from cupel.jobs.local import LocalBackend\n"
        "backend, folder = LocalBackend(), Path(sys.argv[1])\n"
        "for n in '12':\n"
        "    wait = f'echo ready; cat; touch {folder}/ended{n}'\n"
        "    backend.submit(Job(n, ('sh', '-c', wait), folder / f'log{n}'))\n"
        "time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    logs = [tmp_path / "log1", tmp_path / "log2"]
    until(lambda: all(log.exists() and log.read_text() for log in logs))
    assert not (tmp_path / "ended1").exists()
    starter.kill()
    starter.wait()
    until(lambda: (tmp_path / "ended1").exists() and (tmp_path / "ended2").exists())


def is_running(pid: int) -> bool:
    from cupel.record.processes import start_of

    return start_of(pid) is not None
