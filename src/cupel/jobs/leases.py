"""Whether a session still counts as somebody's: its lease, judged by the file system's own clock.

A process of this machine that has died is seen at once. Elsewhere, and of a process that stands
still, only the age of its files tells, and both must be old: the heartbeat (life) and the lines
(progress). Their times are those of the disk they lie on, so they are compared with a file that is
touched there, and no two hosts' clocks need to agree. Nothing here asks this machine for the time,
unless the disk cannot be asked.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cupel.errors import RecordError
from cupel.jobs.attempts import ATTEMPT
from cupel.record import files, layout, processes
from cupel.record.claims import read_lease
from cupel.record.reader import SessionInfo

LEASE_S = 60.0
JUDGING_S = 30.0  # for a supervisor to say how a process ended that has
_PROBE_S = 0.2  # between two touches
_AHEAD_S = 1.0  # times of files are told in ticks of some milliseconds
_NEVER = -math.inf

Hold = Literal["ended", "dead", "expired", "held"]


@dataclass(slots=True)
class DiskClock:
    """What time it is on a disk: the modification time of a file that was touched just now.

    Where the file cannot be touched, the time of this machine.
    """

    probe: Path
    _asked: float = _NEVER
    _told: float = field(default=0.0)

    def now(self) -> float:
        """Unix seconds, at most a fifth of a second old."""
        passed = time.monotonic() - self._asked
        return self._told + passed if 0 <= passed < _PROBE_S else self.anew()

    def anew(self) -> float:
        """Unix seconds, asked of the disk now."""
        asked = time.monotonic()
        try:
            if self._asked == _NEVER:
                self.probe.parent.mkdir(exist_ok=True)
            fd = os.open(self.probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.utime(fd)
                self._told = os.fstat(fd).st_mtime
            finally:
                os.close(fd)
        except OSError:
            return time.time()
        self._asked = asked
        return self._told


def hold_of(run_dir: Path, number: int, *, clock: DiskClock, lease_s: float = LEASE_S) -> Hold:
    """How a session stands: ended and told so, dead, silent for longer than its lease, or held.

    What is expired may be a process that was stopped, or one cut off by its network: it may come
    back, and finds its session overtaken then. A session whose process has just ended is held
    until whoever supervised it has judged that, if he lives.
    """
    folder = layout.session_dir(run_dir, number)
    if (folder / ATTEMPT).exists():
        return "ended"
    # In this order: whoever reads the heartbeat sees the times of a network disk as they are, and
    # whoever is stopped in between sees less silence than there is, not more.
    ended = _has_ended(run_dir, number)
    dead = _has_died(folder / layout.heartbeat_name())
    silent = _silence(folder, clock)
    if ended or dead:
        lease = read_lease(run_dir, number)
        if lease and silent <= min(lease_s, JUDGING_S) and not is_gone(lease.get("supervisor")):
            return "held"
        return "ended" if ended else "dead"
    return "held" if silent <= lease_s else "expired"


def _silence(session: Path, clock: DiskClock) -> float:
    now = clock.now()
    last = last_sign(session)
    if last > now + _AHEAD_S:  # we stood still in between; or the disk's clock was set back
        now = clock.anew()
    return abs(now - last)


def _has_died(beat: Path) -> bool:
    """Whether the process that a heartbeat names has ended, for sure. Of one that is not there, or
    is no heartbeat, only its age tells."""
    try:
        return is_gone(files.read_json(beat), unnamed=False)
    except RecordError:
        return False


def is_gone(named: object, *, unnamed: bool = True) -> bool:
    """Whether a process has ended, for sure; `unnamed` where nothing names a process."""
    try:
        assert isinstance(named, dict)
        process = processes.Process.from_json(named)
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError):
        return unnamed
    here = processes.this_place()
    if not here.shares_pids_with(process.place):
        return False
    if here.boot_id != process.place.boot_id:
        return True
    return not (processes.lives(process.pid, process.start) or processes.is_hidden(process.pid))


def _has_ended(run_dir: Path, number: int) -> bool:
    path = layout.session_dir(run_dir, number) / layout.SESSION
    return path.exists() and SessionInfo.read(run_dir, number).status in (
        "finished",
        "failed",
        "interrupted",
    )


def last_sign(session: Path) -> float:
    """When a session last wrote anything or showed that it lives, by the disk's clock."""
    wanted = (layout.heartbeat_name(), layout.SESSION)
    there = [session / name for name in wanted] + layout.segments(session, "metrics")[-1:]
    return max((_changed(path) for path in (*there, session)), default=0.0)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def end_unbegun(run_dir: Path, number: int, *, status: str, error: str, started: float) -> None:
    """Say how a session ended that was claimed and never adopted. Raises OSError."""
    path = layout.session_dir(run_dir, number) / layout.SESSION
    if not path.exists():
        fields = {
            "schema": layout.SCHEMA,
            "number": number,
            "status": status,
            "started": started,
            "ended": time.time(),
            "start_step": None,
            "error": error,
            "superseded": False,
            "lost": 0,
            "problems": {},
        }
        files.create_json_exclusively(path, fields)
