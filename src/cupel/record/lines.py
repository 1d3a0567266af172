"""Reads files of JSON lines as they lie there: whole lines in order, damaged ones counted.

A line counts when it ends in a newline, is one JSON mapping, and holds the field that its file
requires. What follows the last newline is unfinished: of a writer that lives it may still become
a line, so its reading begins there the next time. About 1.1 µs a line of ten numbers: pieces of
64 KB are decoded at once, and only a piece that holds damage is decoded line by line (3 µs).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from cupel.record import codec, files

PIECE = 64 * 1024  # larger ones are slower: their decoded lines leave the processor's cache

_many = msgspec.json.Decoder(dict[str, Any])
_tells: ContextVar[Callable[[int, int], None] | None] = ContextVar("_tells", default=None)


@contextlib.contextmanager
def watched(tell: Callable[[int, int], None]) -> Iterator[None]:
    """While this thread reads lines within it, `tell` hears after each piece how many bytes of how
    many have been read of the file that is being read."""
    token = _tells.set(tell)
    try:
        yield
    finally:
        _tells.reset(token)


class LineFile:
    """One file of lines, read onwards: each `read` goes on where the one before has stopped.

    `offset` is the end of the last whole line, `damaged` counts whole lines that hold nothing
    readable, `unfinished` tells whether bytes follow the last newline.
    """

    def __init__(self, path: Path, required: str, *kinds: type, offset: int = 0) -> None:
        """`required` is the field that every line holds, with a value of one of the kinds."""
        self.path, self.offset = path, offset
        self.damaged = 0
        self.unfinished = False
        self._required, self._kinds = required, kinds

    def read(self) -> Iterator[list[dict[str, Any]]]:
        """The lines that are there now, in some lists. Raises OSError."""
        for piece in self.pieces():
            if found := self.decode(piece):
                yield found

    def pieces(self, larger: int = 1) -> Iterator[bytes]:
        """The whole lines that are there now, as they lie there, in pieces of 64 KB or so many
        times as large. Raises OSError."""
        with files.open_regular(self.path) as file:  # pieces are large enough for no buffer
            end = os.fstat(file.fileno()).st_size  # or a fast writer would keep us here
            self.unfinished = self.offset < end
            tell = _tells.get()
            for piece in _pieces(file, self.offset, end, larger * PIECE):
                self.offset += len(piece)
                self.unfinished = self.offset < end
                yield piece
                if tell is not None:
                    tell(self.offset, end)

    def decode(self, piece: bytes) -> list[dict[str, Any]]:
        """The lines of a piece; those that are damaged are counted."""
        found, damaged = decode(piece, self._required, self._kinds)
        self.damaged += damaged
        return found


def decode(
    piece: bytes, required: str, kinds: tuple[type, ...]
) -> tuple[list[dict[str, Any]], int]:
    """The lines of a piece that ends in a newline, and how many of them are damaged."""
    fields = _regular(piece)
    if fields is None:
        lines = [line for line in piece.split(b"\n") if line]
        fields = [_one(line) for line in lines]
    try:
        if set(map(type, map(itemgetter(required), fields))) <= {*kinds}:
            return fields, 0  # nearly always, and four times as fast as looking at each
    except KeyError:
        pass
    found = [line for line in fields if isinstance(line.get(required), kinds)]
    return found, len(fields) - len(found)


def _regular(piece: bytes) -> list[dict[str, Any]] | None:
    """All lines at once; None unless each line is one mapping and nothing else.

    msgspec takes any whitespace for the end of a line. Between a `}` and a `{` no JSON value goes
    on, so values that are as many as the lines are one a line.
    """
    count = piece.count(b"\n")
    ends = piece.startswith(b"{") and piece.endswith(b"}\n")
    if not ends or piece.count(b"}\n{") != count - 1:
        return None
    try:
        fields = _many.decode_lines(piece)
    except (ValueError, RecursionError):
        return None
    if len(fields) != count:
        return None
    if _has_words(piece):
        for number, line in enumerate(piece.split(b"\n")):
            if _has_words(line):
                fields[number] = codec.decode_line(line)
    return fields


def _has_words(text: bytes) -> bool:
    """Whether words for NaN or infinities are in it."""
    # A single byte is found ten times as fast.
    return (b"N" in text and b'NaN"' in text) or (b"I" in text and b'Infinity"' in text)


def _one(line: bytes) -> dict[str, Any]:
    try:
        return codec.decode_line(line)
    except ValueError:
        return {}


def _pieces(file: Any, start: int, end: int, size: int) -> Iterator[bytes]:
    """The bytes of a file from one offset to the last newline before another, cut at newlines."""
    file.seek(start)
    held: list[bytes] = []  # the beginning of a line longer than a piece
    left = end - start
    while left > 0 and (block := file.read(min(size, left))):
        left -= len(block)
        cut = block.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, block[:cut]])
            held = []
        held.append(block[cut:])
