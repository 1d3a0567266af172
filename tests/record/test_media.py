"""Media and artifacts lie inside of the run, whole, and an event tells of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, Superseded, UsageError
from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.importing import import_runs
from cupel.record.media import safe_name, store_artifact, store_files, store_media
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.record.verifying import check_run

NAMES = st.text(max_size=300) | st.sampled_from(
    ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../../b", "x" * 10_000, "🎈/é", "\0", "~"]
)


@pytest.fixture
def session(tmp_path: Path) -> Any:
    session = Session.start(root=tmp_path / "runs", project="p", name="n", config={}, identity="i")
    yield session
    session.finish("interrupted")


def events(session: Session, name: str) -> list[dict[str, Any]]:
    return [event for event in RunRecord(session.run_dir).events() if event["_event"] == name]


@given(NAMES)
def test_any_text_is_the_name_of_one_folder(text: str) -> None:
    name = safe_name(text)
    assert name.isascii()
    assert 0 < len(name) <= 120
    assert not name.startswith(".")
    assert not set(name) & {"/", "\\", "\0", "\n", ":"}
    assert Path("a", name).parent == Path("a")


@given(NAMES, NAMES)
def test_different_texts_have_different_names(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=NAMES, data=st.binary(max_size=100))
def test_nothing_is_written_outside_of_the_run(session: Session, key: str, data: bytes) -> None:
    path = store_media(session, key, step=1, kind="text", suffix="txt", data=data)
    assert path.resolve().is_relative_to(session.run_dir.resolve() / "media")
    assert path.read_bytes() == data
    told = events(session, "media")[-1]
    assert session.run_dir / told["path"] == path
    assert (told["sha256"], told["bytes"]) == (sha256(data).hexdigest(), len(data))


def test_equal_bytes_are_one_file_and_others_are_their_own(session: Session) -> None:
    def store(step: int, data: bytes) -> Path:
        return store_media(session, "k", step=step, kind="text", suffix="txt", data=data)

    first, again = store(1, b"a"), store(1, b"a")
    other, later = store(1, b"b"), store(2, b"a")
    assert first == again
    assert len({first, other, later}) == 3
    assert len(events(session, "media")) == 4


def test_bytes_with_the_same_eight_digits_do_not_replace_each_other(session: Session) -> None:
    first = store_media(session, "k", step=1, kind="text", suffix="txt", data=b"a")
    first.write_bytes(b"of another hash that begins alike")
    second = store_media(session, "k", step=1, kind="text", suffix="txt", data=b"a")
    assert second != first
    assert first.read_bytes() == b"of another hash that begins alike"


def test_further_facts_and_another_time_go_into_the_event(session: Session) -> None:
    store_media(session, "k", step=1, kind="image", suffix="png", data=b"", caption="c", _t=5.0)
    (event,) = events(session, "media")
    assert (event["caption"], event["_t"], event["kind"]) == ("c", 5.0, "image")


def test_a_disk_that_refuses_is_told_and_leaves_nothing(session: Session) -> None:
    (session.run_dir / "media").write_text("a file where the folder should be")
    before = sorted(session.run_dir.iterdir())
    with pytest.raises(RecordError, match=r"cannot write .*media"):
        store_media(session, "k", step=1, kind="text", suffix="txt", data=b"a")
    assert sorted(session.run_dir.iterdir()) == before
    assert events(session, "media") == []


def test_a_session_with_a_successor_stores_nothing_more(session: Session, tmp_path: Path) -> None:
    (session.run_dir / "sessions" / "0002").mkdir()
    with pytest.raises(Superseded, match="the text 'k' of step 1 was dropped"):
        store_media(session, "k", step=1, kind="text", suffix="txt", data=b"a")
    with pytest.raises(Superseded, match="the artifact 'a' was dropped"):
        store_files(session, {"f": Path(__file__)}, name="a", kind="file")
    assert not (session.run_dir / "media").exists()
    assert not (session.run_dir / "artifacts").exists()


def folder_of(tmp_path: Path, **contents: str) -> Path:
    folder = tmp_path / "things"
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_an_artifact_is_a_copy_with_a_manifest(session: Session, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a="1", sub__b="22")
    (folder / "manifest.json").write_text("{}")  # theirs, beside ours
    path = store_artifact(session, folder, name="data", kind="dataset", note="why")
    folder.joinpath("a").write_text("changed later")
    assert path == session.run_dir / "artifacts" / "data" / "v0"
    kept = {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}
    manifest = json.loads(kept.pop("manifest.json"))
    assert kept == {"files/a": "1", "files/sub/b": "22", "files/manifest.json": "{}"}
    assert (manifest["name"], manifest["kind"], manifest["note"]) == ("data", "dataset", "why")
    assert manifest["files"]["sub/b"] == {"bytes": 2, "sha256": sha256(b"22").hexdigest()}
    (event,) = events(session, "artifact")
    expected = {"name": "data", "version": 0, "path": "artifacts/data/v0", "bytes": 5, "files": 3}
    assert expected.items() <= event.items()


def test_versions_count_up_and_an_equal_one_is_not_kept_twice(
    session: Session, tmp_path: Path
) -> None:
    file = tmp_path / "model.bin"
    found = []
    for text in ("a", "a", "b", "a"):
        file.write_text(text)
        found.append(store_artifact(session, file, name="m", kind="model").name)
    assert found == ["v0", "v0", "v1", "v2"]
    assert [event["version"] for event in events(session, "artifact")] == [0, 1, 2]
    assert events(session, "artifact")[0]["sha256"] == sha256(b"a").hexdigest()


def test_links_to_files_are_copied_and_links_to_folders_not_followed(
    session: Session, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, a="1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b").write_text("2")
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "b")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe")
    path = store_artifact(session, folder, name="x", kind="k")
    assert {p.name for p in (path / "files").iterdir()} == {"a", "link"}
    assert not (path / "files" / "link").is_symlink()


class Killed(Exception):
    """In the place of a SIGKILL: nothing of the session is done after it."""


def test_an_artifact_whose_event_a_kill_prevented_is_told_of_when_it_is_kept_again(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path, a="one")

    def killed(name: str, /, **fields: Any) -> None:
        raise Killed

    monkeypatch.setattr(session, "event", killed)
    with pytest.raises(Killed):
        store_artifact(session, source, name="x", kind="data", aliases=["first"])
    monkeypatch.undo()
    assert RunRecord(session.run_dir).artifacts() == []
    assert [str(note) for note in check_run(session.run_dir).notes] == [
        "artifacts/x/v0: no event tells of it"
    ]
    for _ in range(2):  # told once, whoever keeps it again
        path = store_artifact(session, source, name="x", kind="other")
        (event,) = RunRecord(session.run_dir).artifacts()
        assert (path.name, event["version"], event["path"]) == ("v0", 0, "artifacts/x/v0")
        assert (event["name"], event["kind"], event["files"], event["bytes"]) == ("x", "data", 1, 3)
    checked = check_run(session.run_dir)
    assert (checked.problems, checked.notes) == ([], [])


def test_an_artifact_that_another_session_told_of_is_not_told_again(
    session: Session, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, a="one")
    store_artifact(session, source, name="x", kind="data")
    session.finish("interrupted")
    later = Session.resume(session.run_dir)
    store_artifact(later, source, name="x", kind="data")
    later.finish("interrupted")
    assert len(RunRecord(session.run_dir).artifacts()) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9", "caf\\udce9"), (b"two\nlines", "two\\nlines"), (b"a\\b", "a\\\\b")],
)
def test_a_file_whose_name_cannot_be_written_down_is_refused_by_name_and_nothing_is_kept(
    session: Session, tmp_path: Path, name: bytes, shown: str
) -> None:
    """Such a file was kept, then missed by `runs verify`, or left out of an archive."""
    source = folder_of(tmp_path, a="one")
    Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_text("x")
    with pytest.raises(UsageError) as refused:
        store_artifact(session, source, name="x", kind="data")
    assert shown in str(refused.value)
    assert str(refused.value).isprintable()
    assert not (session.run_dir / "artifacts").exists()


def test_every_artifact_that_is_kept_is_sound_after_its_way_through_an_archive(
    session: Session, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, **{"a b": "1", ".tmp-mine": "2", ".trash-mine": "3", "é:*?": "4"})
    store_artifact(session, source, name="x", kind="data")
    session.finish("finished")
    told: list[str] = []
    archive = export_run(session.run_dir, tmp_path / "a.zip", kind="zip", tell=told.append)
    (copy,) = import_runs(archive, root=tmp_path / "elsewhere", tell=told.append)
    checked = check_run(copy)
    assert (told, checked.problems, checked.notes) == ([], [], [])


@pytest.mark.parametrize("inner", ["../x", "/x", "a/../../x", "", "a\0b"])
def test_a_path_that_leads_out_of_the_artifact_is_refused(session: Session, inner: str) -> None:
    with pytest.raises(UsageError, match="cannot be a file's name in an artifact"):
        store_files(session, {inner: Path(__file__)}, name="a", kind="k")
    assert not (session.run_dir / "artifacts").exists()


def test_what_is_not_there_or_empty_or_the_record_itself_is_refused(
    session: Session, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for source, told in (
        (tmp_path / "absent", "there is no file and no folder at"),
        (tmp_path / "empty", "holds no file"),
        (tmp_path, "holds this run's own record"),
        (session.run_dir, "holds this run's own record"),
    ):
        with pytest.raises(UsageError, match=told) as raised:
            store_artifact(session, source, name="a", kind="k")
        assert len(str(raised.value).splitlines()) == 1


KILLED = """
import sys
from pathlib import Path
from cupel.record.media import store_artifact, store_media
from cupel.record.session import Session
session = Session.start(root=sys.argv[1], project="p", name="n", config={}, identity="i")
big = Path(sys.argv[1]) / "big"
for step in range(10**6):
    big.write_bytes(str(step).encode() * 20_000)
    store_media(session, "k", step=step, kind="text", suffix="txt", data=big.read_bytes())
    store_artifact(session, big, name="a", kind="k")
    print(step, flush=True)
"""


@pytest.mark.parametrize("trial", range(3))
@pytest.mark.slow
def test_after_a_kill_every_event_has_its_file_whole(tmp_path: Path, trial: int) -> None:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-c", KILLED, tmp_path / "runs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05 + 0.037 * trial)
        child.send_signal(signal.SIGKILL)
        returned = len(child.stdout.read().splitlines())
    (run,) = (tmp_path / "runs" / "p").iterdir()
    record = RunRecord(run)
    media = [event for event in record.events() if event["_event"] == "media"]
    artifacts = [event for event in record.events() if event["_event"] == "artifact"]
    assert min(len(media), len(artifacts)) >= returned
    for event in media:
        assert sha256((run / event["path"]).read_bytes()).hexdigest() == event["sha256"]
    for event in artifacts:
        listed = json.loads((run / event["path"] / "manifest.json").read_text())["files"]
        content = (run / event["path"] / "files" / "big").read_bytes()
        assert sha256(content).hexdigest() == listed["big"]["sha256"] == event["sha256"]
    # What was being written goes when the run is resumed.
    Session.resume(run).finish("interrupted")
    assert not [path for path in run.iterdir() if path.name.startswith(".tmp-")]
