"""The full record of version 1 is read as it was written, by both readers, damage and all."""

from __future__ import annotations

import math
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cupel.record import layout
from cupel.record.reader import RunRecord
from cupel.record.verifying import check_run

GOLDEN = Path(__file__).parents[1] / "golden/record-v1-full"
EXAMPLE = Path(__file__).parents[2] / "examples/read_record.py"

# What make_record.py logged. Session 1 came to step 6 and was killed; session 2 went on from the
# checkpoint of step 4. The line with the val/loss of step 1 is damaged.
LOSSES = [1.0, 0.5, math.nan, 0.25, 105.0, 106.0, 107.0, 108.0]
VAL_LOSSES = {2: 1.75, 3: 1.625, 4: 1.5, 5: 1.375, 6: 1.25, 7: 1.125, 8: 1.0}


@pytest.fixture
def golden(tmp_path: Path) -> Iterator[Path]:
    """A copy where a run lies, made long ago; afterwards it holds what it held."""
    run_dir = tmp_path / "golden/full"
    shutil.copytree(GOLDEN, run_dir)
    for beat in run_dir.glob("sessions/*/heartbeat.r*"):
        os.utime(beat, (0, 0))
    before = contents(run_dir)
    yield run_dir
    assert contents(run_dir) == before == contents(GOLDEN), "a reader has written into it"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_its_facts_are_read(golden: Path) -> None:
    run = RunRecord(golden)
    assert run.problem is None
    assert (run.run_id, run.status) == ("full", "finished")
    assert run.config == {
        "lr": 0.1,
        "clip": math.inf,
        "model": {"layers": [1, 2]},
        "note": "Bremsstärke",
        "late": True,
    }
    told = ("project", "name", "tags", "notes", "group", "job_type", "created")
    assert [run.run[name] for name in told] == [
        "golden", "a full record", ["a", "b"], "everything that a record can hold", "goldens",
        "test", 1_790_000_000.0,
    ]  # fmt: skip
    assert [(s.number, s.status, s.start_step, s.pid, s.host) for s in run.sessions] == [
        (1, "silent", 0, 4711, "golden"),  # killed; who asks elsewhere cannot know
        (2, "finished", 4, 4711, "golden"),
    ]
    assert run.sessions[1].fields["problems"] == {"metric odd": 1}
    assert run.sessions[0].environment["argv"][2] == "Bremsstärke \\udce9"
    assert run.results is not None
    assert run.results["final"] == {
        "loss": 108.0,
        "count": 2**60 + 8,
        "even": True,
        "val/loss": 1.0,
        "epoch": 4,
    }


def test_its_numbers_are_read_and_rewound(golden: Path) -> None:
    run = RunRecord(golden)
    rows = run.history()
    assert [row["_step"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == pytest.approx(LOSSES, rel=0, abs=0, nan_ok=True)
    assert [row["count"] for row in rows] == [2**60 + step for step in range(1, 9)]
    assert [row["even"] for row in rows] == [False, True] * 4
    assert [row["few"] for row in rows] == [[step, -math.inf] for step in range(1, 9)]
    assert {row["_step"]: row["val/loss"] for row in run.history(["val/loss"])} == VAL_LOSSES
    assert run.damaged_lines == 2, "the one in the midst, and the end that was cut off"
    assert [(row["_step"], row["loss"], row["of/rank"]) for row in run.history(rank=1)] == [
        (step, 10.0 * step, 1) for step in range(1, 9)
    ]
    assert run.summary["val/loss"] == 1.0, "the best of val/*, by define_metric"
    assert (run.summary["loss"], run.summary["told"]) == (108.0, "by hand")
    assert len(layout.segments(layout.session_dir(golden, 1), "metrics")) == 3
    samples = run.system()
    assert len(samples) == 7
    assert samples[0] == {
        "_session": 1,
        "_t": 1_790_000_100.0,
        "cpu": 100.0,
        "memory": 2_048_897_024,
        "process.cpu": 19.7,
        "process.memory": 259_129_344,
        "disk.free": 61_279_203_328,
    }


def test_its_events_media_and_texts_are_read(golden: Path) -> None:
    run = RunRecord(golden)
    assert [(event["_session"], event["_event"]) for event in run.events()] == [
        (1, "begin"), (1, "define_metric"), (1, "checkpoint_saved"), (1, "media"), (1, "media"),
        (1, "media"), (1, "checkpoint_saved"), (1, "media"), (1, "media"), (1, "media"),
        (2, "begin"), (2, "define_metric"), (2, "begin"), (2, "media"), (2, "media"), (2, "media"),
        (2, "checkpoint_saved"), (2, "config"), (2, "summary"), (2, "problem"), (2, "artifact"),
        (2, "alert"), (2, "finish"),
    ]  # fmt: skip
    assert [(event["_event"], event.get("text")) for event in run.events(rank=1)] == [
        ("note", "rank 1 of session 1"),
        ("note", "rank 1 of session 2"),
        ("finish", None),
    ]
    media = [(one["_session"], one["step"], one["kind"], one["path"]) for one in run.media()]
    assert media == [
        (session, step, kind, f"media/{path}")
        for session, step in ((1, 2), (2, 6))  # of session 1, what came after step 4 is void
        for kind, path in (
            ("image", f"picture/{step}-aea8c468.png"),
            ("table", f"a%2Ftable/{step}-dc7d87ff.json"),
            ("histogram", f"weights/{step}-55cd93a2.json"),
        )
    ]
    assert (golden / media[0][3]).read_bytes().startswith(b"\x89PNG")
    (artifact,) = run.artifacts()
    assert (artifact["name"], artifact["path"]) == ("the notes", "artifacts/the%20notes/v0")
    assert (golden / artifact["path"] / "files/notes.txt").read_text() == "an artifact\n"
    assert run.console(session=1) == ["step 2", "step 4", "step 6"]
    assert run.console(session=2, rank=1)[:2] == ["step 6", "step 8"]


def test_the_reader_in_examples_reads_the_same(golden: Path) -> None:
    plain: Any = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))
    run = RunRecord(golden)
    for rank in (0, 1):
        rows, damaged = plain.history(golden, rank)
        assert repr(rows) == repr(run.history(rank=rank))  # a NaN equals nothing
        assert damaged == (0 if rank else 2)
        assert repr([sorted(event.items()) for event in plain.events(golden, rank)]) == repr(
            [sorted(event.items()) for event in run.events(rank=rank)]
        )
    assert plain.status(golden) == "finished"
    assert plain.config(golden) == run.config
    assert plain.checkpoints(golden) == {2: "model.safetensors has changed", 4: None, 8: None}


@pytest.mark.slow
def test_verify_names_what_is_damaged_and_nothing_else(golden: Path) -> None:
    cupel = str(Path(sys.executable).with_name("cupel"))
    command = [cupel, "runs", "verify", "full", "--root", str(golden.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    head, *told = done.stdout.splitlines()
    assert head.startswith("golden/full: 2 problems (")
    assert told == [
        "  sessions/0001/metrics.r0.000.jsonl: a line cannot be read",
        "  checkpoints/step-000000002: model.safetensors has changed: its SHA-256 begins with "
        "bfeb833d2f2b; it was 8c2e037a141e",
        "  note: sessions/0001/metrics.r0.002.jsonl: its last line was cut off",
    ]
    found = check_run(golden)
    assert (len(found.problems), len(found.notes), found.torn) == (2, 1, 1)


def test_its_checkpoints_are_restored_and_the_damaged_one_is_passed_over(golden: Path) -> None:
    torch = pytest.importorskip("torch")
    from cupel.checkpoint.codec import state_hash
    from cupel.checkpoint.folder import load_states
    from cupel.errors import CheckpointDamaged
    from cupel.record import checkpoints

    assert RunRecord(golden).checkpoints() == [2, 4, 8]
    assert checkpoints.pinned_steps(golden) == {2}
    assert checkpoints.read_pointer(golden, "latest") == {"schema": 1, "step": 8}
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors has changed"):
        load_states(checkpoints.step_dir(golden, 2))
    for step, digest in ((4, "46bd54e8aafc5cef"), (8, "f745632d145dd920")):
        states = load_states(checkpoints.step_dir(golden, step))
        assert list(states) == ["random", "model", "optimizer", "odd"]
        assert state_hash(states["model"]).startswith(digest)
        assert torch.equal(states["model"]["embed"], torch.full((2, 3), 1 - 0.5 * step))
        assert states["model"]["embed"] is states["model"]["head"], "they were tied"
        odd = states["odd"]
        assert (list(odd), odd["big"]) == (["big", "nan", 7], 2**70)
        assert math.isnan(odd["nan"])
        assert odd[7][:2] == (None, b"bytes")
        assert math.copysign(1, odd[7][2]) == -1
        assert states["optimizer"]["param_groups"][0]["lr"] == 0.5
