"""Signals that ask a run to stop: the first asks for a checkpoint, the second Ctrl-C aborts.

SIGINT (Ctrl-C), SIGTERM (schedulers, `kill`), SIGUSR1 (Slurm's warning before a time limit) and
SIGHUP (the terminal is gone) raise a flag that the loop reads at the next step boundary. Handlers
can only be set in the main thread; elsewhere the flag stays down and the signals keep their old
meaning.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from cupel import ranks

ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: "try again later"; schedulers may requeue it


class StopRequest:
    """A context manager; inside it `name` tells which signal asked to stop, or None.

    With `leaving`, the process ends soon after a stop: a scheduler's signals are then ignored for
    good, so that a repeated one does not turn exit code 75 into a death by signal.
    """

    def __init__(self, *, leaving: bool = False) -> None:
        self.name: str | None = None
        self._leaving = leaving
        self._interrupted = False
        self._tells = ranks.rank() == 0  # asked here, because a handler has nobody to complain to
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            hears = [s for s in ASKS_TO_STOP if s != signal.SIGHUP or not _under_nohup()]
            self._old = {s: signal.signal(s, self._heard) for s in hears}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = self._leaving and self.name is not None
        for number, handler in self._old.items():
            ignored = stopped and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted and number == signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)  # a third may not tear up how the run ends
            raise KeyboardInterrupt  # the second Ctrl-C: abort now, without a checkpoint
        self._interrupted |= number == signal.SIGINT
        if self.name is None and self._tells:
            # Not print: a handler may have interrupted one. A closed stderr must not matter.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping at the next step boundary; press Ctrl-C twice to abort\n")
        self.name = signal.Signals(number).name


def _under_nohup() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
