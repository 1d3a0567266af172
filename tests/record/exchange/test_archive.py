"""A packed run is the same folder elsewhere, and a bad archive leaves nothing behind."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import CupelError, RecordError
from cupel.record.exchange import archive
from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.importing import import_runs
from cupel.record.exchange.points import Line
from cupel.record.reader import RunRecord
from exchanges import planted_run

GOLDEN_RUN = Path(__file__).parents[2] / "golden" / "record-v1"
LINES = [Line(1, 1.0, {"loss": 0.5})]


def contents(folder: Path) -> dict[str, tuple[bytes | None, int | None]]:
    """Every name below a folder with its bytes and its time of change; None for folders."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else (None, None)
        for path in folder.rglob("*")
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return planted_run(tmp_path, LINES)


def packed(run_dir: Path, tmp_path: Path) -> Path:
    return export_run(run_dir, tmp_path / "run.zip", kind="zip")


def nothing_in(root: Path) -> bool:
    return not [path for path in root.rglob("*") if path.is_file() or path.name.startswith(".")]


@pytest.mark.slow
def test_a_run_comes_back_byte_for_byte_with_its_times(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "media" / "empty").mkdir(parents=True)
    (run_dir / "media" / "ünïcode 数.bin").write_bytes(os.urandom(3_000_000))
    (run_dir / ".tmp-half-written").write_text("x")
    os.utime(run_dir / "run.json", ns=(1, 1_600_000_000_123_456_789))
    (made,) = import_runs(packed(run_dir, tmp_path), root=tmp_path / "root")
    assert made == tmp_path / "root" / "planted" / "run"
    wanted = contents(run_dir)
    del wanted[".tmp-half-written"]
    assert contents(made) == wanted
    assert RunRecord(made).status == "finished"


def test_the_golden_record_comes_back_too(tmp_path: Path) -> None:
    zipped = export_run(GOLDEN_RUN, tmp_path / "golden.zip", kind="zip")
    (made,) = import_runs(zipped, root=tmp_path / "root", project="other")
    found, wanted = contents(made), contents(GOLDEN_RUN)
    del found["run.json"], wanted["run.json"]
    assert found == wanted
    run = RunRecord(made).run
    assert run == RunRecord(GOLDEN_RUN).run | {"project": "other"}


def test_a_run_of_a_killed_process_is_not_alive_where_it_is_unpacked(
    run_dir: Path, tmp_path: Path
) -> None:
    (run_dir / "results.json").unlink()
    session = run_dir / "sessions" / "0001"
    state = json.loads((session / "session.json").read_text())
    (session / "session.json").write_text(json.dumps(state | {"status": "running"}))
    beat = json.loads((session / "heartbeat.r0").read_text())
    (session / "heartbeat.r0").write_text(json.dumps(beat | {"host": "elsewhere"}))
    os.utime(session / "heartbeat.r0", (1.0, 1.0))
    (made,) = import_runs(packed(run_dir, tmp_path), root=tmp_path / "root")
    assert RunRecord(made).status in ("crashed", "silent")


def test_a_run_that_is_there_already_is_refused_and_untouched(
    run_dir: Path, tmp_path: Path
) -> None:
    zipped = packed(run_dir, tmp_path)
    (made,) = import_runs(zipped, root=tmp_path / "root")
    (made / "run.json").write_text("{}")
    with pytest.raises(RecordError, match="exists already"):
        import_runs(zipped, root=tmp_path / "root")
    assert (made / "run.json").read_text() == "{}"
    with pytest.raises(RecordError, match="exists already; delete it"):
        packed(run_dir, tmp_path)


def test_links_are_left_out_and_told(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "secret").symlink_to("/etc/passwd")
    (run_dir / "away").symlink_to("/etc")
    told: list[str] = []
    zipped = export_run(run_dir, tmp_path / "run.zip", kind="zip", tell=told.append)
    assert told == ["run: left out (links and names that are no text): away, secret"]
    assert not [name for name in zipfile.ZipFile(zipped).namelist() if name[:4] in ("secr", "away")]


def test_equal_runs_give_equal_archives(run_dir: Path, tmp_path: Path) -> None:
    first = export_run(run_dir, tmp_path / "a.zip", kind="zip").read_bytes()
    assert export_run(run_dir, tmp_path / "b.zip", kind="zip").read_bytes() == first


def forged(
    path: Path, change: Callable[[dict[str, Any]], None], extra: dict[str, bytes] | None = None
) -> Path:
    """An archive whose list was changed by one who knows the format."""
    files = {"run.json": b'{"schema": 1}'} | (extra or {})
    manifest: dict[str, Any] = {
        "format": 1,
        "run_id": "forged",
        "project": "p",
        "folders": [],
        "files": {
            name: {"bytes": len(data), "sha256": sha256(data).hexdigest(), "mtime_ns": 0}
            for name, data in files.items()
        },
    }
    change(manifest)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
        made.writestr(archive.MANIFEST, json.dumps(manifest))
    return path


def test_a_forged_archive_that_is_right_is_taken(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", lambda manifest: None, {"a/b.txt": b"x"})
    (made,) = import_runs(path, root=tmp_path / "root")
    assert (made / "a" / "b.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    "name",
    ["../up", "/root", "a/../../b", "a\\..\\b", "C:/x", "a//b", "./a", "a\0b", "a/.", "x" * 300],
)
def test_names_that_leave_the_run_are_refused(tmp_path: Path, name: str) -> None:
    for change in (
        lambda manifest: manifest["files"].update({name: dict(manifest["files"]["run.json"])}),
        lambda manifest: manifest["folders"].append(name),
    ):
        path = forged(tmp_path / "a.zip", change)
        with pytest.raises(RecordError, match="does not stay inside"):
            import_runs(path, root=tmp_path / "root")
    assert nothing_in(tmp_path / "root")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "root") == ["a.zip"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(run_id="../x"),
        lambda m: m.update(run_id=".hidden"),
        lambda m: m.update(project="a/b"),
        lambda m: m.update(project=3),
        lambda m: m.update(format=2),
        lambda m: m.update(files=[]),
        lambda m: m["files"].pop("run.json"),
        lambda m: m["files"].update(other={"bytes": 1, "sha256": "", "mtime_ns": 0}),
        lambda m: m["files"]["run.json"].update(bytes=-1),
        lambda m: m["files"]["run.json"].update(bytes=5),
        lambda m: m["files"]["run.json"].update(bytes=50),
        lambda m: m["files"]["run.json"].update(bytes=2**62),
        lambda m: m["files"]["run.json"].update(sha256="0" * 64),
        lambda m: m["files"]["run.json"].update(mtime_ns="now"),
        lambda m: m["folders"].append(["x"]),
        lambda m: m["folders"].append("run.json"),
    ],
)
def test_a_list_that_lies_is_refused_and_leaves_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = forged(tmp_path / "a.zip", change)
    with pytest.raises(CupelError):
        import_runs(path, root=tmp_path / "root")
    assert nothing_in(tmp_path / "root")


def test_what_the_list_does_not_name_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", lambda m: m["files"].pop("more"), {"more": b"x"})
    with pytest.raises(RecordError, match="is not what"):
        import_runs(path, root=tmp_path / "root")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", lambda m: None)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as made:
        made.writestr("run.json", b"other")
    with pytest.raises(RecordError, match="is not what"):
        import_runs(path, root=tmp_path / "root")


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a.txt", "x")
    with pytest.raises(RecordError, match=r"without cupel-run\.json"):
        import_runs(tmp_path / "a.zip", root=tmp_path / "root")


@given(st.data())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_archive_is_a_record_error_or_the_same_run(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = forged(tmp_path / "a.zip", lambda m: None, {"text": b"words " * 20})
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    try:
        (made,) = import_runs(path, root=root, kind="zip")
        assert (made / "text").read_bytes() == b"words " * 20
    except CupelError:
        assert nothing_in(root)


def test_a_damaged_archive_leaves_no_folder_of_a_project_that_was_not_there(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", lambda m: None, {"text": b"words " * 20})
    content = bytearray(path.read_bytes())
    content[content.index(b"words ")] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is damaged"):
        import_runs(path, root=tmp_path / "root")
    assert not (tmp_path / "root").exists()
    (tmp_path / "root" / "mine").mkdir(parents=True)
    with pytest.raises(RecordError, match="is damaged"):
        import_runs(path, root=tmp_path / "root", project="mine")
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == ["mine"]  # as it was


def test_a_promise_of_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", lambda m: m["files"]["run.json"].update(bytes=2**60))
    with pytest.raises(RecordError, match="make room"):
        import_runs(path, root=tmp_path / "root")
