"""Event files of every writer are read to the bit, and ours lose nothing that float32 would."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record.exchange import protobuf, tensorboard, tensorboard_export
from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.foreign import Foreign, Point, Restart
from cupel.record.exchange.points import Line
from cupel.record.exchange.tfrecord import Frames, framed
from exchanges import GOLDEN, check_expected, lines_of, planted_run, read, same

FINITE = st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda key: key not in ("_step", "_t")
)
NUMBERS = st.one_of(st.floats(), st.booleans(), st.integers(-(2**63), 2**64 - 1))
LINES = st.lists(
    st.builds(
        Line,
        step=st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
        t=FINITE,
        metrics=st.dictionaries(KEYS, NUMBERS, min_size=1, max_size=4),
    ),
    max_size=6,
)


def written(lines: list[Line], **config: object) -> bytes:
    file = io.BytesIO()
    tensorboard_export.write(file, lines, created=1.5, config=config, status="finished")
    return file.getvalue()


def run_of(folder: Path, content: bytes) -> Foreign:
    path = folder / "events.out.tfevents.1"
    path.write_bytes(content)
    (run,) = tensorboard.runs_in(folder)
    return run


def event(step: int, *values: bytes, t: float = 1.0) -> bytes:
    summary = b"".join(protobuf.written_bytes(1, value) for value in values)
    head = protobuf.written_double(1, t) + protobuf.written_varint(2, step)
    return framed(head + protobuf.written_bytes(5, summary))


def scalar(tag: str, value: float) -> bytes:
    return protobuf.written_bytes(1, tag) + protobuf.written_single(2, value)


@pytest.mark.parametrize("tool", ["tensorboard", "tensorboardx"])
def test_what_the_real_writers_wrote_is_read_to_the_bit(tool: str) -> None:
    runs = tensorboard.runs_in(GOLDEN / tool)
    check_expected(tool, [line for run in runs for line in read(run)])
    assert all(run.damaged == 0 for run in runs)


def test_facts_and_what_is_left_out_are_told() -> None:
    (run,) = tensorboard.runs_in(GOLDEN / "tensorboard")
    read(run)
    assert (run.name, run.status) == ("first/seed0", "finished")
    assert run.config == {"lr": 0.1, "layers": 3.0, "act": "gelu", "bias": True}
    assert run.left_out == {"histograms": 1}
    runs = tensorboard.runs_in(GOLDEN / "tensorboardx")
    for run in runs:
        read(run)
    assert [run.name for run in runs] == ["run", "run/trial"]
    assert runs[0].left_out == {"histograms": 1, "texts": 1}
    assert runs[1].config == {"lr": 0.1, "act": "gelu"}


def test_a_restart_of_the_writer_is_handed_on_where_it_happened() -> None:
    (run,) = tensorboard.runs_in(GOLDEN / "torch")
    points = list(run.points(run))
    (place,) = [number for number, point in enumerate(points) if isinstance(point, Restart)]
    assert points[place] == Restart(2)
    assert points[place + 1 :] == [Point(3, 1_700_000_100.125, {"loss": 0.5})]


@given(LINES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_every_number_step_and_time_comes_back(tmp_path: Path, lines: list[Line]) -> None:
    found = read(run_of(tmp_path, written(lines)))
    assert same(found, lines)


def test_a_run_comes_back_through_its_event_file(tmp_path: Path) -> None:
    lines = [Line(3, 5.25, {"loss": 0.1, "n": 7}), Line(1, 6.5, {"loss": math.nan})]
    run_dir = planted_run(tmp_path, lines)
    file = export_run(run_dir, tmp_path / "tb", kind="tensorboard")
    (run,) = tensorboard.runs_in(tmp_path / "tb")
    assert same(read(run), lines)
    assert same(lines_of(run_dir), lines)
    assert run.config == {"lr": 0.1, "layers": 3.0, "model.act": "gelu", "model.bias": True}
    assert (run.version, run.created) == ("cupel", lines_record_created(run_dir))
    with pytest.raises(RecordError, match="holds an event file already"):
        export_run(run_dir, tmp_path / "tb", kind="tensorboard")
    assert list(file.parent.iterdir()) == [file]


def lines_record_created(run_dir: Path) -> float:
    from cupel.record.reader import RunRecord

    return RunRecord(run_dir).created


def test_float32_numbers_are_written_as_every_other_writer_does() -> None:
    ours = written([Line(1, 2.0, {"loss": 0.5, "nan": math.nan})])
    assert event(1, scalar("loss", 0.5), scalar("nan", math.nan), t=2.0) in ours


def test_an_exact_form_that_no_longer_fits_its_number_is_passed_over(tmp_path: Path) -> None:
    changed = scalar("loss", 0.5) + protobuf.written_bytes(tensorboard.EXACT, "0.1")
    broken = scalar("other", 0.5) + protobuf.written_bytes(tensorboard.EXACT, "{")
    assert read(run_of(tmp_path, event(1, changed, broken))) == [
        Line(1, 1.0, {"loss": 0.5, "other": 0.5})
    ]


def test_arrays_are_counted_and_steps_beyond_64_bits_refused() -> None:
    file = io.BytesIO()
    left_out = tensorboard_export.write(
        file, [Line(1, 1.0, {"a": [1, 2]})], created=0.0, config={}, status="failed"
    )
    assert left_out == {"arrays": 1}
    with pytest.raises(RecordError, match="64 bits"):
        written([Line(2**63, 1.0, {"a": 1})])


def test_a_failed_run_is_failed_again(tmp_path: Path) -> None:
    file = io.BytesIO()
    tensorboard_export.write(
        file, [Line(1, 1.0, {"a": 1})], created=0.0, config={}, status="failed"
    )
    run = run_of(tmp_path, file.getvalue())
    read(run)
    assert run.status == "failed"


def test_the_records_own_names_are_given_others(tmp_path: Path) -> None:
    assert read(run_of(tmp_path, event(1, scalar("_step", 1.0), scalar("_t", 2.0)))) == [
        Line(1, 1.0, {"_step_": 1.0, "_t_": 2.0})
    ]


def test_files_of_one_folder_are_one_run_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.tfevents.2").write_bytes(event(2, scalar("x", 2.0)))
    (tmp_path / "a.tfevents.1").write_bytes(event(1, scalar("x", 1.0)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tfevents").write_bytes(event(9, scalar("x", 9.0)))
    runs = tensorboard.runs_in(tmp_path)
    assert [[line.step for line in read(run)] for run in runs] == [[1, 2], [9]]
    assert [run.name for run in runs] == [tmp_path.name, "other"]


def test_a_killed_writers_torn_tail_is_counted(tmp_path: Path) -> None:
    whole = event(1, scalar("x", 1.0)) + event(2, scalar("x", 2.0))
    run = run_of(tmp_path, whole[:-5])
    assert [line.step for line in read(run)] == [1]
    assert (run.damaged, run.unread) == (1, len(whole) // 2 - 5)


def test_a_file_that_grows_is_read_as_long_as_it_was(tmp_path: Path) -> None:
    one = event(1, scalar("x", 1.0))
    run = run_of(tmp_path, one)
    with (tmp_path / "events.out.tfevents.1").open("ab") as file:
        file.write(one)
    assert len(read(run)) == 1
    assert run.damaged == 0


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_garbage_is_damage_or_a_record_error(tmp_path: Path, data: st.DataObject) -> None:
    """Also garbage whose checksum is right, so that the messages themselves are tried."""
    whole = (GOLDEN / "torch/run/events.out.tfevents.1700000000.host").read_bytes()
    payloads = list(Frames(io.BytesIO(whole)))[:6]
    number = data.draw(st.integers(0, len(payloads) - 1))
    broken = bytearray(payloads[number])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=4)):
        broken[place] = data.draw(st.integers(0, 255))
    payloads[number] = bytes(broken) + data.draw(st.binary(max_size=6))
    content = b"".join(map(framed, payloads)) + data.draw(st.binary(max_size=20))
    try:
        for line in read(run_of(tmp_path, content)):
            assert all(isinstance(value, bool | int | float) for value in line.metrics.values())
    except RecordError:
        pass
