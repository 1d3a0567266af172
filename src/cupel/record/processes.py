"""Who a process is, so that another can tell later whether it still lives.

A pid alone says nothing: pids are used again, machines restart, containers count their own. So a
process is its pid, its start time, and the place where that pid means something: machine, boot and
pid namespace. Linux is read from /proc; elsewhere psutil gives the start time and the boot.
What is written down about a machine besides its host name is a hash, since its id is not for
strangers.
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
    """Where a pid means something: one machine, one boot of it, one namespace of pids.

    Host names are given twice (`localhost`, a cloned image); `machine` tells such machines apart.
    It is empty where a system has no id, and in records of before there was one.
    """

    host: str
    boot_id: str
    pid_namespace: str
    machine: str = ""

    def shares_pids_with(self, other: Place) -> bool:
        """Whether a pid of there can be looked up here, were it of this boot."""
        same = (self.host, self.pid_namespace) == (other.host, other.pid_namespace)
        return same and (self.machine == other.machine or not (self.machine and other.machine))

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
        """A flat mapping: pid, start, host, boot_id, pid_namespace, machine."""
        return {"pid": self.pid, "start": self.start, **asdict(self.place)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Process:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError on anything else."""
        host, boot_id, namespace = (
            str(fields[name]) for name in ("host", "boot_id", "pid_namespace")
        )
        place = Place(host, boot_id, namespace, str(fields.get("machine") or ""))
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
    return Place(socket.gethostname(), boot_id, namespace, _machine())


def _machine() -> str:
    # machine-id(5) asks that the id itself be kept to the machine, and a keyed hash of it be used.
    try:
        found = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return ""
    return hashlib.blake2b(found, key=b"cupel", digest_size=8).hexdigest() if found else ""


def this_process() -> Process:
    """The calling process; after a fork, the child is another one."""
    return _known(os.getpid())


@cache
def _known(pid: int) -> Process:
    start = start_of(pid)
    assert start is not None, f"process {pid} cannot see itself"
    return Process(pid, start, this_place())


if hasattr(os, "register_at_fork"):  # a child may be given the pid that an ancestor had
    os.register_at_fork(after_in_child=_known.cache_clear)


def lives(pid: int, start: str) -> bool:
    """Whether that very process of this place still runs; a zombie does not."""
    return start_of(pid) == start


def is_hidden(pid: int) -> bool:
    """Whether a process has this pid that we may not look at, so that nothing is known of it.

    Machines with many users mount /proc with hidepid: one sees one's own processes only.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        return start_of(pid) is None
    except (OSError, OverflowError):
        return False
    return False


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
