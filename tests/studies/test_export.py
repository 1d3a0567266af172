"""An export says what the records say, bit for bit, twice the same, and replaces nothing else."""

from __future__ import annotations

import csv
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import MissingDependency, RecordError, UnknownName
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.queue import told_or_seen
from cupel.record.claims import claim_session
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.studies.completeness import check
from cupel.studies.export import FOLDER, export_study
from cupel.studies.manifest import Cell, Manifest, PlannedRun, freeze, load_manifest, study_dir
from cupel.studies.settings import StudySettings
from cupel.studies.spec import plan_study
from planted import Arm, arm_config, around, plant

ODD = {
    1: {"loss": 0.1, "big": 2**53 - 1, "flag": True},
    2: {"loss": math.nan, "vector": [1.0, 2.0]},
    3: {"loss": -math.inf, "loss/tiny": 5e-324},
    4: {"loss": -0.0, "val_loss": 1.0000000000000002},
}


def bits(value: float | None) -> str | None:
    """What tells one NaN and one zero from another."""
    return None if value is None else struct.pack(">d", value).hex()


def planned(root: Path, *configs: Mapping[str, Any], **study: Any) -> Manifest:
    """A study with an arm for each configuration, and one seed; nothing has run."""
    names = [f"arm{number}" for number in range(len(configs))]
    arms: dict[str, dict[str, Any]] = {name: {} for name in names}
    cells = tuple(
        Cell(name, "", {}, dict(config)) for name, config in zip(names, configs, strict=True)
    )
    runs = tuple(
        PlannedRun(f"s-{name}-s1-00000000", name, "", 1, f"{name}1", n)
        for n, name in enumerate(names)
    )
    chosen = StudySettings(question="?", arms=arms, seeds=(1,), **study)
    folder = study_dir(root, "p", "s")
    return freeze(Manifest(folder, "s", "p", "", chosen, cells, runs, 1.7e9))


def with_train(**settings: Any) -> dict[str, Any]:
    return arm_config(**settings)


def trained(
    manifest: Manifest, run: PlannedRun, lines: Mapping[int, Mapping[str, Any]], **final: Any
) -> RunRecord:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config=manifest.config_of(run),
        identity=run.identity, run_id=run.run_id, details={"study": manifest.name},
    )  # fmt: skip
    session.begin_at(0)
    for step, values in lines.items():
        session.log(values, step=step)
    session.finish("finished", results={"step": max(lines, default=0), "final": final})
    return RunRecord(manifest.run_dir(run))


def read(folder: Path, name: str = "runs") -> list[dict[str, Any]]:
    return polars.read_parquet(folder / f"{name}.parquet").to_dicts()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- what is in it -----------------------------------------------------------------------------


@pytest.mark.slow
def test_every_planned_run_has_a_row_in_the_order_of_the_plan(tmp_path: Path) -> None:
    arms = {"plain": Arm(around(2.0)), "wave": Arm({1: 1.8}, interrupted=[2])}
    manifest = plant(tmp_path, arms)
    exported = export_study(manifest)
    assert exported.folder == manifest.folder / FOLDER
    rows = read(exported.folder)
    assert [row["run_id"] for row in rows] == [run.run_id for run in manifest.runs]
    assert [row["status"] for row in rows] == ["accepted"] * 4 + ["missing"] * 2
    assert [row["attempts"] for row in rows] == [1, 1, 1, 1, 1, 0]
    assert [row["accepted_session"] for row in rows] == [1, 1, 1, 1, None, None]
    first = rows[0]
    assert (first["study"], first["arm"], first["point"], first["seed"]) == (
        "planted", "plain", "", 1,
    )  # fmt: skip
    assert first["primary_last"] == around(2.0)[1]
    assert (first["primary_best"], first["primary_best_step"]) == (around(2.0)[1] - 0.05, 30)
    assert (first["wall_s"], first["cpu_s"], first["steps"]) == (20.0, 10.0, 40)
    assert json.loads(first["config_json"]) == manifest.config_of(manifest.runs[0])
    assert "fold" not in first
    assert first["host"]


def test_settings_that_differ_have_columns_of_their_own_type(tmp_path: Path) -> None:
    one = {"kind": "adamw", "lr": 0.1, "weight_decay": 1e-300, "betas": [0.9, 0.95]}
    two = {"kind": "rgd", "lr": 1, "weight_decay": None, "betas": [0.9, 0.99], "nesterov": True}
    manifest = planned(
        tmp_path, *(arm_config(optimizer=o, steps=s) for o, s in ((one, 7), (two, 9)))
    )
    frame = polars.read_parquet(export_study(manifest).folder / "runs.parquet")
    name = "train.optimizer."
    types = {c: str(frame.schema[f"{name}{c}"]) for c in ("lr", "weight_decay", "kind", "betas")}
    assert types == {
        "lr": "Float64",
        "weight_decay": "Float64",
        "kind": "String",
        "betas": "String",
    }
    assert frame[f"{name}lr"].to_list() == [0.1, 1.0]
    assert frame[f"{name}weight_decay"].to_list() == [1e-300, None]
    assert frame[f"{name}betas"].to_list() == ["[0.9,0.95]", "[0.9,0.99]"]
    assert frame[f"{name}nesterov"].to_list() == [None, True]
    assert (str(frame.schema["train.steps"]), frame["train.steps"].to_list()) == ("Int64", [7, 9])
    assert "train.precision" not in frame.columns, "all cells share it"
    assert "seed" in frame.columns


@given(rates=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=4))
@settings(max_examples=15, deadline=None)
@pytest.mark.slow
def test_a_setting_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory, rates: list[float]
) -> None:
    root = tmp_path_factory.mktemp("rates")
    manifest = planned(root, *(arm_config(optimizer={"lr": rate}) for rate in rates))
    rows = read(export_study(manifest, root / "out").folder)
    if "train.optimizer.lr" in rows[0]:
        assert [bits(row["train.optimizer.lr"]) for row in rows] == list(map(bits, rates))
    else:
        assert len(set(map(bits, rates))) == 1


def test_a_setting_called_like_a_column_has_another_name(tmp_path: Path) -> None:
    manifest = planned(tmp_path, {**arm_config(), "host": "a"}, {**arm_config(), "host": "b"})
    rows = read(export_study(manifest).folder)
    assert [row["setting.host"] for row in rows] == ["a", "b"]
    assert [row["host"] for row in rows] == [None, None]


@pytest.mark.slow
def test_metrics_of_the_results_are_those_of_the_record(tmp_path: Path) -> None:
    manifest = planned(tmp_path, arm_config(), arm_config(steps=1))
    final = {"val_loss": 1 / 3, "count": 7, "bad": math.nan, "text": "x", "mixed": 1}
    trained(manifest, manifest.runs[0], {4: {"val_loss": 1 / 3}}, **final)
    trained(manifest, manifest.runs[1], {4: {"val_loss": 0.1}}, val_loss=0.1, mixed=0.5)
    frame = polars.read_parquet(export_study(manifest).folder / "runs.parquet")
    assert list(map(bits, frame["final.val_loss"])) == [bits(1 / 3), bits(0.1)]
    assert list(map(bits, frame["primary_last"])) == [bits(1 / 3), bits(0.1)]
    assert frame["final.count"].to_list() == [7, None]
    assert math.isnan(frame["final.bad"][0])
    assert frame["final.bad"][1] is None
    assert frame["final.text"].to_list() == ["x", None]
    assert frame["final.mixed"].to_list() == [1.0, 0.5]


def test_trajectories_hold_every_number_that_was_logged_bit_for_bit(tmp_path: Path) -> None:
    manifest = planned(tmp_path, arm_config(), arm_config(steps=1))
    record = trained(manifest, manifest.runs[0], ODD, val_loss=1.0)
    folder = export_study(manifest).folder
    rows = read(folder, "trajectories/arm0")
    logged = [
        (key, row["_step"], bits(float(row[key])), row["_t"])
        for row in record.history()
        for key in row
        if not key.startswith("_") and key != "vector"
    ]
    assert [(r["key"], r["step"], bits(r["value"]), r["time"]) for r in rows] == sorted(logged)
    assert {row["run_id"] for row in rows} == {record.run_id}
    assert read(folder, "trajectories/arm1") == []
    schema = polars.read_parquet(folder / "trajectories/arm1.parquet").schema
    assert list(map(str, schema.values())) == ["String", "Int64", "Float64", "String", "Float64"]


@pytest.mark.slow
def test_of_a_resumed_run_only_what_counts_is_exported(tmp_path: Path) -> None:
    manifest = planned(tmp_path, arm_config())
    run = manifest.runs[0]
    first = Session.start(
        root=tmp_path, project="p", name="n", config={}, identity=run.identity, run_id=run.run_id
    )
    first.begin_at(0)
    for step in (1, 2, 3):
        first.log({"loss": float(step)}, step=step)
    first.finish("interrupted", error="asked to stop by SIGTERM")
    changes = {"train.accumulate": 2}
    told = Attempt(
        1, "cuda_oom", "no memory", begun=True, first_step=0, last_step=3, started=10.0, ended=15.5,
        host="h", device="cuda:0", worker="w", code=1, changes=changes,
    )  # fmt: skip
    write_attempt(manifest.run_dir(run), told)
    again = Session.resume(manifest.run_dir(run))
    again.begin_at(2)
    again.log({"loss": 30.0}, step=3)
    again.finish("finished", results={"step": 3, "final": {"val_loss": 1.0}})
    folder = export_study(manifest).folder
    values = [(row["step"], row["value"]) for row in read(folder, "trajectories/arm0")]
    assert values == [(1, 1.0), (2, 2.0), (3, 30.0)]
    one, two = read(folder, "attempts")
    assert (one["session"], one["outcome"], one["class"], one["detail"]) == (
        1, "cuda_oom", "cuda_oom", "no memory",
    )  # fmt: skip
    assert (one["first_step"], one["last_step"], one["seconds"], one["code"]) == (0, 3, 5.5, 1)
    assert (one["host"], one["device"], one["changes"]) == ("h", "cuda:0", '{"train.accumulate":2}')
    assert (two["session"], two["outcome"], two["class"], two["code"]) == (
        2, "finished", None, None,
    )  # fmt: skip
    assert (two["first_step"], two["last_step"]) == (2, 3)
    assert two["seconds"] >= 0
    (row,) = read(folder)
    assert (row["attempts"], row["accepted_session"]) == (2, 2)
    assert json.loads(row["changes"]) == {"1": changes}


def test_changes_of_a_session_whose_supervisor_was_killed_before_it_told_are_told(
    tmp_path: Path,
) -> None:
    """Killed between the acceptance and its attempt: the claim says what it ran with."""
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    (run,) = manifest.runs
    run_dir = manifest.run_dir(run)
    first = Session.start(
        root=tmp_path, project="p", name="n", config={}, identity=run.identity, run_id=run.run_id
    )
    first.finish("interrupted")
    write_attempt(run_dir, Attempt(1, "cuda_oom"))
    claim = claim_session(run_dir, 2, {"changes": {"train.accumulate": 2}})
    session = Session.resume(run_dir, claim=claim)
    session.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})
    (found,) = check(manifest).changed
    assert (found.session, found.changes) == (2, {"train.accumulate": 2})
    assert told_or_seen(run_dir, 2).changes == {"train.accumulate": 2}
    folder = export_study(manifest).folder
    assert read(folder, "attempts")[1]["changes"] == '{"train.accumulate":2}'
    assert json.loads(read(folder)[0]["changes"]) == {"2": {"train.accumulate": 2}}


def test_deviations_have_rows_that_say_so_and_points_apart(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({1: 2.0})}, seeds=(1,))
    run = manifest.runs[0]
    session = Session.start(
        root=tmp_path, project="p", name="n", config=arm_config(optimizer={"lr": 0.5}),
        identity="other", run_id="derived",
        details={"study": "planted", "deviation_of": run.run_id},
    )  # fmt: skip
    session.log({"loss": 1.0}, step=1)
    session.finish("finished", results={"step": 1, "final": {"val_loss": 1.0}})
    folder = export_study(manifest).folder
    own, other = read(folder)
    assert (own["status"], own["deviation_of"]) == ("accepted", None)
    assert (other["run_id"], other["status"], other["deviation_of"], other["arm"]) == (
        "derived", "deviation", run.run_id, "a",
    )  # fmt: skip
    assert (own["train.optimizer.lr"], other["train.optimizer.lr"]) == (0.001, 0.5)
    assert [row["run_id"] for row in read(folder, "deviations")] == ["derived"]
    assert {row["run_id"] for row in read(folder, "trajectories/a")} == {run.run_id}


def test_csv_has_the_same_numbers_and_tells_null_from_nan(tmp_path: Path) -> None:
    manifest = planned(tmp_path, arm_config(), arm_config(steps=1))
    trained(manifest, manifest.runs[0], ODD, val_loss=math.nan)
    exported = export_study(manifest, format="both")
    for name in ("runs", "attempts", "trajectories/arm0", "trajectories/arm1"):
        frame = polars.read_parquet(exported.folder / f"{name}.parquet")
        with (exported.folder / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, told in zip(frame.to_dicts(), rows, strict=True):
            for column, value in row.items():
                if isinstance(value, float):
                    assert bits(float(told[column])) == bits(value), column
                elif value is None:
                    assert told[column] == "", column
                else:
                    shown = str(value).lower() if isinstance(value, bool) else str(value)
                    assert told[column] == shown
    first, second = (row["final.val_loss"] for row in read(exported.folder))
    assert math.isnan(first)
    assert second is None


# ---- the dictionary ----------------------------------------------------------------------------


def test_the_dictionary_describes_every_column_of_every_table(tmp_path: Path) -> None:
    recipe = tmp_path / "sine.yaml"
    recipe.write_text(
        "workload: fakes:Regression\ntrain: {steps: 3}\n"
        'study: {question: "Which | one?", arms: {a: {}, b: {train: {optimizer: {lr: 0.5}}}}, '
        "seeds: [1]}\n"
    )
    manifest = freeze(plan_study(recipe, root=tmp_path / "runs"))
    folder = export_study(manifest).folder
    dictionary = json.loads((folder / "dictionary.json").read_text())
    assert [table["name"] for table in dictionary["tables"]] == [
        "runs", "attempts", "trajectories",
    ]  # fmt: skip
    for table in dictionary["tables"]:
        for name in table["files"]:
            frame = polars.read_parquet(folder / name)
            assert frame.columns == [column["name"] for column in table["columns"]]
            types = {"float64": "Float64", "int64": "Int64", "string": "String", "bool": "Boolean"}
            assert [str(t) for t in frame.dtypes] == [types[c["type"]] for c in table["columns"]]
        assert all(column["meaning"] for column in table["columns"])
    runs = {column["name"]: column for column in dictionary["tables"][0]["columns"]}
    assert runs["train.optimizer.lr"]["meaning"] == "peak learning rate"
    assert runs["wall_s"]["unit"] == "s"
    assert (runs["run_id"]["nullable"], runs["run_id"]["nulls"]) == (False, 0)
    assert (runs["primary_last"]["nullable"], runs["primary_last"]["nulls"]) == (True, 2)
    text = (folder / "dictionary.md").read_text()
    assert "| `train.optimizer.lr` | float64 |  | peak learning rate | 0 |" in text


@pytest.mark.slow
def test_the_dictionary_has_size_and_hash_of_every_other_file(tmp_path: Path) -> None:
    from hashlib import sha256

    folder = export_study(plant(tmp_path, {"a": Arm(around(2.0))}), format="both").folder
    listed = json.loads((folder / "dictionary.json").read_text())["files"]
    there = {n: c for n, c in contents(folder).items() if not n.startswith("dictionary.")}
    assert listed == {
        name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        for name, content in there.items()
    }
    assert set(listed) == {
        f"{name}.{kind}" for name in ("runs", "attempts", "trajectories/a")
        for kind in ("parquet", "csv")
    }  # fmt: skip


# ---- where it goes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_study_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    manifest = plant(tmp_path / "r", {"a": Arm(around(2.0)), "b": Arm(around(1.8), failed=[4])})
    one = export_study(manifest, tmp_path / "one", format="both")
    two = export_study(load_manifest(manifest.folder), tmp_path / "two", format="both")
    assert one.files == two.files
    assert set(one.files) == set(contents(one.folder))
    assert contents(one.folder) == contents(two.folder)


@pytest.mark.slow
def test_an_older_export_is_replaced_whole(tmp_path: Path) -> None:
    manifest = plant(tmp_path / "r", {"a": Arm(around(2.0))})
    export_study(manifest, tmp_path / "out", format="both")
    exported = export_study(manifest, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == set(exported.files)
    assert not any(name.endswith(".csv") for name in exported.files)
    assert [path.name for path in tmp_path.iterdir()].count("out") == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_folder_that_is_something_else_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    manifest = plant(tmp_path / "r", {"a": Arm(around(2.0))})
    other = plant(tmp_path / "s", {"b": Arm(around(2.0))}, question="Another?")
    notes, theirs, mixed, file = (tmp_path / n for n in ("notes", "theirs", "mixed", "file"))
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    file.write_text("mine")
    export_study(manifest, mixed)
    (mixed / "plot.py").write_text("mine")
    export_study(other, theirs)
    (theirs / "dictionary.json").write_text(
        (theirs / "dictionary.json").read_text().replace('"planted"', '"older"')
    )
    before = [contents(folder) for folder in (notes, theirs, mixed)]
    for folder, why in (
        (notes, "it holds no dictionary.json of one"),
        (theirs, "it is one of p/older"),
        (mixed, "it holds plot.py, which no export wrote"),
        (file, "it is no folder"),
    ):
        with pytest.raises(RecordError, match=why):
            export_study(manifest, folder)
    assert before == [contents(folder) for folder in (notes, theirs, mixed)]
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_an_export_that_fails_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = plant(tmp_path / "r", {"a": Arm(around(2.0))})
    export_study(manifest, tmp_path / "out")
    before = contents(tmp_path / "out")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cupel.studies.export.os.fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        export_study(manifest, tmp_path / "out", format="csv")
    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"r", "out"}


def test_a_format_that_there_is_not_is_refused(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({})})
    with pytest.raises(UnknownName, match="parquet"):
        export_study(manifest, format="parket")  # type: ignore[arg-type]


def test_without_polars_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    manifest = plant(tmp_path, {"a": Arm({})})
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingDependency, match="analysis"):
        export_study(manifest)
    assert not (manifest.folder / FOLDER).exists()
