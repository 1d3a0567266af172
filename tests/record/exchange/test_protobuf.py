"""Fields come back as they were written, and garbage is told from a message."""

from __future__ import annotations

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.record.exchange import protobuf, tensors
from cupel.record.exchange.protobuf import Malformed
from exchanges import same

NUMBERS = st.integers(1, 2**29 - 1)


@given(NUMBERS, st.integers(-(2**63), 2**63 - 1))
def test_integers_come_back(number: int, value: int) -> None:
    ((found, wire, raw),) = protobuf.fields(protobuf.written_varint(number, value))
    assert (found, wire, protobuf.signed(raw)) == (number, protobuf.VARINT, value)


@given(NUMBERS, st.floats(), st.binary(max_size=300))
def test_floats_and_bytes_come_back(number: int, value: float, content: bytes) -> None:
    message = protobuf.written_double(number, value) + protobuf.written_bytes(number, content)
    (_, _, first), (_, _, second) = protobuf.fields(message)
    assert same(protobuf.double(first), value)
    assert protobuf.inside(second) == content


@given(st.floats(width=32))
def test_float32_is_kept_whole(value: float) -> None:
    ((_, _, raw),) = protobuf.fields(protobuf.written_single(2, value))
    assert same(protobuf.single(raw), value)
    assert same(protobuf.rounded(value), value)


def test_rounding_beyond_float32_gives_infinity() -> None:
    assert protobuf.rounded(1e300) == math.inf
    assert protobuf.rounded(-1e300) == -math.inf
    assert protobuf.rounded(2**64 - 1) == 2.0**64


@given(st.binary(max_size=200))
@pytest.mark.slow
def test_garbage_is_malformed_and_nothing_else(garbage: bytes) -> None:
    with contextlib.suppress(Malformed):
        for _, _, value in protobuf.fields(garbage):
            for reader in (protobuf.double, protobuf.single, protobuf.signed, protobuf.text):
                with contextlib.suppress(Malformed):
                    reader(value)
            with contextlib.suppress(Malformed):
                protobuf.varints(value)
    with contextlib.suppress(Malformed):
        tensors.number_in(garbage)


@pytest.mark.parametrize(
    "message", [b"\x08", b"\x08" + b"\xff" * 11, b"\x00\x01", b"\x0b", b"\x0a\x05ab", b"\x09\0\0"]
)
def test_what_is_cut_off_or_abolished_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        list(protobuf.fields(message))


def tensor(dtype: int, *parts: bytes) -> bytes:
    return protobuf.written_varint(1, dtype) + b"".join(parts)


def shape(*sizes: int) -> bytes:
    dimensions = [protobuf.written_bytes(2, protobuf.written_varint(1, size)) for size in sizes]
    return protobuf.written_bytes(2, b"".join(dimensions))


@pytest.mark.parametrize(
    "dtype, content, value",
    [
        (1, struct.pack("<f", 0.1), struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        (2, struct.pack("<d", 0.1), 0.1),
        (3, struct.pack("<i", -5), -5),
        (9, struct.pack("<q", -(2**63)), -(2**63)),
        (10, b"\1", True),
        (14, b"\x80\x3f", 1.0),
        (17, struct.pack("<H", 65535), 65535),
        (19, struct.pack("<e", 0.5), 0.5),
        (23, struct.pack("<Q", 2**64 - 1), 2**64 - 1),
    ],
)
def test_every_numeric_tensor_is_read_from_its_content(
    dtype: int, content: bytes, value: object
) -> None:
    for form in ((), (shape(),), (shape(1),), (shape(1, 1),)):
        assert same(
            tensors.number_in(tensor(dtype, *form, protobuf.written_bytes(4, content))), value
        )


@pytest.mark.parametrize(
    "dtype, typed, value",
    [
        (1, protobuf.written_single(5, 0.5), 0.5),
        (1, protobuf.written_bytes(5, struct.pack("<f", 0.5)), 0.5),
        (2, protobuf.written_double(6, 0.1), 0.1),
        (3, protobuf.written_varint(7, -5), -5),
        (9, protobuf.written_bytes(10, b"\x05"), 5),
        (10, protobuf.written_varint(11, 1), True),
        (14, protobuf.written_varint(13, 0x3F80), 1.0),
        (19, protobuf.written_varint(13, 0x3800), 0.5),
        (22, protobuf.written_varint(16, 2**32 - 1), 2**32 - 1),
        (2, b"", 0.0),
        (10, b"", False),
        (9, b"", 0),
    ],
)
def test_every_numeric_tensor_is_read_from_typed_values(
    dtype: int, typed: bytes, value: object
) -> None:
    assert same(tensors.number_in(tensor(dtype, typed)), value)


def test_what_is_not_one_number_is_none() -> None:
    unknown = protobuf.written_bytes(2, protobuf.written_varint(3, 1))
    for message in (
        tensor(7, protobuf.written_bytes(8, b"text")),
        tensor(1, shape(2), protobuf.written_bytes(4, bytes(8))),
        tensor(1, shape(0)),
        tensor(2, unknown),
        b"",
    ):
        assert tensors.number_in(message) is None
    with pytest.raises(Malformed):
        tensors.number_in(tensor(2, protobuf.written_bytes(4, b"1234")))
