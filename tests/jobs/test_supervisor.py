"""What becomes of runs whose processes end in every way; real processes, real records."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from cupel.jobs.backend import Handle, Job
from cupel.jobs.local import LocalBackend
from cupel.jobs.reasons import failure_of
from cupel.jobs.stopping import Stopping
from cupel.jobs.supervisor import Change, Supervisor, Task, status_of
from cupel.record.session import Session

# A run without a model: each process is a session that logs one step, then ends as it is told.
WORKER = """
import os, signal, sys, time
from pathlib import Path
from cupel.record.session import Session

folder, endings = Path(sys.argv[1]), sys.argv[2].split(",")
if (folder / "run.json").exists():
    session = Session.resume(folder)
else:
    session = Session.start(root=folder.parents[1], project=folder.parent.name, name="n",
                            config={}, identity="i", run_id=folder.name)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
number = session.number
ending = endings[min(number, len(endings)) - 1]
session.begin_at(number - 1 if "stuck" not in ending else 0)
session.log({"loss": 1.0}, step=number if "stuck" not in ending else 0)
if ending == "waits":
    while not asked:
        time.sleep(0.01)
    session.finish("interrupted")
    sys.exit(75)
if ending == "hangs":
    time.sleep(60)
if ending == "fails":
    session.finish("failed", error="the loss is NaN at step 3\\nmore")
    sys.exit(1)
if ending.startswith("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
session.finish("finished", results={"step": number, "final": {}})
"""


class Counting(LocalBackend):
    """Knows how many jobs ran at once, and which ones were started."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[Handle] = []
        self.most = 0

    def submit(self, job: Job) -> Handle:
        handle = super().submit(job)
        self.handles.append(handle)
        self.most = max(self.most, sum(self.poll(one) is None for one in self.handles))
        return handle

    @property
    def started(self) -> list[str]:
        return [handle.job.name for handle in self.handles]


@pytest.fixture
def backend() -> Counting:
    return Counting()


def task(root: Path, name: str, endings: str, *, kin: str = "") -> Task:
    run_dir = root / "p" / name
    command = (sys.executable, "-c", WORKER, str(run_dir), endings)
    return Task(Job(name, command, root / "logs" / name), run_dir, kin)


def refused(root: Path, name: str, why: str = "no such corpus", *, kin: str = "") -> Task:
    """A run whose process is refused before it has a record."""
    command = ("sh", "-c", f"echo loading; echo 'cupel: {why}' >&2; exit 2")
    return Task(Job(name, command, root / "logs" / name), root / "p" / name, kin)


def told(backend: Counting, *tasks: Task, slots: int = 2) -> list[Change]:
    """Everything that happened; the clock is real, so a minute ends the test."""
    deadline, changes = time.monotonic() + 60, []
    for change in Supervisor(backend, slots, Stopping()).changes(tasks):
        assert time.monotonic() < deadline, changes
        if change is not None:
            changes.append(change)
    return changes


def last(changes: list[Change], name: str) -> Change:
    return [change for change in changes if change.name == name][-1]


def test_runs_go_in_order_and_never_more_at_once_than_slots(
    backend: Counting, tmp_path: Path
) -> None:
    names = ["a", "b", "c", "d"]
    changes = told(backend, *(task(tmp_path, name, "finishes") for name in names))
    assert backend.started == names
    assert backend.most == 2
    assert {last(changes, name).kind for name in names} == {"finished"}


def test_a_failed_run_is_not_tried_again_and_stops_no_other(
    backend: Counting, tmp_path: Path
) -> None:
    changes = told(backend, task(tmp_path, "bad", "fails"), task(tmp_path, "good", "finishes"))
    assert last(changes, "bad") == Change("failed", "bad", "the loss is NaN at step 3")
    assert last(changes, "good").kind == "finished"
    assert sorted(backend.started) == ["bad", "good"]


def test_a_killed_run_goes_on_as_long_as_it_gets_further(backend: Counting, tmp_path: Path) -> None:
    endings = "killed,killed,killed,killed,finishes"
    changes = told(backend, task(tmp_path, "run", endings))
    kinds = [change.kind for change in changes]
    assert kinds == ["started", *["restarted"] * 4, "finished"]
    assert changes[1].detail == "killed by SIGKILL"


def test_a_run_that_gets_nowhere_is_given_up_after_two_restarts(
    backend: Counting, tmp_path: Path
) -> None:
    changes = told(backend, task(tmp_path, "run", "killed-stuck"))
    assert [change.kind for change in changes] == ["started", "restarted", "restarted", "failed"]
    assert "killed by SIGKILL 3 times without getting beyond step 0" in changes[-1].detail
    assert len(backend.started) == 3


def test_a_process_that_is_refused_before_it_has_a_record_tells_why(
    backend: Counting, tmp_path: Path
) -> None:
    changes = told(backend, refused(tmp_path, "run"))
    assert changes[-1] == Change("refused", "run", "no such corpus")


def test_when_two_are_refused_alike_and_none_has_begun_the_others_are_not_started(
    backend: Counting, tmp_path: Path
) -> None:
    tasks = [refused(tmp_path, name, kin=name[0]) for name in ("a1", "b1", "a2", "b2")]
    changes = told(backend, *tasks, slots=1)
    assert backend.started == ["a1", "b1"]
    assert changes[-1] == Change(
        "leaving", "", "2 further runs are not started: they would end like the last two"
    )


def test_runs_refused_for_different_reasons_are_all_started(
    backend: Counting, tmp_path: Path
) -> None:
    tasks = [refused(tmp_path, name, f"no corpus {name}", kin=name) for name in "abcd"]
    changes = told(backend, *tasks, slots=1)
    assert [change.kind for change in changes] == ["started", "refused"] * 4


def test_one_refused_arm_stops_no_other(backend: Counting, tmp_path: Path) -> None:
    """Also when more than one of its seeds is tried before the first run of another arm."""
    bad = [refused(tmp_path, f"bad{seed}", kin="bad") for seed in (1, 2, 3)]
    changes = told(backend, *bad[:2], task(tmp_path, "good", "finishes", kin="good"), bad[2])
    assert backend.started == ["bad1", "bad2", "good", "bad3"]
    assert last(changes, "good").kind == "finished"
    assert "leaving" not in [change.kind for change in changes]


def test_of_one_arm_alone_two_refusals_are_enough(backend: Counting, tmp_path: Path) -> None:
    told(backend, *(refused(tmp_path, f"s{seed}", kin="one") for seed in (1, 2, 3)), slots=1)
    assert backend.started == ["s1", "s2"]


def test_whoever_still_prepares_is_waited_for_before_the_others_are_left(
    backend: Counting, tmp_path: Path
) -> None:
    """Two are refused alike at once; a third, which takes longer to begin, shows that it can."""
    slow = task(tmp_path, "slow", "finishes", kin="slow")
    later = ("sh", "-c", 'sleep 1; exec "$0" "$@"', *slow.job.command)
    slow = Task(Job("slow", later, slow.job.log), slow.run_dir, "slow")
    tasks = [*(refused(tmp_path, name, kin=name) for name in "ab"), slow]
    changes = told(backend, *tasks, task(tmp_path, "good", "finishes", kin="good"), slots=3)
    assert backend.started == ["a", "b", "slow", "good"]
    assert last(changes, "good").kind == "finished"
    assert last(changes, "slow").kind == "finished"


def test_a_process_that_dies_without_a_word_is_told_with_its_code_and_log(
    backend: Counting, tmp_path: Path
) -> None:
    silent = Task(Job("run", ("sh", "-c", "exit 9"), tmp_path / "log"), tmp_path / "p" / "run")
    detail = told(backend, silent)[-1].detail
    assert detail == f"exit code 9: it printed nothing; see {tmp_path / 'log'}"


def test_a_run_that_somebody_else_trains_is_waited_for_and_not_started(
    backend: Counting, tmp_path: Path
) -> None:
    ours = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i", run_id="x")
    threading.Timer(0.5, ours.finish, ["finished"], {"results": {"step": 1}}).start()
    changes = told(backend, task(tmp_path, "x", "finishes"), task(tmp_path, "y", "finishes"))
    kinds = [change.kind for change in changes if change.name == "x"]
    assert kinds == ["waiting", "finished"]
    assert backend.started == ["y"]


def test_a_run_that_somebody_else_left_unfinished_is_taken_over(
    backend: Counting, tmp_path: Path
) -> None:
    ours = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i", run_id="x")
    threading.Timer(0.5, ours.finish, ["interrupted"]).start()
    changes = told(backend, task(tmp_path, "x", "finishes"))
    assert [change.kind for change in changes] == ["waiting", "started", "finished"]
    assert status_of(tmp_path / "p" / "x") == "finished"


def stopped(backend: Counting, tasks: list[Task], signals: int) -> list[Change]:
    """The changes when signals come once both workers are at work."""
    changes: list[Change] = []
    sent = 0
    with Stopping() as stop:
        for change in Supervisor(backend, 2, stop).changes(tasks):
            if change is not None:
                changes.append(change)
            elif sent < signals and all(running(task) for task in tasks[:2]):
                signal.raise_signal(signal.SIGINT)
                sent += 1
        assert stop.name == "SIGINT"
    return changes


def running(task: Task) -> bool:
    metrics = task.run_dir / "sessions/0001/metrics.r0.000.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


def test_a_request_to_stop_ends_every_run_with_its_checkpoint(
    backend: Counting, tmp_path: Path
) -> None:
    tasks = [task(tmp_path, name, "waits") for name in "abc"]
    changes = stopped(backend, tasks, signals=1)
    assert [(c.kind, c.name) for c in changes[:3]] == [
        ("started", "a"), ("started", "b"), ("stopping", ""),
    ]  # fmt: skip
    assert sorted(c.name for c in changes[3:] if c.kind == "interrupted") == ["a", "b"]
    assert [status_of(one.run_dir) for one in tasks] == ["interrupted", "interrupted", "planned"]


def test_a_request_of_our_own_stops_like_a_signal(backend: Counting, tmp_path: Path) -> None:
    tasks = [task(tmp_path, name, "waits") for name in "abc"]
    changes: list[Change] = []
    with Stopping() as stop:
        for change in Supervisor(backend, 2, stop).changes(tasks):
            if change is not None:
                changes.append(change)
            elif all(running(task) for task in tasks[:2]):
                stop.ask("a reason")
        assert (stop.name, stop.insists) == ("a reason", False)
    assert Change("stopping", "", "a reason") in changes
    assert [status_of(one.run_dir) for one in tasks] == ["interrupted", "interrupted", "planned"]


def test_a_second_request_kills(backend: Counting, tmp_path: Path) -> None:
    tasks = [task(tmp_path, name, "hangs") for name in "ab"]
    changes = stopped(backend, tasks, signals=2)
    assert sorted(change.name for change in changes if change.kind == "interrupted") == ["a", "b"]
    assert {backend.poll(handle) for handle in backend.handles} == {-signal.SIGKILL}
    assert {status_of(one.run_dir) for one in tasks} == {"crashed"}


def test_whoever_stops_listening_leaves_no_process_behind(
    backend: Counting, tmp_path: Path
) -> None:
    one = task(tmp_path, "a", "waits")
    changes = Supervisor(backend, 1, Stopping()).changes([one])
    while not running(one):
        next(changes)
    changes.close()
    deadline = time.monotonic() + 20
    while backend.poll(backend.handles[0]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert status_of(one.run_dir) == "interrupted"


def test_the_reason_of_a_traceback_is_its_last_line(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.finish("failed", error="Traceback (most recent call last):\n  …\nValueError: no\n")
    assert failure_of(session.run_dir) == "ValueError: no"


def test_different_signals_ask_once_and_the_same_one_twice_insists() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stopping() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert (stop.name, stop.insists) == ("SIGHUP", False)
        signal.raise_signal(signal.SIGTERM)
        assert (stop.name, stop.insists) == ("SIGHUP", True)
    assert signal.getsignal(signal.SIGTERM) == before
