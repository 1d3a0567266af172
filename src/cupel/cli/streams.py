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
from typing import TextIO

from cupel.errors import CupelError


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


def tell(*lines: str) -> None:
    """Print lines to stderr."""
    with telling():
        for line in lines:
            print(line, file=sys.stderr)


def keep_refused() -> None:
    """See that what a stream refuses stays in its buffer, also under `python -u`: `printing` and
    `telling` know by it whose an OSError is. What an encoding lacks is written as \\u2502."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        if stream is getattr(sys, f"__{name}__") and stream.write_through:
            how = {"encoding": stream.encoding, "errors": stream.errors}
            buffered = io.TextIOWrapper(
                io.BufferedWriter(stream.detach()), **how, line_buffering=True
            )
            setattr(sys, name, buffered)
            setattr(sys, f"__{name}__", buffered)


def _refuses(stream: TextIO) -> bool:
    """Whether there is something that a stream does not take. From then on all of it is dropped,
    or Python would try once more when it ends, and complain."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False
