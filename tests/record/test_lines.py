"""However a file of lines is cut and read, each whole line comes once, and damage is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import RUNS, Log, damage_in, lines_of
from cupel.record import lines
from cupel.record.lines import LineFile, watched


def read(file: LineFile) -> list[dict[str, Any]]:
    return [line for some in file.read() for line in some]


@pytest.fixture(params=[7, 64 * 1024], ids=["pieces of 7 bytes", "one piece"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(lines, "PIECE", request.param)
    return int(request.param)


@settings(deadline=None, max_examples=60)
@given(RUNS)
@pytest.mark.parametrize("size", [7, 64 * 1024])
@pytest.mark.slow
def test_lines_are_those_that_are_read_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, size: int, run: list[Log]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE", size)
        for log in run:
            for segment in log.segments:
                path.write_bytes(segment)
                file = LineFile(path, "_step", int)
                assert repr(read(file)) == repr(lines_of(segment))
                assert file.damaged + file.unfinished == damage_in([Log(None, [segment])])
                assert file.offset == segment.rfind(b"\n") + 1


@settings(deadline=None, max_examples=60)
@given(RUNS, st.data())
@pytest.mark.slow
def test_a_file_that_grows_by_any_pieces_gives_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], data: st.DataObject
) -> None:
    whole = b"".join(segment for log in run for segment in log.segments)
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    path.write_bytes(b"")
    file = LineFile(path, "_step", int)
    found, written = [], 0
    while written < len(whole):
        cut = data.draw(st.integers(written + 1, len(whole)))
        with path.open("ab") as growing:
            growing.write(whole[written:cut])
        written = cut
        found += read(file)
        assert file.unfinished == (not whole[:cut].endswith(b"\n"))
    assert repr(found) == repr(lines_of(whole))


def test_a_line_of_two_values_does_not_hide_a_value_of_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"_step":1} {"_step":2}\n{"_step":3,\n"a":1}\n{"_step":4}\n')
    file = LineFile(path, "_step", int)
    assert ([line["_step"] for line in read(file)], file.damaged) == ([4], 3)


def test_a_line_longer_than_a_piece_is_one_line(tmp_path: Path, piece: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"_step":1,"text":"' + b"x" * 200_000 + b'"}\n{"_step":2')
    file = LineFile(path, "_step", int)
    assert [line["_step"] for line in read(file)] == [1]
    assert file.unfinished


def test_other_kinds_of_lines_need_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"_event":"begin"}\n{"_event":3}\n{"_t":1}\n')
    file = LineFile(path, "_event", str)
    assert (read(file), file.damaged) == ([{"_event": "begin"}], 2)
    assert len(read(LineFile(path, "_t", int, float))) == 1


def test_who_watches_is_told_how_far_the_reading_is(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"_step":1}\n' * 20_000 + b'{"_st')
    told: list[tuple[int, int]] = []
    with watched(lambda read, of: told.append((read, of))):
        assert sum(map(len, LineFile(path, "_step", int).read())) == 20_000
    size = path.stat().st_size
    assert {of for _, of in told} == {size}
    reads = [read for read, _ in told]
    assert len(reads) > 2
    assert reads == sorted(reads)
    assert reads[-1] == size - 5
    list(LineFile(path, "_step", int).read())
    assert len(reads) == len(told)  # nobody is told outside of it
