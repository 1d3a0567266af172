"""Exports: every line that was logged, exactly, in little memory, and no spreadsheet's formula."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dashboard.test_hub import serving

import arbitrary_logs
from arbitrary_logs import KEYS, RUNS, Log, lines_of
from cupel.dashboard import export
from cupel.dashboard.export import disposition, exported, free_names, guarded
from cupel.dashboard.rows import Row, Rows
from cupel.dashboard.store import Store
from cupel.errors import UnknownName
from cupel.record.codec import WORDS
from cupel.record.reader import RunRecord
from cupel.record.session import Session


def started(root: Path, name: str = "one", **given: Any) -> tuple[Session, str]:
    session = Session.start(root=root, project="p", name=name, config={}, identity="i", **given)
    return session, f"p/{session.run_id}"


def table(content: bytes) -> list[dict[str, str]]:
    """A file of CSV as any program reads it."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def whole(root: Path, keys: list[str], kind: str = "csv", **given: Any) -> bytes:
    options = {"metrics": None, "which": "all", "several": len(keys) > 1, **given}
    made = exported(Store(root), keys, **options)
    return b"".join(made.as_csv() if kind == "csv" else made.as_json())


def rows_of(rows: Rows) -> list[Row]:
    return [row for piece in rows.pieces() for row in piece]


@settings(max_examples=30)
@given(RUNS)
@pytest.mark.slow
def test_all_has_a_row_for_each_line_of_each_session_in_their_order(run: list[Log]) -> None:
    wanted = [
        (number, line)
        for number, log in enumerate(run, start=1)
        for segment in log.segments
        for line in lines_of(segment)
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(arbitrary_logs.write(Path(folder, "p", "r"), run))
        assert repr([tuple(row) for row in rows_of(rows)]) == repr(wanted)
        assert rows.count == len(wanted)
        assert rows.damaged == arbitrary_logs.damage_in(run)
    names = dict.fromkeys(key for _, line in wanted for key in line)
    assert rows.names == [name for name in names if name not in ("_step", "_t")]


@settings(max_examples=30)
@given(RUNS, st.none() | st.lists(st.sampled_from(KEYS), min_size=1))
@pytest.mark.slow
def test_current_is_what_the_history_of_the_record_has(
    run: list[Log], keys: list[str] | None
) -> None:
    def told(rows: list[dict[str, Any]]) -> str:
        shown = {"_step", "_t", *(KEYS if keys is None else keys)}
        return repr([{k: row[k] for k in sorted(row) if k in shown} for row in rows])

    with tempfile.TemporaryDirectory() as folder:
        run_dir = arbitrary_logs.write(Path(folder, "p", "r"), run)
        rows = Rows(run_dir, keys=keys, which="current")
        found = [row.fields for row in rows_of(rows)]
        assert told(found) == told(RunRecord(run_dir).history(keys))
        assert rows.count == len(found)


@settings(max_examples=30)
@given(RUNS)
@pytest.mark.slow
def test_csv_and_json_of_any_record_can_be_read_and_say_the_same(run: list[Log]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arbitrary_logs.write(Path(folder, "p", "r"), run)
        as_csv = table(whole(Path(folder), ["p/r"]))
        as_json = json.loads(whole(Path(folder), ["p/r"], "json"))
        count = Rows(Path(folder, "p", "r")).count
    assert len(as_csv) == len(as_json["rows"]) == count
    for cells, row in zip(as_csv, as_json["rows"], strict=True):
        for name, value in zip(as_json["columns"], row, strict=True):
            if value is None:
                assert cells[name] == ""
            elif isinstance(value, float):
                assert float(cells[name]) == value
            elif isinstance(value, int) and not isinstance(value, bool):
                assert int(cells[name]) == value


def test_rows_are_as_many_as_calls_of_log_and_numbers_come_back_in_all_their_bits(
    tmp_path: Path,
) -> None:
    session, key = started(tmp_path)
    values = [0.1, 1 / 3, math.nan, math.inf, -math.inf, 1e-320, -0.0, 1.7976931348623157e308]
    for step, value in enumerate(values):
        session.log({"loss": value} | ({"n": step} if step % 2 else {}), step=step)
    session.log({"array": [1.0, math.nan], "flag": True}, step=3)  # the same step again
    session.finish("finished")
    rows = table(whole(tmp_path, [key]))
    assert list(rows[0]) == ["session", "step", "time", "elapsed", "loss", "n", "array", "flag"]
    assert [row["step"] for row in rows] == [*map(str, range(8)), "3"]
    assert [repr(float(row["loss"])) for row in rows[:8]] == [repr(value) for value in values]
    assert [row["loss"] for row in rows[2:5]] == ["NaN", "Infinity", "-Infinity"]
    assert rows[0]["n"] == ""
    assert rows[1]["n"] == "1"
    assert rows[8]["array"] == "[1.0,NaN]"
    assert rows[8]["flag"] == "true"
    found = json.loads(whole(tmp_path, [key], "json"))
    assert found["rows"][2][4] == "NaN"
    assert found["rows"][0][5] is None
    assert repr([WORDS.get(row[4], row[4]) for row in found["rows"][:8]]) == repr(values)
    assert found["runs"][0]["rows"] == 9
    assert found["runs"][0]["key"] == key


def test_what_a_resume_took_back_is_in_all_and_not_in_current(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.begin_at(0)
    for step in range(1, 6):
        session.log({"loss": float(step)}, step=step)
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.begin_at(3)
    for step in (4, 5, 6):
        resumed.log({"loss": 10.0 * step}, step=step)
    resumed.finish("finished")
    told = [(row["session"], row["loss"]) for row in table(whole(tmp_path, [key]))]
    assert told == [*(("1", f"{step}.0") for step in range(1, 6)),
                    ("2", "40.0"), ("2", "50.0"), ("2", "60.0")]  # fmt: skip
    now = table(whole(tmp_path, [key], which="current"))
    assert [(row["session"], row["step"], row["loss"]) for row in now] == [
        ("1", "1", "1.0"), ("1", "2", "2.0"), ("1", "3", "3.0"),
        ("2", "4", "40.0"), ("2", "5", "50.0"), ("2", "6", "60.0"),
    ]  # fmt: skip


@given(st.text(max_size=20))
@pytest.mark.slow
def test_no_text_begins_as_a_formula_does(text: str) -> None:
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert guarded(text).removeprefix("'") == text.removeprefix("'")


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", 'a,"b"\r\n,c', "step", "é\u2028", "null"]
)
def test_names_of_metrics_are_cells_and_no_formulas(tmp_path: Path, name: str) -> None:
    session, key = started(tmp_path)
    session.log({name: -1.5}, step=1)
    session.finish("finished")
    (row,) = table(whole(tmp_path, [key]))
    shown = "step (logged)" if name == "step" else guarded(name)
    assert row == {**row, shown: "-1.5", "step": "1"}  # a number is no formula
    assert len(row) == 5


@given(st.lists(st.sampled_from(["step", "time", "step (logged)", "loss"]), unique=True))
def test_columns_have_different_names(names: list[str]) -> None:
    own = ["session", "step", "time", "elapsed"]
    assert len({*own, *free_names(names, taken=own)}) == 4 + len(names)


@given(st.text(min_size=1, max_size=200))
def test_any_name_fits_into_a_header(name: str) -> None:
    header = disposition(f"{name}.csv")
    header.encode("ascii")
    assert not set("\r\n\0") & {*header}
    assert header.count('"') == 2


def test_several_runs_have_a_column_for_the_run_and_share_the_others(tmp_path: Path) -> None:
    one, first = started(tmp_path, "one")
    one.log({"loss": 1.0, "lr": 0.1}, step=1)
    one.finish("finished")
    other, second = started(tmp_path, "two")
    other.log({"loss": 2.0, "acc": 0.5}, step=1)
    other.finish("finished")
    rows = table(whole(tmp_path, [first, second], metrics=["loss"]))
    assert [(row["run"], row["loss"]) for row in rows] == [(first, "1.0"), (second, "2.0")]
    assert list(rows[0]) == ["run", "session", "step", "time", "elapsed", "loss"]
    assert [row["run"] for row in table(whole(tmp_path, [first, second]))] == [first, second]
    found = json.loads(whole(tmp_path, [first, second], "json"))
    assert [row[0] for row in found["rows"]] == [first, second]
    assert found["columns"][-3:] == ["loss", "lr", "acc"]


def test_a_metric_that_no_run_has_is_told_with_those_there_are(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    session.finish("finished")
    with pytest.raises(UnknownName, match="loss"):
        whole(tmp_path, [key], metrics=["los"])


def test_the_server_streams_an_export_and_says_how_many_rows_it_has(tmp_path: Path) -> None:
    session, key = started(tmp_path, "a ü run")
    for step in range(3000):
        session.log({"loss": step / 7}, step=step)
    session.finish("finished")
    run_id = key.partition("/")[2]
    with serving(tmp_path) as client:
        found = client.get(f"/api/v1/runs/{run_id}/export.csv")
        assert found.headers["x-cupel-rows"] == "3000"
        assert f'filename="{run_id}.csv"' in found.headers["content-disposition"]
        assert len(table(found.content)) == 3000
        now = client.get(f"/api/v1/runs/{run_id}/export.json?sessions=current&keys=loss").json()
        assert len(now["rows"]) == 3000
        several = client.get("/api/v1/export.csv", params={"run": [key], "metric": ["loss"]})
        assert table(several.content)[0]["run"] == key
        assert client.get("/api/v1/export.csv").status_code == 400
        assert client.get(f"/api/v1/runs/{run_id}/export.csv?sessions=x").status_code == 400
        assert client.get("/api/v1/runs/nothing/export.csv").status_code == 404
        assert client.get(f"/api/v1/runs/{run_id}/export.csv?keys=no").status_code == 404
    assert not export._closing


def test_lines_that_come_while_it_is_sent_are_left_to_the_next_export(tmp_path: Path) -> None:
    session, _ = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    rows = Rows(session.run_dir)
    session.log({"loss": 2.0}, step=2)
    assert len(rows_of(rows)) == rows.count == 1
    session.finish("finished")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("which", ["all", "current"])
def test_40_000_lines_pass_through_in_little_memory(tmp_path: Path, kind: str, which: str) -> None:
    session, key = started(tmp_path)
    for step in range(40_000):
        session.log({"loss": step / 7, "lr": 0.1, "norm": step * 0.3}, step=step)
    session.finish("finished")
    tracemalloc.start()
    try:
        made = exported(Store(tmp_path), [key], None, which, several=False)  # type: ignore[arg-type]
        size = sum(map(len, made.as_csv() if kind == "csv" else made.as_json()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 1_600_000
    assert peak < 2_000_000  # as objects they would take twenty times as much
