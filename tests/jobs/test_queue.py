"""Which run is next, and whose it is: the folders are the queue."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import crew
from crew import Run, plan, queue_of, run_dir, study
from cupel.errors import RecordError
from cupel.jobs import control
from cupel.jobs.attempts import Attempt, read_attempt, write_attempt
from cupel.jobs.queue import Claimed, Queue, Standing, Task, told_or_seen
from cupel.record import files, layout, processes
from cupel.record.claims import claim_session
from cupel.record.session import Session

HOST = socket.gethostname()


def names_of(queue: Queue, most: int = 100) -> list[str]:
    """The runs that a queue hands out, in order, until it has none."""
    found: list[str] = []
    while len(found) < most and (claimed := queue.claim()) is not None:
        found.append(claimed.task.name)
    return found


def task_of(queue: Queue, name: str) -> Task:
    (found,) = (task for task in queue.tasks if task.name == name)
    return found


def standing(queue: Queue, name: str) -> Standing:
    queue.refresh()
    return queue.standing(task_of(queue, name))


def taken(queue: Queue) -> Claimed:
    claimed = queue.claim()
    assert claimed is not None
    return claimed


def end(claimed: Claimed, outcome: str, **given: Any) -> None:
    """Judge a claim, as its worker does."""
    given = {"ended": time.time(), "started": time.time(), **given}
    number = claimed.claim.number
    write_attempt(claimed.task.run_dir, Attempt(number, outcome, **given))


def accept(root: Path, name: str) -> None:
    """Have a run finished."""
    session = Session.start(root=root, project="p", name=name, run_id=name, config={}, identity="i")
    session.finish("finished", results={"step": 1})


def test_the_most_urgent_run_is_first_and_equals_keep_their_order(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"), Run("c", priority=200), Run("d", priority=-1), Run("e"))
    assert names_of(queue_of(tmp_path)) == ["c", "a", "b", "e", "d"]


def test_a_boost_is_heard_at_once(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name) for name in "abcd"))
    queue = queue_of(tmp_path)
    assert taken(queue).task.name == "a"
    control.append(study(tmp_path), "boost", ["d"], priority=500)
    queue.refresh()
    assert taken(queue).task.name == "d"
    control.append(study(tmp_path), "boost", ["b"], priority=-500)
    queue.refresh()
    assert names_of(queue) == ["c", "b"]


def test_a_claim_tells_who_made_it_and_how_the_run_is_to_be_run(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", priority=7))
    claimed = taken(queue_of(tmp_path, "me", lease_s=9.0))
    lease = files.read_json(claimed.claim.dir / "lease.json")
    assert (lease["worker"], lease["lease_s"], lease["priority"]) == ("me", 9.0, 7)
    assert lease["supervisor"]["pid"] == os.getpid()
    assert lease["token"] == claimed.claim.token


def claims_all(root: Path, name: str, pipe: Connection) -> None:
    queue = queue_of(root, name)
    found: list[str] = []
    idle = time.monotonic() + 1.0
    while time.monotonic() < idle:
        found += names_of(queue)
    pipe.send(found)
    pipe.recv()  # or what it has claimed would be taken over, as a dead process's


@pytest.mark.slow
def test_of_many_workers_exactly_one_gets_each_run(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(f"r{number:02d}") for number in range(30)))
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(6)]
    workers = [
        fork.Process(target=claims_all, args=(tmp_path, f"w{n}", ours))
        for n, (_, ours) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    got = [theirs.recv() for theirs, _ in pipes]
    for theirs, _ in pipes:
        theirs.send(None)
    assert sorted(name for names in got for name in names) == [f"r{n:02d}" for n in range(30)]
    for worker in workers:
        worker.join()
    for number in range(30):
        assert layout.session_numbers(run_dir(tmp_path, f"r{number:02d}")) == [1]


def test_a_run_that_somebody_holds_is_running_and_is_left_alone(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    first, second = queue_of(tmp_path, "one"), queue_of(tmp_path, "two")
    taken(first)
    assert standing(second, "a") == Standing("running", session=1)
    assert second.claim() is None


def test_a_run_whose_lease_is_over_is_taken_over_once(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    claimed = taken(queue_of(tmp_path, "one", lease_s=10.0))
    then = time.time() - 11
    for path in (*claimed.claim.dir.iterdir(), claimed.claim.dir):
        os.utime(path, (then, then))
    others = [queue_of(tmp_path, name) for name in ("two", "three")]
    with crew.hurried(100):
        got = [queue.claim() for queue in others]
    assert [one is not None for one in got] == [True, False]
    assert claimed.claim.superseded()
    assert got[0] is not None
    assert [(one.outcome, one.session) for one in got[0].attempts] == [("lost", 1)]


def test_a_lease_is_that_of_its_own_session(tmp_path: Path) -> None:
    """Also for a worker that was told another one."""
    plan(tmp_path, Run("a"))
    claimed = taken(queue_of(tmp_path, "one", lease_s=1000.0))
    then = time.time() - 100
    for path in (*claimed.claim.dir.iterdir(), claimed.claim.dir):
        os.utime(path, (then, then))
    assert queue_of(tmp_path, "two", lease_s=1.0).claim() is None


def test_an_accepted_run_is_never_claimed(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    accept(tmp_path, "a")
    queue = queue_of(tmp_path)
    assert standing(queue, "a").state == "accepted"
    assert names_of(queue) == ["b"]
    control.append(study(tmp_path), "retry", None)
    queue.refresh()
    assert names_of(queue) == []


def test_results_that_came_just_before_the_claim_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    looked = queue.standing(task_of(queue, "a"))
    accept(tmp_path, "a")
    assert queue._take(task_of(queue, "a"), looked) is None  # session 1 is taken
    assert queue._take(task_of(queue, "a"), Standing("queued", session=1)) is None
    assert layout.session_numbers(run_dir(tmp_path, "a")) == [1]
    assert standing(queue, "a").state == "accepted"


def test_a_claim_that_was_overtaken_and_accepted_meanwhile_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is stopped within its claim for longer than its lease."""
    plan(tmp_path, Run("a"))
    queue, claim = queue_of(tmp_path), claim_session

    def stopped(folder: Path, number: int, facts: dict[str, Any]) -> Any:
        ours = claim(folder, number, facts)
        claim(folder, number + 1, {})
        files.write_json(folder / layout.RESULTS, {})
        return ours

    monkeypatch.setattr("cupel.jobs.queue.claim_session", stopped)
    assert queue.claim() is None
    assert layout.session_numbers(run_dir(tmp_path, "a")) == [1, 2]


def test_what_is_held_is_not_claimed_until_it_is_released(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    control.append(study(tmp_path), "hold", ["a"], why="wait for the data")
    queue = queue_of(tmp_path)
    assert (standing(queue, "a").state, standing(queue, "a").reason) == (
        "held", "wait for the data",
    )  # fmt: skip
    assert names_of(queue) == ["b"]
    control.append(study(tmp_path), "release", ["a"])
    queue.refresh()
    assert names_of(queue) == ["a"]


def test_what_is_cancelled_is_settled_until_a_retry(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    control.append(study(tmp_path), "cancel", ["a"], why="enough")
    assert (standing(queue, "a").state, standing(queue, "a").reason) == ("cancelled", "enough")
    assert queue.is_settled()
    control.append(study(tmp_path), "retry", ["a"])
    queue.refresh()
    assert not queue.is_settled()
    assert names_of(queue) == ["a"]


def test_a_failed_run_is_settled_until_its_attempts_are_forgiven(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    end(taken(queue), "configuration", detail="no such corpus")
    assert standing(queue, "a").state == "failed"
    assert "no such corpus" in standing(queue, "a").reason
    time.sleep(0.01)
    control.append(study(tmp_path), "retry", ["a"])
    assert standing(queue, "a").state == "queued"
    claimed = taken(queue)
    assert (claimed.claim.number, claimed.attempts) == (2, ())
    end(claimed, "configuration", detail="no such corpus")
    assert standing(queue, "a").state == "failed"  # what came after the retry counts
    assert standing(queue_of(tmp_path), "a").state == "failed"


@pytest.mark.slow
def test_a_run_waits_for_its_date(tmp_path: Path) -> None:
    soon = time.time() + 0.4
    plan(tmp_path, Run("a", not_before=soon), Run("b", not_before=soon + 1000))
    queue = queue_of(tmp_path)
    assert standing(queue, "a").state == "waiting"
    assert standing(queue, "a").not_before == soon
    assert names_of(queue) == []
    time.sleep(max(0.0, soon - time.time()) + 0.1)
    assert names_of(queue) == ["a"]


def test_a_run_waits_after_a_failure_and_others_go_first(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", priority=500), Run("b"))
    queue = queue_of(tmp_path)
    end(taken(queue), "host_oom", detail="no memory")
    found = standing(queue, "a")
    assert found.state == "waiting"
    assert 2 < found.not_before - time.time() < 8
    assert names_of(queue) == ["b"]
    with crew.hurried(10_000):
        queue._later.clear()
        assert names_of(queue) == ["a"]


def test_whoever_lost_a_race_gives_back_what_he_had_kept_for_it(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue, quicker = queue_of(tmp_path, "one"), queue_of(tmp_path, "two")
    given_back: list[str] = []

    def fits(task: Task, standing: Standing) -> bool:
        assert quicker.claim() is not None
        return True

    assert queue.claim(fits, lambda task: given_back.append(task.name)) is None
    assert given_back == ["a"]


def test_the_second_look_at_an_ended_session_costs_no_disk(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    claimed = taken(queue)
    end(claimed, "interrupted")
    assert standing(queue, "a").state == "queued"
    (claimed.claim.dir / "attempt.json").unlink()
    assert [one.outcome for one in queue.attempts(task_of(queue, "a"))] == ["interrupted"]


def test_a_claim_that_could_not_be_written_down_is_not_the_runs_fault(tmp_path: Path) -> None:
    """However often the disk was full."""
    plan(tmp_path, Run("a"))
    for number in range(1, 6):
        folder = layout.session_dir(run_dir(tmp_path, "a"), number)
        folder.mkdir(parents=True)
        os.utime(folder, (1.0, 1.0))
    assert standing(queue_of(tmp_path), "a").state == "queued"
    assert taken(queue_of(tmp_path)).claim.number == 6


@pytest.mark.parametrize("bare", [True, False])
def test_a_claim_in_the_making_is_not_taken_over(tmp_path: Path, bare: bool) -> None:
    plan(tmp_path, Run("a"))
    folder = layout.session_dir(run_dir(tmp_path, "a"), 1)
    folder.mkdir(parents=True)
    if not bare:
        process = processes.this_process().as_json()
        files.write_json(folder / layout.heartbeat_name(), {"schema": 1, **process})
    assert queue_of(tmp_path).claim() is None


ENDED = """
import sys
from cupel.record.session import Session
session = Session.start(root=sys.argv[1], project="p", name="a", run_id="a", config={}, identity="")
session.begin_at(0)
session.log({"loss": 1.0}, step=4)
if sys.argv[2] == "diverged":
    session.event("failed", error="Diverged")
if sys.argv[2] != "lost":
    status = {"diverged": "failed"}.get(sys.argv[2], sys.argv[2])
    session.finish(status, error="the reason\\nand more" if status == "failed" else None)
sys.stdout.flush()
import os
os._exit(0)
"""


@pytest.mark.parametrize(
    "ending, outcome, detail",
    [
        ("interrupted", "interrupted", ""),
        ("failed", "unknown", "the reason"),
        ("diverged", "diverged", "the reason"),
        ("lost", "lost", "its process is gone, and so is whoever supervised it"),
    ],
)
@pytest.mark.slow
def test_a_session_that_nobody_judged_is_judged_by_what_it_left(
    tmp_path: Path, ending: str, outcome: str, detail: str
) -> None:
    subprocess.run([sys.executable, "-c", ENDED, str(tmp_path), ending], check=True)
    found = told_or_seen(run_dir(tmp_path, "a"), 1)
    assert (found.outcome, found.detail) == (outcome, detail)
    assert (found.begun, found.first_step, found.last_step) == (True, 0, 4)
    assert abs(found.ended - time.time()) < 30
    assert found.progressed


def test_a_session_that_was_lost_with_its_supervisor_tells_so_and_what_it_was_given(
    tmp_path: Path,
) -> None:
    code = """
import json, sys
from pathlib import Path
from cupel.record import processes
from cupel.record.claims import claim_session
run_dir, alive = Path(sys.argv[1]), json.loads(sys.argv[2])
facts = {"resources": {"memory_mb": 1500}, "alone": True, "changes": {"train.accumulate": 2}}
claim_session(run_dir, 1, {"supervisor": alive or processes.this_process().as_json(), **facts})
"""
    alive = json.dumps(processes.this_process().as_json())
    for name, supervisor in (("lost", "null"), ("kept", alive)):
        folder = run_dir(tmp_path, name)
        subprocess.run([sys.executable, "-c", code, str(folder), supervisor], check=True)
        found = told_or_seen(folder, 1)
        assert (found.outcome, found.orphaned) == ("lost", name == "lost")
        assert (found.alone, found.resources) == (True, {"memory_mb": 1500})
        assert found.changes == {}  # nothing ran with them
        (folder / "sessions/0001/env.json").write_text("{}")
        assert told_or_seen(folder, 1).changes == {"train.accumulate": 2}


def test_a_folder_that_is_none_of_a_run_is_set_aside_and_stops_no_other(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name) for name in "abcd"))
    (tmp_path / "p" / "a").write_text("no folder")
    (tmp_path / "p" / "b").mkdir()
    (tmp_path / "p" / "b" / "sessions").write_text("no folder")
    (tmp_path / "p" / "c" / "sessions").mkdir(parents=True)
    (tmp_path / "p" / "c" / "sessions" / "0001").write_text("no folder")
    queue = queue_of(tmp_path)
    assert names_of(queue) == ["d"]
    assert sorted(queue.set_aside) == ["a", "b", "c"]
    assert all(why.startswith("cannot claim it in ") for why in queue.set_aside.values())


def test_a_study_that_was_moved_is_not_made_anew_by_a_claim(tmp_path: Path) -> None:
    plan(tmp_path / "runs", Run("a"))
    queue = queue_of(tmp_path / "runs")
    queue.guarded = True
    (study(tmp_path / "runs") / "manifest.json").touch()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="the study is gone from"):
        queue.claim()
    assert not (tmp_path / "runs").exists()


def test_of_runs_that_want_as_much_as_one_that_does_not_fit_no_other_is_looked_at(
    tmp_path: Path,
) -> None:
    plan(tmp_path, *(Run(f"r{n}") for n in range(50)))
    queue, asked = queue_of(tmp_path), []

    def fits(task: Task, standing: Standing) -> bool:
        asked.append(task.name)
        return False

    assert queue.claim(fits) is None
    assert len(asked) == 50
    asked.clear()
    assert queue.claim(fits, is_full=lambda task: True) is None
    assert asked == ["r0"]


def test_a_retry_forgives_sessions_by_number_whatever_the_clocks_say(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    end(taken(queue), "configuration", ended=time.time() + 3600)  # by a clock that is ahead
    control.forgive(study(tmp_path), {"a": run_dir(tmp_path, "a")})
    assert standing(queue, "a").state == "queued"
    for _ in range(2):
        end(taken(queue), "configuration", ended=time.time() - 3600)
        assert standing(queue, "a").state == "failed"
        control.forgive(study(tmp_path), {"a": run_dir(tmp_path, "a")})
        assert standing(queue, "a").state == "queued"


def test_a_run_that_was_cancelled_and_asked_for_again_goes_on(tmp_path: Path) -> None:
    """The retry came while it still wrote its checkpoint: its attempt ends after that."""
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    claimed = taken(queue)
    control.append(study(tmp_path), "cancel", ["a"])
    control.append(study(tmp_path), "retry", ["a"])
    end(claimed, "cancelled", ended=time.time() + 1)
    assert standing(queue, "a").state == "queued"


def test_an_attempt_under_way_is_no_attempt_yet(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    queue = queue_of(tmp_path)
    claimed = taken(queue)
    assert list(queue.attempts(claimed.task)) == []


def test_who_only_looks_leaves_nothing_behind(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    claim_session(run_dir(tmp_path, "a"), 1, {})
    queue = queue_of(tmp_path)
    standing(queue, "a")
    assert len(list((study(tmp_path) / "workers").iterdir())) == 1
    queue.close()
    assert list((study(tmp_path) / "workers").iterdir()) == []


def test_an_attempt_is_judged_once(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    claimed = taken(queue_of(tmp_path))
    end(claimed, "killed")
    end(claimed, "hung")
    found = read_attempt(run_dir(tmp_path, "a"), 1)
    assert found is not None
    assert found.outcome == "killed"


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"session": 1}, {"session": 1, "outcome": 7}, {"session": 1, "outcome": None},
        {"ended": None}, {"ended": "soon"}, {"ended": float("inf")}, {"last_step": "9"},
        {"changes": []}, {"resources": 1}, {"host": None}, {"peak_mb": "much"}, {"code": "0"},
        {"signature": []}, {"begun": "yes"}, {"alone": 2}, {"session": "1"},
    ],
)  # fmt: skip
def test_an_attempt_that_is_damaged_stops_no_worker(tmp_path: Path, fields: dict[str, Any]) -> None:
    plan(tmp_path, Run("a"))
    claimed = taken(queue_of(tmp_path))
    whole = {"session": 1, "outcome": "killed", "ended": 1.0} if len(fields) == 1 else {}
    path = claimed.claim.dir / "attempt.json"
    path.write_text(json.dumps({"schema": 1, **whole, **fields}))
    with crew.hurried(1e6):
        assert standing(queue_of(tmp_path), "a").state == "queued"
        assert taken(queue_of(tmp_path)).claim.number == 2


def test_a_clock_that_is_set_right_shortens_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may begin now, and this machine thought that it was yesterday."""
    now, monotonic = time.time, time.monotonic
    plan(tmp_path, Run("a", not_before=now()))
    queue = queue_of(tmp_path)
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    assert queue.claim() is None
    monkeypatch.setattr(time, "time", now)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 61)
    assert taken(queue).task.name == "a"
