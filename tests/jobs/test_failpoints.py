"""A worker or a training process that dies at any moment: the run is finished, once, and whole."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import crew
from crew import Run, Shift, assert_whole, hurried, outcomes, plan, run_dir, toy_log, worked
from cupel.jobs.stopping import Stopping
from cupel.record import files, layout
from cupel.record.processes import start_of

POINTS = 80  # more than a toy, or a worker with one run, has


def half_written(folder: Path) -> list[str]:
    """What was begun under another name, and never got its own."""
    return [path.name for path in folder.rglob(f"{files.TEMPORARY}*")]


def worker_killed_at(root: Path, name: str, number: int) -> bool:
    """Whether a worker on one run died, before its n-th change; else it has finished it."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.path.insert(0, crew.TOYS)
            from failpoint import arm

            worker = crew.worker_of(root, Stopping(), Shift(lease_s=1.0, only=[name], grace_s=0.5))
            arm(root, number)
            with hurried(100):
                for _ in worker.changes():
                    pass
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


@pytest.mark.slow
def test_a_worker_that_dies_at_any_change_leaves_a_run_that_another_one_finishes(
    tmp_path: Path,
) -> None:
    names = [f"r{number:02d}" for number in range(1, POINTS + 1)]
    plan(tmp_path, *(Run(name) for name in names))
    killed: list[str] = []
    for number, name in enumerate(names, 1):
        if not worker_killed_at(tmp_path, name, number):
            break
        killed.append(name)
    assert 15 < len(killed) < POINTS
    begun = [*killed, names[len(killed)]]
    changes = worked(tmp_path, Shift(slots=3, lease_s=1.0, only=begun))
    assert not [change for change in changes if change.kind in ("failed", "refused", "diverged")]
    assert_whole(tmp_path, *begun)
    # Both kinds of deaths came: before the job had begun to write, and after.
    sessions = [max(layout.session_numbers(run_dir(tmp_path, name))) for name in begun]
    assert {1, 2} <= set(sessions)
    assert not [pid for *_, pid in toy_log(tmp_path) if start_of(pid)]


@pytest.mark.slow
def test_a_training_process_that_dies_at_any_change_is_followed_by_one_that_finishes(
    tmp_path: Path,
) -> None:
    names = [f"r{number:02d}" for number in range(1, POINTS + 1)]
    plan(
        tmp_path,
        *(Run(name, f"dies:{number}:finishes,finishes") for number, name in enumerate(names, 1)),
    )
    changes = worked(tmp_path, Shift(slots=3, warm=True), limit_s=120)
    assert {change.name for change in changes if change.kind == "finished"} == set(names)
    ends = [outcomes(tmp_path, name) for name in names]
    killed = sum(one == ["killed", "finished"] for one in ends)
    assert 25 < killed < POINTS
    assert ends[-1] == ["finished"]  # it had fewer changes to make
    # One may have died after its results were accepted: then it has finished.
    assert all(one in (["killed", "finished"], ["finished"]) for one in ends)
    for name in names:
        folder = run_dir(tmp_path, name)
        assert crew.check_run(folder).sound
        results = files.read_json(folder / layout.RESULTS)
        assert results["accepted_session"] in (1, 2)
        assert half_written(folder / layout.CHECKPOINTS) == []
