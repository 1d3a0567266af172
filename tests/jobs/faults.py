"""Torments a sweep and holds what is left of it against what is promised: `torment`, `check`.

Real workers on a queue of toy runs (`counting`), warm and cold, each in a process of its own. A
tormentor kills workers, guards, zygotes and training processes; it stops workers with all that they
have started for longer than their lease and lets them go on, as zombies; it deletes the cache in
the middle. What has died is started anew, until every run is accepted.

    python tests/jobs/faults.py [--runs 600 --kills 640 --pauses 100]

is the full one. Everything that it starts has the variable CUPEL_FAULTS in its environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import psutil
from counting import seed_of, value

from cupel.jobs import control
from cupel.jobs.attempts import read_attempt
from cupel.jobs.backend import Job
from cupel.jobs.local import LocalBackend
from cupel.jobs.queue import Claimed, Queue, Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.warm import Warm
from cupel.jobs.worker import Worker
from cupel.record import layout
from cupel.record.claims import VARIABLE, read_lease
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.verifying import check_run

HERE = Path(__file__).resolve().parent
MARK = "CUPEL_FAULTS"
STEPS, SECONDS = 5, 0.05
LEASE_S = 1.5
PROJECT = "faults"
SPARED = 2  # attempts in a row without a step; after one more the policy gives a run up
EAGER = 0.8  # of the pauses, which wait for a run that is just training: it makes a zombie
BUSY = 0.9  # of the kills, which hit workers that are at work
TRIES = 12  # at a kill, between two looks at the sweep: not every worker has what is to be killed
SPREAD = 0.9  # of the sweep, over which kills and pauses are spread; the rest comes to rest
RACE_S = 0.25  # between a look for a successor and the acceptance: one may come between the two
PATIENCE_S = 60.0  # without anything accepted, beyond what waits for its back-off


@dataclass(frozen=True, slots=True)
class Plan:
    """How many runs, workers, runs at a time of each, and how they are tormented."""

    runs: int = 600
    workers: int = 9
    slots: int = 2
    kills: int = 640  # more than half of them of workers and guards
    pauses: int = 100
    seed: int = 0
    lease_s: float = LEASE_S
    longest_s: float = 9.0  # of a pause; what was lost is taken over 2.5 to 7.5 s later


@dataclass(slots=True)
class Tormented:
    """What was done to a sweep, and how long it took."""

    kills: Counter[str] = field(default_factory=Counter)
    pauses: int = 0
    started: int = 0  # workers
    caches: int = 0  # deleted
    failed: list[str] = field(default_factory=list)  # by the policy, and why
    broken: list[str] = field(default_factory=list)  # workers that ended by themselves, otherwise
    seconds: float = 0.0


@dataclass(slots=True)
class Found:
    """What is left of a sweep. Without `problems` all that is promised holds."""

    accepted: int = 0
    sessions: int = 0
    zombies: int = 0  # sessions that wrote when they had a successor
    refused: int = 0  # finished sessions whose results were not accepted
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


# ---- a worker, in its own process --------------------------------------------------------------


def tasks_in(study: Path, runs: int) -> list[Task]:
    """The runs of the sweep; their number is their seed."""
    project = study.parents[1]
    return [Task(f"count-{n:04d}", project / f"count-{n:04d}") for n in range(runs)]


def work(study: Path, name: str, plan: Plan, *, warm: bool) -> None:
    """Be a worker until nothing is left; tells each change as a line of JSON."""

    def make_job(claimed: Claimed, _: object) -> Job:
        run_dir = claimed.task.run_dir
        command = (sys.executable, "-m", "counting", str(run_dir), str(STEPS), str(SECONDS))
        log = study / "logs" / f"{run_dir.name}.log"
        return Job(run_dir.name, command, log, {VARIABLE: claimed.claim.as_text()})

    preload = ("counting", "cupel.record.session")
    backend = LocalBackend(Warm(preload) if warm else None, grace_s=1.0)
    queue = Queue(study, tasks_in(study, plan.runs), name, lease_s=plan.lease_s)
    with Stopping() as stop:
        for change in Worker(queue, backend, make_job, plan.slots, stop).changes():
            if change is not None:
                told = {"kind": change.kind, "name": change.name, "detail": change.detail}
                print(json.dumps(told), flush=True)


# ---- the tormentor -----------------------------------------------------------------------------


class Tormentor:
    """Torments a sweep below `root` until all of it is accepted."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        self.study = root / PROJECT / "studies" / "sweep"
        self.study.mkdir(parents=True)
        self.tasks = tasks_in(self.study, plan.runs)
        self.draw = random.Random(plan.seed)
        self.mark = str(root)
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.names: dict[int, str] = {}
        self.paused: dict[int, tuple[float, list[psutil.Process]]] = {}
        self.hit: set[int] = set()  # pids of workers that we killed
        self.accepted: set[str] = set()
        self.told = Tormented()
        self.heard: dict[Path, int] = {}

    def run(self) -> Tormented:
        """All of it. Raises TimeoutError when the sweep stands still."""
        began = moved = time.monotonic()
        try:
            while len(self.accepted) < len(self.tasks):
                before = len(self.accepted)
                self._look()
                self._keep_up()
                self._resume(time.monotonic())
                self._torment()
                if len(self.accepted) > before:
                    moved = time.monotonic()
                if time.monotonic() - moved > PATIENCE_S:
                    left = [t.name for t in self.tasks if t.name not in self.accepted]
                    raise TimeoutError(f"nothing was accepted for a while; left: {left}")
                time.sleep(0.01)
            self.told.seconds = time.monotonic() - began
            self._resume(float("inf"))
            self._come_to_rest()
        finally:
            self._resume(float("inf"))
            for worker in self.workers.values():
                worker.kill()
                worker.wait()
        return self.told

    def _look(self) -> None:
        for task in self.tasks:
            if task.name not in self.accepted and (task.run_dir / layout.RESULTS).exists():
                self.accepted.add(task.name)
        for log in self.study.glob("worker-*.log"):
            with log.open("rb") as file:
                file.seek(self.heard.get(log, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self.heard[log] = self.heard.get(log, 0) + len(whole) + len(newline)
            for line in whole.splitlines():
                self._hear(line)

    def _hear(self, line: bytes) -> None:
        if not line.startswith(b"{"):
            return
        change = json.loads(line)
        if change["kind"] in ("failed", "refused", "diverged", "held", "quarantined"):
            self.told.failed.append(f"{change['kind']} {change['name']}: {change['detail']}")
            names = [change["name"]] if change["name"] else None
            control.append(self.study, "retry", names, why="the fault test goes on")

    def _keep_up(self) -> None:
        """Start what has died anew."""
        gone = [worker for worker in self.workers.values() if worker.poll() is not None]
        for worker in gone:
            del self.workers[worker.pid]
        if any(worker.returncode == 0 for worker in gone):
            self._look()  # the last run may have been accepted a moment ago, and they may go
            if len(self.accepted) == len(self.tasks):
                return
        self.told.broken += [
            f"worker {worker.pid} ended with {worker.returncode}"
            for worker in gone
            if worker.pid not in self.hit
        ]
        while len(self.workers) < self.plan.workers:
            self.told.started += 1
            name = f"worker-{self.told.started:04d}"
            warm = "warm" if self.draw.random() < 0.5 else "cold"
            given = json.dumps(asdict(self.plan))
            with (self.study / f"{name}.log").open("wb") as log:
                worker = subprocess.Popen(
                    [sys.executable, str(HERE / "faults.py"), "--worker", name,
                     "--study", str(self.study), "--mode", warm, "--plan", given],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=self.root,  # no repository: git's state is not what is tested
                    env={**os.environ, "PYTHONPATH": str(HERE), MARK: self.mark},
                )  # fmt: skip
            self.workers[worker.pid], self.names[worker.pid] = worker, name

    def _resume(self, now: float) -> None:
        for pid, (until, those) in list(self.paused.items()):
            if now >= until:
                del self.paused[pid]
                for process in those:
                    _send(process, signal.SIGCONT)

    def _torment(self) -> None:
        share = len(self.accepted) / (SPREAD * len(self.tasks))
        for _ in range(TRIES):
            if sum(self.told.kills.values()) < min(1.0, share) * self.plan.kills:
                self._kill()
            if self.told.pauses < min(1.0, share) * self.plan.pauses:
                self._pause()
        if self.draw.random() < 0.02 and (self.root / layout.CACHE).exists():
            self.told.caches += 1
            shutil.rmtree(self.root / layout.CACHE, ignore_errors=True)

    def _kill(self) -> None:
        """One process: half of them are training, the others are who minds them."""
        if not self.workers:  # all is accepted, and they have gone
            return
        pid = self.draw.choice(list(self.workers))
        kind = self.draw.choice(("worker", "guard", "job", "job"))
        with self._standing_still(pid) as family:
            those = family.get(kind, [])
            if not those:  # it has just begun, or has nothing to do
                return
            if not family["job"] and self.draw.random() < BUSY:
                return
            process = self.draw.choice(those)
            if kind == "worker":
                self.hit.add(pid)
            if _send(process, signal.SIGKILL):
                self.told.kills[kind] += 1

    def _pause(self) -> None:
        """A worker and all that it has started, for longer than the lease."""
        free = [pid for pid in self.workers if pid not in self.paused]
        if len(free) <= 2:
            return
        pid = self.draw.choice(free)
        with self._standing_still(pid) as family:
            if not family.get("job"):
                return
            eager = self.draw.random() < EAGER
            if eager and not any(map(_is_training, self._runs_of(pid))):
                return
            those = [process for kind in ("worker", "guard", "job") for process in family[kind]]
            stopped = [process for process in those if _send(process, signal.SIGSTOP)]
            lasts = self.draw.uniform(1.1 * self.plan.lease_s, self.plan.longest_s)
            self.paused[pid] = time.monotonic() + lasts, stopped
            self.told.pauses += 1

    @contextlib.contextmanager
    def _standing_still(self, pid: int) -> Iterator[dict[str, list[psutil.Process]]]:
        """A worker that starts nothing meanwhile, and its processes: none of a worker one of whose
        runs has not come further twice in a row. A third time the policy would give that up."""
        worker = psutil.Process(pid)
        _send(worker, signal.SIGSTOP)
        try:
            spared = any(_stalled(run_dir) >= SPARED for run_dir in self._runs_of(pid))
            yield {} if spared else _family(pid)
        finally:
            if pid not in self.paused:
                _send(worker, signal.SIGCONT)

    def _runs_of(self, pid: int) -> list[Path]:
        """The runs that a worker is at, by what it has told."""
        told: dict[str, None] = {}
        for line in (self.study / f"{self.names[pid]}.log").read_bytes().splitlines():
            if line.startswith(b"{") and line.endswith(b"}"):
                change = json.loads(line)
                if change["kind"] in ("started", "restarted"):
                    told[change["name"]] = None
                else:
                    told.pop(change["name"], None)
        return [self.study.parents[1] / name for name in told]

    def _come_to_rest(self) -> None:
        """Everybody goes by himself once all is done."""
        until = time.monotonic() + 30
        for worker in self.workers.values():
            try:
                code = worker.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.told.broken.append(f"worker {worker.pid} does not see that all is done")
                continue
            if code and worker.pid not in self.hit:
                self.told.broken.append(f"worker {worker.pid} ended with {code}")


def _family(pid: int) -> dict[str, list[psutil.Process]]:
    """A worker, those between it and its jobs, and its jobs, which lead a session of their own
    below a guard."""
    found: dict[str, list[psutil.Process]] = {"worker": [], "guard": [], "job": []}
    try:
        top = psutil.Process(pid)
        found["worker"].append(top)
        below = top.children(recursive=True)
    except psutil.Error:
        return found
    for child in below:
        found["job" if _is_job(child, pid) else "guard"].append(child)
    return found


def _is_job(process: psutil.Process, worker: int) -> bool:
    """Whether it leads its session, and is no child of the worker, as guards and zygotes are."""
    try:
        return os.getsid(process.pid) == process.pid and process.ppid() != worker
    except (psutil.Error, OSError):
        return False


def _is_training(run_dir: Path) -> bool:
    """Whether a run's newest session has begun and was not heard to end."""
    numbers = layout.session_numbers(run_dir)
    info = SessionInfo.read(run_dir, max(numbers, default=0))
    return info.fields.get("status") == "running"


def _stalled(run_dir: Path) -> int:
    """How many of a run's sessions before the newest, the last in a row, have logged nothing."""
    count = 0
    for number in reversed(layout.session_numbers(run_dir)[:-1]):
        logged = layout.segments(layout.session_dir(run_dir, number), "metrics")
        if any(path.stat().st_size for path in logged):
            break
        count += 1
    return count


def _send(process: psutil.Process, number: signal.Signals) -> bool:
    try:
        process.send_signal(number)
    except psutil.Error:
        return False
    return True


def left_behind(mark: str) -> list[str]:
    """Every living process that the sweep has started, and what it is."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                left.append(f"{process.pid}: {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return left


# ---- what is promised --------------------------------------------------------------------------


def check(root: Path, plan: Plan) -> Found:
    """Hold all records of a sweep that is done against what is promised."""
    found = Found()
    study = root / PROJECT / "studies" / "sweep"
    for task in tasks_in(study, plan.runs):
        _check_run(task, plan, found)
    return found


def _check_run(task: Task, plan: Plan, found: Found) -> None:
    run_dir = task.run_dir
    record = RunRecord(run_dir)
    numbers = layout.session_numbers(run_dir)
    found.sessions += len(numbers)

    def problem(text: str) -> None:
        found.problems.append(f"{task.name}: {text}")

    results = record.results
    if results is None:
        problem("no results")
        return
    found.accepted += 1
    if len(list(run_dir.glob("results*"))) != 1:
        problem(f"not one file of results: {list(run_dir.glob('results*'))}")
    accepted = results["accepted_session"]
    if accepted not in numbers:
        problem(f"the accepted session {accepted} is not there")
    elif (next_one := accepted + 1) in numbers:
        late = (run_dir / layout.RESULTS).stat().st_mtime - _claimed(run_dir, next_one)
        if late > RACE_S:
            problem(f"session {accepted} was accepted {late:.3f} s after it had a successor")
    for finding in check_run(run_dir).problems:
        problem(str(finding))
    seed = seed_of(task.name)
    expected = [(step, value(seed, step)) for step in range(1, STEPS + 1)]
    logged = [(row["_step"], row["loss"]) for row in record.history(["loss"])]
    if logged != expected or results["final"]["loss"] != expected[-1][1]:
        problem(f"its metrics are {logged}")
    for number, after in zip(numbers, [*numbers[1:], None], strict=True):
        told = read_attempt(run_dir, number)
        found.outcomes[told.outcome if told else "nobody judged it"] += 1
        info = SessionInfo.read(run_dir, number)
        if info.status == "finished" and number != accepted:
            found.refused += 1
        if after is not None:
            for text in _overlap(run_dir, number, after, plan.lease_s, found):
                problem(text)


def _overlap(run_dir: Path, number: int, after: int, lease_s: float, found: Found) -> Iterator[str]:
    """Two sessions at work at once, though the first had not been silent for its lease.

    One that logs when it has a successor was stopped: before the successor's claim it had written
    nothing for as long as its lease.
    """
    claimed = _claimed(run_dir, after)
    times = sorted(_times(run_dir, number))
    late = [when for when in times if when > claimed]
    if not late:
        return
    found.zombies += 1
    before = max((when for when in times if when <= claimed), default=None)
    if before is not None and claimed - before < lease_s - 0.05:
        yield (
            f"session {after} was claimed {claimed - before:.3f} s after a sign of session "
            f"{number}, which went on {late[0] - claimed:.3f} s later"
        )


def _claimed(run_dir: Path, number: int) -> float:
    """When a session was claimed: before any later one was. A claimer that is stopped between the
    folder and its lease says a later time."""
    return min(_said_claimed(run_dir, n) for n in layout.session_numbers(run_dir) if n >= number)


def _said_claimed(run_dir: Path, number: int) -> float:
    told = read_lease(run_dir, number).get("claimed")
    if isinstance(told, int | float):
        return told
    return layout.session_dir(run_dir, number).stat().st_mtime  # a kill came before it was written


def _times(run_dir: Path, number: int) -> Iterable[float]:
    """When a session wrote lines."""
    folder = layout.session_dir(run_dir, number)
    for kind in ("metrics", "events"):
        for path in layout.segments(folder, kind):
            for line in path.read_bytes().splitlines():
                try:
                    yield float(json.loads(line)["_t"])
                except (ValueError, KeyError):  # cut off by a kill
                    continue


def torment(root: Path, plan: Plan) -> tuple[Tormented, Found]:
    """Torment a sweep below an empty folder; what was done, and what was found."""
    done = Tormentor(root, plan).run()
    found = check(root, plan)
    until = time.monotonic() + 10
    while (left := left_behind(str(root))) and time.monotonic() < until:
        time.sleep(0.05)
    found.problems += [f"left behind: {one}" for one in left]
    found.problems += [f"not for the runs to blame: {one}" for one in done.failed]
    found.problems += done.broken
    return done, found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in asdict(Plan()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--keep", type=Path, help="an empty folder for it, which is kept")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=("warm", "cold"), help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        plan = Plan(**json.loads(given.plan))
        work(given.study, given.worker, plan, warm=given.mode == "warm")
        return
    plan = Plan(**{name: getattr(given, name) for name in asdict(Plan())})
    with tempfile.TemporaryDirectory(prefix="cupel-faults-") as folder:
        done, found = torment(given.keep or Path(folder), plan)
    told = {"plan": plan, "done": done, "found": found}
    print(json.dumps(msgspec.to_builtins(told), indent=2))
    sys.exit(bool(found.problems))


if __name__ == "__main__":
    main()
