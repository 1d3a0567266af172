"""A placer on a cluster that is here: jobs are real workers, begun when the test says so.

What the cluster's scheduler knows, and whether it answers, is the test's to say too.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, Signals

import pytest

from crew import Run, attempts, begun, hurried, outcomes, plan, queue_of, study, toy_log, wait_until
from cupel.errors import JobsError
from cupel.jobs import control, placer
from cupel.jobs.backend import Ended, Handle, Job, Report, Resources
from cupel.jobs.local import LocalBackend
from cupel.jobs.placer import Placer, submissions
from cupel.jobs.queue import Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.worker import Change

pytestmark = pytest.mark.slow


@dataclass
class Cluster:
    """A scheduler: keeps jobs until they are to begin, and may fall silent. Placers come and go."""

    local: LocalBackend
    begins: bool = True  # what is submitted begins at once
    silent: bool = False  # it knows of nothing
    refuses: bool = False
    refuses_memory: bool = False  # any that is asked for
    jobs: dict[str, Job] = field(default_factory=dict)
    begun: dict[str, Handle] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)  # as the scheduler tells it

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        if self.refuses:
            raise JobsError("the controller is down")
        if self.refuses_memory and any(job.resources.memory_mb for job in jobs):
            raise JobsError("no node has so much memory")
        handles = []
        for job in jobs:
            handles.append(Handle(job, str(len(self.jobs) + 1)))
            self.jobs[handles[-1].id] = job
            if self.begins:
                self.begin(handles[-1].id)
        return handles

    def begin(self, name: str) -> None:
        (self.begun[name],) = self.local.submit([self.jobs[name]])

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        return [self._report(handle.id) for handle in handles]

    def _report(self, name: str) -> Report:
        if self.silent:
            return Report("unknown", detail="no answer")
        if name in self.ended:
            return Report("ended", self.ended[name])
        if name in self.begun:
            return self.local.poll([self.begun[name]])[0]
        return Report("pending" if name in self.jobs else "unknown")

    def cancel(self, handles: Sequence[Handle]) -> None:
        if self.silent:
            raise JobsError("no answer")
        for handle in handles:
            if handle.id in self.begun:
                self.local.cancel([self.begun[handle.id]])
            else:
                self.ended[handle.id] = Ended(-15, "CANCELLED")

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        self.local.signal([self.begun[handle.id] for handle in handles], number)

    def logs(self, handle: Handle, *, lines: int = 20) -> str:
        return self.local.logs(handle, lines=lines)

    def die(self, name: str) -> None:
        """The node of a job dies, with everything on it."""
        self.signal([Handle(self.jobs[name], name)], SIGKILL)
        wait_until(lambda: self.local.poll([self.begun[name]])[0].state == "ended")
        self.ended[name] = Ended(-SIGKILL, "NODE_FAIL")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with LocalBackend(grace_s=1.0) as local:
        yield Cluster(local)


Until = Callable[[list[Change]], object]


def placed(
    root: Path,
    cluster: Cluster,
    *,
    until: Until = lambda changes: False,
    command: str = "",
    pack: int = 1,
    survives: bool = True,
    limit_s: float = 60.0,
) -> list[Change]:
    """What a placer told until it had done all, or was killed: when `until` is true, it is begun
    no further. `command` takes the place of a worker."""

    def make_worker(tasks: Sequence[Task], resources: Resources) -> Job:
        runs = json.dumps([task.name for task in tasks])
        given = [f"only={runs}", "waits=false", f"most={len(tasks)}"]
        worker = (sys.executable, "-m", "crew", str(root), *given)
        typed = tuple(shlex.split(command)) if command else worker
        log = study(root) / "jobs" / f"{len(cluster.jobs)}.log"
        return Job("worker", typed, log, resources=resources)

    deadline, changes = time.monotonic() + limit_s, list[Change]()
    queue = queue_of(root, "placer")
    with hurried(100):
        it = Placer(queue, cluster, "slurm", make_worker, Stopping(), pack, survives, look_s=0.05)
        for change in it.changes():
            assert time.monotonic() < deadline, (changes, cluster)
            changes += [] if change is None else [change]
            if until(changes):
                break
    return changes


def after(seconds: float) -> Until:
    """Once so much time has passed."""
    moment = time.monotonic() + seconds
    return lambda changes: time.monotonic() > moment


def assert_judged(root: Path, name: str, told: list[str]) -> None:
    """A run is accepted a moment before its worker has judged it."""
    wait_until(lambda: None not in outcomes(root, name))
    assert outcomes(root, name) == told


@pytest.mark.parametrize(("pack", "jobs"), [(1, 3), (2, 2)])
def test_each_run_is_in_one_job_and_is_trained_once(
    tmp_path: Path, cluster: Cluster, pack: int, jobs: int
) -> None:
    plan(tmp_path, Run("a"), Run("b"), Run("c"))
    changes = placed(tmp_path, cluster, pack=pack)
    assert [change.name for change in changes if change.kind == "finished"] != []
    for name in "abc":
        assert_judged(tmp_path, name, ["finished"])
    assert len(cluster.jobs) == jobs
    written = [run for one in submissions(study(tmp_path)) for run in one["runs"]]
    assert written == ["a", "b", "c"]


def test_what_a_killed_placer_submitted_is_not_submitted_again(
    tmp_path: Path, cluster: Cluster
) -> None:
    plan(tmp_path, Run("a"), Run("b"))
    cluster.begins = False
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) == 2)
    placed(tmp_path, cluster, until=after(0.5))
    assert len(cluster.jobs) == 2
    for name in cluster.jobs:
        cluster.begin(name)
    placed(tmp_path, cluster)
    assert len(cluster.jobs) == 2
    for name in "ab":
        assert_judged(tmp_path, name, ["finished"])


def test_a_scheduler_that_is_silent_has_lost_no_job(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that waits, which holds no lease, nor one that trains."""
    plan(tmp_path, Run("waits"), Run("trains", "waits"))
    cluster.begins = False
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) == 2)
    cluster.begin("2")
    wait_until(lambda: begun(tmp_path, "trains"))
    cluster.silent = True
    for _ in range(2):
        placed(tmp_path, cluster, until=after(0.5))
    assert len(cluster.jobs) == 2
    assert outcomes(tmp_path, "trains") == [None]


def test_a_job_of_which_nobody_knows_for_long_is_submitted_again_unless_its_run_is_held(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placer, "_patience", lambda lease_s: 0.3)
    plan(tmp_path, Run("forgotten"), Run("held", "waits"))
    cluster.begins = False
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) == 2)
    cluster.begin("2")
    wait_until(lambda: begun(tmp_path, "held"))
    cluster.silent = True
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) > 2)
    assert [one["runs"] for one in submissions(study(tmp_path))][2:] == [["forgotten"]]
    placed(tmp_path, cluster, until=after(0.2))
    assert len(cluster.jobs) == 3


def test_a_waiting_job_is_cancelled_with_its_run(tmp_path: Path, cluster: Cluster) -> None:
    """Also when the scheduler was silent at first."""
    plan(tmp_path, Run("a"), Run("b"))
    cluster.begins = False
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) == 2)
    control.append(study(tmp_path), "cancel", ["a"])
    cluster.silent = True
    placed(tmp_path, cluster, until=after(0.3))
    cluster.silent = False
    placed(tmp_path, cluster, until=lambda changes: cluster.ended)
    assert list(cluster.ended) == ["1"]
    cluster.begin("2")
    changes = placed(tmp_path, cluster)
    assert "a" in [change.name for change in changes if change.kind == "cancelled"]
    assert outcomes(tmp_path, "a") == []
    assert_judged(tmp_path, "b", ["finished"])


def test_the_run_of_a_node_that_died_is_judged_and_trained_by_another_job(
    tmp_path: Path, cluster: Cluster
) -> None:
    plan(tmp_path, Run("a", "waits,finishes"))
    died = []

    def kill(changes: list[Change]) -> None:
        if begun(tmp_path, "a") and not died:
            died.append(cluster.die("1"))

    placed(tmp_path, cluster, until=kill)
    assert_judged(tmp_path, "a", ["node", "finished"])
    first = attempts(tmp_path, "a")[0]
    assert first is not None
    assert (first.outcome, first.state, first.worker) == ("node", "NODE_FAIL", "slurm 1")
    assert (first.begun, first.last_step) == (True, 1)
    assert len(cluster.jobs) == 2


def test_a_job_that_has_ended_long_ago_says_nothing_of_a_session_that_lives(
    tmp_path: Path, cluster: Cluster
) -> None:
    """Whoever watches anew hears of all jobs again, the first one's end too."""
    plan(tmp_path, Run("a", "killed,waits"))
    cluster.begins = False
    placed(tmp_path, cluster, until=lambda changes: cluster.jobs)
    cluster.ended["1"] = Ended(-SIGKILL, "TIMEOUT")
    placed(tmp_path, cluster, until=lambda changes: len(cluster.jobs) == 2)
    cluster.begin("2")
    wait_until(lambda: len(begun(tmp_path, "a")) >= 1)
    sessions = len(attempts(tmp_path, "a"))
    placed(tmp_path, cluster, until=after(0.5))
    assert outcomes(tmp_path, "a")[:1] == ["timeout"]
    assert attempts(tmp_path, "a")[sessions - 1] is None
    assert len(cluster.jobs) == 2


def test_an_end_of_a_job_is_told_of_its_session_only_once_that_is_silent(
    tmp_path: Path, cluster: Cluster
) -> None:
    """The scheduler may be wrong: what trains is left alone."""
    plan(tmp_path, Run("a", "waits"))
    placed(tmp_path, cluster, until=lambda changes: begun(tmp_path, "a"))
    cluster.ended["1"] = Ended(-SIGKILL, "NODE_FAIL")
    placed(tmp_path, cluster, until=after(0.5))
    assert outcomes(tmp_path, "a") == [None]
    cluster.die("1")
    placed(tmp_path, cluster, until=lambda changes: outcomes(tmp_path, "a")[0])
    assert outcomes(tmp_path, "a")[0] == "node"


@pytest.mark.parametrize(
    ("command", "outcome", "jobs"),
    [
        (f"{sys.executable} -c 'import no_such_module'", "import", 1),
        (f"{sys.executable} -c 'raise RuntimeError(1)'", "unknown", 2),
    ],
)
def test_jobs_that_end_before_they_claim_their_run_are_not_submitted_for_ever(
    tmp_path: Path, cluster: Cluster, command: str, outcome: str, jobs: int
) -> None:
    plan(tmp_path, Run("a"))
    changes = placed(tmp_path, cluster, command=command)
    assert [change.kind for change in changes][-1] == "failed"
    assert outcomes(tmp_path, "a") == [outcome] * jobs
    assert len(cluster.jobs) == jobs
    assert toy_log(tmp_path) == []


def test_a_waiting_job_that_somebody_cancelled_is_submitted_again_and_held_after_the_third(
    tmp_path: Path, cluster: Cluster
) -> None:
    """The engine's queue is not ours: a run is cancelled by `cupel jobs cancel`."""
    plan(tmp_path, Run("a"))
    cluster.begins = False

    def cancel_what_waits(changes: list[Change]) -> None:
        for name in cluster.jobs.keys() - cluster.ended.keys():
            cluster.cancel([Handle(cluster.jobs[name], name)])

    changes = placed(tmp_path, cluster, until=cancel_what_waits)
    assert [(change.kind, change.name) for change in changes][-1] == ("held", "a")
    assert "3 jobs ended without beginning it" in changes[-1].detail
    assert outcomes(tmp_path, "a") == []
    assert len(cluster.jobs) == 3
    control.append(study(tmp_path), "release", ["a"])
    cluster.begins = True
    placed(tmp_path, cluster)
    assert_judged(tmp_path, "a", ["finished"])
    assert len(cluster.jobs) == 4


def test_jobs_that_end_well_and_leave_their_run_as_it_was_hold_it(
    tmp_path: Path, cluster: Cluster
) -> None:
    plan(tmp_path, Run("a"))
    changes = placed(tmp_path, cluster, command="echo this is not cupel")
    assert changes[-1].kind == "held"
    assert changes[-1].detail.endswith(": this is not cupel")
    assert len(cluster.jobs) == 3
    assert outcomes(tmp_path, "a") == []


def test_a_worker_that_found_its_run_taken_leaves_no_trace(
    tmp_path: Path, cluster: Cluster
) -> None:
    plan(tmp_path, Run("a", "works:40:0.02"))
    placed(tmp_path, cluster, until=lambda changes: begun(tmp_path, "a"))
    cluster.begin("1")  # once more: Slurm has queued it again, though it lives
    placed(tmp_path, cluster)
    assert_judged(tmp_path, "a", ["finished"])


def test_a_refused_submission_ends_the_watch_only_when_it_is_the_first(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(tmp_path, Run("a", "killed,finishes"))
    monkeypatch.setattr(placer, "_AGAIN_S", 0.2)
    cluster.refuses = True
    with pytest.raises(JobsError, match="the controller is down"):
        placed(tmp_path, cluster)
    cluster.refuses = False
    placed(tmp_path, cluster, until=lambda changes: cluster.jobs)
    cluster.refuses = True
    cluster.die("1")

    def mended(changes: list[Change]) -> None:
        if any(change.kind == "waiting" and not change.name for change in changes):
            cluster.refuses = False

    told = placed(tmp_path, cluster, until=mended)
    assert "1 run could not be submitted: the controller is down" in [one.detail for one in told]
    wait_until(lambda: outcomes(tmp_path, "a")[-1] == "finished")


def test_a_run_that_lacked_memory_asks_for_more_and_holds_up_no_other_where_there_is_none(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placer, "_AGAIN_S", 0.2)
    plan(tmp_path, Run("big", "errs:MemoryError,finishes"), Run("small", "killed,finishes"))
    cluster.refuses_memory = True

    def is_refused(changes: list[Change]) -> bool:
        told = [change.detail for change in changes if change.kind == "waiting"]
        done = outcomes(tmp_path, "small")[-1:] == ["finished"]
        return done and "1 run could not be submitted: no node has so much memory" in told

    changes = placed(tmp_path, cluster, until=is_refused)
    assert sum("so much memory" in change.detail for change in changes) == 1, "told once"
    cluster.refuses_memory = False
    placed(tmp_path, cluster)
    assert_judged(tmp_path, "big", ["host_oom", "finished"])
    asked = [job.resources.memory_mb for job in cluster.jobs.values()]
    assert asked[:3] == [None, None, None]
    assert (asked[3] or 0) > 1
