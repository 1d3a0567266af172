"""Jobs on a real Ray, which lives in namespaces of its own: the contract, and what is Ray's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR1
from typing import Any

import pytest

from cupel.errors import JobsError, MissingDependency, RecordError
from cupel.jobs.backend import Handle, Job, Resources
from cupel.testing.backend import BackendContract

sys.path.insert(0, str(Path(__file__).parent))

import ray_desk

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def desk() -> Iterator[ray_desk.Desk]:
    if why := ray_desk.why_not():
        pytest.skip(why)
    desk = ray_desk.Desk()
    yield desk
    desk.close()


@pytest.fixture(scope="session")
def backend(desk: ray_desk.Desk, tmp_path_factory: pytest.TempPathFactory) -> Any:
    backend = desk.backend()
    first = Job("first", ("true",), tmp_path_factory.mktemp("first") / "log")
    end_of(backend, backend.submit([first])[0])  # Ray starts with it
    return backend


def shell(tmp_path: Path, name: str, script: str, **given: Any) -> Job:
    log = tmp_path / f"{name}.log"
    return Job(name, ("sh", "-c", script), log, resources=Resources(**given))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def end_of(backend: Any, handle: Handle) -> Any:
    until(lambda: backend.poll([handle])[0].state == "ended")
    return backend.poll([handle])[0].ended


class TestContract(BackendContract):
    job = Job
    patience_s = PATIENCE_S
    all_cpus = ray_desk.CPUS
    limit_s = 1.0

    def anew(self, backend: Any) -> Any:
        return backend.desk.backend("another")


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from cupel.jobs.ray import RayBackend

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cupel\[ray\]'"):
        RayBackend().submit([Job("job", ("true",), Path("log"))])


def test_an_address_where_nobody_answers_is_told_in_one_line(
    desk: ray_desk.Desk, tmp_path: Path
) -> None:
    code, said = desk.ask("", "script", "-c", ALONE, str(tmp_path), "ray://127.0.0.1:1")
    assert (code, said.count("\n")) == (0, 1), said
    assert "ray job submit" in said
    code, said = desk.ask("", "script", "-c", ALONE, str(tmp_path), "127.0.0.1:1")
    assert (code, said.count("\n")) == (0, 1), said
    assert "cannot use Ray at 127.0.0.1:1" in said
    assert "refused" in said


def test_a_part_of_a_gpu_beyond_the_first_is_refused_and_nothing_starts(
    backend: Any, tmp_path: Path
) -> None:
    good = shell(tmp_path, "good", f"touch {tmp_path}/started")
    with pytest.raises(JobsError, match="whole GPUs"):
        backend.submit([good, shell(tmp_path, "bad", "true", gpus=1.5)])
    end_of(backend, backend.submit([shell(tmp_path, "next", "true")])[0])
    assert not (tmp_path / "started").exists()


def test_what_no_node_has_waits_and_says_so(backend: Any, tmp_path: Path) -> None:
    (handle,) = backend.submit([shell(tmp_path, "huge", "true", cpus=64)])
    assert backend.poll([handle])[0].state == "pending"
    until(lambda: backend.poll([handle])[0].detail == "no node of the cluster has 64 CPU")
    backend.cancel([handle])
    ended = end_of(backend, handle)
    assert (ended.code, ended.state) == (-15, "CANCELLED")


def test_cpus_and_memory_bound_how_many_run_at_once(backend: Any, tmp_path: Path) -> None:
    for name, given in (
        ("cpu", {"cpus": ray_desk.CPUS / 2}),
        ("memory", {"cpus": 0.1, "memory_mb": 1000}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        script = f"touch {folder}/$$; ls {folder} | wc -l; sleep 1; rm {folder}/$$"
        jobs = [shell(tmp_path, f"{name}{n}", script, **given) for n in range(5)]
        handles = backend.submit(jobs)
        assert [end_of(backend, handle).code for handle in handles] == [0] * 5
        at_once = [int(backend.logs(handle)) for handle in handles]
        assert max(at_once) == 2, at_once


def test_four_jobs_share_a_gpu_and_see_it_and_one_without_sees_none(
    backend: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "four"
    folder.mkdir()
    together = f'touch {folder}/$$; until [ "$(ls {folder} | wc -l)" = 4 ]; do sleep 0.1; done; '
    say = 'echo "gpu <$CUDA_VISIBLE_DEVICES>"'
    jobs = [
        shell(tmp_path, f"part{n}", together + say, cpus=0.25, gpus=0.25, time_s=60)
        for n in range(4)
    ]
    handles = backend.submit([*jobs, shell(tmp_path, "none", say)])
    assert [end_of(backend, handle).code for handle in handles] == [0] * 5
    assert [backend.logs(handle) for handle in handles] == ["gpu <0>"] * 4 + ["gpu <>"]


def test_an_end_tells_what_the_job_took(backend: Any, tmp_path: Path) -> None:
    burn = "b = bytearray(300_000_000)\nwhile __import__('time').process_time() < 1: pass"
    job = Job("burn", (sys.executable, "-c", burn), tmp_path / "log")
    ended = end_of(backend, backend.submit([job])[0])
    assert ended.wall_s >= ended.cpu_s * 0.9
    assert 1 <= ended.cpu_s < 3
    assert 280 < ended.peak_mb < 400


def test_a_signal_arrives_within_half_a_second(backend: Any, tmp_path: Path) -> None:
    """Allowed are two: machines are slow."""
    script = "trap 'date +%s.%N; exit 0' USR1; echo ready; while :; do sleep 0.01; done"
    (handle,) = backend.submit([shell(tmp_path, "asked", script)])
    until(lambda: backend.logs(handle))
    sent = time.time()
    backend.signal([handle], SIGUSR1)
    end_of(backend, handle)
    took = float(backend.logs(handle, lines=1)) - sent
    assert took < 2


def test_a_killed_ray_worker_takes_its_job_with_it_and_the_end_says_so(
    desk: ray_desk.Desk, backend: Any, tmp_path: Path
) -> None:
    """The job's child is in a session of its own, and hears of nothing."""
    child = "setsid sh -c 'trap \"\" TERM HUP; sleep 6543 & wait'"
    job = replace(shell(tmp_path, "lost", f"{child} & echo ready; wait"), name="lost-one")
    (handle,) = backend.submit([job])
    until(lambda: backend.logs(handle) == "ready" and runs(desk, "sleep 6543"))
    # Ray names a worker after the task that it runs.
    (worker,) = [pid for pid, line in desk_ps(desk).items() if line.startswith("ray::lost-one")]
    desk.ask("", "send", worker, SIGKILL)
    ended = end_of(backend, handle)
    assert not runs(desk, "sleep 6543"), "ended, and something of it still runs"
    assert (ended.code, ended.state) == (-15, "WORKER_DIED")
    assert backend.poll([handle])[0].detail


def test_a_killed_keeper_ends_its_job(desk: ray_desk.Desk, backend: Any, tmp_path: Path) -> None:
    (handle,) = backend.submit([shell(tmp_path, "unkept", "echo ready; exec sleep 5432")])
    until(lambda: backend.logs(handle) == "ready" and runs(desk, "sleep 5432"))
    (keeper,) = [pid for pid, line in desk_ps(desk).items() if line.endswith("cupel.jobs.keeper")]
    desk.ask("", "send", keeper, SIGKILL)
    ended = end_of(backend, handle)
    assert not runs(desk, "sleep 5432"), "ended, and something of it still runs"
    assert (ended.code, ended.state) == (-SIGKILL, "WORKER_DIED")


def test_a_silent_head_node_keeps_nobody_waiting(
    desk: ray_desk.Desk, backend: Any, tmp_path: Path
) -> None:
    jobs = [
        shell(tmp_path, "runs", "echo ready; exec sleep 60"),
        shell(tmp_path, "waits", "true", cpus=64),
    ]
    handles = backend.submit(jobs)
    until(lambda: backend.logs(handles[0]))
    (head,) = [pid for pid, line in desk_ps(desk).items() if "/gcs_server " in line]
    desk.ask("", "send", head, SIGSTOP)
    try:
        until_s, slowest = time.monotonic() + 7, 0.0  # longer than between two looks at the nodes
        while time.monotonic() < until_s:
            began = time.monotonic()
            states = [report.state for report in backend.poll(handles)]
            slowest = max(slowest, time.monotonic() - began)
            assert states == ["running", "pending"]
            time.sleep(0.1)
        assert slowest < 2  # unasked, Ray would try for a minute
        backend.cancel(handles)
        assert [end_of(backend, handle).state for handle in handles] == ["CANCELLED"] * 2
    finally:
        desk.ask("", "send", head, SIGCONT)


def test_a_refused_submission_leaves_nothing(backend: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = [shell(tmp_path, "good", "true"), shell(tmp_path / "file", "bad", "true")]
    with pytest.raises(RecordError):
        backend.submit(jobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "good.log"]


def test_ended_jobs_leave_nothing_but_their_log(backend: Any, tmp_path: Path) -> None:
    (handle,) = backend.submit([shell(tmp_path, "tidy", "echo done")])
    end_of(backend, handle)
    assert [path.name for path in tmp_path.iterdir()] == ["tidy.log"]


def test_the_end_of_who_submitted_ends_its_jobs(desk: ray_desk.Desk, tmp_path: Path) -> None:
    """A driver of its own Ray is killed while its job runs."""
    code, said = desk.ask("", "script", "-c", ALONE, str(tmp_path), "local")
    assert code == -SIGKILL, said
    assert (tmp_path / "log").read_text() == "ready\n"
    until(lambda: not runs(desk, "sleep 4321"))


def test_sigterm_is_heard_by_who_heard_it_before_ray(desk: ray_desk.Desk, tmp_path: Path) -> None:
    hears = (
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('heard'), exit(7)))\n"
        + ALONE.replace("os.getpid(), 9", "os.getpid(), 15")
    )
    code, said = desk.ask("", "script", "-c", hears, str(tmp_path), "local")
    assert code == 7, said
    assert "heard" in said.splitlines()
    until(lambda: not runs(desk, "sleep 4321"))


def test_nothing_of_ray_is_printed(desk: ray_desk.Desk, backend: Any) -> None:
    """Last: it is about all of the tests before."""
    lines = desk.printed.read_text().splitlines()
    # Where there is no network, and before its log is open, Ray says so.
    assert [line for line in lines if "network_util.cc" not in line] == []


def desk_ps(desk: ray_desk.Desk) -> dict[int, str]:
    found: dict[int, str] = desk.ask("", "processes")
    return found


def runs(desk: ray_desk.Desk, command: str) -> bool:
    return command in desk_ps(desk).values()


ALONE = """
import os, sys, time
from pathlib import Path
from cupel.errors import JobsError
from cupel.jobs.backend import Job
from cupel.jobs.ray import RayBackend, RaySettings
folder = Path(sys.argv[1])
backend = RayBackend(sys.argv[2], RaySettings(cpus=1, folder=Path(os.environ["HOME"])))
try:
    backend.submit([Job("job", ("sh", "-c", "echo ready; exec sleep 4321"), folder / "log")])
except JobsError as error:
    print(error)
    sys.exit()
while not (folder / "log").read_text():
    time.sleep(0.1)
os.kill(os.getpid(), 9)
"""
