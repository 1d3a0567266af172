"""A study that is killed, stopped and begun again ends with the numbers of one left alone.

Real processes and real signals: workers are killed one by one, all together, and left without the
process that started them. No accepted run is trained twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cupel.analysis.exactness import compare
from cupel.record.reader import RunRecord, list_runs
from desk import Desk, new_desk

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("study")]

STEPS, HELD = 120, 20  # training waits at the start of step 20 while there is a file `gate`
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
  workers: 2
"""
COMMAND = ("study", "run", "sine.yaml")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = desk_in(tmp_path_factory.mktemp("undisturbed"))
    done = desk.type(*COMMAND)
    assert done.returncode == 0, done.stderr
    return desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return desk_in(tmp_path)


def desk_in(folder: Path) -> Desk:
    desk = new_desk(folder / "desk")
    (desk.folder / "sine.yaml").write_text(RECIPE)
    return desk


def runs(desk: Desk) -> dict[str, RunRecord]:
    return {run.run_id: run for run in list_runs(desk.runs)}


def assert_equal(undisturbed: Desk, desk: Desk) -> None:
    """Every run accepted, and equal to its twin bit for bit."""
    ours, theirs = runs(desk), runs(undisturbed)
    assert ours.keys() == theirs.keys()
    for run_id, run in ours.items():
        assert run.status == "finished"
        comparison = compare(theirs[run_id], run)
        assert comparison.equal, (run_id, comparison)
        assert comparison.steps == STEPS


def wait_until(true: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def step_of(run: RunRecord) -> int:
    rows = run.history(["loss"])
    return int(rows[-1]["_step"]) if rows else 0


def training(desk: Desk, *, beyond: int = -1) -> list[RunRecord]:
    """The runs that train now and have come beyond a step."""
    found = [run for run in list_runs(desk.runs) if run.status == "running"]
    return [run for run in found if step_of(run) > beyond]


def held(desk: Desk) -> list[RunRecord]:
    """The runs that wait at the gate, in the session that is their newest."""
    assert (desk.folder / "gate").exists()
    begun = [run for run in training(desk) if run.sessions[-1].start_step is not None]
    return [run for run in begun if step_of(run) == HELD - 1]


def pid_of(run: RunRecord) -> int:
    pid = run.sessions[-1].pid
    assert pid is not None
    return pid


def sessions(desk: Desk) -> dict[str, int]:
    return {run_id: len(run.sessions) for run_id, run in runs(desk).items()}


def test_a_killed_worker_is_started_again_and_its_run_ends_with_equal_bits(
    undisturbed: Desk, desk: Desk
) -> None:
    gate = desk.folder / "gate"
    gate.touch()
    process = desk.start(*COMMAND)
    wait_until(lambda: held(desk), process)
    victim = held(desk)[0]
    os.kill(pid_of(victim), signal.SIGKILL)
    gate.unlink()
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    assert "restarted" in told
    assert "killed by SIGKILL" in told
    counted = sessions(desk)
    assert counted.pop(victim.run_id) == 2
    assert set(counted.values()) == {1}
    assert_equal(undisturbed, desk)


def test_ctrl_c_saves_every_run_and_the_same_command_ends_the_study(
    undisturbed: Desk, desk: Desk
) -> None:
    gate = desk.folder / "gate"
    process = desk.start(*COMMAND)
    wait_until(lambda: len(passed(desk)) == 2, process)
    gate.touch()  # for the second pair of runs: the first one is past it
    wait_until(
        lambda: len(runs(desk)) == 4 and len(held(desk)) == len(training(desk)) == 2, process
    )
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # workers hear of it in a tenth of a second, and end their step
    gate.unlink()
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    assert "go on with: python -m cupel study run sine.yaml" in told
    assert not training(desk), "a worker outlived the study"
    before = {run_id: run.status for run_id, run in runs(desk).items()}
    assert sorted(before.values()) == ["finished", "finished", "interrupted", "interrupted"]

    again = desk.type(*COMMAND)
    assert again.returncode == 0, again.stderr
    assert "2 of 4 runs are accepted already" in again.stderr
    counted = {run_id: 1 if status == "finished" else 2 for run_id, status in before.items()}
    assert sessions(desk) == counted
    assert_equal(undisturbed, desk)
    assert desk.type(*COMMAND).returncode == 0
    assert sessions(desk) == counted, "an accepted run was trained again"


def passed(desk: Desk) -> list[RunRecord]:
    return [run for run in list_runs(desk.runs) if step_of(run) >= HELD]


def test_a_killed_study_leaves_no_worker_behind_and_goes_on(undisturbed: Desk, desk: Desk) -> None:
    gate = desk.folder / "gate"
    gate.touch()
    process = desk.start(*COMMAND)
    wait_until(lambda: len(held(desk)) == 2, process)
    for pid in (process.pid, *map(pid_of, held(desk))):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not training(desk))  # a signal takes a moment
    assert {run.status for run in list_runs(desk.runs)} == {"crashed"}

    # And once more, but now the workers are left alone.
    process = desk.start(*COMMAND)
    wait_until(lambda: len(held(desk)) == 2, process)
    process.kill()
    process.communicate()
    time.sleep(0.5)
    gate.unlink()
    wait_until(lambda: not training(desk))
    for run in list_runs(desk.runs):
        assert run.status == "interrupted", "a worker without its study trained on, or was lost"
        assert (run.checkpoints()[-1], step_of(run)) == (HELD, HELD)

    again = desk.type(*COMMAND)
    assert again.returncode == 0, again.stderr
    assert sorted(sessions(desk).values()) == [1, 1, 3, 3]
    assert_equal(undisturbed, desk)


def test_two_that_run_one_study_share_its_runs(undisturbed: Desk, desk: Desk) -> None:
    both = [desk.start(*COMMAND), desk.start(*COMMAND)]
    for process in both:
        told = process.communicate(timeout=120)[1]
        assert process.returncode == 0, told
    assert set(sessions(desk).values()) == {1}, "a run was trained twice"
    assert_equal(undisturbed, desk)
