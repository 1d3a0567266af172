"""A summary is one number a metric, the same from lines and from columns."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import RUNS, Log, regular, rows_of, write
from cupel.record import codec, compaction, files, layout, metrics, saying, writer
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.record.summary import Summary, rule_of
from cupel.record.verifying import check_run

TOLD = ("loss", "val/loss", "epoch", "count", "flag")
RULES = st.sampled_from(["last", "first", "min", "max", "mean", "none"])


def folded(values: list[Any], rule: str) -> Any:
    if rule in ("first", "last"):
        return values[0 if rule == "first" else -1]
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return math.nan
    return {"min": min, "max": max, "mean": lambda v: sum(map(float, v)) / len(v)}[rule](values)


def agree(found: Any, expected: Any, rule: str) -> bool:
    if rule in ("first", "last"):
        return repr(found) == repr(expected)
    if rule == "mean" and not math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9):
        # Beyond all floats, or after much has cancelled out, the order of adding decides.
        return math.isnan(expected) or abs(expected) > 1e290 or abs(found) > 1e290
    return bool(found == expected) or (math.isnan(found) and math.isnan(expected)) or rule == "mean"


@settings(deadline=None, max_examples=80)
@given(
    RUNS | st.integers(0, 9999).map(regular),
    st.fixed_dictionaries({}, optional=dict.fromkeys(TOLD, RULES)),
)
@pytest.mark.parametrize("large", [True, False], ids=["columns", "lines"])
@pytest.mark.slow
def test_a_summary_is_what_the_history_comes_to(
    tmp_path_factory: pytest.TempPathFactory, large: bool, run: list[Log], rules: dict[str, str]
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    if run:
        defined = [
            json.dumps({"_event": "define_metric", "name": name, "summary": rule}) + "\n"
            for name, rule in rules.items()
        ]
        path = layout.session_dir(run_dir, 1) / layout.events_name()
        path.write_text("".join(defined))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SMALLEST", 1)
        patch.setattr(metrics, "LARGE", 1 if large else 10**9)
        patch.setattr(os, "fsync", lambda fd: None)
        found = RunRecord(run_dir).summary
        again = RunRecord(run_dir).summary
    assert repr(found) == repr(again)
    for name in TOLD:
        rule = rules.get(name, "last")
        values = [row[name] for row in rows_of(run) if isinstance(row.get(name), int | float)]
        assert (name in found) == (bool(values) and rule != "none")
        if name in found:
            assert agree(found[name], folded(values, rule), rule), (name, found[name], values)


def test_what_was_said_last_of_a_metric_counts() -> None:
    said = [
        {"name": "val/*", "summary": "min"},
        {"name": "val/acc", "summary": "best", "goal": "max"},
        {"name": "val/*", "summary": "mean"},
        {"name": "val/acc", "step_metric": "epoch", "summary": None, "goal": None},
        {"name": "odd", "summary": "best"},
        {"name": "odd*", "summary": ["min"]},
        {"name": 3, "summary": "min"},
    ]
    assert rule_of("val/loss", said) == "mean"
    assert rule_of("val/acc", said) == "max"
    assert rule_of("train/loss", said) == "last"
    assert rule_of("odd", said) == "last"


def test_what_is_set_stands_over_what_was_logged(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.define_metric("val/*", summary="best", goal="max")
    for step in range(1, 5):
        session.log({"loss": 1 / step, "val/acc": (step - 2) ** 2, "spectrum": [1.0]}, step=step)
    session.set_summary({"loss": 7, "note": "good"})
    session.set_summary({"note": "better"})
    record = RunRecord(session.run_dir)
    assert record.summary == {"loss": 7, "val/acc": 4, "note": "better"}
    assert record.summarised().step == 4
    session.finish("interrupted")
    second = Session.resume(session.run_dir)
    second.begin_at(2)
    second.set_summary({"loss": 8})
    assert RunRecord(session.run_dir).summary == {"loss": 8, "val/acc": 1, "note": "better"}
    assert RunRecord(session.run_dir).summarised().step == 2
    second.finish("failed")


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.lists(st.floats(), max_size=2),
)
NAMES = st.sampled_from(["loss", "val/loss", "epoch", "count", "flag"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.dictionaries(NAMES, NUMBERS, max_size=4))),
    st.fixed_dictionaries({}, optional=dict.fromkeys(TOLD, RULES)),
)
@pytest.mark.slow
def test_what_a_session_says_at_its_end_is_what_its_lines_come_to(
    tmp_path_factory: pytest.TempPathFactory,
    logged: list[tuple[int, dict[str, Any]]],
    rules: dict[str, str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        root = tmp_path_factory.mktemp("root")
        session = Session.start(root=root, project="p", name="n", config={}, identity="i")
        for name, rule in rules.items():
            session.define_metric(name, summary=rule)
        step = 0
        for ahead, values in logged:
            step += ahead
            session.log(values, step=step)
        session.finish("finished")
        record = RunRecord(session.run_dir)
        found = record.summarised()
        path = session.dir / layout.SESSION
        fields = files.read_json(path)
        files.write_json(path, {k: v for k, v in fields.items() if k != "last"})
        again = RunRecord(session.run_dir)
        assert repr((again.summarised().step, again.summary)) == repr((found.step, found.values))
        columns = again.logged(None, again.sessions)
        for key, at in found.steps.items():
            told = columns.last(key)
            assert told is not None
            assert told[0] == at
        last: dict[str, Any] = {}
        for _, values in logged:
            last |= values
        numbers = not any(isinstance(value, list) for value in last.values())
        in_order = not any(ahead < 0 for ahead, _ in logged[1:])
        assert (fields["last"] is not None) == bool(logged and numbers and in_order)
        assert check_run(session.run_dir).sound


def finished(root: Path, **told: Any) -> Path:
    """A run whose lines say 1 to 9, and whose session says what is given here."""
    session = Session.start(root=root, project="p", name="n", config={}, identity="i")
    for step in range(1, 10):
        session.log({"loss": float(step)}, step=step)
    session.finish("finished")
    path = session.dir / layout.SESSION
    fields = files.read_json(path)
    assert fields["last"] == {"step": 9, "values": {"loss": 9.0}, "steps": {}}
    files.write_json(path, fields | told)
    return session.run_dir


def test_the_summary_of_an_ended_run_reads_no_line(tmp_path: Path) -> None:
    run_dir = finished(tmp_path)
    (lines,) = layout.segments(layout.session_dir(run_dir, 1), "metrics")
    before = lines.stat()
    lines.write_bytes(b"x" * before.st_size)
    assert RunRecord(run_dir).summarised() == Summary(0, {}), "changed since"
    os.utime(lines, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert RunRecord(run_dir).summarised() == Summary(9, {"loss": 9.0})
    assert not check_run(run_dir).sound


@pytest.mark.parametrize(
    "last",
    [None, 3, {}, {"step": 7}, {"step": 7, "values": {}}, {"step": "7", "values": {}, "steps": {}},
     {"step": 7, "values": [1], "steps": {}}, {"step": 7, "values": {"loss": "8"}, "steps": {}},
     {"step": 7, "values": {"loss": 8}, "steps": {"loss": "3"}}],
    ids=repr,
)  # fmt: skip
def test_lines_are_read_where_a_session_says_nothing_sensible(tmp_path: Path, last: Any) -> None:
    assert RunRecord(finished(tmp_path, last=last)).summarised() == Summary(9, {"loss": 9.0})


def test_lines_are_read_where_they_are_not_those_that_were_written(tmp_path: Path) -> None:
    run_dir = finished(tmp_path)
    (lines,) = layout.segments(layout.session_dir(run_dir, 1), "metrics")
    with lines.open("ab") as file:
        file.write(b'{"_step": 10, "loss": 0.5}\n')
    assert RunRecord(run_dir).summarised() == Summary(10, {"loss": 0.5})
    lines.unlink()
    assert RunRecord(run_dir).summarised() == Summary(0, {})


@pytest.mark.slow
def test_a_last_number_that_no_line_says_is_told(tmp_path: Path) -> None:
    for last, told in (
        ((8, {"loss": 9.0}, {"loss": 9}), "tells 8 as last _step; its lines say 9"),
        ((9, {"loss": 8.0}, {}), "tells 8.0 as last loss; its lines say 9.0"),
        ((9, {"lost": 1}, {"lost": 9}), "tells no last loss, and its lines do"),
        ((9, {}, {}), "tells no last loss, and its lines do"),
        ((9, {"loss": 9.0, "lost": 1}, {}), "tells a last lost, and none of its lines does"),
        ((9, {"loss": 9.0}, {"lost": 1}), "tells a last lost, and none of its lines does"),
        ((9, {"loss": 9.0}, {"loss": 8}), "tells 8 as step of loss; its lines say 9"),
        ((9, [], {}), "last is no step with values and their steps"),
    ):
        said = dict(zip(("step", "values", "steps"), last, strict=True))
        found = check_run(finished(tmp_path, last=said)).problems
        assert str(found[0]) == f"sessions/0001/session.json: {told}"


def told_of(root: Path, lines: Iterable[dict[Any, Any]]) -> dict[str, Any] | None:
    """What a session says of its last numbers that logged these, a step each."""
    session = Session.start(root=root, project="p", name="n", config={}, identity="i")
    for step, values in enumerate(lines):
        session.log(values, step=step)
    session.finish("finished")
    assert check_run(session.run_dir).sound
    fields = files.read_json(session.dir / layout.SESSION)
    told: dict[str, Any] | None = fields["last"]
    without = RunRecord(session.run_dir).summary
    files.write_json(session.dir / layout.SESSION, {**fields, "last": None})
    assert repr(RunRecord(session.run_dir).summary) == repr(without)
    return told


@pytest.mark.slow
def test_a_session_says_its_last_numbers_of_so_many_kinds_of_lines(tmp_path: Path) -> None:
    kinds = [{f"metric_{n}": n} for n in range(writer.MOST_KINDS)]
    told = told_of(tmp_path, kinds)
    assert told is not None
    assert list(told["values"]) == [f"metric_{n}" for n in range(writer.MOST_KINDS)]
    assert told["steps"]["metric_3"] == 3
    assert told_of(tmp_path, [*kinds, {"another": 1}]) is None
    assert told_of(tmp_path, [{f"metric_{n}": n for n in range(saying.MOST_LAST)}]) is not None
    assert told_of(tmp_path, [{f"metric_{n}": n for n in range(saying.MOST_LAST + 1)}]) is None


def test_last_numbers_may_stand_in_an_earlier_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 200)
    lines = [{"val_loss": 3.0}, *({"loss": float(n)} for n in range(20)), {"acc": 1}, {"loss": 7.0}]
    told = told_of(tmp_path, lines)
    assert told == {
        "step": 22,
        "values": {"val_loss": 3.0, "loss": 7.0, "acc": 1},
        "steps": {"val_loss": 0, "acc": 21},
    }


def test_names_are_told_as_their_text(tmp_path: Path) -> None:
    class Name(str):  # as members of an enum of texts are
        __slots__ = ()

        def __str__(self) -> str:
            return "Name.LOSS"

    told = told_of(tmp_path, [{Name("loss"): 0.1}])
    assert told is not None
    assert told["values"] == {"loss": 0.1}


def test_nothing_is_said_where_a_thread_logged_a_later_step_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    encode, others = codec.encode_step, [6]

    def slow(step: int, now: float, metrics: Mapping[str, Any]) -> bytes:
        if step == 5 and others:  # another thread is faster
            session.log({"loss": 0.6}, step=others.pop())
        return encode(step, now, metrics)

    monkeypatch.setattr(codec, "encode_step", slow)
    session.log({"loss": 0.5}, step=5)
    session.finish("finished")
    assert files.read_json(session.dir / layout.SESSION)["last"] is None
    assert RunRecord(session.run_dir).summarised() == Summary(6, {"loss": 0.6})
    assert check_run(session.run_dir).sound


def test_nothing_is_said_after_what_stood_in_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("{}\n")
    file = writer.LineWriter(path)
    assert file.append(b'{"_step":1,"_t":1,"loss":2}\n', ("loss",), 1)
    assert file.ends() is None
    file.close()


def test_the_summary_of_a_small_run_needs_no_numpy(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.log({"loss": 1.0}, step=1)
    session.finish("failed")
    code = (
        "import sys; from cupel.record.index import table;"
        "from cupel.record.reader import RunRecord;"
        "assert RunRecord(sys.argv[1]).summary == {'loss': 1.0}; assert table(sys.argv[2]);"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, session.run_dir, tmp_path], check=True)
