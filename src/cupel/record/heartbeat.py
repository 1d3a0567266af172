"""Whether a session lives: a file that says which process it is, touched every five seconds.

On the same machine the process itself is looked for, so a kill is seen at once, and neither a pid
used again nor a restart deceives. From another machine (shared storage, a container) only the
file's age tells, so there a death is seen after a minute.
The same thread makes the session's lines survive a power loss, every one and a half seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cupel.errors import RecordError
from cupel.record import files, processes
from cupel.record.layout import SCHEMA

TOUCH_S = 5.0
SYNC_S = 1.5
STALE_S = 60.0


def write_heartbeat(path: Path) -> None:
    """Write which process this is. Raises OSError."""
    files.write_json(path, {"schema": SCHEMA, **processes.this_process().as_json()})


class Heartbeat:
    """Keeps the file of `write_heartbeat` fresh, by a thread, until `stop`.

    `sync()` is called every 1.5 s; `on_problem(error)` hears of its OSErrors and of the
    heartbeat's own.
    """

    def __init__(
        self, path: Path, *, sync: Callable[[], None], on_problem: Callable[[OSError], None]
    ) -> None:
        self._path, self._sync, self._on_problem = path, sync, on_problem
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cupel-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the file stays, and its process may live on."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        touched = time.monotonic()
        while not self._stopped.wait(SYNC_S):
            try:
                if time.monotonic() - touched >= TOUCH_S - SYNC_S / 2:
                    touched = time.monotonic()
                    os.utime(self._path)
                self._sync()
            except OSError as error:
                self._on_problem(error)


def is_alive(path: Path) -> bool:
    """Whether the process that a heartbeat file names still runs.

    Without a readable file the age of its folder decides: a session writes its heartbeat first
    thing, so a young folder without one is just starting.
    """
    try:
        process = processes.Process.from_json(files.read_json(path))
    except (RecordError, KeyError, TypeError, ValueError):
        return _is_fresh(path.parent)
    here, there = processes.this_place(), process.place
    if (here.host, here.pid_namespace) != (there.host, there.pid_namespace):
        return _is_fresh(path)
    return here == there and processes.lives(process.pid, process.start)


def _is_fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STALE_S
    except OSError:
        return False
