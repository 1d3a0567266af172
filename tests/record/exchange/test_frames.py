"""Framed files of two tools: what was written is read, what is damaged costs itself only."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cupel.record.exchange import checksum
from cupel.record.exchange.leveldb import BLOCK, Records
from cupel.record.exchange.tfrecord import Frames, framed

SIZES = st.lists(st.sampled_from([0, 1, 7, 100, 3000, BLOCK - 14, BLOCK - 7, BLOCK, 90_000]))


def log_of(records: Sequence[bytes], start: int) -> bytes:
    """A log as LevelDB's writer makes it, after a header of `start` zeros."""
    found = bytearray(start)
    for record in records:
        rest, first = record, True
        while first or rest:
            room = BLOCK - len(found) % BLOCK
            if room < 7:
                found += bytes(room)
                continue
            piece, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            crc = zlib.crc32(piece, zlib.crc32(bytes([kind])))
            found += struct.pack("<IHB", crc, len(piece), kind) + piece
            first = False
    return bytes(found)


def contents(sizes: Sequence[int]) -> list[bytes]:
    return [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "data, crc",
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_crc32c(data: bytes, crc: int) -> None:
    assert checksum.crc32c(data) == crc


@given(st.integers(0, 6000), st.integers())
@settings(deadline=None, max_examples=40)
def test_the_checksum_of_many_bytes_is_that_of_one_byte_after_another(size: int, seed: int) -> None:
    data = random.Random(seed).randbytes(size)
    whole = size - size % 64
    alone = checksum._one_by_one(0xFFFFFFFF, data)
    assert checksum.crc32c(data) == alone ^ 0xFFFFFFFF
    assert checksum._by_pieces(0xFFFFFFFF, data[:whole]) == checksum._one_by_one(
        0xFFFFFFFF, data[:whole]
    )


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_frames_come_back(payloads: list[bytes]) -> None:
    frames = Frames(io.BytesIO(b"".join(map(framed, payloads))))
    assert list(frames) == payloads
    assert (frames.damaged, frames.unread) == (0, 0)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_frames_that_are_cut_off_lose_the_last_one_only(
    payloads: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(map(framed, payloads))
    last = len(framed(payloads[-1]))
    cut = data.draw(st.integers(1, last - 1))
    frames = Frames(io.BytesIO(whole[:-cut]))
    assert list(frames) == payloads[:-1]
    assert (frames.damaged, frames.unread) == (1, last - cut)


def test_a_damaged_payload_costs_itself_and_a_damaged_length_all_that_follows() -> None:
    payloads = [b"one", b"two", b"three"]
    first, second, third = map(framed, payloads)
    damaged = first + second[:13] + b"?" + second[14:] + third
    frames = Frames(io.BytesIO(damaged))
    assert list(frames) == [b"one", b"three"]
    assert (frames.damaged, frames.unread) == (1, 0)
    frames = Frames(io.BytesIO(first + b"\xff" + second[1:] + third))
    assert list(frames) == [b"one"]
    assert (frames.damaged, frames.unread) == (1, len(second) + len(third))


@pytest.mark.parametrize("length", [2**64 - 1, 2**61, 2**40, 2_000_000])
def test_a_length_of_any_size_is_a_record_that_is_cut_off(length: int) -> None:
    head = struct.pack("<Q", length)
    content = head + struct.pack("<I", checksum.masked(head)) + bytes(1_500_000)
    frames = Frames(io.BytesIO(framed(b"one") + content))
    assert list(frames) == [b"one"]
    assert (frames.damaged, frames.unread) == (1, len(content))


@given(st.integers(1 << 20, (1 << 20) + 3))
@settings(deadline=None, max_examples=3)
def test_long_frames_come_back(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    assert list(Frames(io.BytesIO(framed(payload)))) == [payload]


@given(st.binary(max_size=400))
def test_garbage_is_no_frame_and_no_record(garbage: bytes) -> None:
    assert list(Frames(io.BytesIO(garbage))) == []
    assert list(Records(io.BytesIO(garbage))) == []


@given(SIZES, st.sampled_from([0, 7]))
@example([BLOCK - 7 - 7, 5], 7)
@settings(deadline=None, max_examples=60)
def test_records_of_a_log_come_back_across_blocks(sizes: list[int], start: int) -> None:
    records = contents(sizes)
    log = Records(io.BytesIO(log_of(records, start)), start=start)
    assert list(log) == records
    assert log.damaged == 0


@given(SIZES.filter(len), st.data())
@settings(deadline=None, max_examples=60)
def test_a_log_that_is_cut_off_gives_what_lies_before(
    sizes: list[int], data: st.DataObject
) -> None:
    records = contents(sizes)
    whole = log_of(records, 7)
    end = data.draw(st.integers(7, len(whole) - 1))
    log = Records(io.BytesIO(whole[:end]), start=7)
    found = list(log)
    assert found == records[: len(found)]
    before = len(log_of(records[: len(found)], 7))
    assert log.damaged in ((0, 1) if end - before < 7 else (1,))


def test_a_record_cut_off_in_the_head_of_its_second_piece_is_one_damaged_record() -> None:
    records = contents([0, 32754, 32754])  # the last one's first piece ends with the block
    log = Records(io.BytesIO(log_of(records, 7)[:65537]), start=7)
    assert list(log) == records[:2]
    assert log.damaged == 1


def test_a_damaged_record_costs_itself_only() -> None:
    records = contents([100, 100, 100, 70_000, 100])
    log = bytearray(log_of(records, 7))
    log[7 + 107 + 50] ^= 1  # inside the second
    found = Records(io.BytesIO(bytes(log)), start=7)
    assert list(found) == [records[0], *records[2:]]
    assert found.damaged == 1
    log[BLOCK + 1000] ^= 1  # inside a middle piece of the fourth, which fills a block
    found = Records(io.BytesIO(bytes(log)), start=7)
    assert list(found) == [records[0], records[2], records[4]]
    assert found.damaged == 2


def test_damage_in_a_length_costs_the_rest_of_its_block() -> None:
    records = contents([100] * 1000)
    log = bytearray(log_of(records, 0))
    log[107 + 4] ^= 0xFF
    found = Records(io.BytesIO(bytes(log)))
    got = list(found)
    assert got[0] == records[0]
    assert got[1:] == records[-len(got) + 1 :]
    assert len(got) > 600
