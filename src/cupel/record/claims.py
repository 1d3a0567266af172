"""A claim: the next session of a run, taken now for a process that is yet to start.

Whoever hands out runs (`cupel.jobs`) takes the session by the same exclusive mkdir as everybody,
writes `lease.json` into it, and tells the training process its number and token. That process
adopts the session: from then on the heartbeat is its own. A claim that was overtaken, by a session
with a higher number, cannot be adopted any more; nor can one twice.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import RecordError, ResumeError, Superseded
from cupel.record import files, heartbeat, layout

LEASE = "lease.json"
ADOPTED = "adopted"  # an empty file: of processes that were told the same claim, one creates it
VARIABLE = "CUPEL_LEASE"  # `number:token`, in the environment of the process that is to adopt


@dataclass(frozen=True, slots=True)
class Claim:
    """A session taken by somebody for somebody: `token` proves that it is this one."""

    run_dir: Path
    number: int
    token: str

    def as_text(self) -> str:
        """What `from_text` reads."""
        return f"{self.number}:{self.token}"

    @classmethod
    def from_text(cls, run_dir: Path, text: str) -> Claim:
        """The claim that `as_text` gave. Raises ValueError."""
        number, _, token = text.partition(":")
        return cls(run_dir, int(number), token)

    @property
    def dir(self) -> Path:
        """The session's folder."""
        return layout.session_dir(self.run_dir, self.number)

    @property
    def heartbeat(self) -> Path:
        """The file whose age tells whether somebody still means it."""
        return self.dir / layout.heartbeat_name()

    def touch(self) -> None:
        """Show that it is still meant; nothing when its folder is gone."""
        try:
            os.utime(self.heartbeat)
        except OSError:
            return

    def adopted(self) -> bool:
        """Whether its process has begun to write."""
        return (self.dir / layout.SESSION).exists()

    def superseded(self) -> bool:
        """Whether somebody else has taken the run over since."""
        return layout.session_dir(self.run_dir, self.number + 1).exists()


def claim_session(run_dir: Path, number: int, facts: Mapping[str, Any]) -> Claim:
    """Take a session. Raises FileExistsError when somebody else has, and other OSErrors."""
    folder = layout.session_dir(run_dir, number)
    layout.refuse_link(run_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    claim = Claim(run_dir, number, secrets.token_hex(8))
    fields = {**facts, "schema": layout.SCHEMA, "token": claim.token, "claimed": time.time()}
    try:
        heartbeat.write_heartbeat(claim.heartbeat)
        files.write_json(folder / LEASE, fields, lasting=False)  # a power loss ends all claims
    except OSError:
        # Nobody will come to adopt it. It stays as a number that nobody else gets, without a
        # heartbeat, so that it soon counts as dead; removed, the number would be given twice.
        claim.heartbeat.unlink(missing_ok=True)
        raise
    return claim


def read_lease(run_dir: Path, number: int) -> dict[str, Any]:
    """What was written down when a session was claimed; empty when it was not, or is damaged."""
    try:
        return files.read_json(layout.session_dir(run_dir, number) / LEASE)
    except RecordError:
        return {}


def adopt_session(claim: Claim) -> Path:
    """Make a claimed session one's own; its heartbeat's path.

    Raises Superseded when somebody has taken the run over, ResumeError when the results are
    accepted already or the claim is not the one that was told, OSError.
    """
    told = f"session {claim.number:04d} of run {claim.run_dir.name}"
    if (claim.run_dir / layout.RESULTS).exists():
        raise ResumeError(f"{told}: the run is finished and its results are accepted")
    if read_lease(claim.run_dir, claim.number).get("token") != claim.token:
        raise ResumeError(f"{told} is claimed by somebody else; let it work")
    if claim.superseded():
        raise Superseded(f"{told} has a successor: its lease was over before it began")
    try:
        os.close(os.open(claim.dir / ADOPTED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError as error:
        raise ResumeError(f"{told} has begun already; let it work") from error
    heartbeat.write_heartbeat(claim.heartbeat)
    return claim.heartbeat


def is_claim(session: Path) -> bool:
    """Whether a session's folder holds a claim only: nothing of a run has begun in it.

    Nor has in one that whoever made it was killed in before it wrote anything.
    """
    if (session / layout.ENVIRONMENT).exists():
        return False
    return (session / LEASE).exists() or not (session / layout.SESSION).exists()


def is_unadopted(session: Path) -> bool:
    """Whether a session was claimed, and ended before any process adopted it: its end was told by
    whoever had claimed it, and names no process."""
    if not (session / LEASE).exists():
        return False
    try:
        return "pid" not in files.read_json(session / layout.SESSION)
    except RecordError:
        return False


def has_begun(run_dir: Path, *, before: int) -> bool:
    """Whether one of the sessions before this number was more than a claim."""
    numbers = [number for number in layout.session_numbers(run_dir) if number < before]
    return any(not is_claim(layout.session_dir(run_dir, number)) for number in numbers)
