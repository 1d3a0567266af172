"""The reader in examples/ agrees with cupel's own, and needs the standard library only."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbitrary_logs import RUNS, Log, write
from cupel.errors import RecordError
from cupel.record import heartbeat, inventory, layout, manifests, processes, writer
from cupel.record.reader import RunRecord, list_runs
from cupel.record.session import Session

EXAMPLE = Path(__file__).parents[2] / "examples/read_record.py"
GOLDEN = Path(__file__).parents[1] / "golden/record-v1"
plain = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))

_NUMBERS = st.floats() | st.integers(-(2**63), 2**64 - 1) | st.booleans()
_METRICS = st.dictionaries(
    st.sampled_from(["loss", "val/loss", "Bremsstärke", "\N{GREEK SMALL LETTER THETA}"]),
    _NUMBERS | st.lists(_NUMBERS, max_size=3),
    max_size=3,
)
_STEPS = st.integers(0, 12)
_DONE = st.one_of(
    st.tuples(st.just("log"), _STEPS, _METRICS, st.integers(0, 1)),
    st.tuples(st.just("event"), st.text(max_size=5), st.floats() | st.text(max_size=3)),
    st.tuples(st.just("set"), st.dictionaries(st.sampled_from("abc"), _NUMBERS), st.booleans()),
    st.tuples(st.just("tear"), st.binary(min_size=1, max_size=9), st.sampled_from(["0", "1"])),
)
_SESSIONS = st.lists(st.tuples(_STEPS, st.lists(_DONE, max_size=12)), min_size=1, max_size=3)


def agree(run_dir: Path, ranks: tuple[int, ...] = (0,)) -> None:
    """Both readers say the same; `repr`, since a NaN equals nothing and 1 equals 1.0 and True."""
    for rank in ranks:
        record = RunRecord(run_dir)
        rows, damaged = plain.history(run_dir, rank)
        assert repr(rows) == repr(record.history(rank=rank))
        assert damaged == record.damaged_lines
        assert repr(list(map(ordered, plain.events(run_dir, rank)))) == repr(
            list(map(ordered, record.events(rank=rank)))
        )
    record = RunRecord(run_dir)
    assert repr(plain.config(run_dir)) == repr(settings_of(record))
    assert plain.status(run_dir) == record.status
    assert [int(folder.name) for folder in plain.sessions(run_dir)] == [
        session.number for session in record.sessions
    ]


def settings_of(record: RunRecord) -> dict[str, Any]:
    try:
        return record.config
    except RecordError:  # where the plain reader goes by the events alone
        added = [event.get("set") for event in record.events() if event["_event"] == "config"]
        return {k: v for one in added if isinstance(one, dict) for k, v in one.items()}


def ordered(fields: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(fields.items())


@contextmanager
def small_segments(size: int) -> Iterator[None]:
    before, writer.SEGMENT_BYTES = writer.SEGMENT_BYTES, size
    try:
        yield
    finally:
        writer.SEGMENT_BYTES = before


def test_it_agrees_on_the_golden_record() -> None:
    agree(GOLDEN)
    assert plain.history(GOLDEN)[0][-1]["loss"] == float("inf")
    assert list(plain.checkpoints(GOLDEN)) == RunRecord(GOLDEN).checkpoints()


def check_session(sessions: list[tuple[int, list[Any]]], segment_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as root, small_segments(segment_bytes):
        run_dir: Path | None = None
        for start_step, done in sessions:
            if run_dir is None:
                zero = Session.start(root=root, project="p", name="n", config={}, identity="i")
                run_dir = zero.run_dir
            else:
                zero = Session.resume(run_dir)
            zero.begin_at(start_step)
            one = Session.join(run_dir, zero.number, 1)
            agree(run_dir, (0, 1))  # while it runs
            for what, *given_ in done:
                if what == "log":
                    step, metrics, rank = given_
                    (zero, one)[rank].log(metrics, step=step)
                elif what == "event":
                    zero.event(given_[0], value=given_[1])
                elif what == "set":
                    if given_[1]:
                        zero.set_config(given_[0])
                    else:  # a kill came before config.json had it
                        zero.event("config", set=given_[0])
                    one.set_config({"a": "of a further rank"})
                else:  # as another program or a full disk would
                    garbage, rank = given_
                    last = layout.segments(zero.dir, "metrics", int(rank))[-1]
                    with last.open("ab") as file:
                        file.write(garbage)
            agree(run_dir, (0, 1))
            one.finish("finished")
            zero.finish("interrupted")
        assert run_dir is not None
        agree(run_dir, (0, 1))
        assert [run.name for run in plain.runs(Path(root))] == [r.run_id for r in list_runs(root)]


@settings(max_examples=5, deadline=None)
@given(_SESSIONS, st.integers(1, 300))
@pytest.mark.slow
def test_it_agrees_on_what_a_session_writes(sessions: list[Any], segment_bytes: int) -> None:
    check_session(sessions, segment_bytes)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(_SESSIONS, st.integers(1, 300))
def test_it_agrees_on_what_many_sessions_write(sessions: list[Any], segment_bytes: int) -> None:
    check_session(sessions, segment_bytes)


@settings(max_examples=150, deadline=None)
@given(RUNS)
@example([Log(None, [b'{"_step":true,"loss":1.0}\n{"_step":1.0}\n{"_step":1,"a":1e999}\n'])])
@example([Log(None, [b'{"_step":1,"a":"\\ud800"}\n{"_step":1,"a":"\\ud83d\\ude00"}\n'])])
@example([Log(None, [b'{"_step":1,"a":NaN}\n\n  \n{"_step":2}'])])
@pytest.mark.slow
def test_it_agrees_on_whatever_lies_there(run: list[Log]) -> None:
    with tempfile.TemporaryDirectory() as root:
        agree(write(Path(root, "p", "r"), run))


@settings(max_examples=60, deadline=None)
@given(
    said=st.sampled_from(["running", "failed", "nonsense"]),
    changes=st.dictionaries(
        st.sampled_from(["pid", "start", "host", "boot_id", "pid_namespace", "machine"]),
        st.sampled_from(["", "1", "another", None]),
    ),
    age=st.sampled_from([0, 30, 3000, -3000]),
    whole=st.booleans(),
)
@example("running", {}, 3000, True)
@example("running", {"boot_id": "another"}, 0, True)
@example("running", {"machine": "another"}, 3000, True)
@example("running", {"machine": None, "pid": "1"}, 0, True)
@example("running", {"host": "another"}, 3000, True)
@example("running", {"pid": 2**22 + 1}, 0, True)
@pytest.mark.slow
def test_it_agrees_on_who_lives(said: str, changes: dict[str, Any], age: int, whole: bool) -> None:
    with tempfile.TemporaryDirectory() as root:
        run_dir = write(Path(root, "p", "r"), [Log(0, [b""])], status=said)
        beat = layout.session_dir(run_dir, 1) / layout.heartbeat_name()
        content = json.dumps({"schema": 1, **processes.this_process().as_json(), **changes})
        beat.write_text(content if whole else content[:-9])
        os.utime(beat, (time.time() - age,) * 2)
        os.utime(beat.parent, (time.time() - age,) * 2)
        agree(run_dir)


def test_the_thousandth_segment_comes_after_the_999th(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "p/r", [Log(None, [])])
    for segment in (999, 1000):
        line = b'{"_step":1,"segment":%d}\n' % segment
        (layout.session_dir(run_dir, 1) / layout.metrics_name(0, segment)).write_bytes(line)
    agree(run_dir)
    assert plain.history(run_dir) == ([{"_step": 1, "segment": 1000}], 0)


def test_a_killed_run_is_crashed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from cupel.record.session import Session\n"
        "s = Session.start(root=sys.argv[1], project='p', name='n', config={}, identity='i')\n"
        "s.log({'loss': 1.0}, step=1); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    (run_dir,) = plain.runs(tmp_path)
    assert plain.status(run_dir) == "crashed"
    assert plain.document(run_dir / "run.json")["status"] == "running"
    agree(run_dir)


def test_a_changed_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints/step-000000003"
    folder.mkdir(parents=True)
    (folder / "state.json").write_bytes(b"abc")
    entry = {
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    values = {"loss": float("nan"), "lr": 1e-5, "ä\N{GRINNING FACE}": 1e16}
    fields = {"schema": 1, "step": 3, "metrics": values, "files": {"state.json": entry}}
    manifests.write_manifest(folder, fields)
    assert plain.checkpoints(tmp_path) == {3: None}
    assert inventory.verify(tmp_path) == {3: None}
    (folder / "state.json").write_bytes(b"abd")
    assert plain.checkpoints(tmp_path)[3] == "state.json has changed"
    assert inventory.verify(tmp_path)[3] is not None
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"step": 3', '"step": 4'))
    assert plain.checkpoints(tmp_path)[3] == "manifest.json is missing or changed"


def test_it_runs_without_cupel_and_prints_a_run(tmp_path: Path) -> None:
    def shown(place: Path) -> str:
        # -I -S: neither the folder nor site-packages are on the path.
        done = subprocess.run(
            [sys.executable, "-I", "-S", EXAMPLE, place], capture_output=True, text=True, check=True
        )
        return done.stdout

    session = Session.start(root=tmp_path, project="p", name="a name", config={}, identity="i")
    session.log({"loss": float("nan")}, step=4)
    session.finish("failed", error="it broke")
    assert shown(tmp_path) == f"p/{session.run_id}  failed  a name\n"
    told = shown(session.run_dir)
    assert "step 4: loss=nan" in told
    assert "it broke" in told


def test_it_ends_silently_when_nobody_reads_on(tmp_path: Path) -> None:
    """As it does before `head -1`."""
    session = Session.start(root=tmp_path, project="p", name="a", config={}, identity="i")
    for step in range(5000):
        session.log({"loss": 1.0}, step=step)
    session.finish("finished")
    with subprocess.Popen(
        [sys.executable, EXAMPLE, session.run_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        assert session.run_id.encode() in shown.stdout.readline()
        shown.stdout.close()
        assert shown.stderr.read() == b""


def test_what_is_no_file_in_the_place_of_one_is_passed_over(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="a", config={}, identity="i")
    session.finish("finished")
    path = session.dir / layout.metrics_name()
    path.unlink()
    os.mkfifo(path)
    agree(session.run_dir)


def test_the_two_agree_on_how_long_silence_is_trusted() -> None:
    assert plain.STALE_S == heartbeat.STALE_S


@pytest.mark.parametrize("place", ["", "run.json", "sessions/0001/session.json"])
def test_what_is_absent_raises_nothing(tmp_path: Path, place: str) -> None:
    run_dir = tmp_path / "p/r"
    (run_dir / place).parent.mkdir(parents=True, exist_ok=True)
    if place:
        (run_dir / place).write_text("{")
    run_dir.mkdir(exist_ok=True)
    agree(run_dir)
    assert [run.name for run in plain.runs(tmp_path)] == [r.run_id for r in list_runs(tmp_path)]
