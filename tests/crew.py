"""Workers on runs of toys: a plan of runs in a folder, and processes that work through it.

    python -m crew ROOT [NAME=VALUE]...

works through `ROOT/plan.json` and prints each change as a JSON line. The names are fields of
`Shift`. What a training process does is told in `jobs/toy.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cupel.jobs import policy
from cupel.jobs.attempts import Attempt, read_attempt
from cupel.jobs.backend import Job
from cupel.jobs.local import LocalBackend
from cupel.jobs.queue import Claimed, Queue, Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.warm import Warm
from cupel.jobs.worker import Change, Worker
from cupel.record import files, layout
from cupel.record.claims import VARIABLE
from cupel.record.verifying import check_run

TOYS = str(Path(__file__).parent / "jobs")
PLAN = "plan.json"
JUMP = "jump"  # once there is such a file, a worker with `jump_s` has another time


@dataclass(frozen=True, slots=True)
class Run:
    """A run to be: its name, and how its sessions end (`jobs/toy.py`)."""

    name: str
    endings: str = "finishes"
    priority: int = 100
    kin: str = ""
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Shift:
    """How a worker works. `hurry` divides the waits of the failure policy; `jump_s` is by how much
    its clock is wrong."""

    worker: str = ""
    slots: int = 1
    lease_s: float = 60.0
    hung_s: float = 600.0
    grace_s: float = 5.0
    hurry: float = 100.0
    most: int | None = None
    waits: bool = True
    only: Sequence[str] | None = None
    jump_s: float = 0.0
    warm: bool = False


def plan(root: Path, *runs: Run) -> None:
    """Write down which runs there are to be."""
    study(root).mkdir(parents=True, exist_ok=True)
    files.write_json(root / PLAN, {"runs": [asdict(run) for run in runs]})


def planned(root: Path) -> list[Run]:
    """The runs of the plan."""
    return [Run(**fields) for fields in files.read_json(root / PLAN)["runs"]]


def study(root: Path) -> Path:
    """The folder of the study."""
    return root / "p" / "studies" / "s"


def run_dir(root: Path, name: str) -> Path:
    """The folder of a run."""
    return root / "p" / name


def log_of(root: Path, name: str) -> Path:
    """What a run's processes have printed."""
    return study(root) / "logs" / f"{name}.log"


def tasks_of(root: Path) -> list[Task]:
    """The runs of the plan, as a queue has them."""
    return [
        Task(run.name, run_dir(root, run.name), run.kin, run.priority, run.not_before)
        for run in planned(root)
    ]


def queue_of(root: Path, worker: str = "", *, lease_s: float = 60.0) -> Queue:
    """The queue of the plan, as one worker sees it."""
    name = worker or f"{socket.gethostname()}-{os.getpid()}"
    return Queue(study(root), tasks_of(root), name, host=socket.gethostname(), lease_s=lease_s)


def worker_of(root: Path, stop: Stopping, shift: Shift | None = None) -> Worker:
    """A worker on the plan."""
    shift = shift or Shift()
    endings = {run.name: run.endings for run in planned(root)}
    path = os.pathsep.join(filter(None, [TOYS, os.environ.get("PYTHONPATH")]))

    def make_job(claimed: Claimed, placed: Mapping[str, str]) -> Job:
        name = claimed.task.name
        command = (sys.executable, "-m", "toy", str(claimed.task.run_dir), endings[name])
        told = {VARIABLE: claimed.claim.as_text(), "PYTHONPATH": path, **placed}
        return Job(name, command, log_of(root, name), told)

    return Worker(
        queue_of(root, shift.worker, lease_s=shift.lease_s),
        LocalBackend(_preloaded(path) if shift.warm else None, grace_s=shift.grace_s),
        make_job,
        shift.slots,
        stop,
        only=None if shift.only is None else frozenset(shift.only),
        most=shift.most,
        waits=shift.waits,
        hung_s=shift.hung_s,
    )


def _preloaded(path: str) -> Warm:
    """All that a toy imports."""
    modules = ("cupel.record.session", "cupel.jobs.progress", "cupel.record.environment")
    return Warm(modules, {"PYTHONPATH": path})


@contextlib.contextmanager
def hurried(by: float) -> Iterator[None]:
    """A context in which the failure policy waits that many times shorter."""
    before = dict(policy.TABLE)
    assert isinstance(policy.TABLE, dict)
    try:
        for name, row in before.items():
            policy.TABLE[name] = replace(row, backoff_s=row.backoff_s / by)
        yield
    finally:
        policy.TABLE.update(before)


def worked(
    root: Path,
    shift: Shift | None = None,
    *,
    between: Callable[[list[Change], Stopping], object] = lambda changes, stop: None,
    limit_s: float = 60.0,
) -> list[Change]:
    """Everything that happened when one worker worked through the plan in this process.

    `between` is called several times a second with what has happened so far.
    """
    shift = shift or Shift()
    until, changes = time.monotonic() + limit_s, list[Change]()
    stop = Stopping()
    with hurried(shift.hurry):
        for change in worker_of(root, stop, shift).changes():
            assert time.monotonic() < until, changes
            if change is None:
                between(changes, stop)
            else:
                changes.append(change)
    return changes


class Process:
    """A worker in a process of its own, which a test may stop, kill and ask."""

    def __init__(self, root: Path, *before: str, **shift: Any) -> None:
        given = [f"{name}={json.dumps(value)}" for name, value in shift.items()]
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "crew", str(root), *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, limit_s: float = 60.0) -> list[Change]:
        """Wait for its end; what it told. It must have ended in order."""
        told, said = self.process.communicate(timeout=limit_s)
        assert self.process.returncode == 0, (self.process.returncode, said)
        return [Change(**json.loads(line)) for line in told.splitlines()]

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def at_work(root: Path, *before: str, **shift: Any) -> Iterator[Process]:
    """A context with a worker in a process of its own, which is dead when it ends."""
    process = Process(root, *before, **shift)
    try:
        yield process
    finally:
        process.kill()


def wait_until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for something to be so."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def attempts(root: Path, name: str) -> list[Attempt | None]:
    """What was judged of each session of a run."""
    folder = run_dir(root, name)
    return [read_attempt(folder, number) for number in layout.session_numbers(folder)]


def outcomes(root: Path, name: str) -> list[str | None]:
    """How each session of a run was judged; None of one that nobody has judged."""
    return [one and one.outcome for one in attempts(root, name)]


def toy_log(root: Path) -> list[tuple[str, str, int, int]]:
    """What the toys told, in order: begin or end, run, session, pid."""
    path = root / "p" / "toy-log"
    lines = path.read_text().splitlines() if path.exists() else []
    parts = [line.split() for line in lines]
    return [(what, name, int(number), int(pid)) for what, name, number, pid in parts]


def begun(root: Path, name: str) -> list[int]:
    """The numbers of the sessions of a run that have begun, and logged a step since."""
    numbers = [number for what, run, number, _ in toy_log(root) if (what, run) == ("begin", name)]
    return [
        number
        for number in numbers
        if any(
            path.stat().st_size
            for path in layout.segments(layout.session_dir(run_dir(root, name), number), "metrics")
        )
    ]


def pid_of(root: Path, name: str) -> int:
    """The process of a run's newest session that has begun."""
    return [pid for what, run, _, pid in toy_log(root) if (what, run) == ("begin", name)][-1]


def assert_whole(root: Path, *names: str) -> None:
    """Each run is accepted once, and its record keeps all that it promises."""
    for name in names or [run.name for run in planned(root)]:
        folder = run_dir(root, name)
        found = check_run(folder)
        assert found.sound, [str(problem) for problem in found.problems]
        accepted = files.read_json(folder / layout.RESULTS)["accepted_session"]
        ended = [number for what, run, number, _ in toy_log(root) if (what, run) == ("end", name)]
        assert accepted in ended, (name, accepted, ended)


def main(root: Path, given: Mapping[str, Any]) -> None:
    """Be a worker."""
    shift = Shift(**given)
    right = time.time
    if shift.jump_s:
        time.time = lambda: right() + (shift.jump_s if (root / JUMP).exists() else 0.0)
    with Stopping(leaving=True) as stop, hurried(shift.hurry):
        for change in worker_of(root, stop, shift).changes():
            if change is not None:
                print(json.dumps(asdict(change)), flush=True)


if __name__ == "__main__":
    pairs = (text.split("=", 1) for text in sys.argv[2:])
    main(Path(sys.argv[1]), {name: json.loads(value) for name, value in pairs})
