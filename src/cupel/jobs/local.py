"""Jobs as processes of this machine: `LocalBackend`. For one thread of one process.

Each job has a guard (`cupel.jobs.guard`), which ends all that the job has started when the job has
ended, when it is told to, and when we die, however that comes. Where a `Warm` is given, jobs that
are Python modules are forked from a process that has imported what they need.

The stdin of a job is a pipe that we hold open and write nothing into: it ends when we end, which is
how a job itself learns that nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Self
from weakref import WeakSet

from cupel.errors import JobsError, RecordError
from cupel.jobs import guard
from cupel.jobs.backend import Ended, Handle, Job, Report
from cupel.jobs.warm import Warm, Zygote

TOKEN = "CUPEL_JOB"  # in every job's environment; whose job a process without parents is
_TAIL_BYTES = 64 * 1024
_CLEAR_UP_S = 5.0


@dataclass(slots=True, eq=False)
class _Started:
    id: str
    job: Job
    channel: socket.socket
    stdin: int
    guard: subprocess.Popen[bytes] | None  # None: the zygote's child
    guard_pid: int = 0
    pid: int = 0
    words: bytes = b""
    ended: Ended | None = None

    def say(self, words: str) -> None:
        if self.ended is None:
            with contextlib.suppress(OSError):  # its guard is dead, which the next poll tells
                self.channel.send(words.encode())


_open_here: WeakSet[LocalBackend] = WeakSet()


class LocalBackend:
    """Starts jobs here, all at once; they write to their log files what they print.

    Handles that another process gave mean nothing here: of those jobs the state is "unknown". A
    job that is asked to end has `grace_s` seconds for it, also when we die. `close` it, or use it
    in a `with`, which ends what is still running.
    """

    def __init__(self, warm: Warm | None = None, *, grace_s: float = 30.0) -> None:
        self._grace_s = grace_s
        self._started: dict[str, _Started] = {}
        self._running: dict[int, _Started] = {}  # by the channel's descriptor
        self._zygote = None if warm is None else Zygote(warm)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        """Start processes. Raises RecordError when a log cannot be written, JobsError when the
        system refuses a process; then none of the jobs was started, or all were killed."""
        guard.adopt_orphans()  # those of a guard that was killed
        _open_here.add(self)
        with contextlib.ExitStack() as stack:
            logs = [stack.enter_context(os.fdopen(_open(job.log), "ab")) for job in jobs]
            begun: list[_Started] = []
            try:
                for job, log in zip(jobs, logs, strict=True):
                    begun.append(self._start(job, log.fileno()))
            except (OSError, ValueError) as error:
                self._end(begun, lambda one: one.say(f"signal {SIGKILL:d}\n"))
                raise JobsError(f"cannot start {job.name}: {error}") from error
        return [Handle(one.job, one.id) for one in begun]

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        """How each job stands, in the order asked; "pending" until its process exists."""
        return [self._report(self._started.get(handle.id)) for handle in handles]

    def wait(self, timeout_s: float) -> bool:
        """Wait until a job ends, at most so many seconds; whether one did. No end is missed by
        whoever waits, and then polls all."""
        until = time.monotonic() + timeout_s
        ended = False
        while not ended:
            poll = select.poll()
            for descriptor in self._running:
                poll.register(descriptor, select.POLLIN)
            ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            for descriptor, _ in ready:
                one = self._running[descriptor]
                self._hear(one)
                ended |= one.ended is not None
            if not ready:
                break
        return ended

    def cancel(self, handles: Sequence[Handle]) -> None:
        """Ask jobs to end with SIGTERM; what is left of them after the grace is killed."""
        for one in self._known(handles):
            one.say("cancel\n")

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        """Send a signal to the main process of jobs; SIGKILL goes to all that they started."""
        for one in self._known(handles):
            one.say(f"signal {number:d}\n")

    def logs(self, handle: Handle, *, lines: int = 20) -> str:
        """The last lines of the log file; empty when there is none."""
        return tail(handle.job.log, lines=lines)

    def close(self) -> None:
        """End everything that was started here, and wait for that: the grace, at most."""
        self._end(list(self._running.values()), lambda one: one.say("cancel\n"))
        if self._zygote is not None:
            self._zygote.close()
        _open_here.discard(self)
        if not _open_here:  # what else this process starts shall not come to it
            guard.leave_orphans()

    # ---- starting ------------------------------------------------------------------------------

    def _start(self, job: Job, log: int) -> _Started:
        token = f"{os.getpid()}-{os.urandom(6).hex()}"
        with contextlib.ExitStack() as failing, contextlib.ExitStack() as always:
            ours, theirs = socket.socketpair()
            failing.callback(ours.close)
            always.callback(theirs.close)
            stdin, stdin_of_us = os.pipe()
            failing.callback(os.close, stdin_of_us)
            always.callback(os.close, stdin)
            fork = None
            if self._zygote is not None and self._zygote.suits(job):
                marked = replace(job, environment={**job.environment, TOKEN: token})
                descriptors = (theirs.fileno(), log, stdin)
                self._zygote.fork(marked, descriptors, grace_s=self._grace_s)
            else:
                fork = subprocess.Popen(
                    self._guarded(job, theirs.fileno()),
                    env={**os.environ, **job.environment, TOKEN: token},
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            failing.pop_all()
        ours.setblocking(False)
        one = _Started(token, job, ours, stdin_of_us, fork)
        self._started[token] = self._running[ours.fileno()] = one
        return one

    def _guarded(self, job: Job, channel: int) -> list[str]:
        limit = "" if job.resources.time_s is None else str(job.resources.time_s)
        given = [str(channel), str(os.getpid()), str(self._grace_s), limit]
        return [sys.executable, "-I", "-S", guard.__file__, *given, *job.command]

    # ---- ends ----------------------------------------------------------------------------------

    def _known(self, handles: Iterable[Handle]) -> list[_Started]:
        return [one for handle in handles if (one := self._started.get(handle.id)) is not None]

    def _report(self, one: _Started | None) -> Report:
        if one is None:
            return Report("unknown", detail="no job of this process")
        self._hear(one)
        if one.ended is not None:
            return Report("ended", one.ended)
        return Report("running", detail=f"pid {one.pid}") if one.pid else Report("pending")

    def _hear(self, one: _Started) -> None:
        """Take in what a guard has told; when it is dead, end what it has left behind."""
        while one.ended is None:
            try:
                words = one.channel.recv(4096)
            except BlockingIOError:
                return
            except ConnectionError:
                words = b""
            *lines, one.words = (one.words + words).split(b"\n")
            for told in map(json.loads, lines):
                if "code" in told:
                    self._leave(one, Ended(**told))
                else:
                    one.guard_pid, one.pid = told["guard"], told["pid"]
            if not words and one.ended is None:
                _end_orphans(one)
                self._leave(one, Ended(-SIGKILL))

    def _leave(self, one: _Started, ended: Ended) -> None:
        one.ended = ended
        del self._running[one.channel.fileno()]
        one.channel.close()
        os.close(one.stdin)
        if one.guard is not None:
            one.guard.wait()  # it exits when it has told the end
        else:
            assert self._zygote is not None
            self._zygote.reap(one.guard_pid)

    def _end(self, jobs: Sequence[_Started], ask: Callable[[_Started], Any]) -> None:
        for one in jobs:
            ask(one)
        until = time.monotonic() + self._grace_s + _CLEAR_UP_S
        while any(one.ended is None for one in jobs) and time.monotonic() < until:
            self.wait(until - time.monotonic())


def tail(log: Path, *, lines: int) -> str:
    """The last lines of a file; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _open(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RecordError(f"cannot write the log {log}: {error.strerror}") from error


def _end_orphans(one: _Started) -> None:
    """Kill what a job has left behind whose guard was killed, and wait for it.

    Its session tells the job's processes, and their environment those that have left it; their
    children come to us when they die.
    """
    mark = f"{TOKEN}={one.id}".encode()
    # The guard is that of the dead until it is out of the kernel, and then they come to us.
    parents = {os.getpid(), one.guard_pid, one.guard.pid if one.guard else 0} - {0}
    ours: set[int] = set()
    until = time.monotonic() + _CLEAR_UP_S
    while time.monotonic() < until:
        left = {pid for pid in guard.processes() if _is_of(pid, one.pid, mark)}
        ours |= left
        ours = {pid for pid in ours if _is_there(pid, parents | ours)}
        if not ours:
            return
        for pid in left & ours:  # the pid of one that was waited for may be another's by now
            guard.send(os.kill, pid, SIGKILL)
        time.sleep(0.002)


def _is_there(pid: int, parents: set[int]) -> bool:
    """Whether a process of ours is left, be it dead and not waited for; we wait for our child.

    The dead of another session are no more known by their environment, which is gone. One whose
    parent is none of these is another's to wait for.
    """
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    return guard.lives(pid) or guard.parent_of(pid) in parents


def _is_of(pid: int, session: int, mark: bytes) -> bool:
    try:
        if session and os.getsid(pid) == session:
            return True
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
