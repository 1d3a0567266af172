"""Which session a call of `init` opens: a new run's first, an old run's next, or a rank of one.

Nothing is written before everything given has been checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.api import rendezvous
from cupel.api.arguments import Recording
from cupel.errors import RecordError, ResumeError, UsageError
from cupel.record import layout
from cupel.record.layout import find_run
from cupel.record.reader import RunRecord, find_to_resume, newest_lines
from cupel.record.session import Session


@dataclass(frozen=True, slots=True)
class Asked:
    """What `init` was asked for, checked."""

    root: Path
    project: str
    name: str
    config: dict[str, Any]
    tags: list[str]
    notes: str
    group: str | None
    id: str | None
    resume: str
    recording: Recording
    details: dict[str, Any]

    @property
    def identity(self) -> str:
        """The hash of what makes two runs the same: name and config."""
        canonical = json.dumps([self.name, self.config], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session; `goes_on_after` is the step that wandb's words for resuming go on after."""

    session: Session
    goes_on_after: int | None = None


def joined(asked: Asked, *, rank: int) -> Opened | None:
    """A rank of the session that a parent told of, or rank 0; None when there is none to join.

    Raises UsageError when rank 0 opens none.
    """
    told = rendezvous.told_session(asked.root / asked.project, asked.identity)
    if told is not None:
        return Opened(_further_rank(asked, *told, rank=rank or None))
    if rank == 0:
        return None
    told = rendezvous.rank_zeros_session(asked.root, asked.project)
    return Opened(_further_rank(asked, *told, rank=rank))


def opened(asked: Asked) -> Opened:
    """A new run, or the next session of the one that was asked for.

    Raises ResumeError, RecordError and UsageError.
    """
    previous, goes_on = _previous(asked)
    how = asked.recording
    if previous is not None:
        step = _last_step(previous) if goes_on else None
        session = Session.resume(
            previous,
            strict=how.strict,
            durability=how.durability,
            console=how.console,
            system_every=how.system_every,
        )
        return Opened(session, step)
    return Opened(
        Session.start(
            root=asked.root,
            project=asked.project,
            name=asked.name,
            config=asked.config,
            identity=asked.identity,
            tags=asked.tags,
            notes=asked.notes,
            group=asked.group,
            details=asked.details,
            run_id=asked.id,
            strict=how.strict,
            durability=how.durability,
            console=how.console,
            system_every=how.system_every,
        )
    )


def _further_rank(asked: Asked, run_dir: Path, number: int, *, rank: int | None) -> Session:
    """Join as this rank, or as the first one that is free."""
    how = asked.recording
    taken = rendezvous.free_rank(asked.root, run_dir.name, number) if rank is None else rank
    return Session.join(
        run_dir,
        number,
        taken,
        strict=how.strict,
        durability=how.durability,
        console=how.console,
        system_every=how.system_every,
    )


def _previous(asked: Asked) -> tuple[Path | None, bool]:
    """The folder of the run to go on with, and whether lines go on after its last one.

    cupel's own words start over from a checkpoint, or from the script's first line; wandb's "must"
    and "allow" go on after what there is, whatever the config now says.
    """
    if asked.resume in ("must", "allow"):
        if asked.id is None:
            if asked.resume == "must":
                raise UsageError('resume="must" needs the id of the run; type id="…"')
            return None, False
        folder = asked.root / asked.project / asked.id
        if (folder / layout.RUN).is_file():
            return folder, True
        if asked.resume == "must":
            raise ResumeError(
                f"there is no run {asked.id} in {folder.parent} to resume; check project, id and "
                'root, or give resume="allow"'
            )
        return None, False
    if asked.resume == "never":
        return None, False
    if asked.resume == "auto":
        found = find_to_resume(asked.root, asked.project, asked.identity)
        return (None if found is None else found.run_dir), False
    return _named(asked), False


def _named(asked: Asked) -> Path:
    record = RunRecord(find_run(asked.root, asked.resume))
    if record.problem:
        raise RecordError(record.problem)
    if record.identity != asked.identity or record.run_dir.parent.name != asked.project:
        raise ResumeError(
            f"run {record.run_id} was started with other settings ({_changes(record, asked)}); "
            'give it the same ones, or start a new run with resume="never"'
        )
    return record.run_dir


def _changes(record: RunRecord, asked: Asked) -> str:
    from cupel.config import differences

    before = {"project": record.run_dir.parent.name, "name": record.run.get("name")}
    changed = differences(
        {**before, "config": record.config},
        {"project": asked.project, "name": asked.name, "config": asked.config},
    )
    return "; ".join(changed[:4]) + ("; …" if len(changed) > 4 else "")


def _last_step(run_dir: Path) -> int:
    """The highest of the last steps of all sessions; -1 when nothing was logged."""
    steps = (
        line.get("_step")
        for session in RunRecord(run_dir).sessions
        for line in newest_lines(session)
    )
    return max((step for step in steps if isinstance(step, int)), default=-1)


def merged(
    recorded: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of a resumed run, and what of it is new to the record."""
    changes = {k: v for k, v in given.items() if k not in recorded or recorded[k] != v}
    return {**recorded, **changes}, changes
