"""The dashboard beside a training: started by command, found by its file, never waited for.

What trains imports nothing of the dashboard and asks nothing of it: it starts a process, about a
millisecond, and forgets it. That process sees to it that a root has one dashboard only. Whether
one is started, the variable CUPEL_DASHBOARD says: 0 never, 1 always (by rank 0), and else `auto`:
when a person looks on, which is when stderr is a terminal and this is neither CI, a test, a job of
a cluster nor a process that another command of ours started.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cupel import ranks
from cupel.errors import CupelError, did_you_mean

if TYPE_CHECKING:
    import subprocess

VARIABLE = "CUPEL_DASHBOARD"
TOKEN = "CUPEL_DASHBOARD_TOKEN"
# In the record's root: what the one server of it says of itself, and what a detached one prints.
FOLDER = Path(".cache", "dashboard")
STATE, LOG = FOLDER / "server.json", FOLDER / "log"

_WORDS = ("0", "1", "auto")
# Whoever has one of these was started by something that is looked at itself.
_STARTED_BY_OTHERS = (
    "PYTEST_CURRENT_TEST", "CUPEL_JOB", "CUPEL_LEASE", "CUPEL_SESSION", "SLURM_JOB_ID",
    "RAY_JOB_ID", "RAY_RAYLET_PID",
)  # fmt: skip
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PATIENCE_S, _LOOK_EVERY_S = 10.0, 0.1

_begun: dict[Path, Beside] = {}
_warned: set[str] = set()


def start(root: str | Path) -> Beside | None:
    """The dashboard of a root, started unless one runs; None where there is to be none.

    Never raises and never waits.
    """
    try:
        if not _wanted():
            return None
        root = Path(root).absolute()
        before = _begun.get(root)
        if before is not None and (before.is_starting() or before.address()):
            return before
        found = Beside(root)
        if found.address() is None:
            found.process = spawn(root, "--automatic")
        _begun[root] = found
        return found
    except (OSError, ValueError):  # a full process table, a folder that cannot be written
        return None


class Beside:
    """A dashboard that runs, or is starting, beside this process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._told = False

    def address(self) -> str | None:
        """Where a browser finds it, with the token; None while it is not there yet."""
        return _address_in(self._root / STATE)

    def is_starting(self) -> bool:
        """Whether the process that was started has not ended."""
        return self.process is not None and self.process.poll() is None

    def tell(self, line: Callable[[str], object]) -> None:
        """Tell a line with the address: at once, or from a thread within ten seconds.

        It tells once, whatever comes; a second call does nothing.
        """
        with self._lock:
            if self._told:
                return
            address = self.address()
            self._told = address is not None
        if address is not None:
            line(_told(address))
        else:
            threading.Thread(
                target=self._tell_later, args=(line,), name="cupel-beside", daemon=True
            ).start()

    def hush(self) -> None:
        """Tell nothing from now on."""
        with self._lock:
            self._told = True

    def _tell_later(self, line: Callable[[str], object]) -> None:
        until = time.monotonic() + _PATIENCE_S
        text = None
        while text is None:
            time.sleep(_LOOK_EVERY_S)
            text = self._news(late=time.monotonic() > until)
        with self._lock:
            if self._told:
                return
            self._told = True
        with contextlib.suppress(Exception):  # whatever a terminal that is gone may raise
            line(text)

    def _news(self, *, late: bool) -> str | None:
        """What there is to tell, if there is anything."""
        if (address := self.address()) is not None:
            return _told(address)
        if self.process is not None and self.process.poll():
            return f"dashboard: it did not start; {self._root / LOG} says why"
        return "dashboard: not ready yet; cupel dashboard shows it" if late else None


def spawn(root: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start `cupel dashboard` for a root, in a session of its own, and go on. Raises OSError.

    Its output goes to its log. Nobody need wait for it, nor is warned when nobody does.
    """
    import subprocess

    class Left(subprocess.Popen[bytes]):
        def __del__(self) -> None:
            """It outlives us on purpose; Popen's own would warn of that."""

    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    log = os.open(root / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return Left(
            [sys.executable, "-m", "cupel", "dashboard", *options, "--root", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(os.environ),
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wanted() -> bool:
    word = os.environ.get(VARIABLE, "auto").strip().lower() or "auto"
    if word not in _WORDS:
        near = did_you_mean(word, _WORDS)
        _warn(f"{VARIABLE}={word!r} is none of 0, 1 and auto{near}; taken for auto")
    try:
        leads = ranks.rank() == 0
    except CupelError:  # whoever needs the rank tells of it
        return False
    if word in ("0", "1"):
        return word == "1" and leads
    return leads and _is_looked_at(os.environ)


def _is_looked_at(environ: Mapping[str, str]) -> bool:
    """Whether a person started this very process and sees what it says."""
    if environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if any(environ.get(name) for name in _STARTED_BY_OTHERS):
        return False
    return sys.stderr is not None and sys.stderr.isatty()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's: nothing that makes it part of a run, one thread, and paths that hold in /."""
    kept = {k: v for k, v in environ.items() if not k.startswith("CUPEL_") or k == TOKEN}
    kept |= dict.fromkeys(_THREADS, "1")
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(_absolute(kept["PYTHONPATH"].split(os.pathsep)))
    return kept


def _absolute(paths: Sequence[str]) -> list[str]:
    return [str(Path(path).absolute()) for path in paths]


def _address_in(path: Path) -> str | None:
    """The address in a server's file, if that server lives, as far as a look at it can tell."""
    try:
        with path.open("rb") as file:
            found = json.load(file)
        pid, start = int(found["pid"]), str(found["start"])
        address = f"{found['address']}/#t={found['token']}"
        if found["host"] != os.uname().nodename:
            return None  # of another machine; its loopback is not ours
        return address if _lives(pid, start, str(found["boot_id"])) else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _lives(pid: int, start: str, boot_id: str) -> bool:
    """Whether that very process lives; `cupel.record.processes` knows better, where it may go."""
    if pid <= 0:
        return False
    if not Path("/proc/self/stat").exists():
        os.kill(pid, 0)
        return True
    if Path("/proc/sys/kernel/random/boot_id").read_text().strip() != boot_id:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    fields = stat[stat.rindex(")") + 2 :].split()  # state is field 3, starttime field 22
    return fields[0] not in "ZX" and fields[19] == start


def _told(address: str) -> str:
    return f"dashboard: {address}"


def _warn(line: str) -> None:
    if line in _warned:
        return
    _warned.add(line)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed or absent stderr
        sys.stderr.write(f"cupel: {line}\n")
