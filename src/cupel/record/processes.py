"""Who a process is, so that another can tell later whether it still lives.

A pid alone says nothing: pids are used again, machines restart, containers count their own. So a
process is its pid, its start time, and the place where that pid means something: host, boot and
pid namespace. Linux is read from /proc; elsewhere psutil gives the start time and the boot.
"""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pid means something: one host, one boot of it, one namespace of pids."""

    host: str
    boot_id: str
    pid_namespace: str

    def token(self) -> str:
        """Eight hexadecimal digits for use in the names of temporary files."""
        text = "\n".join((self.host, self.boot_id, self.pid_namespace))
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Process:
    """One process: `start` is its start time in the units of its system, only ever compared."""

    pid: int
    start: str
    place: Place

    def as_json(self) -> dict[str, Any]:
        """A flat mapping: pid, start, host, boot_id, pid_namespace."""
        return {"pid": self.pid, "start": self.start, **asdict(self.place)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Process:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError on anything else."""
        place = Place(*(str(fields[name]) for name in ("host", "boot_id", "pid_namespace")))
        return cls(int(fields["pid"]), str(fields["start"]), place)


@cache
def this_place() -> Place:
    """The place of this process; read once, since it cannot change."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        namespace, boot_id = "", str(int(psutil.boot_time()))
    return Place(socket.gethostname(), boot_id, namespace)


def this_process() -> Process:
    """The calling process; after a fork, the child is another one."""
    pid = os.getpid()
    start = start_of(pid)
    assert start is not None, f"process {pid} cannot see itself"
    return Process(pid, start, this_place())


def lives(pid: int, start: str) -> bool:
    """Whether that very process of this place still runs; a zombie does not."""
    return start_of(pid) == start


def start_of(pid: int) -> str | None:
    """The start time of the living process with this pid at this place; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_by_psutil(pid)
    # proc(5): the name, in parentheses, may hold anything; state is field 3, starttime field 22.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_by_psutil(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None
