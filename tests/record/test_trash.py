"""What is taken comes back byte for byte, whenever a kill comes; what is swept is only rubbish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, UnknownName
from cupel.record import files, layout, trash
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.record.usage import bytes_of, usage_of

RUN = "20260101-000000-a-nogit-0000"


def made_up(root: Path, run_id: str) -> Path:
    """A run without a session, for tests that need many."""
    run_dir = root / "p" / run_id
    run_dir.mkdir(parents=True)
    (run_dir / layout.RUN).write_text('{"schema": 1, "created": 1.0}')
    return run_dir


def make(root: Path, run_id: str = RUN, project: str = "p", **facts: object) -> Path:
    session = Session.start(
        root=root, project=project, name="a", config={}, identity="i", run_id=run_id, details=facts
    )
    session.log({"loss": 1.0}, step=1)
    session.finish("failed")
    return session.run_dir


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def age(taken: trash.Taken, days: float) -> None:
    removed = time.time() - days * trash.DAY_S
    files.write_json(taken.path.with_name(f"{taken.name}.json"), {"removed": removed})


def test_the_columns_of_a_removed_run_go_and_are_made_anew_for_the_restored_one(
    tmp_path: Path,
) -> None:
    run_dir = make(tmp_path)
    line = b'{"_step":%d,"loss":0.5,"accuracy":0.25}\n'
    metrics = layout.session_dir(run_dir, 1) / layout.metrics_name()
    metrics.write_bytes(b"".join(line % step for step in range(9000)))
    cached = tmp_path / ".cache" / "columns" / "p" / RUN
    before = RunRecord(run_dir).series("loss").x.tolist()
    assert len(contents(cached)) == 2
    trash.remove(tmp_path, run_dir)
    assert not cached.exists()
    trash.restore(tmp_path, trash.find_trashed(tmp_path, RUN))
    assert RunRecord(run_dir).series("loss").x.tolist() == before == list(range(9000))
    assert len(contents(cached)) == 2


def test_a_run_that_was_removed_is_gone_and_comes_back_as_it_was(tmp_path: Path) -> None:
    run_dir = make(tmp_path)
    before = contents(run_dir)
    place = trash.remove(tmp_path, run_dir)
    assert place == tmp_path / ".trash" / "p" / RUN
    assert list(layout.run_dirs(tmp_path)) == []
    (taken,) = trash.trashed(tmp_path)
    assert abs(taken.removed - time.time()) < 60
    for text in (RUN, RUN[:12], f"p/{RUN}"):
        assert trash.find_trashed(tmp_path, text) == taken
    assert trash.restore(tmp_path, taken) == run_dir
    assert contents(run_dir) == before
    assert trash.trashed(tmp_path) == []
    assert contents(tmp_path / ".trash" / "p") == {}


_KILLED = """
import os, sys
from pathlib import Path
root, run, count, what = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
from cupel.record import trash
left = count
def hook(event, arguments):
    global left
    if event.startswith(("os.", "shutil.")) or event == "open" and str(root) in str(arguments[0]):
        left -= 1
        if left < 0:
            os._exit(9)
if what == "restore":
    taken = trash.find_trashed(root, run)
sys.addaudithook(hook)
trash.remove(root, root / "p" / run) if what == "remove" else trash.restore(root, taken)
"""


@pytest.mark.parametrize("what", ["remove", "restore"])
@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_the_run_whole_at_one_of_its_places(
    tmp_path: Path, what: str
) -> None:
    run_dir = make(tmp_path)
    before = contents(run_dir)
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    for count in range(60):
        if what == "restore":
            trash.remove(tmp_path, run_dir)
        command = [sys.executable, script, tmp_path, RUN, str(count), what]
        code = subprocess.run(command, check=False).returncode
        taken = trash.trashed(tmp_path)
        if run_dir.exists():
            assert not taken
        else:
            trash.restore(tmp_path, taken[0])
        assert contents(run_dir) == before
        if code == 0:
            break
        assert code == 9
    else:
        raise AssertionError("it never came to its end")
    trash.gc(tmp_path, older_than_days=0)
    assert not list((tmp_path / ".trash").rglob(".*"))


def test_a_project_on_another_disk_is_copied_over_whole(tmp_path: Path) -> None:
    """/dev/shm is another disk than /tmp wherever there is one."""
    disk = Path("/dev/shm")
    if not disk.is_dir() or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one disk")
    far = disk / f"cupel-test-{os.getpid()}"
    try:
        root = tmp_path / "runs"
        root.mkdir()
        far.mkdir()
        (root / "p").symlink_to(far)
        run_dir = make(root)
        (run_dir / "link").symlink_to("run.json")
        before = contents(run_dir)
        trash.remove(root, run_dir)
        assert list(far.iterdir()) == []
        (taken,) = trash.trashed(root)
        assert contents(taken.path) == before
        trash.restore(root, taken)
        assert contents(far / RUN) == before
        assert (run_dir / "link").is_symlink()
    finally:
        shutil.rmtree(far, ignore_errors=True)


def test_an_id_that_was_removed_twice_is_there_twice_and_the_newer_comes_back_first(
    tmp_path: Path,
) -> None:
    for mark in ("old", "new"):
        run_dir = make(tmp_path)
        (run_dir / "mark").write_text(mark)
        trash.remove(tmp_path, run_dir)
        if mark == "old":
            age(trash.trashed(tmp_path)[0], 1)
    assert [one.run_id for one in trash.trashed(tmp_path)] == [RUN, RUN]
    trash.restore(tmp_path, trash.find_trashed(tmp_path, RUN))
    assert (run_dir / "mark").read_text() == "new"
    taken = trash.find_trashed(tmp_path, RUN)
    with pytest.raises(RecordError, match="there is a run at"):
        trash.restore(tmp_path, taken)


def test_what_is_no_run_of_the_root_is_not_taken(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_dir = make(root)
    with pytest.raises(RecordError, match="is no run in"):
        trash.remove(tmp_path, run_dir)
    place = trash.remove(root, run_dir)
    with pytest.raises(RecordError, match="is no run in"):
        trash.remove(root, place)
    (root / "p" / "linked").symlink_to(place)
    with pytest.raises(RecordError, match="is a link"):
        trash.remove(root, root / "p" / "linked")
    assert place.exists()


def test_names_that_are_not_in_the_trash_are_refused_with_those_that_are(tmp_path: Path) -> None:
    for run_id in ("one-1", "one-2"):
        trash.remove(tmp_path, made_up(tmp_path, run_id))
    with pytest.raises(UnknownName, match="did you mean 'one-"):
        trash.find_trashed(tmp_path, "one_1")
    with pytest.raises(RecordError, match="could be any of 2 runs"):
        trash.find_trashed(tmp_path, "one")
    with pytest.raises(UnknownName):
        trash.find_trashed(tmp_path, "")


@pytest.mark.slow
def test_what_speaks_against_taking_a_run_is_said(tmp_path: Path) -> None:
    assert trash.why_not(make(tmp_path)) is None
    assert "study s" in str(trash.why_not(make(tmp_path, "b", study="s")))
    session = Session.start(root=tmp_path, project="p", name="c", config={}, identity="i")
    assert trash.why_not(session.run_dir) == "it is running"
    session.finish("failed")
    assert trash.why_not(session.run_dir) is None


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ages=st.lists(st.integers(0, 20), max_size=2),
    days=st.integers(0, 20).map(lambda days: days - 0.5).filter(lambda days: days >= 0),
    rubbish=st.lists(st.sampled_from(["root", "project", "run", "checkpoints", "trash"])),
)
def test_gc_takes_what_is_old_or_rubbish_and_says_so_before(
    tmp_path: Path, ages: list[int], days: float, rubbish: list[str]
) -> None:
    root = tmp_path / "runs"
    shutil.rmtree(root, ignore_errors=True)
    kept = made_up(root, "kept")
    for number, its in enumerate(ages):
        trash.remove(root, made_up(root, f"run-{number}"))
        age(trash.find_trashed(root, f"run-{number}"), its)
    (kept / "checkpoints").mkdir()
    (root / ".trash").mkdir(exist_ok=True)
    places = {
        "root": root,
        "project": root / "p",
        "run": kept,
        "checkpoints": kept / "checkpoints",
        "trash": root / ".trash",
    }
    for place in set(rubbish):
        left = places[place] / files.temporary_name("x").replace(f"~{os.getpid()}~", "~99999999~")
        left.mkdir()
        (left / "half").write_bytes(b"abc")
    mine = kept / files.temporary_name("being-written")
    mine.write_bytes(b"abc")
    before, whole = contents(root), bytes_of(root)
    would = trash.gc(root, older_than_days=days, dry_run=True)
    assert contents(root) == before
    freed = trash.gc(root, older_than_days=days)
    assert freed == would
    assert sum(one.why.startswith("removed") for one in freed) == sum(a >= days for a in ages)
    assert len(freed) == sum(a >= days for a in ages) + len(set(rubbish))
    # The facts of when a run was taken go with it.
    assert whole - bytes_of(root) >= sum(one.bytes for one in freed)
    assert {one.run_id for one in trash.trashed(root)} == {
        f"run-{number}" for number, its in enumerate(ages) if its < days
    }
    assert mine.exists()
    assert trash.gc(root, older_than_days=days) == []


def test_gc_leaves_a_run_in_the_trash_that_still_runs_and_takes_caches_of_those_gone(
    tmp_path: Path,
) -> None:
    session = Session.start(root=tmp_path, project="p", name="c", config={}, identity="i")
    cached = tmp_path / ".cache" / "columns" / "p"
    (cached / session.run_id).mkdir(parents=True)
    (cached / "gone").mkdir()
    (cached / "gone" / "x.bin").write_bytes(b"12345")
    (freed,) = trash.gc(tmp_path, older_than_days=0)
    assert (freed.path, freed.bytes) == (cached / "gone", 5)
    trash.remove(tmp_path, session.run_dir)
    assert not (cached / session.run_id).exists()
    assert trash.gc(tmp_path, older_than_days=0) == []
    session.finish("failed")
    assert len(trash.gc(tmp_path, older_than_days=0)) == 1
    assert trash.trashed(tmp_path) == []


def test_usage_counts_every_byte_once_under_what_it_is_for(tmp_path: Path) -> None:
    run_dir = make(tmp_path)
    sizes = {
        "checkpoints/step-000000001/model.safetensors": 100,
        "media/loss/1-abc.png": 20,
        "artifacts/data/v0/files/x": 30,
        "figures/a.png": 7,
    }
    for name, count in sizes.items():
        (run_dir / name).parent.mkdir(parents=True)
        (run_dir / name).write_bytes(bytes(count))
    (run_dir / "outside").symlink_to("/usr")
    cached = tmp_path / ".cache" / "columns" / "p" / RUN
    cached.mkdir(parents=True)
    (cached / "a.bin").write_bytes(bytes(11))
    usage = usage_of(run_dir)
    assert (usage.checkpoints, usage.media, usage.cache) == (100, 50, 11)
    every = sum(path.lstat().st_size for path in run_dir.rglob("*") if not path.is_dir())
    assert usage.total == bytes_of(run_dir) + 11
    link = (run_dir / "outside").lstat().st_size  # a link to a folder, which rglob calls a folder
    assert usage.total == every + link + 11
    lines = sum(path.stat().st_size for path in run_dir.rglob("*.r0.000.jsonl"))
    log = sum(path.stat().st_size for path in run_dir.rglob("training.log"))
    assert usage.metrics == lines + log
    assert usage_of(tmp_path / "absent").total == 0
