"""What Python prints, kept in the record as well: each line is in the file when `print` returns.

The streams' own `write` is replaced, not the streams and not their descriptors. A descriptor would
need a pipe and a reader, and a kill takes with it whatever the pipe still holds; a stream put in
the place of `sys.stdout` is unknown to those who already hold the old one (`logging` does). So
`isatty`, `fileno`, `encoding` and the rest are the stream's own. The price: what C code, child
processes and `sys.stdout.buffer` write is not seen.

A progress bar is one line: of all its states only the last is kept, and while it moves its newest
one is written every few seconds, ended by a carriage return; `lines` leaves those out again.
Colours and other escape sequences are dropped, and keys of known forms are masked. A `print` takes
about 7 µs more.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cupel.record import secrets

BAR_S = 3.0  # how often the state of a line that is not at its end is written
LONGEST = 64 * 1024  # characters; a longer line is kept in pieces

_ROWS = 64  # that a cursor may go back to, as bars below each other do
_TOKEN = re.compile(
    r"\n|\r|\x08+|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\x1b\n]?"
    r"|[^\n\r\x08\x1b]+"
)
_CUT_OFF = re.compile(r"\x1b(?:\[[0-?]{0,40}[ -/]{0,9}|\][^\x07\x1b]{0,200}\x1b?)?\Z")


class Console:
    """Hears what is printed to `sys.stdout` and `sys.stderr` from its making until `stop`.

    `append` takes each line and must not raise; `on_problem` hears of what goes wrong here, which
    never reaches who prints. Only the process that made it is heard: not a child made by fork.
    """

    def __init__(
        self, append: Callable[[bytes], object], *, on_problem: Callable[[Exception], object]
    ) -> None:
        self._append, self._on_problem = append, on_problem
        self._pid = os.getpid()
        # A signal handler may print while its own thread is inside print: reentrant, and what it
        # prints waits until the line that it interrupted is dealt with.
        self._lock = threading.RLock()
        self._waiting: deque[tuple[_Screen, str]] = deque()
        self._busy = self._stopped = False
        self._patched: list[tuple[Any, Any, Any]] = []
        self._screens: list[_Screen] = []
        for stream in {id(found): found for found in (sys.stdout, sys.stderr)}.values():
            if stream is not None:
                self._patch(stream)

    def tick(self) -> None:
        """Write the newest state of lines that have not ended; to be called every second or two."""
        # Who is printing may have been interrupted to end this very thread: it is not waited for.
        if self._lock.acquire(blocking=False):
            try:
                now = time.monotonic()
                for screen in () if self._busy else self._screens:
                    self._write(screen.overdue(now))
            finally:
                self._lock.release()

    def stop(self) -> None:
        """Write what has not ended, and give the streams their own `write` back."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._stopped:
                self._hear_waiting()
                for screen in self._screens:
                    self._write(screen.rest())
            self._stopped = True
        while self._patched:
            stream, ours, before = self._patched.pop()
            if vars(stream).get("write") is not ours:
                continue  # somebody has put theirs over ours, which from now on only hands on
            if before is None:
                del stream.write
            else:
                stream.write = before

    def _patch(self, stream: Any) -> None:
        screen, write = _Screen(), stream.write

        def heard(*text: Any, **more: Any) -> Any:
            try:
                return write(*text, **more)
            finally:  # also when the terminal is gone, and writing to it raises
                self._hear(screen, text[0] if text else None)

        try:
            before = vars(stream).get("write")
            stream.write = heard
        except (TypeError, AttributeError) as error:  # it takes no attributes: it stays unheard
            self._on_problem(error)
            return
        self._screens.append(screen)
        self._patched.append((stream, heard, before))

    def _hear(self, screen: _Screen, text: Any) -> None:
        if self._stopped or os.getpid() != self._pid or not isinstance(text, str):
            return
        self._waiting.append((screen, text))
        with self._lock:
            if self._busy or self._stopped:
                return  # in a signal handler, or telling of a problem: the caller below goes on
            self._hear_waiting()

    def _hear_waiting(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                screen, text = self._waiting.popleft()
                self._write(screen.feed(text, time.monotonic()))
        except Exception as error:  # or the print of a user's own would raise it
            self._on_problem(error)
        finally:
            self._busy = False

    def _write(self, pieces: Iterator[str]) -> None:
        for piece in pieces:
            self._append(secrets.certain(piece).encode("utf-8", "backslashreplace"))


def lines(data: bytes) -> list[str]:
    """The lines of a file that `Console` wrote: of a line with several states the last one."""
    found = data.decode("utf-8", "replace").split("\n")
    if not found[-1]:
        found.pop()
    return [next((state for state in reversed(line.split("\r")) if state), "") for line in found]


@dataclass(slots=True)
class _Row:
    text: str = ""
    ended: str | None = None  # what was written of it with a newline
    written: str = ""  # what was written of it last
    since: float = 0.0  # when that was, or when it began


class _Screen:
    """The last rows of one stream as a terminal would show them; yields what is to be written.

    A carriage return begins a row anew, whatever is shorter than before included: programs that
    mean less rub it out. Of moving the cursor only up and down are understood.
    """

    def __init__(self) -> None:
        self._rows = [_Row()]
        self._y = 0
        self._anew = False  # whether the next text replaces the row's
        self._cut_off = ""  # an escape sequence whose rest is in the next text

    def feed(self, text: str, now: float) -> Iterator[str]:
        text = self._cut_off + text
        cut_off = _CUT_OFF.search(text)
        self._cut_off = cut_off[0] if cut_off else ""
        for token in _TOKEN.findall(text[: cut_off.start()] if cut_off else text):
            kind = token[0]
            if kind == "\n":
                yield from self._down(now)
            elif kind == "\r":
                self._anew = True
            elif kind == "\x1b":
                yield from self._control(token)
            elif kind == "\x08":
                self._row.text = self._row.text[: -len(token)]
            else:
                for start in range(0, len(token), LONGEST):
                    yield from self._put(token[start : start + LONGEST], now)
        yield from self._if_overdue(self._row, now)

    def overdue(self, now: float) -> Iterator[str]:
        """The rows that have shown something new for longer than `BAR_S`."""
        for row in self._rows:
            yield from self._if_overdue(row, now)

    def rest(self) -> Iterator[str]:
        """What is not yet written for good; the screen is empty then."""
        for row in self._rows:
            if row.text not in ("", row.ended):
                yield row.text + "\n"
        self._rows, self._y, self._anew = [_Row()], 0, False

    @property
    def _row(self) -> _Row:
        return self._rows[self._y]

    def _put(self, text: str, now: float) -> Iterator[str]:
        row = self._row
        if not row.text and not row.written:
            row.since = now
        if self._anew:
            row.text, self._anew = "", False
        if len(row.text) + len(text) > LONGEST:
            yield from self._down(now)
            row, self._anew = self._row, False
            row.since = now
        row.text += text

    def _down(self, now: float) -> Iterator[str]:
        row = self._row
        if row.ended is None or (row.text not in ("", row.ended) and now - row.since >= BAR_S):
            yield self._state(row, now, ends=True)
        self._y += 1
        if self._y == len(self._rows):
            self._rows.append(_Row())
        if len(self._rows) > _ROWS:
            self._y -= 1
            gone = self._rows.pop(0)
            if gone.text not in ("", gone.ended):
                yield gone.text + "\n"
        self._anew = True  # a row that was there is drawn anew

    def _control(self, sequence: str) -> Iterator[str]:
        kind, number = sequence[-1], re.search(r"\d+", sequence)
        count = int(number[0][:6]) if number else None
        if not sequence.startswith("\x1b["):
            return
        if kind in "AF":
            self._y = max(0, self._y - (count or 1))
        elif kind in "BE":
            self._y = min(len(self._rows) - 1, self._y + (count or 1))
        elif kind == "H":
            self._y = 0
        elif kind == "K" and (count == 2 or self._anew):
            self._row.text = ""
        elif kind == "J" and count in (2, 3):
            yield from self.rest()
        elif kind == "J":
            for row in self._rows[self._y + (not self._anew) :]:
                row.text = ""
        if kind in "EFH" or (kind == "G" and count in (None, 1)):
            self._anew = True

    def _if_overdue(self, row: _Row, now: float) -> Iterator[str]:
        if row.text not in ("", row.written) and now - row.since >= BAR_S:
            # Only the last row will be ended for certain; others get their newline at once.
            yield self._state(row, now, ends=row is not self._rows[-1])

    @staticmethod
    def _state(row: _Row, now: float, *, ends: bool) -> str:
        row.written, row.since = row.text, now
        if ends:
            row.ended = row.text
        return row.text + ("\n" if ends else "\r")
