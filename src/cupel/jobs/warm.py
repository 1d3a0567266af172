"""Python jobs without the time to import: forked from a process that has done it, the zygote.

`Warm` says what is imported; `LocalBackend(Warm(...))` does the rest. The zygote imports the
modules once and waits; for each job whose command is `python -m MODULE …` it forks a guard
(`cupel.jobs.guard`), and that forks the job. It runs no training itself, touches no GPU and has no
threads, or no job could be forked from it.

A job sees the modules as they were when the zygote imported them: after a change of code, start
anew. Jobs that need other settings of the interpreter, or of the libraries that read them when they
are imported, do not come from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from cupel.jobs import guard
from cupel.jobs.backend import Job

# Read when Python starts or a library is imported; a forked job would not notice a change.
EARLY = ("PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "MALLOC_",
         "TORCH_", "PYTORCH_")  # fmt: skip
CLOSE_S = 2.0
_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Warm:
    """What the zygote imports, and variables for it and its jobs, such as OMP_NUM_THREADS."""

    preload: tuple[str, ...] = ("torch", "cupel.workloads.training")
    environment: Mapping[str, str] = field(default_factory=dict)


# ---- the worker's side -------------------------------------------------------------------------


class Zygote:
    """Forks jobs in a process of its own, which is started when the first one comes, and again
    when it has died."""

    def __init__(self, warm: Warm) -> None:
        self._warm = warm
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def suits(self, job: Job) -> bool:
        """Whether a job runs a module, and with the settings that the zygote has read or will."""
        if self._control is None:
            self._environment = {**os.environ, **self._warm.environment}
        return (
            len(job.command) > 2
            and job.command[:2] == (sys.executable, "-m")
            and _early(self._given(job)) == _early(self._environment)
        )

    def fork(
        self,
        job: Job,
        descriptors: tuple[int, int, int],
        *,
        grace_s: float,
    ) -> None:
        """Start a job; the descriptors are the guard's channel, the log, and stdin."""
        given = self._given(job)
        request = {
            "argv": job.command[2:],
            "set": {n: v for n, v in given.items() if self._environment.get(n) != v},
            "unset": [name for name in self._environment if name not in given],
            "cwd": os.getcwd(),  # noqa: PTH109
            "grace_s": grace_s,
            "limit_s": job.resources.time_s,
        }
        body = json.dumps(request).encode()
        for attempt in (1, 2):
            control = self._started()
            try:
                socket.send_fds(control, [_LENGTH.pack(len(body))], descriptors)
                control.sendall(body)
                return
            except ConnectionError:  # it died just now
                self.close()
                if attempt == 2:
                    raise

    def reap(self, guard_pid: int) -> None:
        """Wait for a guard, should it have become our child by the zygote's death."""
        if guard_pid and self._process is not None and self._process.poll() is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(guard_pid, 0)

    def close(self) -> None:
        """End the zygote; its jobs are told to end."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:  # it is still importing
                self._process.kill()
                self._process.wait()
        self._control = self._process = None

    def _given(self, job: Job) -> dict[str, str]:
        return {**os.environ, **self._warm.environment, **job.environment}

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid()),
                     "--preload", ",".join(self._warm.preload)],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )  # fmt: skip
        return self._control


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(EARLY)}


# ---- the zygote --------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> NoReturn:
    """The program: `python -m cupel.jobs.warm CONTROL PARENT --preload MODULE,…`."""
    control, parent, _, modules = arguments
    os.set_inheritable(int(control), False)
    guard.adopt_orphans()
    # An import may take long, and nobody would wait for it.
    old = signal.signal(
        guard.PARENT_DIED, lambda *_: os._exit(1) if os.getppid() != int(parent) else None
    )
    guard.die_with_parent(guard.PARENT_DIED)
    if os.getppid() != int(parent):  # it died before that
        os._exit(1)
    problem = _preload(modules.split(",") if modules else [])
    signal.signal(guard.PARENT_DIED, old)
    ears = guard.Ears((signal.SIGCHLD, guard.PARENT_DIED))
    _Serving(socket.socket(fileno=int(control)), int(parent), ears, problem).serve()
    os._exit(0)  # what runs at the exit of Python is for the jobs, each for itself


class _Serving:
    def __init__(self, control: socket.socket, parent: int, ears: guard.Ears, problem: str) -> None:
        self.control, self.parent, self.ears, self.problem = control, parent, ears, problem
        self.guards: set[int] = set()

    def serve(self) -> None:
        """Until the worker is gone; then until the last guard is."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.ears.fd, select.POLLIN)
        while os.getppid() == self.parent:
            ready = dict(poll.poll())
            self._reap()
            if self.control.fileno() in ready and not self._answer():
                break
        for pid in self.guards:
            guard.send(os.kill, pid, signal.SIGTERM)
        while self.guards:
            select.select([self.ears.fd], [], [])
            self._reap()

    def _reap(self) -> None:
        self.ears.heard()
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self.guards.discard(pid)
        for orphan in set(guard.children()) - self.guards:  # of a guard that was killed
            guard.send(os.kill, orphan, signal.SIGKILL)

    def _answer(self) -> bool:
        """Fork for one request; whether there was one."""
        head, descriptors, _, _ = socket.recv_fds(self.control, _LENGTH.size, 3)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            (length,) = _LENGTH.unpack(head + self._read(_LENGTH.size - len(head)))
            request = json.loads(self._read(length))
        except EOFError:
            return False
        if problem := self.problem or _unfit():
            channel, log, _ = descriptors
            with contextlib.suppress(OSError):
                os.write(log, f"{problem.rstrip()}\n".encode())
                os.write(channel, b'{"code": 1}\n')
        else:
            self._fork(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _read(self, length: int) -> bytes:
        parts = b""
        while len(parts) < length:
            part = self.control.recv(length - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts

    def _fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        zygote, (channel, log, stdin) = os.getpid(), descriptors
        pid = os.fork()
        if pid:
            self.guards.add(pid)
            return
        try:
            self.ears.close()
            self.control.close()
            for ours, standard in ((stdin, 0), (log, 1), (log, 2)):
                os.dup2(ours, standard)
            os.close(log)
            os.close(stdin)
            guard.Guard(
                lambda: _run(request),
                channel=channel,
                parent=zygote,
                grace_s=request["grace_s"],
                limit_s=request["limit_s"],
                worker=False,
            ).run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)


def _preload(modules: Sequence[str]) -> str:
    """Import modules and make ready to fork; what is wrong, if anything is."""
    import gc
    import importlib

    try:
        for module in modules:
            importlib.import_module(module)
    except BaseException:
        return traceback.format_exc()
    if (environment := sys.modules.get("cupel.record.environment")) is not None:
        environment.keep()  # the code is as it was imported here, whatever the tree says later
    _forget_exits()
    gc.collect()
    gc.freeze()  # a collection in a job would copy every page that it looks at
    if _threads() > 1:  # OpenBLAS ends its threads before a fork, and begins them when it must
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return _unfit()


def _forget_exits() -> None:
    """What the preloaded modules want done at the exit would be done by each job, and undo for the
    others what they share, a temporary folder, say. Forget it, but for what a job needs itself."""
    import atexit
    import weakref

    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    atexit._clear()
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    for module, name in (("logging", "shutdown"), ("multiprocessing.util", "_exit_function")):
        if module in sys.modules:
            atexit.register(getattr(sys.modules[module], name))


def _unfit() -> str:
    """Why nothing can be forked from this process, if so."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "a preloaded module uses CUDA, which no process can that is forked from it"
    if (threads := _threads()) > 1:
        return f"the preloaded modules have begun {threads - 1} threads, which would not be forked"
    return ""


def _threads() -> int:
    import threading

    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208
    except OSError:
        return threading.active_count()


# ---- a job -------------------------------------------------------------------------------------


def _run(request: Mapping[str, Any]) -> NoReturn:
    """Run a module like `python -m` does, and end the process like Python does."""
    import runpy

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # as `guard.execute` does
        signal.signal(number, signal.SIG_DFL)

    code: object = 1
    try:
        for name in request["unset"]:
            os.environ.pop(name, None)
        os.environ.update(request["set"])
        os.chdir(request["cwd"])
        sys.argv = list(request["argv"])
        sys.orig_argv = [sys.executable, "-m", *sys.argv]
        if not sys.flags.safe_path:
            sys.path[0] = request["cwd"]
        if "numpy.random" in sys.modules:  # its generator was seeded when it was imported
            sys.modules["numpy.random"].seed()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT if sys.exc_info()[0] is KeyboardInterrupt else 1
    finally:
        _leave(code)


def _leave(code: object) -> NoReturn:
    import atexit
    import threading

    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1:])
