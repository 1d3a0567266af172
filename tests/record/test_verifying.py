"""Damage is found wherever it can show, what a kill leaves is none, and garbage never crashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.record import checkpoints, files, layout, manifests
from cupel.record.media import store_artifact, store_media
from cupel.record.session import Session
from cupel.record.verifying import Checked, check_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def make(root: Path) -> Path:
    """A finished run of two sessions with a checkpoint, media, artifacts and a patch."""
    session = Session.start(
        root=root, project="p", name="a", config={"lr": 1}, identity="i", run_id="whole"
    )
    (session.dir / layout.DIRTY_PATCH).write_bytes(b"-old\n+new\n")
    session.log({"loss": 2.0}, step=1)
    session.finish("interrupted")
    session = Session.resume(session.run_dir)
    session.begin_at(1)
    for step in (2, 3):
        session.log({"loss": 1.0}, step=step)
        store_media(session, "picture", step=step, kind="image", suffix="png", data=b"%d" % step)
    source = root / "source"
    source.mkdir()
    for name in ("one", "two"):
        (source / name).write_text(name * 100)
    store_artifact(session, source, name="pair", kind="data")
    store_artifact(session, source / "one", name="single", kind="data")
    write_checkpoint(session.run_dir, 3)
    session.finish("finished", results={"step": 3, "final": {"loss": 1.0}})
    # A patch is kept only in a repository with changes: here by hand, as env.json would say.
    env = layout.session_dir(session.run_dir, 1) / layout.ENVIRONMENT
    patch = layout.session_dir(session.run_dir, 1) / layout.DIRTY_PATCH
    digest = hashlib.sha256(patch.read_bytes()).hexdigest()
    files.write_json(env, {**files.read_json(env), "dirty_patch_sha256": digest})
    return session.run_dir


def write_checkpoint(run_dir: Path, step: int) -> None:
    folder = checkpoints.step_dir(run_dir, step)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"tensors" * 9)
    digest = hashlib.sha256(b"tensors" * 9).hexdigest()
    promised = {"model.safetensors": {"bytes": 63, "sha256": digest}}
    fields = {"schema": 1, "step": step, "metrics": {}, "files": promised, "parts": {}}
    manifests.write_manifest(folder, fields)
    checkpoints.write_pointer(run_dir, checkpoints.LATEST, {"step": step})
    checkpoints.pin(run_dir, step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("root"))


@pytest.fixture
def run_dir(whole: Path, tmp_path: Path) -> Path:
    return renewed(whole, tmp_path)


def renewed(whole: Path, tmp_path: Path) -> Path:
    target = tmp_path / "p" / "whole"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole, target)
    return target


def told(checked: Checked) -> list[str]:
    return [str(problem) for problem in checked.problems]


def test_a_whole_run_is_sound_and_all_of_it_was_looked_at(run_dir: Path) -> None:
    places: list[str] = []
    checked = check_run(run_dir, tell=places.append)
    assert (told(checked), checked.notes, checked.sound) == ([], [], True)
    assert checked.torn == 0
    lines = sum(path.read_bytes().count(b"\n") for path in run_dir.rglob("*.jsonl"))
    assert checked.lines == lines
    looked = {path for path in run_dir.rglob("*") if path.is_file()}
    unlooked = {"heartbeat.r0", "training.log", "console.log"}
    assert checked.files == sum(path.name not in unlooked for path in looked)
    assert len(places) > 10


GUARDED = ("model.safetensors", "2-*.png", "one", "two", layout.DIRTY_PATCH, "manifest.json")


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_changed_byte_of_anything_with_a_hash_is_found(
    whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    run_dir = renewed(whole, tmp_path)
    guarded = sorted(path for name in GUARDED for path in run_dir.rglob(name) if path.is_file())
    path = data.draw(st.sampled_from(guarded))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        if json.loads(bytes(content)) == json.loads(path.read_bytes()):
            return  # white space of a manifest: what it says is the same
    except ValueError:
        pass
    is_of_artifact = path.name == "manifest.json" and "artifacts" in path.parts
    path.write_bytes(content)
    checked = check_run(run_dir)
    if is_of_artifact and not checked.problems:
        # Name, kind and time of an artifact are guarded by nothing; its files are.
        before = files.read_json(whole / path.relative_to(run_dir))["files"]
        assert files.read_json(path)["files"] == before
        return
    name = path.relative_to(run_dir).as_posix()
    if is_of_artifact:  # a size that is wrong in the list is told of the file
        assert all(one.place.startswith("artifacts/") for one in checked.problems)
        return
    assert any(name.startswith(one.place) for one in checked.problems), told(checked)


def test_a_file_that_is_gone_is_found_whatever_it_is(whole: Path, tmp_path: Path) -> None:
    harmless = {"heartbeat.r0", "training.log", "console.log", "latest.json", "pin.json"}
    for path in sorted(whole.rglob("*")):
        if path.is_dir() or path.name in harmless:
            continue
        run_dir = renewed(whole, tmp_path)
        gone = run_dir / path.relative_to(whole)
        gone.unlink()
        if path.name == layout.RESULTS:  # then the run is one that was not finished
            assert check_run(run_dir).sound
            continue
        problems = told(check_run(run_dir))
        assert problems, path
        assert any(path.name in problem or "events" in path.name for problem in problems), problems


def test_damaged_lines_are_found_and_torn_ones_are_counted(run_dir: Path) -> None:
    path = layout.session_dir(run_dir, 2) / layout.metrics_name()
    path.write_bytes(b'garbage\n{"loss":1}\n' + path.read_bytes() + b'{"_step":4,"lo')
    checked = check_run(run_dir)
    assert told(checked) == ["sessions/0002/metrics.r0.000.jsonl: 2 lines cannot be read"]
    assert checked.torn == 1
    assert "cut off" in str(checked.notes[0])


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (layout.RESULTS, {"accepted_session": 7}, "results.json: are of session 7, which is gone"),
        (layout.RESULTS, {"run": "x"}, "results.json: are of another run, 'x'"),
        (layout.CONFIG, {"identity": "x"}, "config.json: its identity is not that of run.json"),
        (layout.CONFIG, {"config": 3}, "config.json: holds no configuration"),
        (layout.RUN, {"schema": 99}, "run.json: schema 99; this cupel reads 1"),
        ("sessions/0001/session.json", {"status": "x"}, "status is 'x'"),
        ("sessions/0001/session.json", {"number": 9}, "calls itself 9"),
        ("checkpoints/latest.json", {"step": 4}, "names step 4, whose checkpoint is gone"),
        ("checkpoints/pin.json", {"steps": [5]}, "pins step 5, whose checkpoint is gone"),
    ],
)  # fmt: skip
def test_files_that_contradict_each_other_are_found(
    run_dir: Path, name: str, fields: dict[str, Any], expected: str
) -> None:
    path = run_dir / name
    files.write_json(path, {**files.read_json(path), **fields})
    assert any(expected in problem for problem in told(check_run(run_dir)))


def test_missing_sessions_and_segments_and_moved_checkpoints_are_found(run_dir: Path) -> None:
    session = layout.session_dir(run_dir, 2)
    (session / layout.metrics_name()).rename(session / layout.metrics_name(0, 2))
    step = checkpoints.step_dir(run_dir, 3)
    step.rename(checkpoints.step_dir(run_dir, 8))
    shutil.rmtree(layout.session_dir(run_dir, 1))
    problems = told(check_run(run_dir))
    assert "sessions/0002: metrics.r0.000.jsonl is gone" in problems
    assert "sessions: session 0001 is gone" in problems
    assert "checkpoints/step-000000008: its manifest is of step 3" in problems


def test_what_a_kill_leaves_is_no_damage(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="a", config={}, identity="i")
    run_dir = session.run_dir
    store_media(session, "a", step=1, kind="image", suffix="png", data=b"1")
    session.finish("interrupted")
    (run_dir / "media" / "a" / "untold.png").write_bytes(b"2")
    killed = layout.session_dir(run_dir, 2)
    killed.mkdir()
    assert check_run(run_dir).sound
    (killed / layout.heartbeat_name()).write_bytes((session.dir / "heartbeat.r0").read_bytes())
    checked = check_run(run_dir)
    assert told(checked) == []
    assert [str(note) for note in checked.notes] == [
        "sessions/0002/session.json: was not written",
        "sessions/0002/env.json: was not written",
        "media/a/untold.png: no event tells of it",
    ]


def test_a_running_run_is_sound(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="a", config={}, identity="i")
    session.log({"loss": 1.0}, step=1)
    assert told(check_run(session.run_dir)) == []
    session.finish("failed")


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_garbage_in_any_file_is_more_than_told(
    whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    run_dir = renewed(whole, tmp_path)
    paths = sorted(path for path in run_dir.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(st.binary(max_size=60)))
    elif path.suffix == ".jsonl":
        names = ("_event", "path", "sha256", "bytes", "_step", "files")
        kind = st.sampled_from(["media", "artifact"])
        wild = JSON | kind | st.sampled_from(["../x", "/etc", "media", "artifacts/pair/v0", "a\0"])
        lines = [
            json.dumps({name: data.draw(wild) for name in names} | {"_event": data.draw(kind)})
            for _ in range(3)
        ]
        path.write_text("\n".join([*lines, ""]))
    else:
        keys = ["schema", "status", "start_step", "number", "config", "identity", "files", "steps"]
        keys += ["step", "accepted_session", "run", "run_id", "project", "dirty_patch_sha256"]
        value = data.draw(JSON)
        path.write_text(json.dumps(data.draw(st.sampled_from([value, dict.fromkeys(keys, value)]))))
    checked = check_run(run_dir)
    assert all("\n" not in problem for problem in told(checked))
