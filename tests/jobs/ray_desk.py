"""A real Ray in a network and a pid namespace of its own, and a backend there to talk to: `Desk`.

Ray listens on many ports and leaves processes behind; in here neither matters: only the loopback
is there, and the end of the first process is the end of all. Run as a script this file is the
process there: it reads pickled calls from stdin and answers them.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CPUS, GPUS, MEMORY_MB = 4, 1, 2000  # as Ray counts them
FOLDER = Path(__file__).parent
GRACE_S = 1.0  # from SIGTERM to SIGKILL


def why_not() -> str:
    """Why no Ray can be started here; empty when it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return "unshare and ip are not here"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return "no namespaces here (unshare -n needs root)"
    probe = [sys.executable, "-c", "import ray"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "ray is not installed; type: pip install 'cupel[ray]'"
    return ""


class Distant:
    """An object at the desk; its methods are called there."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk, self.name = desk, name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self.desk.ask, self.name, method)


class Desk:
    """The process in the namespace, seen from outside. Close it."""

    def __init__(self) -> None:
        # Ray puts sockets into it, whose paths may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.printed = self.folder / "printed"
        # The shell stays, as the first process has to: it buries orphans, or Ray's parts take each
        # other's corpses for living.
        desk = f'"{sys.executable}" "{__file__}"'
        inside = f"ip link set lo up && {desk}; exit $?"
        unshare = ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", inside]
        with self.printed.open("wb") as printed:
            self.process = subprocess.Popen(
                unshare,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},  # Ray writes a token there
            )

    def ask(self, name: str, method: str, *given: Any, **named: Any) -> Any:
        """Call a method of an object there, or a function of this module ("")."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((name, method, given, named), self.process.stdin)
        self.process.stdin.flush()
        try:
            answer, error = pickle.load(self.process.stdout)
        except EOFError:
            raise AssertionError(f"the desk is gone: {self.printed.read_text()}") from None
        if error is not None:
            raise error
        return answer

    def backend(self, name: str = "backend") -> Any:
        """A RayBackend that lives there; it starts Ray when it is first used."""
        self.ask("", "new_backend", name, str(self.folder))
        return Distant(self, name)

    def close(self) -> None:
        with self.process:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- what runs there -------------------------------------------------------------------------

OBJECTS: dict[str, Any] = {}


def new_backend(name: str, folder: str) -> None:
    from cupel.jobs.ray import RayBackend, RaySettings

    settings = RaySettings(
        grace_s=GRACE_S, cpus=CPUS, gpus=GPUS, memory_mb=MEMORY_MB, folder=Path(folder)
    )
    OBJECTS[name] = RayBackend("local", settings)


def send(pid: int, number: int) -> None:
    os.kill(pid, number)


def processes() -> dict[int, str]:
    """The command lines of all processes of the namespace."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            if line:  # a zombie has none
                found[int(folder.name)] = line
    return found


def script(*arguments: str) -> tuple[int, str]:
    """Run a Python script there, as a person would; its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray prints must not get between the answers
    while True:
        try:
            name, method, given, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            called = getattr(OBJECTS[name], method) if name else globals()[method]
            answer: tuple[Any, Any] = (called(*given, **named), None)
        except Exception as error:
            answer = (None, error)
        answers.write(pickle.dumps(answer))
        answers.flush()


if __name__ == "__main__":
    main()
