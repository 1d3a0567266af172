"""An imported run is a run like others, is there once, and is there whole or not at all."""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout
from cupel.record.exchange import tensorboard, wandb
from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.importing import import_runs
from cupel.record.exchange.points import Line
from cupel.record.reader import RunRecord, find_unfinished, list_runs
from exchanges import (
    GOLDEN,
    check_expected,
    lines_of,
    planted_run,
    read,
    same,
    unzipped_database,
)

PICTURE = b"\x89PNG"
IMPORT = "from cupel.record.exchange.importing import import_runs as i; i({!r}, root={!r})"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def table(folder: Path, content: str = "step,loss\n1,0.5\n2,nan\n", name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(content)
    return path


@pytest.mark.slow
def test_every_tool_is_known_by_its_files_and_every_bit_arrives(root: Path, tmp_path: Path) -> None:
    database = unzipped_database(tmp_path)
    sources = {tool: GOLDEN / tool for tool in ("tensorboard", "tensorboardx", "wandb")}
    for tool, source in (sources | {"mlflow": database.parent}).items():
        made = import_runs(source, root=root / tool, tell=print)
        found = [
            line for run_dir in made[: 1 if tool == "mlflow" else 9] for line in lines_of(run_dir)
        ]
        check_expected(tool, found)
        for run_dir in made:
            record = RunRecord(run_dir)
            assert record.status in ("finished", "failed")
            assert not record.damaged_lines
            assert len(record.history()) == len({line.step for line in lines_of(run_dir)})


def test_a_run_of_wandb_has_its_facts(root: Path) -> None:
    told: list[str] = []
    (run_dir,) = import_runs(GOLDEN / "wandb", root=root, tell=told.append)
    record = RunRecord(run_dir)
    run, origin = record.run, record.run["imported"]
    assert run_dir.parent.name == run["project"] == "peers"
    assert (run["name"], run["tags"], run["notes"]) == ("first", ["a", "b"], "a note")
    assert (run["group"], run["run_id"]) == ("all", run_dir.name)
    assert run_dir.name.endswith(f"-first-wandb-{origin['sha256'][:8]}")
    assert run_dir.name.startswith(time.strftime("%Y%m%d-%H%M%S", time.gmtime(run["created"])))
    assert origin.items() >= {
        "tool": "wandb", "version": "0.31.0", "id": "abcd1234", "damaged": 0,
        "source": "run-abcd1234.wandb",
        "left_out": {"lines of system metrics": 1, "texts": 1, "histogram": 1},
    }.items()  # fmt: skip
    assert record.config == {"lr": 0.1, "model": {"layers": 3, "act": "gelu"}, "late": 7}
    assert record.summary["best"] == 0.05
    assert record.results is not None
    assert record.results["final"]["nested.inner.x"] == 0.30000000000000004
    (session,) = record.sessions
    assert session.environment == {"schema": 1, "host": "host"}
    assert session.started == run["created"]
    assert session.ended == max(line.t for line in lines_of(run_dir))
    assert told == [
        "run-abcd1234.wandb (first): left out: 1 lines of system metrics, 1 texts, 1 histogram"
    ]
    (defined,) = [event for event in record.events() if event["_event"] == "define_metric"]
    assert (defined["name"], defined["summary"]) == ("loss", "min")


def test_images_are_kept_as_media(root: Path) -> None:
    (run_dir,) = import_runs(GOLDEN / "tensorboard", root=root, tell=print)
    (media,) = RunRecord(run_dir).media()
    assert (media["key"], media["step"], media["_t"]) == ("picture", 1, 1_700_000_000.125)
    assert (run_dir / media["path"]).read_bytes().startswith(PICTURE)


def test_what_a_restart_made_void_is_void_in_the_record_too(root: Path) -> None:
    (run_dir,) = import_runs(GOLDEN / "torch", root=root)
    check_expected("torch", lines_of(run_dir))
    record = RunRecord(run_dir)
    assert [row["_step"] for row in record.history()] == [0, 1, 2, 3]
    assert [session.status for session in record.sessions] == ["interrupted", "finished"]
    assert record.results is not None
    assert record.results["step"] == 3


@pytest.mark.slow
def test_a_failed_run_is_failed_and_an_unfinished_one_interrupted(
    root: Path, tmp_path: Path
) -> None:
    _, failed = import_runs(unzipped_database(tmp_path), root=root, tell=print)
    record = RunRecord(failed)
    assert (record.status, record.results) == ("failed", None)
    assert record.sessions[-1].fields["error"] == "MLflow says FAILED"
    cut = tmp_path / "cut.wandb"
    cut.write_bytes((GOLDEN / "wandb" / "run-abcd1234.wandb").read_bytes()[:4000])
    told: list[str] = []
    (run_dir,) = import_runs(cut, root=root, tell=told.append)
    record = RunRecord(run_dir)
    assert (record.status, record.run["imported"]["damaged"]) == ("interrupted", 1)
    assert "damaged records: 1" in " ".join(told)
    identity = record.identity
    assert identity is not None
    assert find_unfinished(root, "peers", identity) is not None


def test_the_same_content_is_refused_under_every_name(root: Path, tmp_path: Path) -> None:
    (first,) = import_runs(table(tmp_path), root=root)
    os.utime(table(tmp_path, name="b.csv"), (1.0, 1.0))
    for name, project in (("a.csv", None), ("b.csv", None), ("b.csv", "other")):
        with pytest.raises(RecordError, match=f"imported already, as imported/{first.name}"):
            import_runs(tmp_path / name, root=root, project=project)
    assert [run.run_dir for run in list_runs(root)] == [first]


@pytest.mark.slow
def test_of_several_runs_the_new_ones_are_taken_and_the_others_told(
    root: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    shutil.copytree(GOLDEN / "tensorboardx", logs)
    import_runs(logs, root=root, tell=print)
    shutil.copytree(GOLDEN / "torch", logs / "torch")
    told: list[str] = []
    (new,) = import_runs(logs, root=root, tell=told.append)
    assert RunRecord(new).run["name"] == "torch/run"
    assert sum("is imported already" in line for line in told) == 2
    with pytest.raises(RecordError, match="and 2 more like this"):
        import_runs(logs, root=root)


def test_another_state_of_a_run_is_another_run_and_told(root: Path, tmp_path: Path) -> None:
    whole = (GOLDEN / "wandb" / "run-abcd1234.wandb").read_bytes()
    path = tmp_path / "run.wandb"
    path.write_bytes(whole[:5000])
    (before,) = import_runs(path, root=root, tell=print)
    path.write_bytes(whole)
    told: list[str] = []
    (after,) = import_runs(path, root=root, tell=told.append)
    assert f"is another state of peers/{before.name}" in told[-1]
    assert before != after


@pytest.mark.slow
def test_two_imports_at_once_make_one_run(root: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "step,loss\n" + "".join(f"{i},0.5\n" for i in range(3000)))
    code = IMPORT.format(str(path), str(root))
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in "ab"]
    errors = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert any("RecordError" in error for error in errors)
    assert len(list_runs(root)) == 1
    assert not list(root.glob(".tmp-*"))


@pytest.mark.slow
def test_a_killed_import_leaves_no_run_and_the_next_one_clears_up(
    root: Path, tmp_path: Path
) -> None:
    path = table(tmp_path, "step,loss\n" + "".join(f"{i},0.5\n" for i in range(60_000)))
    code = IMPORT.format(str(path), str(root))
    chance = random.Random(1)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 30
        while not list(root.glob(".tmp-*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(chance.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        runs = list_runs(root)
        if runs:  # it was whole before the kill came
            assert len(lines_of(runs[0].run_dir)) == 60_000
            shutil.rmtree(runs[0].run_dir)
    (made,) = import_runs(path, root=root)
    assert len(lines_of(made)) == 60_000
    assert not list(root.glob(".tmp-*"))


def test_a_failed_import_leaves_nothing(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"garbage")
    with pytest.raises(RecordError, match="no readable event"):
        import_runs(path, root=root)
    assert not list(root.iterdir())


def test_times_are_kept_and_where_there_are_none_it_is_the_files(
    root: Path, tmp_path: Path
) -> None:
    path = table(tmp_path)
    os.utime(path, (1_600_000_000.5, 1_600_000_000.5))
    (made,) = import_runs(path, root=root)
    assert [line.t for line in lines_of(made)] == [1_600_000_000.5] * 2
    assert RunRecord(made).created == 1_600_000_000.5
    assert made.name.startswith("20200913-122640-a-csv-")
    path = table(tmp_path, "step,_t,loss\n1,1500000000.25,0.5\n2,nan,1\n3,1500000009.5,1\n")
    told: list[str] = []
    (made,) = import_runs(path, root=root, tell=told.append)
    assert [line.t for line in lines_of(made)] == [1500000000.25, 1500000000.25, 1500000009.5]
    assert RunRecord(made).created == 1500000000.25
    assert "1 times that are not finite" in told[0]


@given(
    st.lists(
        st.builds(
            Line,
            step=st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(0, 3),
            t=st.floats(0, 4e9),
            metrics=st.dictionaries(st.text("ab/._ é", max_size=3), st.floats(), min_size=1),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["tensorboard", "csv", "jsonl"]),
)
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.slow
def test_a_run_comes_back_from_every_export(tmp_path: Path, lines: list[Line], kind: str) -> None:
    run_dir = planted_run(tmp_path, lines)
    target, root = tmp_path / kind / f"run.{kind}", tmp_path / "root"
    for folder in (target.parent, root):
        shutil.rmtree(folder, ignore_errors=True)
    export_run(run_dir, target, kind=kind)  # type: ignore[arg-type]
    (made,) = import_runs(target, root=root, project="back")
    assert same(lines_of(made), lines)
    assert same(RunRecord(made).history(), RunRecord(run_dir).history())


def test_what_a_path_is_is_found_out_or_asked_for(root: Path, tmp_path: Path) -> None:
    odd = table(tmp_path, name="metrics.txt")
    with pytest.raises(RecordError, match=r"cannot tell what metrics\.txt is; give kind="):
        import_runs(odd, root=root)
    assert import_runs(odd, root=root, kind="csv")
    with pytest.raises(RecordError, match=r"cannot import .*nowhere: No such file"):
        import_runs(tmp_path / "nowhere", root=root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no event files"):
        import_runs(tmp_path / "empty", root=root)
    with pytest.raises(RecordError, match="say which with kind="):
        import_runs(GOLDEN, root=root)
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    with pytest.raises(RecordError, match="mlflow migrate-filestore --source"):
        import_runs(tmp_path / "mlruns", root=root)
    with pytest.raises(UsageError, match="step= names a column"):
        import_runs(GOLDEN / "wandb", root=root, step="x")
    with pytest.raises(UsageError, match="is no kind of import"):
        import_runs(odd, root=root, kind="xls")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be the name of a project"):
        import_runs(odd, root=root, project="a/b")


@pytest.mark.slow
def test_projects_of_other_tools_become_names_of_folders(root: Path, tmp_path: Path) -> None:
    import sqlite3

    database = unzipped_database(tmp_path)
    connection = sqlite3.connect(database)
    connection.execute(
        "UPDATE experiments SET name = '/Users/someone/My Study' WHERE name = 'peers'"
    )
    connection.commit()
    connection.close()
    first, _ = import_runs(database, root=root, tell=print)
    assert first.parent.name == "users-someone-my-study"


def test_settings_that_json_cannot_hold_are_counted(root: Path, tmp_path: Path) -> None:
    run = next(wandb.runs_in(GOLDEN / "wandb" / "run-abcd1234.wandb", print))
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    run.config = {"deep": deep, "large": 2**70, "fine": math.nan}
    from cupel.record.exchange import intake

    made = intake.take_in(run, root, "p")
    record = RunRecord(made)
    assert math.isnan(record.config["fine"])
    assert record.run["imported"]["left_out"]["settings that cannot be recorded"] == 2
    assert "left out: " in (made / "sessions" / "0001" / layout.TRAINING_LOG).read_text()


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "tensorboard", "wandb", "mlflow", "csv", "jsonl", "zip"]),
)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.slow
def test_garbage_of_every_kind_is_a_record_error(
    tmp_path: Path, garbage: bytes, kind: str | None
) -> None:
    path = tmp_path / "garbage.csv"
    path.write_bytes(garbage)
    with contextlib.suppress(RecordError):
        import_runs(path, root=tmp_path / "root", kind=kind, tell=print)  # type: ignore[arg-type]


def test_nothing_of_the_machine_that_imports_is_taken_for_the_runs(root: Path) -> None:
    (run_dir,) = import_runs(GOLDEN / "torch", root=root)
    for session in RunRecord(run_dir).sessions:
        assert session.environment == {"schema": 1}
        assert not (session.dir / layout.DIRTY_PATCH).exists()
    assert files.read_json(run_dir / layout.RUN)["status"] == "finished"


def test_reading_alone_and_importing_agree(root: Path) -> None:
    (run,) = tensorboard.runs_in(GOLDEN / "tensorboard")
    (made,) = import_runs(GOLDEN / "tensorboard", root=root, tell=print)
    assert same(read(run), lines_of(made))
