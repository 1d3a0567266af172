"""Signals that ask a run to stop: the first asks for a checkpoint, the second Ctrl-C aborts.

SIGINT (Ctrl-C), SIGTERM (schedulers, `kill`) and SIGUSR1 (Slurm's warning before a time limit)
raise a flag that the loop reads at the next step boundary. Handlers can only be set in the main
thread; elsewhere the flag stays down and the signals keep their old meaning.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: "try again later"; schedulers may requeue it


class StopRequest:
    """A context manager; inside it `name` tells which signal asked to stop, or None."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._interrupted = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._heard) for s in ASKS_TO_STOP}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C: abort now, without a checkpoint
        self._interrupted |= number == signal.SIGINT
        if self.name is None and int(os.environ.get("RANK", 0)) == 0:
            # Not print: a handler may have interrupted one. A closed stderr must not matter.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping at the next step boundary; press Ctrl-C twice to abort\n")
        self.name = signal.Signals(number).name
