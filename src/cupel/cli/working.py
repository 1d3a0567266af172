"""Says on stderr what a command is at, once it has taken two seconds: `Working`.

On a terminal one line is written over; elsewhere there is a line every ten seconds. Nothing is
said of what is quick.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from cupel.cli.streams import telling
from cupel.cli.tables import printable

_FIRST_S, _REDRAW_S, _LINE_S = 2.0, 0.2, 10.0


class Working:
    """A context; call it with what is being done, as often as one likes (about 0.2 µs)."""

    def __init__(self, doing: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._doing, self._clock = doing, clock
        self._next = clock() + _FIRST_S
        self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def __call__(self, at: str) -> None:
        """Something is at work now."""
        if (now := self._clock()) < self._next:
            return
        text = printable(f"{self._doing} {at}")
        with telling():
            if sys.stderr.isatty():
                text = text[: shutil.get_terminal_size().columns - 1]
                sys.stderr.write(f"\r{text.ljust(self._drawn)}")
                self._drawn, self._next = len(text), now + _REDRAW_S
            else:
                sys.stderr.write(f"{text}\n")
                self._next = now + _LINE_S
            sys.stderr.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn:
            with telling():
                sys.stderr.write(f"\r{' ' * self._drawn}\r")
                sys.stderr.flush()
