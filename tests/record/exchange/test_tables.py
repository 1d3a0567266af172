"""Tables come back to the bit, those of other tools are understood, and nothing is guessed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import MissingDependency, RecordError
from cupel.record.exchange import tables, tables_export
from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.points import Line
from cupel.record.exchange.tables import TableKind
from exchanges import planted_run, read, same

FINITE = st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda key: key not in ("_step", "_t")
)
NUMBERS = st.one_of(st.floats(), st.booleans(), st.integers(-(2**63), 2**64 - 1))
VALUES = NUMBERS | st.lists(NUMBERS | st.lists(NUMBERS, max_size=2), max_size=3)
STEPS = st.integers(-5, 5) | st.integers(-(2**63), 2**64 - 1)
LINES = st.lists(
    st.builds(Line, step=STEPS, t=FINITE, metrics=st.dictionaries(KEYS, VALUES, max_size=4)),
    min_size=1,
    max_size=6,
)
HAS_POLARS = importlib.util.find_spec("polars") is not None
needs_polars = pytest.mark.skipif(not HAS_POLARS, reason="polars is not installed")


def through(folder: Path, kind: TableKind, lines: list[Line]) -> list[Line]:
    file = io.BytesIO()
    {
        "csv": tables_export.write_csv,
        "jsonl": tables_export.write_jsonl,
        "parquet": tables_export.write_parquet,
    }[kind](file, lines)
    path = folder / f"table.{kind}"
    path.write_bytes(file.getvalue())
    run = tables.run_of(path, kind)
    found = read(run)
    assert run.damaged == 0
    assert not run.left_out
    return found


def table(
    folder: Path, kind: TableKind, content: str | bytes, step: str | None = None
) -> list[Line]:
    path = folder / f"table.{kind}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(tables.run_of(path, kind, step))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@given(lines=LINES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_every_number_step_and_time_comes_back(
    tmp_path: Path, kind: TableKind, lines: list[Line]
) -> None:
    assert same(through(tmp_path, kind, lines), lines)


@needs_polars
@given(LINES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_every_number_step_and_time_comes_back_from_parquet(
    tmp_path: Path, lines: list[Line]
) -> None:
    """Of a column with integers and floats the integers come back as equal floats."""
    found = through(tmp_path, "parquet", lines)
    assert [(line.step, line.t) for line in found] == [(line.step, line.t) for line in lines]
    for one, other in zip(found, lines, strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        for key, value in other.metrics.items():
            got = one.metrics[key]
            assert same(got, value) or (type(value) is int and got == float(value) == value)


@needs_polars
def test_parquet_has_types_nulls_and_nans(tmp_path: Path) -> None:
    import polars

    lines = [
        Line(1, 0.5, {"loss": math.nan, "n": 1, "flag": True, "mixed": 1, "odd": [1, 2]}),
        Line(1, 1.5, {"n": 2, "mixed": 0.5, "big": 2**64 - 1}),
    ]
    path = export_run(planted_run(tmp_path, lines), tmp_path / "a.parquet", kind="parquet")
    frame = polars.read_parquet(path)
    assert dict(frame.schema) == {
        "_step": polars.Int64, "_t": polars.Float64, "loss": polars.Float64, "n": polars.Int64,
        "flag": polars.Boolean, "mixed": polars.Float64, "odd": polars.String,
        "big": polars.UInt64,
    }  # fmt: skip
    assert same(frame["loss"].to_list(), [math.nan, None])
    assert frame["odd"].to_list() == ["[1,2]", None]


@pytest.mark.skipif(HAS_POLARS, reason="polars is installed")
def test_without_polars_parquet_says_what_to_type(tmp_path: Path) -> None:
    run_dir = planted_run(tmp_path, [Line(1, 1.0, {"loss": 0.5})])
    with pytest.raises(MissingDependency, match=r"pip install 'cupel\[analysis\]'"):
        export_run(run_dir, tmp_path / "a.parquet", kind="parquet")
    assert not list(tmp_path.glob("*a.parquet*"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependency, match="polars"):
        read(tables.run_of(tmp_path / "b.parquet", "parquet"))


def test_csv_is_what_a_spreadsheet_expects(tmp_path: Path) -> None:
    lines = [
        Line(1, 0.5, {"loss": math.nan, "a,b": 1}),
        Line(2, 1.5, {"loss": -math.inf, "ok": True, "array": [1, [2.5]]}),
    ]
    path = export_run(planted_run(tmp_path, lines), tmp_path / "a.csv", kind="csv")
    assert path.read_text().splitlines() == [
        '_step,_t,loss,"a,b",ok,array',
        "1,0.5,NaN,1,,",
        '2,1.5,-Infinity,,true,"[1,[2.5]]"',
    ]


def test_the_tables_of_other_tools_are_understood(tmp_path: Path) -> None:
    """TensorBoard's download, Lightning's CSVLogger, a JSON file as Python's json writes it."""
    assert table(tmp_path, "csv", "Wall time,Step,Value\n1.5,10,0.25\n2.5,20,nan\n")[0] == Line(
        10, 1.5, {"Value": 0.25}
    )
    lightning = "epoch,step,train_loss,val_loss\r\n0,49,0.5,\r\n0,49,,0.75\r\n"
    assert [line.metrics for line in table(tmp_path, "csv", lightning)] == [
        {"epoch": 0, "train_loss": 0.5},
        {"epoch": 0, "val_loss": 0.75},
    ]
    row = {"global_step": 3.0, "loss": math.nan, "eval": {"acc": 0.5, "name": "x"}, "none": None}
    (line,) = table(tmp_path, "jsonl", '{"config": {}}\n' + json.dumps(row) + "\n")
    assert same((line.step, line.metrics), (3, {"loss": math.nan, "eval.acc": 0.5}))


def test_the_column_of_the_step_can_be_named(tmp_path: Path) -> None:
    content = "batch,step,x\n7,1,0.5\n"
    assert table(tmp_path, "csv", content, "batch")[0].step == 7
    with pytest.raises(RecordError, match="expected 'bach', found batch, step, x"):
        table(tmp_path, "csv", content, "bach")
    with pytest.raises(RecordError, match="expected one of _step, step"):
        table(tmp_path, "csv", "a,b\n1,2\n")


def test_rows_without_a_whole_step_and_of_another_width_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,x\n1,0.5\n,0.5\n1.5,0.5\n2\n3,0.5,9\n4,word\n\n5,0.25\n")
    run = tables.run_of(path, "csv")
    assert [line.step for line in read(run)] == [1, 4, 5]
    assert (run.damaged, run.left_out) == (4, {"texts": 1})
    path = tmp_path / "a.jsonl"
    path.write_text('{"step":1,"x":1}\n[]\n{"step":"1"}\n\n{"step":2,"x":')
    run = tables.run_of(path, "jsonl")
    assert [line.step for line in read(run)] == [1]
    assert run.damaged == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_may_be_parted_by_commas_semicolons_or_tabs(tmp_path: Path, delimiter: str) -> None:
    """But by commas where these give a column of the step, whatever else a name holds."""
    content = "step,loss,note\n1,0.5,a\n2,0.25,b\n".replace(",", delimiter)
    lines = table(tmp_path, "csv", content)
    assert [(line.step, line.metrics) for line in lines] == [
        (1, {"loss": 0.5}),
        (2, {"loss": 0.25}),
    ]
    (line,) = table(tmp_path, "csv", "step,step;a;b;c\td\te\tf\n1,0.5\n")
    assert (line.step, line.metrics) == (1, {"step;a;b;c\td\te\tf": 0.5})
    (line,) = table(tmp_path, "csv", f"batch{delimiter}step\n7{delimiter}1\n", "batch")
    assert (line.step, line.metrics) == (7, {"step": 1})
    with pytest.raises(RecordError, match=r"expected one of _step, step.*found a, b;"):
        table(tmp_path, "csv", f"a{delimiter}b\n1{delimiter}2\n")


def test_a_number_beyond_all_floats_is_left_out_and_told_and_never_infinite(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,x\n1,1e999\n2,-1E400\n3,inf\n4,-Infinity\n1e999,5\n")
    run = tables.run_of(path, "csv")
    assert [(line.step, line.metrics) for line in read(run)] == [
        (1, {}), (2, {}), (3, {"x": math.inf}), (4, {"x": -math.inf})
    ]  # fmt: skip
    assert (run.damaged, run.left_out) == (1, {"texts": 2})
    path = tmp_path / "a.jsonl"
    path.write_text('{"step":1,"x":1e999}\n{"step":2,"x":Infinity}\n{"step":1e999,"x":1}\n')
    run = tables.run_of(path, "jsonl")
    assert [(line.step, line.metrics) for line in read(run)] == [(1, {}), (2, {"x": math.inf})]
    assert (run.damaged, run.left_out) == (1, {"texts": 1})


@pytest.mark.parametrize("content", ["", "\n", "step,step\n1,2\n", b"step,x\n1,\xff\n", "step\n"])
def test_a_table_without_readable_rows_is_refused(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(RecordError):
        table(tmp_path, "csv", content)


@pytest.mark.parametrize("kind", ["csv", "jsonl", pytest.param("parquet", marks=needs_polars)])
@given(garbage=st.binary(max_size=200), head=st.sampled_from([b"", b"step,x\n", b'{"step":1}\n']))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_is_damage_or_a_record_error(
    tmp_path: Path, kind: TableKind, garbage: bytes, head: bytes
) -> None:
    with contextlib.suppress(RecordError):
        table(tmp_path, kind, head + garbage)
