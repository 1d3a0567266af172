"""An attempt: one session of a queued run, with how it ended and why; `attempts_of(run_dir)`.

Whoever supervises a session writes `attempt.json` into its folder when its process has ended, once.
A session without one whose process is gone was lost together with its supervisor. Nothing here
decides what comes next; that is `cupel.jobs.policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from cupel.errors import RecordError
from cupel.record import files, layout
from cupel.record.claims import is_claim, read_lease

ATTEMPT = "attempt.json"
FAILURE = "failure.json"  # written by the process itself, just before it dies of an exception
SCHEMA = 1

FailureClass = Literal[
    "configuration",  # refused before the first step; wrong settings, missing data, a usage error
    "import",  # a module that is not there or does not import
    "cuda_oom",
    "host_oom",
    "timeout",
    "preempted",
    "diverged",
    "hung",
    "node",  # driver, device, NCCL, full disk: the host's fault
    "killed",  # by a signal that nobody of ours sent
    "lost",  # lease expired, and nobody knows why
    "cancelled",
    "unknown",
]
Outcome = Literal["finished", "interrupted"] | FailureClass
CLASSES: tuple[str, ...] = get_args(FailureClass)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process ended: the class, a line for people, and what alike failures share.

    The signature holds no numbers, paths, ids or addresses that differ between alike failures.
    """

    kind: FailureClass
    detail: str
    signature: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended session of a run. `begun` says whether it logged a step of its own; steps are those
    of the run; `changes` are settings that it ran with otherwise than planned. `orphaned`: it was
    lost together with whoever supervised it, who is known to have died."""

    session: int
    outcome: str  # an Outcome; a newer cupel may know more of them
    detail: str = ""
    signature: str = ""
    begun: bool = False
    first_step: int = 0
    last_step: int = 0
    started: float = 0.0
    ended: float = 0.0
    host: str = ""
    device: str = ""
    worker: str = ""
    code: int | None = None
    state: str = ""
    cpu_s: float | None = None
    peak_mb: float | None = None
    alone: bool = False
    orphaned: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def progressed(self) -> bool:
        """Whether it came further than where it began."""
        return self.last_step > self.first_step


def write_attempt(run_dir: Path, attempt: Attempt) -> bool:
    """Write how a session ended, once; whether it was this call that did. Raises OSError."""
    path = layout.session_dir(run_dir, attempt.session) / ATTEMPT
    fields = {"schema": SCHEMA, **asdict(attempt)}
    del fields["orphaned"]  # whoever writes this lives
    # Of accepted results the session tells the same: not worth a wait for the disk.
    return files.create_json_exclusively(path, fields, lasting=attempt.outcome != "finished")


def read_attempt(run_dir: Path, number: int) -> Attempt | None:
    """How a session ended, as its supervisor told; None when it told nothing."""
    path = layout.session_dir(run_dir, number) / ATTEMPT
    try:
        found = files.read_json(path)
        known = {one.name: found[one.name] for one in fields(Attempt) if one.name in found}
        return Attempt(**known)
    except (RecordError, TypeError):
        return None


def changes_in(run_dir: Path, number: int, told: Attempt | None) -> Mapping[str, Any]:
    """Settings that a session ran with otherwise than planned: as its supervisor told, else, where
    that was killed before it could tell, as the session was claimed with."""
    if told is None and is_claim(layout.session_dir(run_dir, number)):
        return {}  # nothing ran
    found = told.changes if told is not None else read_lease(run_dir, number).get("changes")
    return found if isinstance(found, Mapping) else {}
