"""A study's runs as tasks of a queue: `tasks_of(manifest)` and `queue_of(manifest)`."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable

from cupel.jobs.backend import Resources
from cupel.jobs.queue import Queue, Task
from cupel.studies.manifest import Manifest, PlannedRun


def tasks_of(manifest: Manifest, runs: Iterable[PlannedRun] | None = None) -> list[Task]:
    """The tasks of a study's runs, or of some of them, in the order of the plan."""
    resources = resources_of(manifest)
    project, begin = manifest.root / manifest.project, manifest.not_before or 0.0
    return [
        Task(
            run.run_id,
            project / run.run_id,
            kin=f"{run.arm} {run.point}",
            priority=run.priority,
            not_before=begin,
            resources=resources,
        )
        for run in (manifest.runs if runs is None else runs)
    ]


def resources_of(manifest: Manifest) -> Resources:
    """What a run of a study is planned with."""
    given = manifest.study.resources
    return Resources(
        cpus=given.cpus,
        gpus=given.gpus,
        memory_mb=given.memory_mb,
        gpu_memory_mb=given.gpu_memory_mb,
        time_s=None if given.time_min is None else 60 * given.time_min,
    )


def queue_of(
    manifest: Manifest, runs: Iterable[PlannedRun] | None = None, *, worker: str | None = None
) -> Queue:
    """The queue of a study, as this process sees it. `worker` is what it calls itself."""
    return Queue(
        manifest.folder,
        tasks_of(manifest, runs),
        worker=worker or worker_name(),
        host=socket.gethostname(),
        lease_s=manifest.study.lease_s,
        guarded=True,
        split_of=lambda task: split_of(manifest, task.name),
    )


def split_of(manifest: Manifest, run_id: str) -> tuple[int, int | None]:
    """In how many micro-batches a run's steps are taken, and how many examples a step has."""
    config = manifest.config_of(manifest.run(run_id))
    accumulate, data = config.get("train", {}).get("accumulate", 1), config.get("data")
    batch = data.get("batch") if isinstance(data, dict) else config.get("batch")
    return accumulate, batch if isinstance(batch, int) else None


def worker_name() -> str:
    """What this process calls itself among the workers of a study."""
    # Containers have one host name and count their pids alike.
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
