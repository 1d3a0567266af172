"""Records of a log in LevelDB's format: blocks of 32 KiB, records that may span several.

A damaged piece costs its record; reading goes on at the piece after it, or where that cannot be
trusted at the next block. The end of a log whose writer was killed is damaged in nearly every case.
Source: github.com/google/leveldb/blob/main/doc/log_format.md; wandb's logs use the plain CRC-32
(IEEE) instead of the masked CRC-32C that is described there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 32 * 1024
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_KINDS = (_FULL, _FIRST, _MIDDLE, _LAST)


class Records:
    """The records of one open log, still at its beginning; `damaged` counts what was unreadable.

    `start` is the length of a file header of its own, which the first block includes.
    """

    def __init__(self, file: BinaryIO, *, start: int = 0) -> None:
        self._file, self._start = file, start
        self.damaged = 0

    def __iter__(self) -> Iterator[bytes]:
        held: list[bytes] | None = None  # pieces of a record that is not complete
        for kind, data in self._pieces():
            if kind in (_FULL, _FIRST) and held is not None:
                self.damaged += 1
                held = None
            if kind == _FULL:
                yield data
            elif kind == _FIRST:
                held = [data]
            elif kind == 0:  # a damaged piece, counted already
                held = None
            elif held is not None:
                held.append(data)
                if kind == _LAST:
                    yield b"".join(held)
                    held = None
        if held is not None:
            self.damaged += 1

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Kind and data of each piece; kind 0 for one that is damaged."""
        position = self._start
        while block := self._file.read(BLOCK):
            while position + _HEAD.size <= len(block):
                checksum, length, kind = _HEAD.unpack_from(block, position)
                if not (checksum or length or kind):
                    break  # zeros to the end of the block: room that was never used
                end = position + _HEAD.size + length
                data = block[position + _HEAD.size : end]
                if _is_whole(checksum, length, kind, data):
                    yield kind, data
                else:
                    self.damaged += 1
                    yield 0, b""
                    if not _begins_a_piece(block, end):
                        break
                position = end
            else:
                if position < len(block) < BLOCK:
                    self.damaged += 1  # a head that is cut off, perhaps of a record begun before
                    yield 0, b""
            position = 0


def _is_whole(checksum: int, length: int, kind: int, data: bytes) -> bool:
    if kind not in _KINDS or len(data) != length:
        return False
    return zlib.crc32(data, zlib.crc32(bytes([kind]))) == checksum


def _begins_a_piece(block: bytes, position: int) -> bool:
    if position + _HEAD.size > len(block):
        return False
    checksum, length, kind = _HEAD.unpack_from(block, position)
    start = position + _HEAD.size
    return _is_whole(checksum, length, kind, block[start : start + length])
