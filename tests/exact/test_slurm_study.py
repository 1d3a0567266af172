"""A study on a real Slurm survives what clusters do, and ends with the numbers of this machine.

All is typed as a person types it, and as an administrator does: tasks are cancelled, queued again
and warned, the command that submitted them and Slurm's own daemon are killed, memory runs out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cupel.analysis.exactness import compare
from cupel.jobs.attempts import Attempt, read_attempt
from cupel.jobs.backend import Handle, Job, Report
from cupel.jobs.placer import submissions
from cupel.jobs.slurm import SlurmBackend
from cupel.jobs.slurm_script import SlurmSettings
from cupel.record import layout
from cupel.record.reader import RunRecord, list_runs
from desk import Desk, new_desk
from slurm_desk import a_slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.timeout(600),
]

STEPS, HELD = 50, 20  # training waits at the start of step 20 while there is a file `gate`
MEMORY_MB = 800
RECIPE = f"""\
workload: fakes:Regression
train: {{steps: {STEPS}, evaluate_every: 20, threads: 1, optimizer: {{kind: adamw, lr: 1e-2}}}}
checkpoint: {{every: 10}}
figures: {{formats: []}}
monitors: {{"fakes:Slow": {{every: 1}}, "fakes:Gate": {{step: {HELD}, path: gate}}}}
study:
  question: Does dropout help?
  arms: {{plain: {{}}, drop: {{dropout: 0.5}}}}
  seeds: [1, 2]
  resources: {{memory_mb: {MEMORY_MB}}}
"""
COMMAND = ("study", "run", "sine.yaml")
ON_SLURM = (*COMMAND, "--backend", "slurm")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The study as this machine gives it."""
    desk = desk_in(tmp_path_factory.mktemp("undisturbed"))
    done = desk.type(*COMMAND, "--warm")
    assert done.returncode == 0, done.stderr
    return desk


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    with a_slurm() as folder:
        conf = folder / "slurm.conf"
        # As Slurm comes. Five seconds for a checkpoint are few where others compute beside us.
        conf.write_text(conf.read_text().replace("KillWait=5\n", "KillWait=30\n"))
        subprocess.check_call(["scontrol", "reconfigure"])
        yield folder


@pytest.fixture
def desk(slurm: Path, tmp_path: Path) -> Desk:
    return desk_in(tmp_path)


@pytest.fixture
def start(desk: Desk) -> Iterator[Start]:
    """Types the command that submits, with further options, and goes on."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        started.append(desk.start(*ON_SLURM, *options))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def desk_in(folder: Path) -> Desk:
    desk = new_desk(folder / "desk")
    (desk.folder / "sine.yaml").write_text(RECIPE)
    return desk


def study(desk: Desk) -> Path:
    return desk.runs / "default" / "studies" / "sine"


def runs(desk: Desk) -> dict[str, RunRecord]:
    """By arm and seed, as `drop-s1`."""
    return {"-".join(run.run_id.split("-")[1:3]): run for run in list_runs(desk.runs)}


def held(desk: Desk) -> list[str]:
    """The runs that wait at the gate."""
    assert (desk.folder / "gate").exists()
    return [
        name for name, run in runs(desk).items()
        if run.status == "running" and (rows := run.history(["loss"]))
        and rows[-1]["_step"] == HELD - 1
    ]  # fmt: skip


def jobs(desk: Desk) -> dict[str, list[str]]:
    """The ids of the Slurm jobs of each run, oldest first."""
    found: dict[str, list[str]] = {}
    for one in submissions(study(desk)):
        for run in one["runs"]:
            found.setdefault("-".join(run.split("-")[1:3]), []).append(one["id"])
    return found


def state_of(desk: Desk, job: str) -> Report:
    backend = SlurmBackend(SlurmSettings(folder=study(desk) / "jobs"))
    return backend.poll([Handle(Job("", (), Path(os.devnull)), job)])[0]


def attempts(run: RunRecord) -> list[Attempt | None]:
    numbers = layout.session_numbers(run.run_dir)
    return [read_attempt(run.run_dir, number) for number in numbers]


def outcomes(run: RunRecord) -> list[str | None]:
    return [one.outcome if one else None for one in attempts(run)]


def wait_until(
    true: Callable[[], object],
    process: subprocess.Popen[str] | None = None,
    patience_s: float = 90,
) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it told until its end."""
    told = process.communicate(timeout=150)[1]
    assert process.returncode == code, told
    return told


def begin_soon(desk: Desk, job: str, process: subprocess.Popen[str]) -> None:
    """Once a job is queued again: not after Slurm's two minutes, nor within the same second."""
    wait_until(lambda: state_of(desk, job).state == "pending", process)
    subprocess.check_call(["scontrol", "update", f"JobId={job}", "StartTime=now+5"])


def assert_equal(undisturbed: Desk, desk: Desk, *names: str) -> None:
    """These runs are accepted and equal to their twins bit for bit."""
    ours, theirs = runs(desk), runs(undisturbed)
    for name in names:
        assert ours[name].status == "finished"
        comparison = compare(theirs[name], ours[name])
        assert comparison.equal, (name, comparison)
        assert comparison.steps == STEPS
        assert ours[name].checkpoints()[-1] == STEPS


def test_neither_a_killed_command_nor_a_killed_slurmd_changes_what_a_study_gives(
    undisturbed: Desk, desk: Desk, slurm: Path, start: Start
) -> None:
    gate = desk.folder / "gate"
    gate.touch()
    process = start("--throttle", "2")
    wait_until(lambda: len(held(desk)) == 2, process)
    submitted = jobs(desk)
    assert len({job.split("_")[0] for ids in submitted.values() for job in ids}) == 1
    process.kill()
    process.communicate()
    os.kill(int((slurm / "run/slurmd.pid").read_text()), signal.SIGKILL)

    process = start("--throttle", "2")
    gate.unlink()
    wait_until(lambda: sum(run.status == "finished" for run in runs(desk).values()) == 2, process)
    subprocess.check_call(["slurmd"])
    told = end(process)
    assert "submitted" not in told
    assert "restarted" not in told
    assert jobs(desk) == submitted
    assert [outcomes(run) for run in runs(desk).values()] == [["finished"]] * 4
    assert_equal(undisturbed, desk, *submitted)


def test_a_run_that_slurm_interrupts_writes_a_checkpoint_and_ends_with_equal_bits(
    undisturbed: Desk, desk: Desk, start: Start
) -> None:
    """Warned before its limit or queued again, a task comes back under its id; else a new one
    takes its place."""
    gate = desk.folder / "gate"
    gate.touch()
    process = start()
    wait_until(lambda: len(held(desk)) == 4, process)
    first = {name: ids[0] for name, ids in jobs(desk).items()}
    warned, signalled, requeued, cancelled = sorted(first)
    for command in (
        ("scancel", "--batch", "--signal=USR1", first[warned]),
        ("scancel", "--batch", "--signal=TERM", first[signalled]),
        ("scontrol", "requeue", first[requeued]),
        ("scancel", first[cancelled]),
    ):
        subprocess.check_call(command, timeout=30)
    time.sleep(0.5)  # workers hear of it in a fifth of a second
    gate.unlink()
    for name in (warned, requeued):
        begin_soon(desk, first[name], process)
    told = end(process)
    found = runs(desk)
    for name, run in found.items():
        assert outcomes(run) == ["interrupted", "finished"], (name, attempts(run), told)
        before = attempts(run)[0]
        assert before is not None
        assert (before.code, before.last_step) == (75, HELD)
        assert run.sessions[1].start_step == HELD
    counted = {name: len(ids) for name, ids in jobs(desk).items()}
    assert counted == {warned: 1, requeued: 1, signalled: 2, cancelled: 2}
    assert_equal(undisturbed, desk, *first)


def test_a_cancelled_run_ends_or_leaves_the_queue_and_the_others_go_on(
    undisturbed: Desk, desk: Desk, start: Start
) -> None:
    gate = desk.folder / "gate"
    gate.touch()
    three = 'study.where=["arm=plain or seed=1"]'
    process = start(three, "--throttle", "1")
    wait_until(lambda: held(desk), process)
    ids = {name: those[0] for name, those in jobs(desk).items()}
    running, waiting, other = sorted(ids, key=lambda name: int(ids[name].split("_")[1]))
    assert held(desk) == [running]
    done = desk.type("jobs", "cancel", "sine", waiting, running, "--why", "not needed")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: state_of(desk, ids[waiting]).state == "ended", process)
    gate.unlink()
    told = end(process, code=1)
    assert "not needed" in told
    assert {name: outcomes(run) for name, run in runs(desk).items()} == {
        running: ["cancelled"],
        other: ["finished"],
    }
    assert {name: len(those) for name, those in jobs(desk).items()} == {
        running: 1, waiting: 1, other: 1
    }  # fmt: skip
    listed = desk.type("jobs", "ls", "sine", "--state", "cancelled").stdout
    assert [name for name in ids if name in listed] == [running, waiting]
    assert_equal(undisturbed, desk, other)


def test_a_run_beyond_its_memory_is_given_half_as_much_again(
    undisturbed: Desk, desk: Desk, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (slurm / "cgroup.conf").exists():
        pytest.skip("this machine has no cgroup v1; Slurm enforces no memory here")
    there = [str(Path(__file__).parent), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(there))
    hungry = f"monitors.hungry:Hungry={{step: {HELD + 5}, mb: 650}}"
    done = desk.type(*ON_SLURM, hungry, "study.seeds=[1]", "--arm", "drop")
    assert done.returncode == 0, done.stderr
    (run,) = runs(desk).values()
    full, well = attempts(run)
    assert full is not None
    assert well is not None
    assert (full.outcome, well.outcome) == ("host_oom", "finished")
    assert full.resources["memory_mb"] == MEMORY_MB
    assert well.resources["memory_mb"] == MEMORY_MB * 1.5
    assert 0 < well.first_step <= HELD  # the newest checkpoint may not have been written whole
    assert len(jobs(desk)["drop-s1"]) == 2
    shown = desk.type("jobs", "show", "sine", "drop-s1")
    assert "host_oom" in shown.stdout
    assert_equal(undisturbed, desk, "drop-s1")


def test_a_run_that_no_job_begins_is_held_after_three_of_them(desk: Desk) -> None:
    """Where cupel is something else on the nodes. The same command tries again."""
    typed = (*ON_SLURM, "study.seeds=[1]", "--arm", "drop", "--container", "echo not cupel:")
    done = desk.type(*typed)
    assert done.returncode == 2, done.stderr
    assert "3 jobs ended without beginning it; of the last one: not cupel: " in done.stderr
    assert len(jobs(desk)["drop-s1"]) == 3
    assert runs(desk) == {}
    shown = desk.type("jobs", "show", "sine", "drop-s1")
    assert "3 jobs ended without beginning it" in shown.stdout
    again = desk.type(*typed)
    assert again.returncode == 2, again.stderr
    assert 3 < len(jobs(desk)["drop-s1"]) <= 6
