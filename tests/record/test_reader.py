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

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout, reader
from cupel.record.codec import encode_line
from cupel.record.media import store_artifact, store_media
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
@pytest.mark.slow
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
@pytest.mark.slow
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


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_a_damaged_session_file_does_not_bring_back_what_was_gone_back_over(
    tmp_path: Path, damage: bytes | None
) -> None:
    first = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    first.begin_at(0)
    for step in (1, 2, 3, 4):
        first.log({"loss": 1.0}, step=step)
    first.finish("interrupted")
    second = Session.resume(first.run_dir)
    second.begin_at(2)
    second.log({"loss": 2.0}, step=3)
    second.finish("interrupted")
    path = second.dir / layout.SESSION
    path.unlink() if damage is None else path.write_bytes(damage)
    run = RunRecord(first.run_dir)
    assert [(row["_step"], row["loss"]) for row in run.history()] == [(1, 1.0), (2, 1.0), (3, 2.0)]
    assert run.status == "interrupted"


GARBAGE = [
    b'{"status": [], "start_step": "x", "created": {}}',
    b'{"status": 1, "start_step": 1%s, "created": 1%s}' % (b"0" * 400, b"0" * 400),
]


@settings(deadline=None, max_examples=40)
@given(garbage=st.binary() | st.sampled_from(GARBAGE))
@pytest.mark.parametrize("name", ["run.json", "sessions/0001/session.json"])
@pytest.mark.slow
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
    """Every key of today's files stands in the golden record, or the format has changed.

    `files` and `last` came later: optional keys, which readers of before ignore.
    """
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.finish("finished")
    for name in ("run.json", "config.json", "results.json", "sessions/0002/session.json"):
        golden, now = files.read_json(GOLDEN / name), files.read_json(session.run_dir / name)
        assert now.keys() - {"files", "last"} <= golden.keys(), name


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "run")
    (tmp_path / "run" / layout.CONFIG).write_text('{"config": 3}')
    with pytest.raises(RecordError, match=r"config\.json holds no configuration"):
        _ = RunRecord(tmp_path / "run").config


def start(root: Path, **more: Any) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i", **more)


def test_media_follow_the_sessions_that_count_and_artifacts_stay(tmp_path: Path) -> None:
    session = start(tmp_path)
    for step in (1, 2, 3):
        store_media(session, "x/y", step=step, kind="image", suffix="png", data=b"%d" % step)
    (tmp_path / "notes.txt").write_text("hello")
    store_artifact(session, tmp_path / "notes.txt", name="notes", kind="text")
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.begin_at(1)
    store_media(resumed, "x/y", step=2, kind="image", suffix="png", data=b"new")
    record = RunRecord(session.run_dir)
    assert [(m["_session"], m["step"], m["bytes"]) for m in record.media()] == [
        (1, 1, 1),
        (2, 2, 3),
    ]
    for medium in record.media():
        path = record.run_dir / medium["path"]
        assert path.read_bytes() in (b"1", b"new")
    (artifact,) = record.artifacts()
    assert (artifact["name"], artifact["version"], artifact["kind"]) == ("notes", 0, "text")
    assert (record.run_dir / artifact["path"]).is_dir()
    resumed.finish("failed")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.text("ab \u00e9\U0001f600", max_size=4), max_size=5), max_size=3),
    st.none() | st.integers(0, 9),
    st.integers(1, 8),
    st.integers(1, 12),
)
@pytest.mark.slow
def test_the_end_of_the_console_is_the_end_of_all_that_was_printed(
    tmp_path_factory: pytest.TempPathFactory,
    printed: list[list[str]],
    last: int | None,
    block: int,
    segment: int,
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("root") / "p" / "run")
    for number, lines in enumerate(printed, start=1):
        folder = write_session(run_dir, number)
        text = "".join(f"{line}\n" for line in lines).encode()
        for place, start in enumerate(range(0, len(text), segment)):
            part = text[start : start + segment]  # a line may go on in the next file
            (folder / layout.console_name(0, place)).write_bytes(part)
    expected = [line for lines in printed for line in lines]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_TAIL_BYTES", block)
        found = RunRecord(run_dir).console(last=last)
    assert found == (expected if last is None else expected[max(0, len(expected) - last) :])
    if len(printed) > 1:
        assert RunRecord(run_dir).console(session=2) == printed[1]


def test_without_a_console_or_measurements_there_are_none(tmp_path: Path) -> None:
    session = start(tmp_path)
    record = RunRecord(session.run_dir)
    assert (record.console(), record.system(), record.media(), record.artifacts()) == ([],) * 4
    session.finish("failed")


def test_what_the_machine_did_is_read_with_its_session(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    for number in (1, 2):
        path = write_session(run_dir, number) / layout.system_name()
        path.write_bytes(b'{"_t":1.5,"cpu":50.0}\n{"cpu":1}\n{"_t":2')
    record = RunRecord(run_dir)
    assert record.system() == [
        {"_t": 1.5, "cpu": 50.0, "_session": 1},
        {"_t": 1.5, "cpu": 50.0, "_session": 2},
    ]
    assert record.damaged_lines == 4


def test_a_session_elsewhere_that_gives_no_sign_is_silent_and_may_be_resumed(
    tmp_path: Path,
) -> None:
    session = start(tmp_path)
    path = session.dir / layout.heartbeat_name()
    session.finish("interrupted")
    fields = files.read_json(session.dir / layout.SESSION)
    files.write_json(session.dir / layout.SESSION, {**fields, "status": "running"})
    files.write_json(path, {**files.read_json(path), "host": "elsewhere", "machine": "other"})
    record = RunRecord(session.run_dir)
    assert record.status == "running"
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert record.status == "silent"
    assert not record.sessions[-1].is_over
    found = find_unfinished(tmp_path, "p", "i")
    assert found is not None
    assert found.run_id == session.run_id
    resumed = Session.resume(session.run_dir)
    assert record.status == "running"
    resumed.finish("failed")


def test_the_thousandth_segment_comes_after_the_999th(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    folder = write_session(run_dir, 1)
    for segment in (999, 1000):
        line = encode_line({"_step": 1, "_t": 0.0, "segment": segment})
        (folder / layout.metrics_name(0, segment)).write_bytes(line)
    record = RunRecord(run_dir)
    assert record.history() == [{"_step": 1, "_t": 0.0, "segment": 1000}]
    assert record.series("segment").y.tolist() == [1000.0]
    assert next(reader.newest_lines(record.sessions[0]))["segment"] == 1000


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"points": 0}, "0 points are none"),
        ({"range": (2, 1)}, r"the range 2 to 1 ends before it begins"),
        ({"range": (float("nan"), 1)}, "an end of the range is NaN"),
        ({"range": (None, 10**400)}, "an end of the range is NaN"),
        ({"session": 7}, "no session of run .* is called '7'"),
    ],
)
def test_a_view_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    write_lines(write_session(run_dir, 1), [1, 2], mark=1)
    record = RunRecord(run_dir)
    for read in (record.history, record.series, record.buckets):
        with pytest.raises(UsageError, match=told):
            read("mark", **wrong)


def test_keys_that_nobody_logged_have_no_points(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "p" / "run")
    record = RunRecord(run_dir)
    assert record.buckets(["a", "b"])["a"].count.tolist() == []
    write_lines(write_session(run_dir, 1), [1, 2], mark=1)
    assert record.history("absent", x="time", points=3) == []
    assert record.history("mark", x="absent") == []
    assert len(record.series("absent").x) == len(record.series("mark", x="absent").y) == 0
    both = record.buckets(["absent", "mark"], points=2)
    assert both["absent"].count.tolist() == [0, 0]
    assert both["mark"].count.tolist() == [1, 1]
    assert record.buckets("absent", range=(0, 4), points=2)["absent"].x1.tolist() == [2.0, 4.0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), max_size=5), st.integers(1, 400))
@pytest.mark.slow
def test_the_newest_lines_are_those_at_the_end_of_all_segments(
    tmp_path_factory: pytest.TempPathFactory, segments: list[int], most: int
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("root") / "p" / "run")
    folder = write_session(run_dir, 1)
    whole, step = b"", 0
    for segment, count in enumerate(segments):
        lines = [encode_line({"_step": step + n}) for n in range(count)]
        (folder / layout.metrics_name(0, segment)).write_bytes(b"".join(lines))
        whole, step = whole + b"".join(lines), step + count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_TAIL_BYTES", most)
        found = [line["_step"] for line in reader.newest_lines(RunRecord(run_dir).sessions[0])]
    assert found == list(range(step - 1, step - 1 - len(found), -1))
    assert len(found) >= whole[-most:].count(b"\n") - 1 if most < len(whole) else len(found) == step
