"""Who works on a study: one small file a worker, touched while it lives; `workers_of(folder)`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.record import files, heartbeat, processes

FOLDER = "workers"
_EVERY_S, _SOONEST_S = 5.0, 1.0  # between two times that it is written, unchanged and changed


@dataclass(slots=True)
class Presence:
    """A worker's own file; `show` writes what it works on, once a second at most."""

    folder: Path
    name: str
    slots: int
    started: float = field(default_factory=time.time)
    _shown: tuple[str, ...] | None = None
    _written: float = -math.inf

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / FOLDER / f"{self.name}.json"

    def show(self, running: Sequence[str]) -> None:
        """Say what runs now. A disk that refuses loses a line for people, and nothing else."""
        now, told = time.monotonic(), tuple(running)
        since = now - self._written
        if since < _SOONEST_S or (told == self._shown and since < _EVERY_S):
            return
        if self._shown is None:
            _sweep(self.folder / FOLDER)
        self._written, self._shown = now, told
        fields = {
            "schema": 1,
            "worker": self.name,
            "slots": self.slots,
            "running": list(told),
            "started": self.started,
            **processes.this_process().as_json(),
        }
        try:
            self.path.parent.mkdir(exist_ok=True)
            files.write_json(self.path, fields)
        except OSError:
            return

    def leave(self) -> None:
        """Take the file away."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return


def _sweep(folder: Path) -> None:
    """Take away what workers have left behind that were killed."""
    for path in folder.glob("*.json"):
        if heartbeat.sign(path) == "dead":
            for left in (path, path.with_suffix(".clock")):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)


def workers_of(folder: Path) -> list[dict[str, Any]]:
    """Every worker that has not left: name, host, pid, slots, what it runs, and whether it lives
    ("alive", "silent" for a minute, "dead")."""
    rows = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            found = files.read_json(path)
            rows.append(
                {
                    "worker": str(found["worker"]),
                    "state": heartbeat.sign(path),
                    "host": str(found["host"]),
                    "pid": int(found["pid"]),
                    "slots": int(found["slots"]),
                    "running": [str(run) for run in found["running"]],
                }
            )
        except (RecordError, KeyError, TypeError, ValueError):
            continue
    return rows
