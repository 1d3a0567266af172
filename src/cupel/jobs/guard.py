"""Guards one job: starts it, ends all of it, tells how it ended. A program of its own.

    python -I -S guard.py CHANNEL PARENT GRACE_S LIMIT_S COMMAND...

CHANNEL is a socket to the worker, whose pid is PARENT. Over it come the lines `signal N` and
`cancel`; back go one JSON line with the pids of the guard and the job, and one with the end. When
it closes, the worker is dead.

The job leads a session and a process group. On Linux the guard adopts whatever loses its parent in
the job, so what has made itself a daemon is ended, too, and the job is killed when the guard is.
Elsewhere only the job's process group is ended.

It imports the standard library only, and little of that: it is started once for each job.
"""

# ruff: noqa: PTH123, PTH208 (pathlib takes longer to import than all of this)

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # and so does typing
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
PARENT_DIED = signal.SIGUSR1
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # sent to a guard, they are for its job
# What a job has as a terminal's job has it: the first two Python ignores, the others may be ignored
# by whoever started the worker. SIGHUP stays as it is, for nohup.
USUAL = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
NOT_FOUND = 127  # what shells say
SWEEP_S = 0.02
NEVER = float("inf")
CGROUPS = "/sys/fs/cgroup"


class Guard:
    """Guards what `start` becomes, which is called in the job's own process and never returns.

    `worker` says whether the parent is the worker itself; otherwise it is a process that preloads
    modules for it, and whose death ends the job at once.
    """

    def __init__(
        self,
        start: Callable[[], object],
        *,
        channel: int,
        parent: int,
        grace_s: float,
        limit_s: float | None,
        worker: bool = True,
    ) -> None:
        self.start, self.channel, self.parent, self.worker = start, channel, parent, worker
        self.grace_s, self.limit_s = grace_s, limit_s
        self.pid = 0
        self.status: int | None = None  # of the job's main process, as waitpid tells it
        self.state = ""
        self.kill_at = self.limit_at = NEVER
        self.gone = False  # whoever we guard it for
        self.words = b""

    def run(self) -> None:
        """Returns when the job and all that it started have ended, and the worker knows."""
        os.set_inheritable(self.channel, False)
        adopt_orphans()
        die_with_parent(PARENT_DIED)
        self.ears = Ears((signal.SIGCHLD, PARENT_DIED, *ENDS))
        self.poll = select.poll()
        self.poll.register(self.channel, select.POLLIN)
        self.poll.register(self.ears.fd, select.POLLIN)
        kills, began = oom_kills(), time.monotonic()
        self._hear(0)
        if not self.gone and self.state != "CANCELLED":
            self._begin()
            while self.status is None:
                self._hear(min(self.kill_at, self.limit_at) - time.monotonic())
                self._mind_the_time()
                self._reap()
        wall_s = time.monotonic() - began
        self._end_the_rest()
        self._tell(wall_s, max(0, oom_kills() - kills))

    def _begin(self) -> None:
        if self.limit_s is not None:
            self.limit_at = time.monotonic() + self.limit_s
        guard = os.getpid()
        ready, begun = os.pipe()
        # Blocked, so that no signal meets the job while it still has our handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                die_with_parent(signal.SIGKILL)
                if os.getppid() == guard:  # or it died before we would have died with it
                    self.ears.close()
                    os.close(ready)
                    os.close(begun)
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    self.start()
            finally:
                os._exit(1)
        os.close(begun)
        os.read(ready, 1)  # ends when the job leads its group, or is dead
        os.close(ready)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._write(f'{{"guard": {guard}, "pid": {self.pid}}}\n')
        self._obey()

    # ---- what we hear --------------------------------------------------------------------------

    def _hear(self, seconds: float) -> None:
        """Wait for the worker's words, for signals, and for the end of whoever started us."""
        ready = dict(self.poll.poll(None if seconds == NEVER else max(0.0, seconds) * 1000))
        if set(ENDS) & self.ears.heard():
            self._ask()
        if self.channel in ready:
            self._listen()
        if os.getppid() != self.parent and not self.gone:
            if self.worker or self._is_closed():
                self._lose_the_worker()
            else:
                self._leave_the_channel()
                self._kill()

    def _listen(self) -> None:
        try:
            words = os.read(self.channel, 4096)
        except ConnectionError:
            words = b""
        if not words:
            self._lose_the_worker()
        self.words += words
        if self.pid:
            self._obey()
        elif b"cancel\n" in self.words:
            self.state = "CANCELLED"

    def _obey(self) -> None:
        *lines, self.words = self.words.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"cancel":
                self.state = self.state or "CANCELLED"
                self._ask()
            elif int(number) == signal.SIGKILL:
                self._kill()
            else:
                self._signal(int(number))

    def _is_closed(self) -> bool:
        return bool(dict(self.poll.poll(0)).get(self.channel, 0) & select.POLLHUP)

    def _lose_the_worker(self) -> None:
        self._leave_the_channel()
        self._signal_group(signal.SIGTERM)
        self._ask(told=True)

    def _leave_the_channel(self) -> None:
        if not self.gone:
            self.poll.unregister(self.channel)
        self.gone = True

    # ---- ends ----------------------------------------------------------------------------------

    def _ask(self, *, told: bool = False) -> None:
        """Ask the job to end, once; it has its grace for that."""
        if self.kill_at == NEVER:
            self.kill_at = time.monotonic() + self.grace_s
            if not told:
                self._signal(signal.SIGTERM)

    def _mind_the_time(self) -> None:
        now = time.monotonic()
        if now >= self.limit_at:
            self.limit_at = NEVER
            self.state = self.state or "TIMEOUT"
            self._ask()
        if now >= self.kill_at:
            self.kill_at = now + SWEEP_S  # again, should it have begun something meanwhile
            self._kill()

    def _signal(self, number: int) -> None:
        if self.pid and self.status is None:  # not waited for: its pid is nobody else's yet
            send(os.kill, self.pid, number)

    def _signal_group(self, number: int) -> None:
        if self.pid and self.status is None:
            send(os.killpg, self.pid, number)

    def _kill(self) -> None:
        """Kill the job's group and what we have adopted; what that leaves behind comes to us."""
        self._signal_group(signal.SIGKILL)
        for child in children():
            send(os.kill, child, signal.SIGKILL)

    def _reap(self) -> bool:
        """Wait for what has ended; whether there is anything left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == self.pid:
                self.status = status
                send(os.killpg, pid, signal.SIGKILL)
            elif pid == 0:
                return True

    def _end_the_rest(self) -> None:
        """End what has outlived the job; we wait a grace for what the kernel does not let go."""
        give_up_at = time.monotonic() + self.grace_s
        pause_s = 0.0
        while self._reap() and time.monotonic() < give_up_at:
            self._kill()
            time.sleep(pause_s)
            pause_s = min(SWEEP_S, pause_s + 0.001)

    # ---- what we tell --------------------------------------------------------------------------

    def _tell(self, wall_s: float, kills: int) -> None:
        """One line of JSON; made by hand, since json is slow to import."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss: bytes, else KiB
        code = -signal.SIGTERM if self.status is None else os.waitstatus_to_exitcode(self.status)
        self._write(
            f'{{"code": {code:d}, "state": "{self.state}", "oom_kills": {kills}, '
            f'"wall_s": {wall_s:.6f}, "cpu_s": {used.ru_utime + used.ru_stime:.6f}, '
            f'"peak_mb": {used.ru_maxrss / unit:.3f}}}\n'
        )

    def _write(self, line: str) -> None:
        try:
            os.write(self.channel, line.encode())
        except OSError:  # nobody is there to be told
            return


class Ears:
    """Hears signals as bytes on `fd`, and gives the old handlers back when it is closed."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._old: dict[int, Any] = {n: signal.signal(n, lambda *_: None) for n in numbers}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def heard(self) -> set[int]:
        """The signals since it was last asked."""
        try:
            return set(os.read(self.fd, 4096))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        """Hear no more."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)


def send(kill: Callable[[int, int], None], pid: int, number: int) -> bool:
    """Signal a process or a group; whether there was one that we may signal."""
    try:
        kill(pid, number)
    except OSError:
        return False
    return True


_libc: Any = None


def adopt_orphans() -> bool:
    """Become the parent of every descendant that loses its own; whether this system can do that."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def leave_orphans() -> bool:
    """The opposite of `adopt_orphans`; whether it could be done."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 0)


def die_with_parent(number: int) -> bool:
    """Have a signal sent to us when the thread that started us ends, which may be before its
    process does; whether this system can do that. Who dies before is not heard of."""
    return _prctl(PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    global _libc
    if _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None)  # once: what is forked from a zygote has it
    return bool(_libc.prctl(option, value, 0, 0, 0) == 0)


def children() -> list[int]:
    """Our own children, those that ended and were not waited for included; [] without /proc.

    None of these pids can be used again before we wait for it.
    """
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:  # of the only thread; see proc(5)
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in processes() if parent_of(pid) == me]


def processes() -> list[int]:
    """The pids of all processes that can be seen; [] without /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def lives(pid: int) -> bool:
    """Whether a process has not ended: one that only waits to be waited for has."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != b"Z"


def _stat(pid: int) -> list[bytes]:
    """What the kernel says of a process, from its state on; nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def oom_kills(cgroups: str = CGROUPS, own: str = "/proc/self/cgroup") -> int:
    """How often the kernel has killed in our control group for lack of memory; 0 when unknown.

    Others in the same group count as well.
    """
    try:
        with open(own) as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file if line.count(":") > 1]
    except OSError:
        return 0
    for _, controllers, path in groups:
        if controllers == "":
            places = [f"{cgroups}{path}/memory.events", f"{cgroups}/memory.events"]
        elif "memory" in controllers.split(","):
            places = [f"{cgroups}/memory{path}/memory.oom_control"]
            places += [f"{cgroups}/memory/memory.oom_control"]  # a container sees its own only
        else:
            continue
        for place in places:
            found = _oom_kills_in(place)
            if found is not None:
                return found
    return 0


def _oom_kills_in(place: str) -> int | None:
    try:
        with open(place) as file:
            counts = dict(line.split() for line in file)
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def execute(command: list[str]) -> None:
    """Become a command; when it cannot be started, say so and end like a shell would."""
    for ignored in USUAL:
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND)


def main(arguments: Sequence[str]) -> None:
    """The program."""
    channel, parent, grace, limit, *command = arguments
    Guard(
        lambda: execute(command),
        channel=int(channel),
        parent=int(parent),
        grace_s=float(grace),
        limit_s=float(limit) if limit else None,
    ).run()
    os._exit(0)  # nothing to clean up, and the worker waits


if __name__ == "__main__":
    main(sys.argv[1:])
