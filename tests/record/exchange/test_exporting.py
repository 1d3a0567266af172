"""An export holds every line that counts, appears whole, and replaces nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout
from cupel.record.codec import decode_line
from cupel.record.exchange.exporting import Kind, export_run
from cupel.record.exchange.points import Line, Lines
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from exchanges import lines_of, planted_run, same

LINES = [Line(1, 1.0, {"loss": 0.5}), Line(2, 2.0, {"loss": 0.25, "odd": [1, 2]})]
FILES: list[Kind] = ["csv", "jsonl", "zip"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return planted_run(tmp_path, LINES)


@pytest.mark.slow
def test_of_a_resumed_run_the_lines_that_count_are_those_of_its_history(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    run_dir = session.run_dir
    for step in range(1, 10):
        session.log({"a": step, "b": step}, step=step, t=float(step))
    session.finish("interrupted")
    for start, value in ((5, 50), (3, 30), (7, 70)):
        session = Session.resume(run_dir)
        session.begin_at(start)
        session.log({"a": value}, step=start + 1, t=100.0)
        session.log({"c": value}, step=start + 1, t=101.0)
        session.finish("interrupted")
    lines = lines_of(run_dir)
    assert [(line.step, line.t, line.metrics) for line in lines[-2:]] == [
        (8, 100.0, {"a": 70}),
        (8, 101.0, {"c": 70}),
    ]
    merged: dict[int, dict[str, object]] = {}
    for line in lines:
        merged.setdefault(line.step, {}).update(_step=line.step, _t=line.t, **line.metrics)
    assert [merged[step] for step in sorted(merged)] == RunRecord(run_dir).history()


def test_jsonl_is_the_record_s_own_form(run_dir: Path, tmp_path: Path) -> None:
    path = export_run(run_dir, tmp_path / "deep" / "er" / "a.jsonl", kind="jsonl")
    lines = [decode_line(line) for line in path.read_bytes().splitlines()]
    assert lines == [{"_step": line.step, "_t": line.t, **line.metrics} for line in LINES]


def test_damaged_lines_and_other_ranks_are_told(run_dir: Path, tmp_path: Path) -> None:
    session = layout.session_dir(run_dir, 1)
    with (session / layout.metrics_name()).open("ab") as file:
        file.write(b'garbage\n{"_step":3,"_t":3.0,"loss":0.125}\n{"_step":4,"_t":4')
    (session / layout.metrics_name(1)).touch()
    told: list[str] = []
    path = export_run(run_dir, tmp_path / "a.csv", kind="csv", tell=told.append)
    assert path.read_text().splitlines()[-1] == "3,3.0,0.125,"
    assert told == [
        "run: 2 damaged lines of metrics are left out",
        "run: only rank 0 is exported; other ranks have 1 files of metrics",
    ]


def test_segments_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run_dir = planted_run(tmp_path, LINES)
    for segment in (1000, 2, 1):
        name = layout.metrics_name(0, segment)
        (layout.session_dir(run_dir, 1) / name).write_bytes(b'{"_step":%d,"_t":1.0}\n' % segment)
    assert [line.step for line in Lines(run_dir)] == [1, 2, 1, 2, 1000]


@pytest.mark.parametrize("kind", FILES)
def test_an_existing_file_is_not_replaced(run_dir: Path, tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(RecordError, match="exists already"):
        export_run(run_dir, path, kind=kind)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("kind", [*FILES, "tensorboard"])
def test_what_the_disk_refuses_is_a_record_error_that_leaves_nothing(
    run_dir: Path, tmp_path: Path, kind: Kind
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot export to"):
        export_run(run_dir, tmp_path / "file" / "below", kind=kind)
    run_json = run_dir / "run.json"
    folder = tmp_path / "out"
    folder.mkdir()
    metrics = layout.session_dir(run_dir, 1) / layout.metrics_name()
    metrics.unlink()
    metrics.symlink_to(tmp_path)  # a folder where a file was: reading it fails in the midst
    if kind != "zip":
        with pytest.raises(RecordError, match="cannot export to"):
            export_run(run_dir, folder / "a" if kind != "tensorboard" else folder, kind=kind)
        assert not list(folder.iterdir())
    assert run_json.exists()


def test_what_is_no_run_and_what_is_no_kind_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"there is no run\.json"):
        export_run(tmp_path, tmp_path / "a.csv", kind="csv")
    with pytest.raises(UsageError, match="no kind of export; there are: tensorboard"):
        export_run(run_dir, tmp_path / "a.xls", kind="xls")  # type: ignore[arg-type]


def test_a_run_without_metrics_is_exported_too(tmp_path: Path) -> None:
    run_dir = planted_run(tmp_path, [])
    for kind in FILES:
        assert export_run(run_dir, tmp_path / f"a.{kind}", kind=kind).exists()
    assert export_run(run_dir, tmp_path / "tb", kind="tensorboard").exists()
    assert (tmp_path / "a.csv").read_text() == "_step,_t\n"


def test_a_damaged_configuration_costs_the_hyperparameters_only(
    run_dir: Path, tmp_path: Path
) -> None:
    (run_dir / layout.CONFIG).write_text("{")
    told: list[str] = []
    export_run(run_dir, tmp_path / "tb", kind="tensorboard", tell=told.append)
    assert told[0].startswith("without hyperparameters: ")
    assert told[1] == "run: left out, as TensorBoard's scalars cannot be them: 1 arrays"


def test_a_time_that_is_no_date_does_not_stop_an_export(run_dir: Path, tmp_path: Path) -> None:
    run = decode_line((run_dir / layout.RUN).read_bytes())
    files.write_json(run_dir / layout.RUN, {**run, "created": float("inf")})
    path = export_run(run_dir, tmp_path / "tb", kind="tensorboard")
    assert path.name == "events.out.tfevents.0000000000.run.cupel"


ODD = {"large": 2**64, "huge": -(10**400), "few": [1, 2**70, 0.5], "word": "two\nwords",
       "none": None, "map": {"a": [1.5, 2**65]}, "loss": 0.5}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "tensorboard", "zip"])
def test_what_no_log_takes_is_exported_as_it_stands_in_the_lines(
    run_dir: Path, tmp_path: Path, kind: Kind
) -> None:
    """Such a line ended every export but that of a zip file in a TypeError."""
    path = layout.session_dir(run_dir, 1) / layout.metrics_name()
    odd = json.dumps({"_step": 1, "_t": 10**400, **ODD})
    path.write_text(f'{odd}\n{{"_step": 2, "loss": NaN}}\n{{"_step": 2, "loss": 1.5}}\n')
    told: list[str] = []
    out = export_run(run_dir, tmp_path / "out" / "x", kind=kind, tell=told.append)
    if kind == "jsonl":
        first, second = map(json.loads, out.read_text().splitlines())
        assert {key: first[key] for key in ODD} == ODD
        assert second["loss"] == 1.5
    if kind == "csv":
        (first, second) = csv.DictReader(out.read_text().splitlines())
        assert (first["large"], first["huge"]) == (str(2**64), str(-(10**400)))
        assert (json.loads(first["few"]), second["large"]) == (ODD["few"], "")
    if kind == "tensorboard":
        assert any("no numbers" in line or "arrays" in line for line in told)
    elif kind != "zip":
        assert told == ["run: 1 damaged lines of metrics are left out"]


@pytest.mark.parametrize("step", [-(2**63) - 1, 2**63])
def test_a_step_beyond_63_bits_is_refused_for_tensorboard_and_never_another_one(
    run_dir: Path, tmp_path: Path, step: int
) -> None:
    path = layout.session_dir(run_dir, 1) / layout.metrics_name()
    path.write_text(f'{{"_step": {step}, "loss": 1.5}}\n')
    with pytest.raises(RecordError, match=f"step {step} does not fit"):
        export_run(run_dir, tmp_path / "out", kind="tensorboard")


def test_a_running_run_is_exported_as_it_is(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.log({"loss": 0.5}, step=1, t=1.0)
    told: list[str] = []
    export_run(session.run_dir, tmp_path / "a.zip", kind="zip", tell=told.append)
    path = export_run(session.run_dir, tmp_path / "a.jsonl", kind="jsonl", tell=told.append)
    session.finish("finished")
    assert same([decode_line(path.read_bytes())], [{"_step": 1, "_t": 1.0, "loss": 0.5}])
    assert len(told) == 1
    assert "is running" in told[0]
