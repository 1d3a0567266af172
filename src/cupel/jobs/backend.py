"""What runs jobs: the protocol `Backend`, and `Job`, which is all that a backend is told.

A backend starts, asks and signals. It does not know what a job is for, starts nothing twice and
decides nothing: whether a job is done is read from the run's record, by `cupel.jobs.supervisor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Job:
    """One process to be: a free name, its command, variables besides ours, and its log file."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handle:
    """One start of a job; `id` means something to the backend that gave it, and to nobody else."""

    job: Job
    id: str


class Backend(Protocol):
    """Starts jobs and tells of them; `cupel.jobs.local` is the one for this machine."""

    def submit(self, job: Job) -> Handle:
        """Start a job. Raises RecordError when its log cannot be written, OSError otherwise."""

    def poll(self, handle: Handle) -> int | None:
        """Its exit code, negative for a signal; None while it runs or nothing is known of it."""

    def signal(self, handle: Handle, number: Signals) -> None:
        """Send a signal to it (SIGKILL: to all that it started, too); none when it has ended."""

    def logs(self, job: Job, *, lines: int = 20) -> str:
        """The end of what it printed, over all of its starts."""
