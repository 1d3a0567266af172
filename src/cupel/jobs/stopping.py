"""Hears that a person or a scheduler wants many runs to stop: `Stopping`.

SIGINT, SIGTERM, SIGHUP and SIGUSR1 (Slurm's warning before a time limit) raise a flag that whoever
supervises reads between two looks at its jobs. A second Ctrl-C insists; schedulers send their
signals more than once without meaning that.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopping:
    """A context manager; inside it `name` tells which signal (or what else) asked first, or None,
    and `insists` whether Ctrl-C came twice. In a thread other than the main one none is heard.

    With `leaving`, the process ends soon after a stop: a scheduler's signals are then ignored for
    good, so that a repeated one does not turn exit code 75 into a death by signal.
    """

    def __init__(self, *, leaving: bool = False) -> None:
        self._leaving = leaving
        self.name: str | None = None
        self.insists = False
        self._seen: set[int] = set()
        self._old: dict[signal.Signals, Any] = {}

    def ask(self, why: str) -> None:
        """Ask as a first signal does, for a reason of our own."""
        if self.name is None:
            self.name = why

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            ignored = {s for s in HEARD if signal.getsignal(s) == signal.SIG_IGN}  # nohup's SIGHUP
            hears = [s for s in HEARD if s not in ignored or s == signal.SIGTERM]
            self._old = {s: signal.signal(s, self._heard) for s in hears}
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._leaving and self._seen
        for number, handler in self._old.items():
            ignored = stopped and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.insists |= number == signal.SIGINT and number in self._seen
        self._seen.add(number)
        if self.name is None:
            self.name = signal.Signals(number).name
