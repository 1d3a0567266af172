"""The reader tells the truth about what lies there, however damaged, and never crashes on it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record import files, layout
from cupel.record.codec import encode_line
from cupel.record.reader import RunRecord, find_unfinished, list_runs
from cupel.record.session import Session

GOLDEN = Path(__file__).parent.parent / "golden" / "record-v1"


def write_run(run_dir: Path, **fields: Any) -> Path:
    run_dir.mkdir(parents=True)
    run = {"schema": 1, "identity": "i", "created": time.time()}
    files.write_json(run_dir / layout.RUN, {**run, **fields})
    return run_dir


def write_session(run_dir: Path, number: int, *, status: str = "failed", **fields: Any) -> Path:
    folder = layout.session_dir(run_dir, number)
    folder.mkdir(parents=True)
    (folder / layout.SESSION).write_text(json.dumps({"schema": 1, "status": status, **fields}))
    return folder


def write_lines(folder: Path, steps: list[int], mark: int) -> None:
    lines = [encode_line({"_step": step, "_t": 0.0, "mark": mark}) for step in steps]
    (folder / layout.metrics_name()).write_bytes(b"".join(lines))


SESSIONS = st.lists(
    st.tuples(st.none() | st.integers(0, 12), st.integers(0, 12), st.integers(0, 6)), max_size=5
)


@settings(deadline=None, max_examples=40)
@given(SESSIONS)
def test_history_follows_the_sessions_that_count(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[tuple[int | None, int, int]]
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("root") / "p" / "run")
    owner: dict[int, int] = {}  # the reference: which session's line each step shows
    for number, (start_step, first, count) in enumerate(sessions, start=1):
        folder = write_session(run_dir, number, start_step=start_step)
        steps = list(range(first, first + count))
        write_lines(folder, steps, mark=number)
        for step in list(owner):
            if start_step is not None and step > start_step:
                del owner[step]
        owner.update(dict.fromkeys(steps, number))
    rows = RunRecord(run_dir).history()
    assert [(row["_step"], row["mark"]) for row in rows] == sorted(owner.items())


def test_lines_of_one_step_are_merged_and_keys_select(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    folder = write_session(run_dir, 1)
    lines = [{"_step": 2, "loss": 2.0}, {"_step": 1, "loss": 1.0}, {"_step": 2, "val_loss": 3.0}]
    (folder / layout.metrics_name()).write_bytes(b"".join(map(encode_line, lines)))
    run = RunRecord(run_dir)
    assert run.history() == [
        {"_step": 1, "loss": 1.0},
        {"_step": 2, "loss": 2.0, "val_loss": 3.0},
    ]
    assert run.history(["val_loss"]) == [{"_step": 2, "val_loss": 3.0}]
    assert run.history(["absent"]) == []


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 400))
def test_a_torn_tail_costs_its_own_line_only(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("root") / "p" / "run")
    folder = write_session(run_dir, 1)
    write_lines(folder, list(range(10)), mark=1)
    path = folder / layout.metrics_name()
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    run = RunRecord(run_dir)
    assert [row["_step"] for row in run.history()] == list(range(content.count(b"\n")))
    torn = bool(content) and not content.endswith(b"\n")
    assert run.damaged_lines == run.damaged_lines == int(torn)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(min_size=1).filter(lambda b: b"\n" not in b), max_size=4), st.data())
def test_damaged_lines_are_skipped_and_counted(
    tmp_path_factory: pytest.TempPathFactory, garbage: list[bytes], data: st.DataObject
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("root") / "p" / "run")
    folder = write_session(run_dir, 1)
    write_lines(folder, list(range(5)), mark=1)
    path = folder / layout.metrics_name()
    lines = path.read_bytes().splitlines()
    for bad in garbage:
        lines.insert(data.draw(st.integers(0, len(lines))), bad)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    run = RunRecord(run_dir)
    assert [row["_step"] for row in run.history()] == list(range(5))
    assert run.damaged_lines == len(garbage)
    run.history()
    assert run.damaged_lines == len(garbage)  # counted once, however often read


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b'{"_step":"1"}', b'{"_step":1.5}', b'{"_step":null}']
)
def test_a_line_without_a_step_is_damaged(tmp_path: Path, line: bytes) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    (write_session(run_dir, 1) / layout.metrics_name()).write_bytes(line + b"\n")
    run = RunRecord(run_dir)
    assert (run.history(), run.damaged_lines) == ([], 1)


@settings(deadline=None, max_examples=40)
@given(garbage=st.binary() | st.just(b'{"status": [], "start_step": "x", "created": {}}'))
@pytest.mark.parametrize("name", ["run.json", "sessions/0001/session.json"])
def test_a_damaged_file_never_breaks_the_list(
    tmp_path_factory: pytest.TempPathFactory, name: str, garbage: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    for run_id in ("damaged", "sound"):
        write_session(write_run(root / "p" / run_id, created=5), 1, start_step=0)
    (root / "p" / "damaged" / name).write_bytes(garbage)
    runs = {run.run_id: run for run in list_runs(root)}
    assert runs["sound"].status == "failed"
    damaged = runs["damaged"]
    assert damaged.status in ("damaged", "running", "failed")
    assert (damaged.problem is not None) == (damaged.status == "damaged")
    assert damaged.history() == []
    assert find_unfinished(root, "p", "i") is not None


def test_the_list_is_newest_first_and_leaves_out_what_is_no_run(tmp_path: Path) -> None:
    for number, run_id in enumerate(("b", "c", "a")):
        write_run(tmp_path / f"p{number % 2}" / run_id, created=number + 1)
    (tmp_path / "p0" / "only-notes").mkdir()
    (tmp_path / "p0" / "studies" / "s").mkdir(parents=True)
    (tmp_path / "p0" / "stray.txt").write_text("")
    broken = write_run(tmp_path / "p0" / "broken")
    (broken / layout.RUN).write_text("{")
    assert [run.run_id for run in list_runs(tmp_path)] == ["a", "c", "b", "broken"]
    assert [run.run_id for run in list_runs(tmp_path, project="p1")] == ["c"]
    assert "run.json is damaged" in str(list_runs(tmp_path)[-1].problem)
    assert list_runs(tmp_path / "absent") == []


def test_the_unfinished_run_is_the_newest_of_that_identity(tmp_path: Path) -> None:
    for created, (run_id, identity, status) in enumerate(
        [
            ("older", "i", "failed"),
            ("newer", "i", "interrupted"),
            ("other", "j", "failed"),
            ("done", "i", "finished"),
        ]
    ):
        run_dir = write_run(tmp_path / "p" / run_id, identity=identity, created=created)
        write_session(run_dir, 1, status=status)
    found = find_unfinished(tmp_path, "p", "i")
    assert found is not None
    assert found.run_id == "newer"
    assert find_unfinished(tmp_path, "p", "k") is None
    assert find_unfinished(tmp_path, "q", "i") is None


def test_a_session_that_calls_itself_running_is_crashed_when_its_process_is_gone(
    tmp_path: Path,
) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    folder = write_session(run_dir, 1, status="running")
    assert RunRecord(run_dir).status == "running"  # just starting: no heartbeat yet
    long_ago = time.time() - 100
    os.utime(folder, (long_ago, long_ago))
    assert RunRecord(run_dir).status == "crashed"
    write_session(run_dir, 2, status="interrupted")
    assert RunRecord(run_dir).status == "interrupted"


def test_the_golden_record_of_version_1_is_still_read(tmp_path: Path) -> None:
    run = RunRecord(GOLDEN)
    assert run.problem is None
    assert (run.status, run.identity) == ("finished", "sha256:0123abcd")
    assert run.run["name"] == "golden"
    assert run.config == {"train": {"steps": 4, "lr": 0.1}, "clip": float("inf")}
    assert [(s.number, s.status, s.start_step, s.pid) for s in run.sessions] == [
        (1, "interrupted", 0, 4711),
        (2, "finished", 2, 4712),
    ]
    assert [session.host for session in run.sessions] == ["golden", "golden"]
    # Session 1 went on to step 3 and was cut off in step 4; session 2 began again after step 2.
    assert [(row["_step"], row["loss"]) for row in run.history(["loss"])] == [
        (1, 2.5),
        (2, 1.25),
        (3, 0.75),
        (4, float("inf")),
    ]
    assert run.history(["val_loss"]) == [{"_step": 4, "_t": 1760000004.5, "val_loss": 0.1}]
    assert run.damaged_lines == 1
    assert [(e["_session"], e["_event"]) for e in run.events()] == [
        (1, "finish"),
        (2, "begin"),
        (2, "finish"),
    ]
    assert run.checkpoints() == [2]
    assert run.results == {
        "schema": 1,
        "run": "20251009-085320-golden-nogit-0a1b",
        "accepted_session": 2,
        "val_loss": 0.1,
    }
    assert run.sessions[1].environment["python"] == "3.11.0"


def test_the_golden_record_is_what_the_writer_writes_now(tmp_path: Path) -> None:
    """Every key of today's files stands in the golden record, or the format has changed."""
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.finish("finished")
    for name in ("run.json", "config.json", "results.json", "sessions/0002/session.json"):
        golden, now = files.read_json(GOLDEN / name), files.read_json(session.run_dir / name)
        assert now.keys() <= golden.keys(), name


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "run")
    (tmp_path / "run" / layout.CONFIG).write_text('{"config": 3}')
    with pytest.raises(RecordError, match=r"config\.json holds no configuration"):
        _ = RunRecord(tmp_path / "run").config
