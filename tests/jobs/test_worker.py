"""What becomes of runs whose processes end in every way; real processes, real records."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import crew
from crew import (
    Run,
    Shift,
    assert_whole,
    at_work,
    attempts,
    begun,
    outcomes,
    pid_of,
    plan,
    queue_of,
    run_dir,
    study,
    toy_log,
    wait_until,
    worked,
)
from cupel.errors import JobsError, RecordError
from cupel.jobs import control
from cupel.jobs.backend import Resources
from cupel.jobs.packing import Gpu, Ledger, Placement
from cupel.jobs.policy import Decision
from cupel.jobs.queue import Standing
from cupel.jobs.stopping import Stopping
from cupel.jobs.worker import Change
from cupel.jobs.workers import Presence, workers_of
from cupel.record import files, layout, processes
from cupel.record.reader import RunRecord
from cupel.record.session import Session

Between = Callable[[list[Change], Stopping], object]


def kinds(changes: list[Change], name: str = "a") -> list[str]:
    return [change.kind for change in changes if change.name == name]


def steps(root: Path, name: str = "a") -> list[int]:
    return [row["_step"] for row in RunRecord(run_dir(root, name)).history()]


# ---- ends ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_go_in_order_and_never_more_at_once_than_slots(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name, "works:5:0.02") for name in "abcd"))
    changes = worked(tmp_path, Shift(slots=2))
    assert [change.name for change in changes if change.kind == "started"] == list("abcd")
    running, most = 0, 0
    for change in changes:
        running += {"started": 1, "finished": -1}[change.kind]
        most = max(most, running)
    assert most == 2
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "endings, found, judged",
    [
        ("refused:no such corpus", ["started", "refused"], ["configuration"]),
        ("diverges", ["started", "diverged"], ["diverged"]),
        ("errs:ImportError:no torch", ["started", "failed"], ["import"]),
        ("errs:ModuleNotFoundError", ["started", "failed"], ["import"]),
        ("exits:77", ["started", "again", "restarted", "failed"], ["unknown"] * 2),
    ],
)
@pytest.mark.slow
def test_what_would_fail_again_is_not_tried_again(
    tmp_path: Path, endings: str, found: list[str], judged: list[str]
) -> None:
    plan(tmp_path, Run("a", endings))
    assert kinds(worked(tmp_path)) == found
    assert outcomes(tmp_path, "a") == judged


@pytest.mark.slow
def test_a_failed_run_tells_why_and_stops_no_other(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "fails:the data ended at step 3"), Run("b"))
    changes = worked(tmp_path, Shift(slots=2))
    (last,) = [change for change in changes if change.kind == "failed"]
    assert last.detail == "the data ended at step 3; it ended alike before"
    assert_whole(tmp_path, "b")


@pytest.mark.slow
def test_an_end_without_results_is_not_repeated_for_ever(tmp_path: Path) -> None:
    """A command that says that all went well, and has done nothing."""
    plan(tmp_path, Run("a", "exits:0"))
    changes = worked(tmp_path, limit_s=20)
    assert kinds(changes) == ["started", "again", "restarted", "failed"]
    assert "it ended without results" in changes[-1].detail


@pytest.mark.slow
def test_memory_that_was_short_is_asked_for_again_and_told(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "errs:OutOfMemoryError,errs:MemoryError,finishes"))
    changes = worked(tmp_path)
    assert outcomes(tmp_path, "a") == ["cuda_oom", "host_oom", "finished"]
    assert kinds(changes)[-1] == "finished"
    alone = [one.alone for one in attempts(tmp_path, "a") if one]
    assert alone == [False, True, True]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_long_as_it_gets_further(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "killed,killed,killed,killed,killed,finishes"))
    changes = worked(tmp_path)
    assert kinds(changes) == ["started", *["again", "restarted"] * 5, "finished"]
    assert {change.detail for change in changes if change.kind == "restarted"} == {
        "killed by SIGKILL"
    }
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_run_that_gets_nowhere_is_given_up_after_two_restarts(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "killed-stuck"))
    changes = worked(tmp_path)
    assert outcomes(tmp_path, "a") == ["killed"] * 3
    assert changes[-1] == Change(
        "failed", "a", "killed by SIGKILL; 3 times in a row without getting beyond step 0"
    )


@pytest.mark.slow
def test_an_attempt_tells_what_was_seen_of_it(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "killed,finishes"))
    before = time.time()
    worked(tmp_path, Shift(worker="me"))
    first, second = attempts(tmp_path, "a")
    assert first is not None
    assert second is not None
    assert (first.code, first.begun, first.first_step, first.last_step) == (-9, True, 0, 1)
    assert (second.code, second.begun, second.first_step, second.last_step) == (0, True, 1, 2)
    for one in (first, second):
        assert (one.host, one.worker) == (socket.gethostname(), "me")
        assert before < one.started < one.ended < time.time() + 1
        assert one.cpu_s is not None
        assert one.cpu_s > 0
        assert one.peak_mb is not None
        assert one.peak_mb > 1


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_is_told_with_its_code(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "exits:9"))
    detail = worked(tmp_path)[-1].detail
    assert detail.startswith("stopped with exit code 9; it printed nothing")
    record = RunRecord(run_dir(tmp_path, "a"))
    assert [session.status for session in record.sessions] == ["failed", "failed"]


@pytest.mark.slow
def test_a_refused_run_goes_on_after_a_retry_and_is_whole(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "refused:no such corpus,finishes"))
    assert worked(tmp_path)[-1] == Change("refused", "a", "no such corpus; not retried")
    assert worked(tmp_path) == []
    control.append(study(tmp_path), "retry", ["a"])
    assert kinds(worked(tmp_path)) == ["started", "finished"]
    assert_whole(tmp_path)


def test_while_a_gpu_is_full_no_run_that_wants_as_much_of_it_is_looked_at(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    worker = crew.worker_of(tmp_path, Stopping())
    half = Resources(gpus=0.5)
    task = replace(worker.queue.tasks[0], resources=half)
    worker.ledger = Ledger(4, 1000, [Gpu(0, 100)])
    assert not worker._is_full(task)
    for name in ("first", "second"):
        worker.ledger.place(name, half)
    assert worker._is_full(task)
    worker.ledger.free("first")
    assert not worker._is_full(task)
    control.append(study(tmp_path), "quarantine", [], host=worker.queue.host, device="0")
    worker.queue.refresh()
    assert worker._is_full(task), "its only GPU is left alone"


# ---- the breaker ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_when_three_are_refused_alike_the_others_are_held(tmp_path: Path) -> None:
    names = [f"{arm}{seed}" for seed in (1, 2) for arm in "abc"]
    plan(tmp_path, *(Run(name, f"refused:no {name} in x", kin=name[0]) for name in names))
    changes = worked(tmp_path)
    assert [change.name for change in changes if change.kind == "started"] == names[:3]
    (held,) = [change for change in changes if change.kind == "held"]
    assert held.detail == "3 runs failed alike before their first step: no c1 in x"
    assert {queue_of(tmp_path).control.word(name).by_breaker for name in names[3:]} == {True}
    assert worked(tmp_path) == []  # also for whoever comes next
    control.append(study(tmp_path), "release", None)
    assert [c.name for c in worked(tmp_path) if c.kind == "started"] == names[3:]


@pytest.mark.slow
def test_a_programmers_mistake_in_the_first_step_holds_the_others_too(tmp_path: Path) -> None:
    """The session is open by then, and the first forward has failed."""
    names = [f"{arm}{seed}" for seed in (1, 2) for arm in "abc"]
    plan(tmp_path, *(Run(name, "errs-first:TypeError", kin=name[0]) for name in names))
    changes = worked(tmp_path)
    assert [change.name for change in changes if change.kind == "started"] == names[:3]
    assert outcomes(tmp_path, "a1") == ["configuration"]
    assert [change.kind for change in changes].count("held") == 1
    assert {queue_of(tmp_path).control.word(name).by_breaker for name in names[3:]} == {True}


@pytest.mark.slow
def test_one_that_comes_later_is_tried_again_and_holds_nobody(tmp_path: Path) -> None:
    names = [f"{arm}1" for arm in "abc"]
    plan(tmp_path, *(Run(name, "errs:TypeError,finishes", kin=name[0]) for name in names))
    worked(tmp_path)
    assert [outcomes(tmp_path, name) for name in names] == [["unknown", "finished"]] * 3


@pytest.mark.slow
def test_runs_refused_for_different_reasons_are_all_started(tmp_path: Path) -> None:
    reasons = ("no corpus", "lr is too large", "a wrong seed", "the model is too wide")
    plan(tmp_path, *(Run(why[0], f"refused:{why}", kin=why[0]) for why in reasons))
    changes = worked(tmp_path)
    assert [change.kind for change in changes] == ["started", "refused"] * 4


@pytest.mark.slow
def test_one_refused_arm_stops_no_other(tmp_path: Path) -> None:
    bad = [Run(f"bad{seed}", "refused", kin="bad") for seed in (1, 2, 3, 4)]
    plan(tmp_path, *bad[:3], Run("good", kin="good"), bad[3])
    changes = worked(tmp_path)
    assert kinds(changes, "good") == ["started", "finished"]
    assert kinds(changes, "bad4") == []
    assert queue_of(tmp_path).control.word("bad4").by_breaker


# ---- asking --------------------------------------------------------------------------------------


def once(condition: Callable[[], object], do: Callable[[], object]) -> Between:
    """Between two looks: do something once, when something is so."""
    done: list[bool] = []

    def between(changes: list[Change], stop: Stopping) -> None:
        if not done and condition():
            done.append(True)
            do()

    return between


@pytest.mark.slow
def test_a_cancelled_run_is_ended_and_settled(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "waits"), Run("b"))
    cancels = once(
        lambda: begun(tmp_path, "a"),
        lambda: control.append(study(tmp_path), "cancel", ["a"], why="enough"),
    )
    changes = worked(tmp_path, between=cancels)
    assert kinds(changes) == ["started", "cancelled"]
    assert outcomes(tmp_path, "a") == ["cancelled"]
    assert kinds(changes, "b") == ["started", "finished"]
    assert RunRecord(run_dir(tmp_path, "a")).status == "interrupted"  # with its checkpoint


@pytest.mark.slow
def test_what_is_cancelled_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    control.append(study(tmp_path), "cancel", ["a"])
    changes = worked(tmp_path)
    assert kinds(changes) == []
    assert not run_dir(tmp_path, "a").exists()
    control.append(study(tmp_path), "retry", ["a"])
    assert kinds(worked(tmp_path)) == ["started", "finished"]


@pytest.mark.slow
def test_a_hold_does_not_end_what_runs(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "works:20:0.02"), Run("b"))
    holds = once(
        lambda: begun(tmp_path, "a"), lambda: control.append(study(tmp_path), "hold", None)
    )
    changes = worked(tmp_path, between=holds)
    assert [change.kind for change in changes] == ["started", "finished"]
    assert not run_dir(tmp_path, "b").exists()


@pytest.mark.slow
def test_a_boosted_run_is_next(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "works:20:0.02"), Run("b"), Run("c"))
    boosts = once(
        lambda: begun(tmp_path, "a"),
        lambda: control.append(study(tmp_path), "boost", ["c"], priority=500),
    )
    changes = worked(tmp_path, between=boosts)
    assert [change.name for change in changes if change.kind == "started"] == ["a", "c", "b"]


def test_only_what_was_named_is_taken(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name) for name in "abc"))
    changes = worked(tmp_path, Shift(only=["b"]))
    assert [change.name for change in changes] == ["b", "b"]


@pytest.mark.slow
def test_no_more_than_so_many_are_taken(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name) for name in "abcd"))
    changes = worked(tmp_path, Shift(most=2, slots=4))
    assert [change.name for change in changes if change.kind == "started"] == ["a", "b"]
    assert_whole(tmp_path, "a", "b")


@pytest.mark.slow
def test_a_quarantined_host_takes_nothing_until_it_is_released(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    host, folder = socket.gethostname(), study(tmp_path)
    control.append(folder, "quarantine", [], host=host, device="")
    assert worked(tmp_path) == []
    assert not run_dir(tmp_path, "a").exists()
    control.append(folder, "release", [], host=host)
    assert kinds(worked(tmp_path)) == ["started", "finished"]


# ---- others --------------------------------------------------------------------------------------


def by_hand(root: Path, name: str) -> Session:
    """A session that no worker knows of."""
    return Session.start(root=root, project="p", name=name, run_id=name, config={}, identity="toy")


@pytest.mark.slow
def test_a_run_that_somebody_else_trains_is_waited_for_and_not_started(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    ours = by_hand(tmp_path, "a")
    finishes = once(
        lambda: (run_dir(tmp_path, "b") / layout.RESULTS).exists(),
        lambda: ours.finish("finished", results={"step": 1}),
    )
    changes = worked(tmp_path, Shift(slots=2), between=finishes)
    assert kinds(changes) == ["waiting", "finished"]
    assert kinds(changes, "b") == ["started", "finished"]


@pytest.mark.slow
def test_whoever_does_not_wait_leaves_what_others_train(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    ours = by_hand(tmp_path, "a")
    changes = worked(tmp_path, Shift(waits=False))
    ours.finish("interrupted")
    assert kinds(changes, "b") == ["started", "finished"]
    assert "finished" not in kinds(changes)


@pytest.mark.slow
def test_a_run_that_somebody_else_left_unfinished_is_taken_over(tmp_path: Path) -> None:
    plan(tmp_path, Run("a"))
    ours = by_hand(tmp_path, "a")
    ours.begin_at(0)
    ours.log({"loss": 1.0}, step=1)
    changes = worked(
        tmp_path,
        between=lambda changes, stop: changes and ours.finish("interrupted"),
    )
    assert kinds(changes) == ["waiting", "restarted", "finished"]
    assert steps(tmp_path) == [1, 2]


@pytest.mark.slow
def test_when_a_worker_dies_its_job_ends_and_the_run_is_taken_over_at_once(tmp_path: Path) -> None:
    """The job has time for a checkpoint; nobody waits for the lease of a minute."""
    plan(tmp_path, Run("a", "waits,finishes"), Run("b", "deaf,finishes"))
    with at_work(tmp_path, slots=2, grace_s=0.5) as first:
        wait_until(lambda: begun(tmp_path, "a") and begun(tmp_path, "b"))
        toys = [pid_of(tmp_path, name) for name in "ab"]
        first.signal(signal.SIGKILL)
        died = time.monotonic()
        changes = worked(tmp_path, Shift(slots=2))
        assert time.monotonic() - died < 20
    for name in "ab":
        told = [kind for kind in kinds(changes, name) if kind != "waiting"]
        assert told == ["restarted", "finished"]
    assert not [pid for pid in toys if processes.start_of(pid)]
    assert_whole(tmp_path)
    assert [one and one.outcome for one in attempts(tmp_path, "a")] == [None, "finished"]
    assert RunRecord(run_dir(tmp_path, "a")).sessions[0].status == "interrupted"


@pytest.mark.slow
def test_a_worker_and_its_job_that_stand_still_are_overtaken_and_harmless(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "works:60:0.1,works:25:0.02"))
    with at_work(tmp_path, lease_s=0.6, worker="zombie") as zombie:
        wait_until(lambda: begun(tmp_path, "a"))
        job = pid_of(tmp_path, "a")
        zombie.signal(signal.SIGSTOP)
        os.kill(job, signal.SIGSTOP)
        changes = worked(tmp_path, Shift(lease_s=0.6, worker="other"))
        assert kinds(changes) == ["waiting", "restarted", "finished"]
        run = files.read_json(run_dir(tmp_path, "a") / layout.RUN)
        results = files.read_json(run_dir(tmp_path, "a") / layout.RESULTS)
        os.kill(job, signal.SIGCONT)
        zombie.signal(signal.SIGCONT)
        told = zombie.ended()
    assert results["accepted_session"] == 2
    assert kinds(told) == ["started", "waiting", "finished"]
    assert told[1].detail == "another worker took it over: its lease was over"
    assert ("end", "a", 1, job) not in toy_log(tmp_path)  # it was killed when that was seen
    assert files.read_json(run_dir(tmp_path, "a") / layout.RUN) == run
    assert files.read_json(run_dir(tmp_path, "a") / layout.RESULTS) == results
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_job_that_slept_over_its_lease_before_it_began_cannot_begin(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "late:1.5:finishes,finishes"))
    with at_work(tmp_path, lease_s=0.6, worker="zombie") as zombie:
        wait_until(lambda: crew.log_of(tmp_path, "a").exists())
        time.sleep(0.3)  # its job is started now, and has not adopted
        zombie.signal(signal.SIGSTOP)
        changes = worked(tmp_path, Shift(lease_s=0.6, worker="other"))
        assert changes[-1] == Change("finished", "a")
        wait_until(lambda: crew.log_of(tmp_path, "a").read_text())  # it has tried to adopt
        zombie.signal(signal.SIGCONT)
        zombie.ended()
    assert begun(tmp_path, "a") == [2]
    assert "has a successor" in crew.log_of(tmp_path, "a").read_text() or (
        "its results are accepted" in crew.log_of(tmp_path, "a").read_text()
    )
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_job_that_prepares_for_longer_than_its_lease_keeps_its_run(tmp_path: Path) -> None:
    """PyTorch and a corpus are loaded before it adopts its session."""
    plan(tmp_path, Run("a", "late:2.5:finishes"))
    with at_work(tmp_path, lease_s=1.0, worker="first") as first:
        wait_until(lambda: layout.session_numbers(run_dir(tmp_path, "a")))
        changes = worked(tmp_path, Shift(lease_s=1.0, worker="other"))
        assert kinds(first.ended()) == ["started", "finished"]
    assert kinds(changes) == ["waiting", "finished"]
    assert begun(tmp_path, "a") == [1]


@pytest.mark.slow
@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_worker_whose_clock_jumps_frees_nothing_and_doubles_nothing(
    tmp_path: Path, jump: float
) -> None:
    plan(tmp_path, *(Run(name, "works:40:0.05") for name in "ab"))
    with (
        at_work(tmp_path, lease_s=2.0, worker="right") as right,
        at_work(tmp_path, lease_s=2.0, worker="wrong", jump_s=jump) as wrong,
    ):
        wait_until(lambda: begun(tmp_path, "a") and begun(tmp_path, "b"))
        (tmp_path / crew.JUMP).touch()  # from now on `wrong` has another time
        told = [*right.ended(), *wrong.ended()]
    assert sorted((c.kind, c.name) for c in told if c.kind in ("started", "restarted")) == [
        ("started", "a"), ("started", "b"),
    ]  # fmt: skip
    assert len(toy_log(tmp_path)) == 4
    assert_whole(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_what_a_wrong_clock_has_judged_goes_on_under_a_right_one(
    tmp_path: Path, jump: float
) -> None:
    plan(tmp_path, Run("a", "killed,finishes"))
    (tmp_path / crew.JUMP).touch()
    with at_work(tmp_path, jump_s=jump, most=1) as wrong:
        assert kinds(wrong.ended()) == ["started", "again"]
    assert kinds(worked(tmp_path, limit_s=20)) == ["restarted", "finished"]


@pytest.mark.slow
def test_results_of_an_older_session_are_not_taken_for_those_of_ours(tmp_path: Path) -> None:
    """It finished in the moment in which we took its run over."""
    plan(tmp_path, Run("a", "late:0.5:finishes"))
    ours = by_hand(tmp_path, "a")
    ours.finish("interrupted")
    folder = run_dir(tmp_path, "a")
    results = {"schema": 1, "run": "a", "accepted_session": 1, "step": 1}
    finishes = once(
        lambda: (folder / "sessions/0002").exists(),
        lambda: files.create_json_exclusively(folder / layout.RESULTS, results),
    )
    changes = worked(tmp_path, between=finishes)
    assert kinds(changes) == ["restarted", "finished"]
    (_, second) = attempts(tmp_path, "a")
    assert second is not None
    assert (second.outcome, second.detail) == (
        "interrupted", "the results of another session were accepted",
    )  # fmt: skip
    assert begun(tmp_path, "a") == []
    assert files.read_json(folder / layout.RESULTS)["accepted_session"] == 1


def hidden(host: str) -> list[str]:
    """What a command is begun with to have a host name and pids of its own."""
    inside = f'hostname {host} && exec "$0" "$@"'
    return ["unshare", "-u", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", inside]


@pytest.mark.slow
def test_two_hosts_share_a_study_and_do_no_run_twice(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*hidden("x"), "true"]).returncode:
        pytest.skip("namespaces are not permitted here")
    names = [f"r{number:02d}" for number in range(20)]
    plan(tmp_path, *(Run(name) for name in names))
    with (
        at_work(tmp_path, *hidden("one"), slots=2) as one,
        at_work(tmp_path, *hidden("two"), slots=2) as two,
    ):
        told = [one.ended(90), two.ended(90)]
    started = [[c.name for c in changes if c.kind == "started"] for changes in told]
    assert sorted(started[0] + started[1]) == names
    assert min(map(len, started)) > 0  # both have worked
    assert sorted(name for what, name, *_ in toy_log(tmp_path) if what == "begin") == names
    hosts = {one.host for name in names for one in attempts(tmp_path, name) if one}
    assert hosts == {"one", "two"}
    assert_whole(tmp_path)


# ---- hanging -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["hangs", "deaf"])
def test_a_hung_run_is_ended_with_its_stacks_in_its_log_and_tried_once_more(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cupel.jobs.worker._WATCH_S", 0.2)
    monkeypatch.setattr("cupel.jobs.worker._DUMP_S", 0.5)
    plan(tmp_path, Run("a", f"{ending},finishes"))
    changes = worked(tmp_path, Shift(hung_s=1.0, grace_s=0.5))
    assert kinds(changes) == ["started", "again", "restarted", "finished"]
    assert outcomes(tmp_path, "a") == ["hung", "finished"]
    log = crew.log_of(tmp_path, "a").read_text()
    assert "toy.py" in log
    assert "in main" in log
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_slow_run_is_not_taken_for_a_hung_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cupel.jobs.worker._WATCH_S", 0.2)
    plan(tmp_path, Run("a", "works:4:0.8"))
    changes = worked(tmp_path, Shift(hung_s=2.5))
    assert kinds(changes) == ["started", "finished"]


@pytest.mark.slow
def test_a_job_that_stands_still_is_not_started_a_second_time_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is over, and its own worker has a slot free."""
    monkeypatch.setattr("cupel.jobs.worker._WATCH_S", 0.2)
    plan(tmp_path, Run("a", "works:30:0.05"))
    stood: list[float] = []

    def between(changes: list[Change], stop: Stopping) -> None:
        if not stood and begun(tmp_path, "a"):
            os.kill(pid_of(tmp_path, "a"), signal.SIGSTOP)
            stood.append(time.monotonic())
        elif len(stood) == 1 and time.monotonic() - stood[0] > 1.5:
            stood.append(0.0)
            os.kill(pid_of(tmp_path, "a"), signal.SIGCONT)

    changes = worked(tmp_path, Shift(slots=2, lease_s=0.6), between=between)
    assert kinds(changes) == ["started", "finished"]


# ---- stopping ------------------------------------------------------------------------------------


def stops(root: Path, *names: str, times: int = 1) -> Between:
    """Between two looks: send SIGINT to ourselves that often, once these runs are at work."""
    sent: list[int] = []

    def between(changes: list[Change], stop: Stopping) -> None:
        if len(sent) < times and all(begun(root, name) for name in names):
            sent.append(1)
            stop._heard(signal.SIGINT, None)

    return between


@pytest.mark.slow
def test_a_request_to_stop_ends_every_run_with_its_checkpoint(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "waits,finishes"), Run("b", "waits,finishes"), Run("c"))
    changes = worked(tmp_path, Shift(slots=2), between=stops(tmp_path, "a", "b"))
    assert [(c.kind, c.name) for c in changes[:3]] == [
        ("started", "a"), ("started", "b"), ("stopping", ""),
    ]  # fmt: skip
    assert sorted((c.kind, c.name) for c in changes[3:]) == [
        ("interrupted", "a"), ("interrupted", "b"),
    ]  # fmt: skip
    assert [outcomes(tmp_path, name) for name in "abc"] == [["interrupted"], ["interrupted"], []]
    changes = worked(tmp_path, Shift(slots=3))
    assert kinds(changes) == ["restarted", "finished"]
    assert kinds(changes, "c") == ["started", "finished"]
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_second_request_kills(tmp_path: Path) -> None:
    plan(tmp_path, *(Run(name, "deaf,finishes") for name in "ab"))
    began = time.monotonic()
    changes = worked(
        tmp_path, Shift(slots=2, grace_s=60), between=stops(tmp_path, "a", "b", times=2)
    )
    assert time.monotonic() - began < 30
    assert sorted(c.name for c in changes if c.kind == "interrupted") == ["a", "b"]
    assert [outcomes(tmp_path, name) for name in "ab"] == [["interrupted"], ["interrupted"]]
    assert [RunRecord(run_dir(tmp_path, name)).status for name in "ab"] == ["crashed"] * 2
    assert kinds(worked(tmp_path, Shift(slots=2))) == ["restarted", "finished"]


@pytest.mark.slow
def test_whoever_stops_listening_leaves_no_process_behind(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "waits"))
    changes = crew.worker_of(tmp_path, Stopping()).changes()
    while not begun(tmp_path, "a"):
        next(changes)
    changes.close()
    assert processes.start_of(pid_of(tmp_path, "a")) is None
    assert RunRecord(run_dir(tmp_path, "a")).status == "interrupted"
    assert workers_of(study(tmp_path)) == []


@pytest.mark.slow
def test_a_storm_of_signals_loses_no_run(tmp_path: Path) -> None:
    """To workers and to jobs, before, while and after they stop."""
    names = [f"r{number}" for number in range(6)]
    plan(tmp_path, *(Run(name, "works:15:0.02") for name in names))
    for storm in range(4):
        with at_work(tmp_path, slots=3, worker=f"w{storm}") as process:
            wait_until(lambda: process.process.poll() is not None or workers_of(study(tmp_path)))
            time.sleep(0.3 * storm)
            for _ in range(1 if storm % 2 else 40):
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGTERM)
                for *_, pid in toy_log(tmp_path):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                time.sleep(0.002)
            process.ended()
        for name in names:
            if (run_dir(tmp_path, name) / layout.RUN).exists():
                assert RunRecord(run_dir(tmp_path, name)).status in (
                    "interrupted", "finished", "crashed",
                )  # fmt: skip
            assert set(outcomes(tmp_path, name)) <= {"interrupted", "finished", "killed"}
    changes = worked(tmp_path, Shift(slots=3))
    assert not [change for change in changes if change.kind in ("failed", "refused")]
    for name in names:
        assert steps(tmp_path, name) == list(range(1, 16))
    assert_whole(tmp_path)


# ---- what can go wrong around them ---------------------------------------------------------------


@pytest.mark.slow
def test_a_job_that_cannot_be_started_is_told_and_is_not_the_runs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(tmp_path, Run("a"))
    logs = study(tmp_path) / "logs"
    logs.write_text("no folder")
    for _ in range(4):
        with pytest.raises((RecordError, JobsError), match="cannot write the log"):
            worked(tmp_path)
    logs.unlink()
    assert outcomes(tmp_path, "a") == ["interrupted"] * 4
    assert kinds(worked(tmp_path)) == ["restarted", "finished"]
    assert_whole(tmp_path)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", 0) as file:
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError), path.open("ab", 0) as file:
        while True:
            file.write(b"0")


@pytest.mark.slow
def test_a_full_disk_refuses_claims_in_a_line_and_all_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path, "4m") as disk:
        plan(disk, *(Run(name, "works:6:0.02") for name in "abc"))
        assert kinds(worked(disk, Shift(most=1))) == ["started", "finished"]
        fill(disk / "ballast")
        for _ in range(4):
            with pytest.raises(
                RecordError, match=r"cannot claim \w in .*: No space left on device"
            ):
                worked(disk, Shift(lease_s=0.3))
            time.sleep(0.4)
        (disk / "ballast").unlink()
        changes = worked(disk, Shift(lease_s=0.3))
        assert [c.name for c in changes if c.kind == "finished"] == ["b", "c"]
        assert_whole(disk)
        assert sum(what == "end" for what, *_ in toy_log(disk)) == 3


@pytest.mark.slow
def test_a_disk_that_is_full_while_runs_train_loses_none(tmp_path: Path) -> None:
    with small_disk(tmp_path, "4m") as disk:
        plan(disk, *(Run(name, "works:30:0.02") for name in "ab"))
        full = once(lambda: begun(disk, "a") and begun(disk, "b"), lambda: fill(disk / "ballast"))
        with contextlib.suppress(RecordError, JobsError):
            worked(disk, Shift(slots=2, lease_s=1.0), between=full)
        (disk / "ballast").unlink()
        control.append(study(disk), "retry", None)  # the runs that failed for it
        worked(disk, Shift(slots=2, lease_s=1.0))
        for name in "ab":
            results = files.read_json(run_dir(disk, name) / layout.RESULTS)
            assert results["step"] == 30


@pytest.mark.slow
def test_a_worker_shows_itself_while_it_works(tmp_path: Path) -> None:
    plan(tmp_path, Run("a", "works:10:0.05"))
    seen: list[dict[str, object]] = []
    worked(
        tmp_path,
        Shift(worker="me", slots=2),
        between=lambda changes, stop: seen.extend(workers_of(study(tmp_path))),
    )
    assert {(row["worker"], row["state"], row["slots"]) for row in seen} == {("me", "alive", 2)}
    assert workers_of(study(tmp_path)) == []
    assert list((study(tmp_path) / "workers").iterdir()) == []


@pytest.mark.slow
def test_a_worker_shows_what_it_has_just_begun(tmp_path: Path) -> None:
    presence = Presence(tmp_path, "me", 2)
    presence.show([])
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        presence.show(["a"])
        time.sleep(0.1)
    assert [row["running"] for row in workers_of(tmp_path)] == [["a"]]


def test_a_damaged_file_of_a_worker_hides_no_other(tmp_path: Path) -> None:
    Presence(tmp_path, "good", 1).show(["a"])
    for name, content in {"x": "{", "y": "[]", "z": '{"worker": 1}'}.items():
        (tmp_path / "workers" / f"{name}.json").write_text(content)
    assert [row["worker"] for row in workers_of(tmp_path)] == ["good"]


def test_what_a_killed_worker_left_behind_is_taken_away_by_the_next_one(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    Presence(tmp_path, "old", 1).show(["a"])
    old = tmp_path / "workers" / "old.json"
    fields = json.loads(old.read_text()) | {"pid": int(dead.stdout), "start": "1"}
    old.write_text(json.dumps(fields))
    (tmp_path / "workers" / "old.clock").touch()
    Presence(tmp_path, "new", 1).show([])
    assert [row["worker"] for row in workers_of(tmp_path)] == ["new"]
    assert not (tmp_path / "workers" / "old.clock").exists()


@pytest.mark.parametrize(("elsewhere", "devices"), [(False, (0,)), (True, None)])
def test_a_device_that_failed_a_run_is_better_than_nothing(
    tmp_path: Path, elsewhere: bool, devices: tuple[int, ...] | None
) -> None:
    """Not while another host may take it; and not one that is in quarantine."""
    plan(tmp_path, Run("a"))
    worker = crew.worker_of(tmp_path, Stopping())
    worker.ledger = Ledger(4, 8000, [Gpu(0)])
    worker._asked_at = math.inf
    worker._rows = [{"host": "other", "state": "alive"}] if elsewhere else []
    (task,) = worker.queue.tasks
    task = replace(task, resources=Resources(gpus=1))
    here = worker.queue.host
    standing = Standing("queued", decision=Decision("ready", "", avoid=((here, "0"),)))
    placed: list[Placement] = []
    assert worker._fits(task, standing, placed) is (devices is not None)
    assert [place.devices for place in placed] == ([devices] if devices else [])
    worker._give_back(task)
    control.append(worker.queue.folder, "quarantine", [], why="ECC", host=here, device="0")
    worker.queue.refresh()
    assert not worker._fits(task, standing, placed)
    failed_everywhere = Decision("ready", "", avoid=((here, ""), ("other", "")))
    control.append(worker.queue.folder, "release", [], host=here)
    worker.queue.refresh()
    worker.ledger = None
    assert worker._fits(task, Standing("queued", decision=failed_everywhere), placed)
    worker.backend.close()
