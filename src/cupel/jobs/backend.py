"""What runs jobs: the protocol `Backend`, and `Job`, which is all that a backend is told.

A backend starts, asks, signals and ends. It does not know what a job is for, starts nothing twice
and decides nothing: whether a job is done is read from the run's record. `cupel.jobs.local` is the
one for this machine, `cupel.jobs.slurm` and `cupel.jobs.ray` those for clusters; a test for one of
your own is `cupel.testing.backend.BackendContract`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job is given: CPU cores, GPUs (a part of one counts as it is), memory, time.

    None leaves it to whoever places the job.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mb: int | None = None
    gpu_memory_mb: int | None = None
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One process to be: a free name, its command, variables besides ours, its log file, and what
    it is given. What it prints, both streams, is appended to the log."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class Handle:
    """One start of a job; `id` means something to the backend that gave it, and to nobody else.

    Made anew from name, log and id it means the same job, also to another process.
    """

    job: Job
    id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: its exit code, negative for a signal, and what the backend knows besides.

    `state` is the scheduler's word for it (`TIMEOUT`, `PREEMPTED`, `OUT_OF_MEMORY`, `NODE_FAIL`,
    `CANCELLED`), empty where there is none; `oom_kills` counts processes of it that the kernel
    killed for lack of memory. Seconds are those of all its processes.
    """

    code: int
    state: str = ""
    oom_kills: int = 0
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None


State = Literal["pending", "running", "ended", "unknown"]


@dataclass(frozen=True, slots=True)
class Report:
    """How a job stands. `ended` is there when the state is "ended"; `detail` is the backend's own
    words, for people. Unknown is no end: a scheduler that does not answer has lost no job."""

    state: State
    ended: Ended | None = None
    detail: str = ""


class Backend(Protocol):
    """Starts jobs and tells of them."""

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        """Start jobs, or queue them. Raises RecordError when a log cannot be written, JobsError
        when the scheduler refuses; then none of them was started."""

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        """How each job stands, in the order asked. Never raises for a scheduler that is silent."""

    def cancel(self, handles: Sequence[Handle]) -> None:
        """End jobs and all that they started: SIGTERM, and SIGKILL when it does not help. What
        has not begun does not begin; what has ended stays as it ended."""

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        """Send a signal to jobs (SIGKILL: to all that they started, too); none to ended ones."""

    def logs(self, handle: Handle, *, lines: int = 20) -> str:
        """The end of what the job printed, over all of its starts; empty when nothing."""
