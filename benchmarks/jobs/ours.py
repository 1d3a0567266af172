"""cupel's part of the comparison: a worker with two slots and a queue of small runs.

    python ours.py warm|cold FOLDER JOBS SECONDS        prints JSON

All of it counts: the worker's and the zygote's start, claims, guards, full records with sessions
and accepted results, judgements.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cupel.jobs.backend import Job
from cupel.jobs.local import LocalBackend
from cupel.jobs.queue import Claimed, Queue, Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.warm import Warm
from cupel.jobs.worker import Worker
from cupel.record import layout
from cupel.record.claims import VARIABLE

SLOTS = 2


def main(mode: str, root: Path, jobs: int, seconds: str) -> None:
    study = root / "bench" / "studies" / "sleep"
    study.mkdir(parents=True)
    names = [f"sleep-{number:04d}" for number in range(jobs)]
    tasks = [Task(name, root / "bench" / name) for name in names]

    def make_job(claimed: Claimed, _: object) -> Job:
        run_dir = claimed.task.run_dir
        command = (sys.executable, "-m", "sleeping", str(run_dir), seconds)
        told = {VARIABLE: claimed.claim.as_text()}
        return Job(run_dir.name, command, study / "logs" / f"{run_dir.name}.log", told)

    warm = Warm(("sleeping",)) if mode == "warm" else None
    with Stopping() as stop, LocalBackend(warm) as backend:
        worker = Worker(Queue(study, tasks, "bench"), backend, make_job, SLOTS, stop)
        for _ in worker.changes():
            pass
    done = sum((task.run_dir / layout.RESULTS).exists() for task in tasks)
    print(json.dumps({"done": done}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
