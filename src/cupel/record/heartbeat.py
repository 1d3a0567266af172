"""Whether a session lives: a file that says which process it is, touched every five seconds.

On the same machine the process itself is looked for, so a kill is seen at once, and neither a pid
used again nor a restart deceives. From another machine (shared storage, a container) only the
file's age tells: after a minute the process is `silent`, which may be a death, a broken network or
clocks that differ.
The same thread makes the session's lines survive a power loss, every one and a half seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError
from cupel.record import files, processes
from cupel.record.layout import SCHEMA

TOUCH_S = 5.0
SYNC_S = 1.5
STALE_S = 60.0

Sign = Literal["alive", "dead", "silent"]

_STOPPING_S = 5.0  # a thread that hangs on a dead disk must not keep its process from ending


def write_heartbeat(path: Path) -> None:
    """Write which process this is. Raises OSError. A power loss ends the process, too."""
    files.write_json(path, _this_process(), lasting=False)


def create_heartbeat(path: Path) -> bool:
    """Write which process this is, unless there is such a file; whether there was none.

    Of any number of processes that try, exactly one is told True. Raises OSError.
    """
    return files.create_json_exclusively(path, _this_process())


class Heartbeat:
    """Keeps the file of `write_heartbeat` fresh, by a thread, until `stop`.

    `sync()` is called every 1.5 s; `on_problem(error)` hears what it raises, and of the heartbeat's
    own errors. With `folder`, an open folder, the file is touched in it wherever it was moved to.
    It is touched every five seconds, or `every` so many.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: Callable[[], None],
        on_problem: Callable[[Exception], None],
        folder: int | None = None,
        every: float | None = None,
    ) -> None:
        self._path, self._folder, self._every = path, folder, every or TOUCH_S
        self._sync, self._on_problem = sync, on_problem
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cupel-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the file stays, and its process may live on."""
        self._stopped.set()
        self._thread.join(_STOPPING_S)

    def _beat(self) -> None:
        touched, wake = time.monotonic(), min(SYNC_S, self._every)
        while not self._stopped.wait(wake):
            try:
                if time.monotonic() - touched >= self._every - wake / 2:
                    touched = time.monotonic()
                    if self._folder is None:
                        os.utime(self._path)
                    else:
                        os.utime(self._path.name, dir_fd=self._folder)
                self._sync()
            except Exception as error:  # a thread that ends here would look like a death
                self._on_problem(error)


def is_alive(path: Path) -> bool:
    """Whether the process that a heartbeat file names still runs, as far as can be told."""
    return sign(path) == "alive"


def sign(path: Path) -> Sign:
    """What the process that a heartbeat file names shows of itself.

    `silent`: it cannot be looked at from here and has not touched its file for a minute. Without
    a whole file the age of its folder decides: a session writes its heartbeat first thing, so a
    young folder without one is just starting.
    """
    try:
        process = processes.Process.from_json(files.read_json(path))
    except (RecordError, KeyError, TypeError, ValueError, OverflowError):
        if path.exists() and not os.access(path, os.R_OK):  # somebody else's
            return _by_age(path)
        return "alive" if _is_fresh(path.parent) else "dead"
    here = processes.this_place()
    if not here.shares_pids_with(process.place):
        return _by_age(path)
    if here.boot_id != process.place.boot_id:
        return "dead"
    if processes.lives(process.pid, process.start):
        return "alive"
    return _by_age(path) if processes.is_hidden(process.pid) else "dead"


def _this_process() -> dict[str, Any]:
    return {"schema": SCHEMA, **processes.this_process().as_json()}


def _by_age(path: Path) -> Sign:
    return "alive" if _is_fresh(path) else "silent"


def _is_fresh(path: Path) -> bool:
    # A beat from the future comes from a clock that differs or was set back: it proves as little
    # as an old one, and would prove it for as long as the clocks differ.
    try:
        return abs(time.time() - path.stat().st_mtime) < STALE_S
    except OSError:
        return False
