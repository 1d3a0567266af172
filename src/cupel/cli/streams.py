"""Prints to stdout and stderr so that a stream that fails ends in one line: full, closed or gone.

Without it Python ends with a traceback, or with exit code 120 and a complaint of its own. Start
with `keep_refused`; print results within `printing`, and what is only told by `tell`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from cupel.errors import CupelError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console


@contextmanager
def printing(*, then: str = "") -> Iterator[None]:
    """A context to print in: what stdout does not take becomes a CupelError that ends with `then`.

    Raises BrokenPipeError when the reader of a pipe has gone.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or not _refuses(sys.stdout):
            raise
        raise CupelError(f"cannot write to stdout: {error.strerror}{then}") from None
    finally:
        _refuses(sys.stdout)


@contextmanager
def telling() -> Iterator[None]:
    """A context to write to stderr in: when it is full or gone, nothing that matters is lost."""
    try:
        yield
    except OSError:
        if not _refuses(sys.stderr):
            raise


def told_console() -> Console:
    """A console on stderr, for use within `telling`: rich's own ends the program when the reader of
    a pipe has gone."""
    from rich.console import Console

    class Told(Console):
        def on_broken_pipe(self) -> None:
            raise  # what rich has just caught

    return Told(stderr=True)


def tell(*lines: str) -> None:
    """Print lines to stderr."""
    with telling():
        for line in lines:
            print(line, file=sys.stderr)


def keep_refused() -> None:
    """See that it is known of stdout and stderr what they refuse, also under `python -u` and of
    what is larger than a buffer: `printing` and `telling` know by it whose an OSError is. What an
    encoding lacks is written as \\u2502."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        raw = getattr(stream.buffer, "raw", stream.buffer)
        if not isinstance(raw, io.RawIOBase) or isinstance(raw, _Watched) or raw.fileno() != number:
            continue  # a test's, or watched already
        stream.flush()
        watched = io.TextIOWrapper(
            io.BufferedWriter(_Watched(raw, stream)),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering or stream.write_through,
        )
        for place in (name, f"__{name}__"):
            if getattr(sys, place) is stream:
                setattr(sys, place, watched)


class _Watched(io.RawIOBase):
    """A stream's file that remembers that it refused something: a buffer need not keep it."""

    def __init__(self, raw: io.RawIOBase, owner: TextIO) -> None:
        super().__init__()
        # The owner would close the file when it is gone; and somebody may hold it, as a logger.
        self._raw, self._owner, self.refused = raw, owner, False

    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return self._raw.write(data)
        except OSError:
            self.refused = True
            raise

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def writable(self) -> bool:
        return True


def _refuses(stream: TextIO) -> bool:
    """Whether there is something that a stream does not take. From then on all of it is dropped,
    or Python would try once more when it ends, and complain."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    refused = isinstance(raw, _Watched) and raw.refused
    try:
        stream.flush()
    except OSError:
        refused = True
    if refused:
        if isinstance(raw, _Watched):
            raw.refused = False
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return refused
