"""Frames of TensorBoard's event files: length, its checksum, payload, its checksum.

A payload whose checksum is wrong is skipped and counted. Where a length cannot be trusted nothing
after it can be found, so reading ends there and the bytes left are counted; so it does at a record
that is cut off, the usual end of a file whose writer was killed.
Source: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from cupel.record.exchange.checksum import masked

_HEAD = struct.Struct("<QI")
_BLOCK = 1 << 20
_FOOT = struct.Struct("<I")


class Frames:
    """The payloads of one open file, in order; `damaged` and `unread` are full once it is read.

    `damaged` counts records, among them one for an end that is cut off; `unread` counts bytes
    after the last record that could be found.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.damaged = 0
        self.unread = 0

    def __iter__(self) -> Iterator[bytes]:
        while head := self._file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                return self._end(len(head))
            length, checksum = _HEAD.unpack(head)
            if masked(head[:8]) != checksum:
                return self._end(len(head))
            payload = self._file.read(length) if length <= _BLOCK else self._long(length)
            foot = self._file.read(_FOOT.size) if len(payload) == length else b""
            if len(foot) < _FOOT.size:
                return self._end(len(head) + len(payload) + len(foot))
            if masked(payload) == _FOOT.unpack(foot)[0]:
                yield payload
            else:
                self.damaged += 1
        return None

    def _long(self, length: int) -> bytes:
        # In blocks: a length may be any number, and room is made for what is asked for.
        blocks = []
        while length and (block := self._file.read(min(length, _BLOCK))):
            blocks.append(block)
            length -= len(block)
        return b"".join(blocks)

    def _end(self, seen: int) -> None:
        self.damaged += 1
        self.unread = seen
        while block := self._file.read(_BLOCK):
            self.unread += len(block)


def framed(payload: bytes) -> bytes:
    """A payload as a record of such a file."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _FOOT.pack(masked(length)), payload, _FOOT.pack(masked(payload))))
