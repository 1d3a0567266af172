"""What wandb left on disk is read to the bit, and damage costs itself only."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record.exchange import wandb
from cupel.record.exchange.foreign import Foreign
from cupel.record.exchange.leveldb import Records
from cupel.record.exchange.points import Line
from cupel.record.exchange.protobuf import written_bytes, written_varint
from exchanges import GOLDEN, check_expected, read, same

FILE = GOLDEN / "wandb" / "run-abcd1234.wandb"


def log_of(records: list[bytes]) -> bytes:
    pieces = [
        struct.pack("<IHB", zlib.crc32(record, zlib.crc32(b"\1")), len(record), 1) + record
        for record in records
    ]
    return wandb.HEADER + b"".join(pieces)


def run_of(path: Path, content: bytes) -> Foreign:
    path.write_bytes(content)
    (run,) = wandb.runs_in(path, print)
    return run


def history(step: int | None, *items: tuple[str, str]) -> bytes:
    message = b"".join(
        written_bytes(1, written_bytes(1, key) + written_bytes(16, value)) for key, value in items
    )
    if step is not None:
        message += written_bytes(2, written_varint(1, step))
    return written_bytes(2, message)


def test_what_wandb_wrote_is_read_to_the_bit() -> None:
    (run,) = wandb.runs_in(FILE, print)
    check_expected("wandb", read(run))
    assert run.damaged == 0


def test_facts_and_what_is_left_out_are_told() -> None:
    (run,) = wandb.runs_in(GOLDEN / "wandb", print)
    times = [line.t for line in read(run)]
    assert (run.name, run.project, run.foreign_id) == ("first", "peers", "abcd1234")
    assert (run.version, run.status, run.error) == ("0.31.0", "finished", None)
    assert (run.tags, run.notes) == (["a", "b"], "a note")
    assert run.config == {"lr": 0.1, "model": {"layers": 3, "act": "gelu"}, "late": 7}
    assert run.summary["best"] == 0.05
    assert run.summary["text"] == "words"
    assert (run.facts, run.group) == ({"host": "host"}, "all")
    assert run.left_out == {"lines of system metrics": 1, "texts": 1, "histogram": 1}
    assert run.created is not None
    assert times == sorted(times)
    assert 0 < times[0] - run.created < 60


def test_a_run_without_its_end_is_interrupted_and_one_with_an_exit_code_failed(
    tmp_path: Path,
) -> None:
    line = history(1, ("loss", "0.5"))
    run = run_of(tmp_path / "a.wandb", log_of([line]))
    assert read(run) == [Line(1, pytest.approx(math.nan, nan_ok=True), {"loss": 0.5})]
    assert (run.status, run.name) == ("interrupted", "a")
    failed = written_bytes(18, written_varint(1, 3))
    run = run_of(tmp_path / "a.wandb", log_of([line, failed]))
    read(run)
    assert (run.status, run.error) == ("failed", "exit code 3")


def test_values_come_as_json_says_and_other_things_are_counted(tmp_path: Path) -> None:
    values = [
        ("a", "-0"), ("b", "NaN"), ("c", "-Infinity"), ("d", '"Infinity"'), ("e", "1e400"),
        ("f", "18446744073709551615"), ("g", "18446744073709551616"), ("h", "[1,2.5]"),
        ("i", '["x"]'), ("_step", "7"), ("_timestamp", "2.5"), ("_t", "1"), ("j", "null"),
    ]  # fmt: skip
    run = run_of(tmp_path / "a.wandb", log_of([history(None, *values)]))
    (line,) = read(run)
    assert (line.step, line.t) == (7, 2.5)
    assert same(
        line.metrics,
        {
            "a": -0.0, "b": math.nan, "c": -math.inf, "d": math.inf, "f": 2**64 - 1,
            "h": [1, 2.5], "_t_": 1,
        },
    )  # fmt: skip
    assert sum(run.left_out.values()) == 4  # 1e400 among them, which is no infinity


def test_configuration_is_updated_and_removed_from(tmp_path: Path) -> None:
    def item(number: int, value: str, *path: str) -> bytes:
        names = b"".join(written_bytes(2, name) for name in path)
        return written_bytes(number, names + written_bytes(16, value))

    first = written_bytes(5, item(1, "1", "a", "b") + item(1, "2", "c"))
    second = written_bytes(5, item(1, "3", "c", "d") + item(2, "0", "a", "b"))
    run = run_of(tmp_path / "a.wandb", log_of([first, second, history(0, ("x", "1"))]))
    read(run)
    assert run.config == {"a": {}, "c": {"d": 3}}


def test_a_file_of_another_tool_or_version_is_refused(tmp_path: Path) -> None:
    for content in (b"", b":W&B", wandb.HEADER[:6] + b"\1" + bytes(50), b"garbage" * 9):
        with pytest.raises(RecordError, match="not with wandb's"):
            run_of(tmp_path / "a.wandb", content)
    with pytest.raises(RecordError, match="no readable record"):
        read(run_of(tmp_path / "a.wandb", wandb.HEADER + bytes(100)))


def test_among_several_files_a_foreign_one_is_told_and_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.wandb").write_bytes(b"garbage")
    (tmp_path / "b.wandb").write_bytes(FILE.read_bytes())
    told: list[str] = []
    (run,) = wandb.runs_in(tmp_path, told.append)
    assert run.foreign_id == "abcd1234"
    assert len(told) == 1


@given(st.integers(len(wandb.HEADER), FILE.stat().st_size - 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_a_file_cut_off_anywhere_gives_what_lies_before(tmp_path: Path, size: int) -> None:
    (whole,) = wandb.runs_in(FILE, print)
    lines = read(whole)
    try:
        run = run_of(tmp_path / "cut.wandb", FILE.read_bytes()[:size])
        found = read(run)
    except RecordError:
        return
    assert same(found, lines[: len(found)])
    assert run.damaged <= 1
    assert run.status == "interrupted"


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_garbage_is_damage_or_a_record_error(tmp_path: Path, data: st.DataObject) -> None:
    """Also garbage whose checksum is right, so that the messages themselves are tried."""
    with FILE.open("rb") as file:
        file.read(len(wandb.HEADER))
        records = list(Records(file))
    number = data.draw(st.integers(0, len(records) - 1))
    broken = bytearray(records[number])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=4)):
        broken[place] = data.draw(st.integers(0, 255))
    content = log_of([*records[:number], bytes(broken), data.draw(st.binary(max_size=30))])
    try:
        for line in read(run_of(tmp_path / "a.wandb", content)):
            assert isinstance(line.step, int)
    except RecordError:
        pass
