"""`--backend slurm` and `--backend ray`: a study's runs as jobs of a cluster.

Each job is `cupel jobs work STUDY --placed --run RUN`: a worker that may take the runs it names, on
whatever node. A run that needs more memory than the job was given, or another host, is left to a
new job. The record root, and the Python that starts this, must be seen by all nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cupel.jobs.backend import Backend, Job, Resources
    from cupel.jobs.placer import Placer
    from cupel.jobs.queue import Task
    from cupel.jobs.slurm_script import SlurmSettings
    from cupel.jobs.stopping import Stopping
    from cupel.studies.manifest import Manifest, PlannedRun

BACKENDS = ("local", "slurm", "ray")
_OF_SLURM = ("account", "partition", "gres", "throttle", "container", "sbatch")

BackendName = Annotated[
    str, typer.Option("--backend", metavar="local|slurm|ray", help="Where runs are trained.")
]
Pack = Annotated[
    int, typer.Option("--pack", min=1, help="Cluster: runs a job takes, one after another.")
]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray: HOST:PORT of the head; else RAY_ADDRESS.")
]
Account = Annotated[str | None, typer.Option("--account", help="Slurm: what is charged.")]
Partition = Annotated[str | None, typer.Option("--partition", help="Slurm: the partition.")]
Gres = Annotated[str | None, typer.Option("--gres", help="Slurm: devices, as gpu:a100:1.")]
Throttle = Annotated[
    int | None, typer.Option("--throttle", min=1, help="Slurm: tasks of the array at a time.")
]
Container = Annotated[
    str | None,
    typer.Option("--container", help="Slurm: a command before each, as 'apptainer exec x.sif'."),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="LINE", help="Slurm: one more option, as --nice=100."),
]


@dataclass(frozen=True, slots=True)
class Place:
    """What was typed about where runs are trained."""

    backend: str = "local"
    pack: int = 1
    address: str | None = None
    account: str | None = None
    partition: str | None = None
    gres: str | None = None
    throttle: int | None = None
    container: str | None = None
    sbatch: tuple[str, ...] = ()


def check_place(place: Place, *, workers: int | None = None, warm: bool = False) -> None:
    """Raises UsageError for what does not go together, or that Slurm cannot be given."""
    from cupel.errors import UnknownName, UsageError

    if place.backend not in BACKENDS:
        raise UnknownName("backend", place.backend, BACKENDS)
    given = [f"--{name}" for name in _OF_SLURM if getattr(place, name)]
    if given and place.backend != "slurm":
        raise UsageError(f"{', '.join(given)}: only Slurm has these; add --backend slurm")
    if place.address and place.backend != "ray":
        raise UsageError("--address: only Ray has one; add --backend ray")
    if place.pack > 1 and place.backend == "local":
        raise UsageError("--pack is for clusters; here, --workers says how many run at a time")
    if place.backend == "local":
        return
    if warm:
        raise UsageError("--warm is for this machine; a job of a cluster loads PyTorch by itself")
    if workers is not None:
        throttle = "; --throttle limits an array" if place.backend == "slurm" else ""
        raise UsageError(
            f"--workers is for this machine; a cluster begins what it has room for{throttle}"
        )
    if place.backend == "slurm":
        _slurm_settings(place, Path())


def backend_of(manifest: Manifest, place: Place) -> Backend:
    """The backend that was asked for. Raises JobsError or MissingDependency."""
    folder = (manifest.folder / "jobs").absolute()
    if place.backend == "slurm":
        from cupel.jobs.slurm import SlurmBackend

        return SlurmBackend(_slurm_settings(place, folder))
    from cupel.jobs.ray import RayBackend

    return RayBackend(place.address)


def _slurm_settings(place: Place, folder: Path) -> SlurmSettings:
    from cupel.jobs.slurm_script import SlurmSettings

    return SlurmSettings(
        folder=folder,
        account=place.account,
        partition=place.partition,
        gres=place.gres,
        throttle=place.throttle,
        container=place.container,
        extra=place.sbatch,
    )


def typed_place(place: Place) -> list[str]:
    """The options that say it again."""
    told = [("backend", place.backend if place.backend != "local" else None)]
    told += [("pack", str(place.pack) if place.pack > 1 else None)]
    told += [(name, getattr(place, name)) for name in ("address", *_OF_SLURM) if name != "sbatch"]
    told += [("sbatch", line) for line in place.sbatch]
    return [f"--{name}={value}" for name, value in told if value]


def placer_of(
    manifest: Manifest, place: Place, stop: Stopping, *, runs: Sequence[PlannedRun]
) -> Placer:
    """What puts a study's runs onto a cluster, and watches them."""
    from cupel.jobs.placer import Placer, submissions
    from cupel.studies.tasks import queue_of

    count = len(submissions(manifest.folder))

    def make_worker(tasks: Sequence[Task], resources: Resources) -> Job:
        nonlocal count
        count += 1
        return worker_job(manifest, tasks, resources, number=count)

    return Placer(
        queue_of(manifest, runs),
        backend_of(manifest, place),
        place.backend,
        make_worker,
        stop,
        pack=place.pack,
        survives=place.backend == "slurm",
    )


def worker_job(
    manifest: Manifest, tasks: Sequence[Task], resources: Resources, *, number: int
) -> Job:
    """A job of the cluster: a worker for these runs, with a log of its own."""
    from cupel.jobs.backend import Job

    folder = manifest.folder.absolute()
    runs = [part for task in tasks for part in ("--run", task.name)]
    work = ("jobs", "work", str(folder), "--workers", "1", "--placed")
    command = (sys.executable, "-m", "cupel", *work, *runs)
    log = folder / "jobs" / f"{number:05d}.log"
    told = {"OMP_WAIT_POLICY": "PASSIVE"}
    return Job(f"{manifest.name}-{number:05d}", command, log, told, resources)


def shown_script(manifest: Manifest, place: Place, runs: Sequence[PlannedRun] | None = None) -> str:
    """What would be given to Slurm for the runs that are not accepted, all or some of them;
    nothing is submitted or written. Raises UsageError when there are none."""
    from cupel.errors import UsageError
    from cupel.jobs.slurm import SlurmBackend
    from cupel.record import layout
    from cupel.studies.tasks import tasks_of

    backend = backend_of(manifest, place)
    assert isinstance(backend, SlurmBackend), place
    tasks = [
        task for task in tasks_of(manifest, runs) if not (task.run_dir / layout.RESULTS).exists()
    ]
    if not tasks:
        raise UsageError("every run is accepted; nothing would be submitted")
    packs = [tasks[n : n + place.pack] for n in range(0, len(tasks), place.pack)]
    jobs = [
        worker_job(manifest, pack, pack[0].resources, number=number)
        for number, pack in enumerate(packs, 1)
    ]
    return backend.dry_run(jobs)
