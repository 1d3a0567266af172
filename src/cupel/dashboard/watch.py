"""Tells which of the runs that somebody looks at have changed: `Watch`.

A look at a run that lives is two listings of a folder (about 40 µs); it is looked at ten times a
second, and one whose newest file has not grown for a minute once a second. Nobody looks at a run
that no page shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from cupel.record import layout

TICK_S = 0.1
QUIET_S = 60.0
SELDOM_S = 1.0

State = tuple[object, ...]


class Watch:
    """Of each run that is watched a number that grows when its files have changed.

    `due` and `take` belong to one thread, `read` to any: it touches nothing of the watch.
    """

    def __init__(self, folder_of: Callable[[str], Path | None]) -> None:
        self._folder_of = folder_of
        self._watchers: dict[str, int] = {}
        self._seen: dict[str, State] = {}
        self._changed_at: dict[str, float] = {}
        self._looked_at: dict[str, float] = {}
        self._next = count(1)  # never the same again, also of a run that nobody watched meanwhile
        self.versions: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Somebody looks at a run."""
        self._watchers[key] = self._watchers.get(key, 0) + 1
        if key not in self.versions:
            self.versions[key] = next(self._next)

    def remove(self, key: str) -> None:
        """Somebody does so no more."""
        self._watchers[key] -= 1
        if not self._watchers[key]:
            for known in (self._watchers, self._seen, self._changed_at, self._looked_at):
                known.pop(key, None)
            self.versions.pop(key, None)

    def due(self) -> list[str]:
        """The runs that are to be looked at now."""
        now = time.monotonic()
        return [
            key
            for key in self._watchers
            if now - self._changed_at.get(key, now) <= QUIET_S
            or now - self._looked_at.get(key, 0.0) >= SELDOM_S
        ]

    def read(self, keys: list[str]) -> dict[str, State]:
        """What the files of some runs are like. Reads folders: not for an event loop."""
        return {key: _state_of(self._folder_of(key)) for key in keys}

    def take(self, states: Mapping[str, State]) -> set[str]:
        """The runs that have changed since they were looked at before."""
        now, changed = time.monotonic(), set()
        for key in states.keys() & self._watchers.keys():
            self._looked_at[key] = now
            if states[key] != self._seen.get(key):  # at the first look, too
                self._seen[key], self._changed_at[key] = states[key], now
                self.versions[key] = next(self._next)
                changed.add(key)
        return changed


def _state_of(run_dir: Path | None) -> State:
    """What is another whenever a line was written, a session begun or ended, or an end accepted."""
    if run_dir is None:
        return ()
    try:
        numbers = layout.session_numbers(run_dir)
        newest = layout.session_dir(run_dir, numbers[-1]) if numbers else None
        found: list[object] = [len(numbers), (run_dir / layout.RESULTS).exists()]
        found.append((run_dir / layout.RUN).stat().st_mtime_ns)
        if newest is not None:
            with os.scandir(newest) as entries:
                for entry in entries:
                    if entry.name.endswith((".jsonl", ".json", ".log")):
                        stat = entry.stat()
                        found.append((entry.name, stat.st_size, stat.st_ino))
    except OSError:
        return ("gone",)
    return tuple(found)
