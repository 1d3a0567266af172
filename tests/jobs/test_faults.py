"""A sweep that is tormented comes to the same end as one that is not."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cupel.jobs.queue import Queue, Task
from cupel.record.claims import Claim

NOW, LONG_AGO = 0.0, 100.0  # seconds


def queue_in(tmp_path: Path, worker: str) -> Queue:
    """A queue of one run."""
    study = tmp_path / "p" / "studies" / "s"
    study.mkdir(parents=True, exist_ok=True)
    return Queue(study, [Task("run-1", tmp_path / "p" / "run-1")], worker, lease_s=5.0)


def last_sign(claim: Claim, ago: float) -> None:
    """Have everything of a session be so many seconds old."""
    then = time.time() - ago
    for path in (*claim.dir.iterdir(), claim.dir):
        os.utime(path, (then, then))


def test_a_session_that_was_silent_and_came_back_is_not_taken_over(tmp_path: Path) -> None:
    ours = queue_in(tmp_path, "ours").claim()
    theirs = queue_in(tmp_path, "theirs")
    (task,) = theirs.tasks
    assert ours is not None
    assert theirs.standing(task).state == "running"
    last_sign(ours.claim, LONG_AGO)
    assert theirs.standing(task).state == "queued"
    last_sign(ours.claim, NOW)
    assert theirs.standing(task).state == "running"
    last_sign(ours.claim, LONG_AGO)
    taken = theirs.claim()
    assert taken is not None
    assert (taken.claim.number, taken.attempts[-1].outcome) == (2, "lost")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The harness beside this file; what it imports from there are modules only meanwhile."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import faults  # type: ignore[import-not-found]

    yield faults
    for name in ("faults", "counting"):
        del sys.modules[name]


@pytest.mark.slow
def test_kills_and_pauses_change_nothing_of_what_is_accepted(
    faults: ModuleType, tmp_path: Path
) -> None:
    """Sixty kills and fifteen pauses; `python benchmarks/jobs/run.py faults` has ten times as many
    kills. Each is at random: a failure comes with all that was done and found. A sweep may end
    before its last ones, and then another is tormented.
    """
    kills: Counter[str] = Counter()
    pauses = 0
    for seed in range(6):
        root = tmp_path / str(seed)
        root.mkdir()
        done, found = faults.torment(root, faults.Plan(runs=100, kills=70, pauses=28, seed=seed))
        print(done, found)
        assert found.problems == []
        assert found.accepted == 100
        kills += done.kills
        pauses += done.pauses
        if kills.total() >= 60 and pauses >= 15:
            break
    assert (kills.total() >= 60, pauses >= 15) == (True, True), (kills, pauses)
    assert set(kills) == {"worker", "guard", "job"}
