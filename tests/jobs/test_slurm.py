"""Jobs on a real Slurm of one node, which is installed and started for these tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR1
from typing import Any

import pytest

from cupel.errors import JobsError, UsageError
from cupel.jobs.backend import Ended, Handle, Job, Resources
from cupel.jobs.slurm import SlurmBackend
from cupel.jobs.slurm_script import SlurmSettings
from cupel.testing.backend import BackendContract
from slurm_desk import a_slurm

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.slow]

CPUS = 8  # that the node claims
PATIENT = "trap 'echo asked; exit 75' {signal}; echo ready; while :; do sleep 0.1; done"
ONE_KILLED = "python3 -c 'x = bytearray(500 * 2**20)'"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    with a_slurm() as folder:
        yield folder


@pytest.fixture
def backend(slurm: Path, tmp_path: Path) -> SlurmBackend:
    return backend_in(tmp_path)


class TestContract(BackendContract):
    job = Job
    patience_s = 60.0
    survives = True
    all_cpus = CPUS
    limit_s = None  # costs 90 s; beside another one below

    @pytest.fixture
    def backend(self, slurm: Path, tmp_path: Path) -> SlurmBackend:
        return backend_in(tmp_path)

    def anew(self, backend: Any) -> Any:
        return SlurmBackend(backend.settings)


def backend_in(folder: Path, **choices: Any) -> SlurmBackend:
    return SlurmBackend(SlurmSettings(**{"folder": folder / "slurm", "signal_s": 0, **choices}))


def shells(folder: Path, *scripts: str, resources: Resources | None = None) -> list[Job]:
    return [
        Job(f"job{n}", ("sh", "-c", text), folder / f"{n}.log", {}, resources or Resources())
        for n, text in enumerate(scripts)
    ]


def until(true: Callable[[], object], patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.1)


def states(backend: SlurmBackend, handles: Sequence[Handle]) -> list[str]:
    return [report.state for report in backend.poll(handles)]


def ends(backend: SlurmBackend, handles: Sequence[Handle], patience_s: float = 60) -> list[Ended]:
    until(lambda: set(states(backend, handles)) == {"ended"}, patience_s)
    return [report.ended for report in backend.poll(handles) if report.ended]


def lines(handle: Handle) -> list[str]:
    return handle.job.log.read_text().splitlines()


# ---- submitting --------------------------------------------------------------------------------


def test_twenty_jobs_are_one_array_and_each_is_told_on_its_own(
    backend: SlurmBackend, tmp_path: Path
) -> None:
    handles = backend.submit(shells(tmp_path, *(f"echo {n}; exit {n}" for n in range(20))))
    assert {handle.id.split("_")[0] for handle in handles} == {handles[0].id.split("_")[0]}
    assert [ended.code for ended in ends(backend, handles)] == list(range(20))
    assert [lines(handle) for handle in handles] == [[str(n)] for n in range(20)]
    assert len(list(backend.settings.folder.glob("*.sh"))) == 1


def test_a_dry_run_shows_what_submit_writes_and_writes_nothing(
    backend: SlurmBackend, tmp_path: Path
) -> None:
    jobs = shells(tmp_path, "true", "true")
    jobs.append(replace(jobs[0], resources=Resources(cpus=2)))
    shown = backend.dry_run(jobs)
    assert not backend.settings.folder.exists()
    handles = backend.submit(jobs)
    written = [
        backend.settings.folder / f"slurm-{n}.{end}" for n in (1, 2) for end in ("sh", "jsonl")
    ]
    assert shown == "\n".join(f"# {path}\n{path.read_text()}" for path in written)
    assert [handle.id.split("_")[1] for handle in handles] == ["0", "1", "0"]
    assert [ended.code for ended in ends(backend, handles)] == [0, 0, 0]


def test_when_one_array_is_refused_no_job_of_another_begins(
    backend: SlurmBackend, tmp_path: Path
) -> None:
    good, bad = shells(tmp_path, f"touch {tmp_path}/begun", "true")
    bad = replace(bad, resources=Resources(cpus=1000))
    with pytest.raises(JobsError, match=r"sbatch: .*not available"):
        backend.submit([good, bad])
    ends(backend, backend.submit(shells(tmp_path, "true")))
    assert not (tmp_path / "begun").exists()


def test_longer_lists_become_several_arrays(slurm: Path, tmp_path: Path) -> None:
    backend = backend_in(tmp_path, array_max=2)
    handles = backend.submit(shells(tmp_path, *(f"exit {n}" for n in range(5))))
    assert [handle.id.split("_")[1] for handle in handles] == ["0", "1", "0", "1", "0"]
    assert [ended.code for ended in ends(backend, handles)] == [0, 1, 2, 3, 4]


def test_a_folder_of_any_name_will_do(slurm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "100% 'mine' #1 $HOME é"
    backend = backend_in(folder)
    (handle,) = backend.submit(shells(folder, "echo hello"))
    assert ends(backend, [handle])[0].code == 0
    assert backend.logs(handle) == "hello"
    assert (folder / f"slurm/slurm-{handle.id}.out").exists()


def test_what_a_site_or_a_person_has_set_for_sbatch_does_not_overrule_the_script(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"ARRAY_INX": "5-6", "EXPORT": "NONE", "OUTPUT": "/dev/null", "TIMELIMIT": "7"}
    for name, value in {**given, "PARTITION": "nowhere", "JOB_NAME": "other"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    monkeypatch.setenv("WORD", "hello")
    backend = backend_in(tmp_path, partition="urgent")
    (handle,) = backend.submit(shells(tmp_path, "echo $WORD $SLURM_JOB_PARTITION $SLURM_JOB_NAME"))
    assert ends(backend, [handle])[0].code == 0
    assert lines(handle) == ["hello urgent cupel"]


def test_at_most_so_many_run_at_a_time_as_the_throttle_says(slurm: Path, tmp_path: Path) -> None:
    backend = backend_in(tmp_path, throttle=2)
    told = tmp_path / "told"
    script = f"echo 1 >> {told}; sleep 0.5; echo -1 >> {told}"
    handles = backend.submit(shells(tmp_path, *[script] * 6))
    ends(backend, handles)
    running, most = 0, 0
    for line in told.read_text().split():
        running += int(line)
        most = max(most, running)
    assert (running, most) == (0, 2)


# ---- signals and ends --------------------------------------------------------------------------


def test_a_signal_comes_once_and_at_once_while_others_of_the_array_wait(
    slurm: Path, tmp_path: Path
) -> None:
    """scancel repeats it every few seconds here, and does not return."""
    backend = backend_in(tmp_path, throttle=1)
    script = "trap 'echo asked' USR1; echo ready; while :; do sleep 0.1; done"
    handles = backend.submit(shells(tmp_path, script, "true"))
    until(lambda: "ready" in backend.logs(handles[0]))
    began = time.monotonic()
    backend.signal(handles, SIGUSR1)
    assert time.monotonic() - began < 4
    time.sleep(8)
    assert lines(handles[0]).count("asked") == 1
    assert states(backend, handles) == ["running", "pending"]
    backend.cancel(handles)


def test_cancelled_jobs_have_ended_whether_they_ran_or_waited(slurm: Path, tmp_path: Path) -> None:
    backend = backend_in(tmp_path, throttle=1)
    jobs = shells(tmp_path, PATIENT.format(signal="TERM"), f"touch {tmp_path}/begun", "exit 3")
    handles = backend.submit(jobs)
    until(lambda: "ready" in backend.logs(handles[0]))
    backend.cancel(handles[:2])
    asked, waited, other = ends(backend, handles)
    assert (asked.state, waited.state) == ("CANCELLED", "CANCELLED")
    assert asked.code != 0
    assert waited.code == -SIGTERM
    assert (other.code, other.state) == (3, "FAILED")
    assert "asked" in lines(handles[0])
    assert not (tmp_path / "begun").exists()
    anew = SlurmBackend(backend.settings)
    assert [report.ended for report in anew.poll(handles)] == [asked, waited, other]


def test_a_job_is_told_before_its_limit_and_one_that_does_not_listen_is_ended(
    slurm: Path, tmp_path: Path
) -> None:
    """Slurm looks at limits every 30 s: this takes 60 to 90 s."""
    listens, does_not = tmp_path / "listens", tmp_path / "does not"
    told = backend_in(listens, time_min=1, signal_s=50)
    untold = backend_in(does_not, time_min=1)
    asked = told.submit(shells(listens, PATIENT.format(signal="USR1")))
    late = untold.submit(shells(does_not, "exec sleep 600"))
    (left,) = ends(told, asked, patience_s=90)
    assert (left.code, left.state) == (75, "FAILED")
    assert left.wall_s is not None
    assert left.wall_s < 60
    assert lines(asked[0]) == ["ready", "asked"]
    (ended,) = ends(untold, late, patience_s=120)
    assert (ended.state, ended.code) == ("TIMEOUT", -SIGTERM)
    assert "DUE TO TIME LIMIT" in untold.logs(late[0])


def test_a_requeued_job_starts_again_soon_under_its_id(
    backend: SlurmBackend, tmp_path: Path
) -> None:
    script = f"echo start $SLURM_RESTART_COUNT; [ -e {tmp_path}/go ] || sleep 600"
    handles = backend.submit(shells(tmp_path, script, "sleep 600"))
    until(lambda: all(state == "running" for state in states(backend, handles)))
    until(lambda: "start" in backend.logs(handles[0]))
    (tmp_path / "go").touch()
    backend.requeue(handles[:1])
    assert [ended.code for ended in ends(backend, handles[:1], patience_s=30)] == [0]
    assert lines(handles[0])[-1] == "start 1"
    assert states(backend, handles[1:]) == ["running"]
    backend.cancel(handles)


def test_a_job_that_left_with_a_checkpoint_can_be_queued_again(
    backend: SlurmBackend, tmp_path: Path
) -> None:
    script = f"[ -e {tmp_path}/checkpoint ] && exit 0; touch {tmp_path}/checkpoint; exit 75"
    handles = backend.submit(shells(tmp_path, script))
    assert ends(backend, handles)[0].code == 75
    backend.requeue(handles)
    assert states(backend, handles) == ["pending"]
    assert ends(backend, handles)[0].code == 0


def test_what_may_not_be_requeued_is_refused(slurm: Path, tmp_path: Path) -> None:
    backend = backend_in(tmp_path, requeue=False)
    handles = backend.submit(shells(tmp_path, "sleep 600"))
    until(lambda: states(backend, handles) == ["running"])
    with pytest.raises(JobsError, match="scontrol: "):
        backend.requeue(handles)
    assert states(backend, handles) == ["running"]
    backend.cancel(handles)


def test_a_preempted_job_is_asked_first_and_waits_again_or_has_ended(
    slurm: Path, tmp_path: Path
) -> None:
    half = Resources(cpus=CPUS / 2)
    folders = [tmp_path / name for name in ("again", "over", "urgent")]
    again = backend_in(folders[0])
    over = backend_in(folders[1], requeue=False)
    urgent = backend_in(folders[2], partition="urgent")
    patient = PATIENT.format(signal="TERM")
    again_handles = again.submit(shells(folders[0], patient, resources=half))
    over_handles = over.submit(shells(folders[1], patient, resources=half))
    until(lambda: "ready" in again.logs(again_handles[0]))
    until(lambda: "ready" in over.logs(over_handles[0]))
    urgent_handles = urgent.submit(shells(folders[2], "true", resources=Resources(cpus=CPUS)))
    (ended,) = ends(over, over_handles)
    assert ended.state == "PREEMPTED"
    assert ended.code != 0
    until(lambda: states(again, again_handles) == ["pending"])
    assert [ended.code for ended in ends(urgent, urgent_handles)] == [0]
    assert "asked" in lines(over_handles[0])
    assert "asked" in lines(again_handles[0])
    again.cancel(again_handles)


def test_a_job_beyond_its_memory_is_told_apart_from_a_killed_one(
    backend: SlurmBackend, slurm: Path, tmp_path: Path
) -> None:
    if not (slurm / "cgroup.conf").exists():
        pytest.skip("this machine has no cgroup v1; Slurm enforces no memory here")
    resources = Resources(memory_mb=200)
    handles = backend.submit(
        shells(tmp_path, f"exec {ONE_KILLED}", "kill -9 $$", "true", resources=resources)
    )
    full, killed, well = ends(backend, handles)
    assert (full.state, full.code, full.oom_kills) == ("OUT_OF_MEMORY", -SIGKILL, 1)
    assert (killed.state, killed.code, killed.oom_kills) == ("FAILED", -SIGKILL, 0)
    assert (well.state, well.code, well.oom_kills) == ("COMPLETED", 0, 0)


def test_a_gpu_is_given_to_one_job_at_a_time(
    backend: SlurmBackend, slurm: Path, tmp_path: Path
) -> None:
    if not (slurm / "gres.conf").exists():
        pytest.skip("this machine lets nobody make devices; the node has no GPUs")
    script = f"echo $CUDA_VISIBLE_DEVICES; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    handles = backend.submit(shells(tmp_path, *[script] * 3, resources=Resources(gpus=1)))
    until(lambda: sorted(states(backend, handles)) == ["pending", "running", "running"])
    (tmp_path / "go").touch()
    ends(backend, handles)
    said = [lines(handle) for handle in handles]
    assert sorted(said[:2]) == [["0"], ["1"]]
    assert said[2] in (["0"], ["1"])


# ---- a Slurm that breaks -----------------------------------------------------------------------


def test_a_killed_slurmd_loses_no_job(backend: SlurmBackend, slurm: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo ready; until [ -e {go} ]; do sleep 0.1; done; exit 7"
    handles = backend.submit(shells(tmp_path, script, "sleep 1; exit 3"))
    until(lambda: all(state == "running" for state in states(backend, handles)))
    until(lambda: "ready" in backend.logs(handles[0]))
    os.kill(int((slurm / "run/slurmd.pid").read_text()), SIGKILL)
    time.sleep(2)  # the second job ends meanwhile, and nobody can be told
    assert states(backend, handles) == ["running", "running"]
    subprocess.check_call(["slurmd"])
    assert [ended.code for ended in ends(backend, handles[1:], patience_s=90)] == [3]
    assert states(backend, handles[:1]) == ["running"]
    go.touch()
    assert [ended.code for ended in ends(backend, handles[:1])] == [7]


def test_a_silent_slurm_ends_no_job_and_refuses_in_a_line(
    backend: SlurmBackend, slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cupel.jobs.slurm_commands.TIMEOUT_S", 2.0)
    handles = backend.submit(shells(tmp_path, "exit 3", "sleep 600"))
    ends(backend, handles[:1])
    until(lambda: states(backend, handles[1:]) == ["running"])
    subprocess.check_call(["scontrol", "shutdown", "slurmctld"])
    until(lambda: not (slurm / "run/slurmctld.pid").exists())
    try:
        for report in backend.poll(handles):
            assert (report.state, report.ended) == ("unknown", None)
            assert "scontrol" in report.detail
        for refused in (backend.submit, lambda _: backend.cancel(handles)):
            with pytest.raises(JobsError) as caught:
                refused(shells(tmp_path, "true"))
            assert "\n" not in str(caught.value)
    finally:
        subprocess.check_call(["slurmctld"])
    until(lambda: states(backend, handles) == ["ended", "running"])
    backend.cancel(handles)


def test_what_slurm_has_forgotten_is_unknown(
    backend: SlurmBackend, slurm: Path, tmp_path: Path
) -> None:
    handles = backend.submit(shells(tmp_path, "exit 3"))
    ends(backend, handles)
    forget(slurm)
    (report,) = backend.poll(handles)
    assert (report.state, report.ended) == ("unknown", None)


def forget(slurm: Path) -> None:
    """Let the controller begin anew without its memory of jobs."""
    subprocess.check_call(["scontrol", "shutdown", "slurmctld"])
    until(lambda: not (slurm / "run/slurmctld.pid").exists())
    shutil.rmtree(slurm / "state")
    (slurm / "state").mkdir()
    subprocess.check_call(["slurmctld", "-c"])
    until(lambda: b"idle" in subprocess.check_output(["sinfo", "-h", "-o", "%T"]))


def test_accounts_remember_what_the_controller_has_forgotten(
    tmp_path: Path, slurm_with_accounts: Path
) -> None:
    backend = backend_in(tmp_path, throttle=4)
    handles = backend.submit(shells(tmp_path, "exit 0", "exit 3", "kill -9 $$", "sleep 600"))
    until(lambda: states(backend, handles) == ["ended"] * 3 + ["running"])
    backend.cancel(handles[3:])
    before = ends(backend, handles)
    books = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=State")
    until(lambda: subprocess.check_output(books).count(b"\n") == 4)  # some seconds later
    until(lambda: b"RUNNING" not in subprocess.check_output(books))
    forget(slurm_with_accounts)
    after = [report.ended for report in SlurmBackend(backend.settings).poll(handles)]
    assert [(end.code, end.state) for end in after if end] == [
        (0, "COMPLETED"),
        (3, "FAILED"),
        (-SIGKILL, "FAILED"),
        (-SIGTERM, "CANCELLED"),
    ]
    assert [end.state for end in before] == [end.state for end in after if end]


@pytest.fixture
def slurm_with_accounts() -> Iterator[Path]:
    with a_slurm("--accounting") as folder:
        yield folder


# ---- without a Slurm ---------------------------------------------------------------------------


def test_without_slurms_commands_submitting_is_refused_and_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = backend_in(tmp_path)
    job = Job("job", ("true",), tmp_path / "log")
    with pytest.raises(JobsError, match="sbatch is not here; run this where Slurm's commands"):
        backend.submit([job])
    (report,) = backend.poll([Handle(job, "1_0")])
    assert (report.state, report.ended) == ("unknown", None)
    with pytest.raises(JobsError, match="scontrol is not here"):
        backend.cancel([Handle(job, "1_0")])


def test_a_command_that_hangs_is_ended_with_what_it_started_and_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a site has wrapped it; the wrapper's child holds our pipes."""
    monkeypatch.setattr("cupel.jobs.slurm_commands.TIMEOUT_S", 0.5)
    command(tmp_path, "sbatch", f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    command(tmp_path, "scontrol", "sleep 600; true")
    command(tmp_path, "sacct", "printf '1_0|\\377\\376|0:0|1|1'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    backend, began = backend_in(tmp_path), time.monotonic()
    job = Job("job", ("true",), tmp_path / "log")
    with pytest.raises(
        JobsError, match=r"sbatch did not answer within 0\.5 s.*squeue --name cupel"
    ):
        backend.submit([job])
    (report,) = backend.poll([Handle(job, "1_0")])
    assert (report.state, report.ended) == ("unknown", None)
    assert time.monotonic() - began < 10
    until(lambda: not Path("/proc", (tmp_path / "pid").read_text().strip()).exists())


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_resources_that_slurm_cannot_give_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    backend = backend_in(tmp_path)
    with pytest.raises(UsageError, match="whole ones"):
        backend.submit(shells(tmp_path, "true", resources=Resources(gpus=0.5)))
    assert list(tmp_path.iterdir()) == []
