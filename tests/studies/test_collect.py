"""Runs are gathered whole, checked and only forward: what is accepted is never written over."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copies import accepted, bytes_of, go_on, interrupted, study
from cupel.errors import RecordError, UsageError
from cupel.record.session import Session
from cupel.record.trash import trashed
from cupel.record.verifying import check_run
from cupel.studies.collect import Collected, collect
from cupel.studies.manifest import Manifest


def actions(found: list[Collected]) -> dict[str, str]:
    return {one.run_id: one.action for one in found}


def one(found: list[Collected]) -> Collected:
    (only,) = found
    return only


@pytest.fixture
def here(tmp_path: Path) -> Manifest:
    return study(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Manifest:
    return study(tmp_path / "there")


# ---- what is taken -----------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_that_are_not_here_are_taken_whole_with_their_times(
    here: Manifest, there: Manifest
) -> None:
    sources = [accepted(there, 0), interrupted(there, 3)]
    found = collect(here, [there.root])
    assert actions(found) == {path.name: "taken" for path in sources}
    for source in sources:
        target = here.root / "p" / source.name
        assert bytes_of(target) == bytes_of(source)
        assert check_run(target).sound
        assert not check_run(target).notes
        for path in source.rglob("*"):
            if path.is_file():
                copied = target / path.relative_to(source)
                assert copied.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert sorted(p.name for p in (here.root / "p").iterdir()) == sorted(
        [*(path.name for path in sources), "studies"]
    )


@pytest.mark.slow
def test_collecting_again_takes_nothing_again(here: Manifest, there: Manifest) -> None:
    accepted(there, 0)
    interrupted(there, 1)
    collect(here, [there.root])
    before = {path: path.stat().st_ino for path in (here.root / "p").rglob("*")}
    assert set(actions(collect(here, [there.root])).values()) == {"same"}
    assert before == {path: path.stat().st_ino for path in (here.root / "p").rglob("*")}


def test_a_projects_folder_is_a_place_too(here: Manifest, there: Manifest, tmp_path: Path) -> None:
    accepted(there, 0)
    moved = tmp_path / "scratch"
    (there.root / "p").rename(moved)
    assert one(collect(here, [moved])).action == "taken"


def test_a_dry_run_says_the_same_and_writes_nothing(here: Manifest, there: Manifest) -> None:
    accepted(there, 0)
    before = sorted(here.root.rglob("*"))
    dry = collect(here, [there.root], dry_run=True)
    assert sorted(here.root.rglob("*")) == before
    assert dry == collect(here, [there.root])


def test_of_two_copies_the_accepted_one_counts(here: Manifest, there: Manifest) -> None:
    run_dir = interrupted(here)
    shutil.copytree(run_dir, there.root / "p" / run_dir.name)
    go_on(there.root / "p" / run_dir.name, value=1.0)
    old = bytes_of(run_dir)
    assert one(collect(here, [there.root])).action == "taken"
    assert (run_dir / "results.json").exists()
    (taken,) = trashed(here.root)
    assert bytes_of(taken.path) == old
    assert not (taken.path / "sessions" / "0002").exists()


def test_an_accepted_run_here_stays_whatever_is_there(here: Manifest, there: Manifest) -> None:
    run_dir = accepted(here)
    interrupted(there)
    before = bytes_of(run_dir)
    found = one(collect(here, [there.root]))
    assert (found.action, found.detail) == ("kept", f"{run_dir} is accepted")
    assert bytes_of(run_dir) == before


@pytest.mark.slow
def test_of_two_unfinished_copies_the_one_that_goes_on_counts(
    here: Manifest, there: Manifest
) -> None:
    run_dir = interrupted(here)
    copy = there.root / "p" / run_dir.name
    shutil.copytree(run_dir, copy)
    go_on(copy)
    assert one(collect(here, [there.root])).action == "taken"
    assert bytes_of(run_dir) == bytes_of(copy)
    go_on(run_dir)
    found = one(collect(here, [there.root]))
    assert (found.action, found.detail) == ("kept", f"{run_dir} goes on where it ends")


@pytest.mark.slow
def test_two_trainings_of_which_none_goes_on_from_the_other_are_a_conflict(
    here: Manifest, there: Manifest
) -> None:
    run_dir = interrupted(here)
    copy = there.root / "p" / run_dir.name
    shutil.copytree(run_dir, copy)
    go_on(copy)
    go_on(run_dir)
    before = bytes_of(run_dir)
    assert one(collect(here, [there.root])).action == "conflict"
    assert bytes_of(run_dir) == before


def test_two_accepted_runs_with_different_results_are_told_and_left(
    here: Manifest, there: Manifest
) -> None:
    run_dir = accepted(here, value=1.0)
    accepted(there, value=2.0)
    before = bytes_of(run_dir)
    found = one(collect(here, [there.root]))
    assert found.action == "conflict"
    assert found.detail == f"it and {run_dir} are both accepted: val_loss is 2.0 and 1.0"
    assert bytes_of(run_dir) == before
    assert not trashed(here.root)


@pytest.mark.slow
def test_of_several_places_the_best_copy_is_taken_once(
    here: Manifest, there: Manifest, tmp_path: Path
) -> None:
    run_dir = interrupted(there)
    third = study(tmp_path / "third")
    shutil.copytree(run_dir, third.root / "p" / run_dir.name)
    go_on(third.root / "p" / run_dir.name, value=1.0)
    for places in ([there.root, third.root], [third.root, there.root]):
        dry = collect(here, places, dry_run=True)
        assert {one.source.parents[1].name: one.action for one in dry} == {
            "there": "kept", "third": "taken",
        }  # fmt: skip
    collect(here, [there.root, third.root])
    assert (here.root / "p" / run_dir.name / "results.json").exists()
    assert not trashed(here.root)


@pytest.mark.slow
def test_deviations_of_the_study_are_taken_too_and_other_runs_are_not(
    here: Manifest, there: Manifest
) -> None:
    for run_id, details in (
        ("derived", {"study": "s", "deviation_of": there.runs[0].run_id}),
        ("another", {"study": "t"}),
        ("stray", {"study": "s"}),
    ):
        session = Session.start(
            root=there.root, project="p", name="n", config={}, identity="x", run_id=run_id,
            details=details,
        )  # fmt: skip
        session.finish("finished", results={"final": {}})
    assert actions(collect(here, [there.root])) == {"derived": "taken"}


# ---- what is not taken -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda run: (run / "results.json").write_text("{"), "results.json"),
        (lambda run: (run / "run.json").write_text("[]"), "run.json"),
        (lambda run: cut(run / "sessions/0001/metrics.r0.000.jsonl"), "metrics.r0.000.jsonl"),
        (lambda run: (run / "sessions/0001/session.json").unlink(), "session.json"),
    ],
)
def test_a_damaged_copy_is_told_and_not_taken(
    here: Manifest, there: Manifest, damage: Callable[[Path], Any], told: str
) -> None:
    damage(accepted(there))
    found = one(collect(here, [there.root]))
    assert found.action == "damaged"
    assert told in found.detail
    assert not here.run_dir(here.runs[0]).exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_where_one_copy_is_damaged_the_sound_one_is_taken(
    here: Manifest, there: Manifest, tmp_path: Path
) -> None:
    run_dir = accepted(there)
    third = study(tmp_path / "third")
    shutil.copytree(run_dir, third.root / "p" / run_dir.name)
    cut(run_dir / "sessions/0001/metrics.r0.000.jsonl")
    found = collect(here, [there.root, third.root])
    assert [one.action for one in found] == ["damaged", "taken"]
    assert check_run(here.root / "p" / run_dir.name).sound


def test_a_run_of_other_settings_is_not_taken(here: Manifest, there: Manifest) -> None:
    run_dir = accepted(there)
    fields = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**fields, "identity": "0" * 64}))
    assert one(collect(here, [there.root])).action == "other"


@pytest.mark.slow
def test_running_copies_are_left_alone_there_and_here(here: Manifest, there: Manifest) -> None:
    session = Session.start(
        root=there.root, project="p", name="n", config={}, identity=there.runs[0].identity,
        run_id=there.runs[0].run_id,
    )  # fmt: skip
    found = one(collect(here, [there.root]))
    session.finish("interrupted")
    assert (found.action, found.detail) == ("running", "it is running there")
    accepted(there, 1)
    mine = Session.start(
        root=here.root, project="p", name="n", config={}, identity=here.runs[1].identity,
        run_id=here.runs[1].run_id,
    )  # fmt: skip
    found = collect(here, [there.root])[1]
    mine.finish("interrupted")
    assert (found.action, found.detail) == ("running", "it is running here")


def test_a_run_that_was_only_claimed_here_is_left_to_whoever_claimed_it(
    here: Manifest, there: Manifest
) -> None:
    accepted(there)
    (here.run_dir(here.runs[0]) / "sessions" / "0001").mkdir(parents=True)
    assert one(collect(here, [there.root])).action == "running"


def test_a_session_that_begins_meanwhile_is_not_put_aside(
    here: Manifest, there: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = interrupted(here)
    accepted(there)
    from cupel.studies import collect as module

    def begin_and_copy(*given: Any, **named: Any) -> None:
        (run_dir / "sessions" / "0002").mkdir()
        shutil.copytree(*given)

    monkeypatch.setattr(module, "copy_tree", begin_and_copy)
    with pytest.raises(RecordError, match="was begun by somebody else meanwhile"):
        collect(here, [there.root])
    assert (run_dir / "sessions" / "0002").is_dir()
    assert not (run_dir / "results.json").exists()
    assert not list((here.root / "p").glob(".tmp-*"))


def test_links_in_a_run_are_not_followed(here: Manifest, there: Manifest, tmp_path: Path) -> None:
    run_dir = accepted(there)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (run_dir / "link").symlink_to(secret)
    (run_dir / "file").symlink_to(secret / "key")
    collect(here, [there.root])
    target = here.run_dir(here.runs[0])
    assert not (target / "link").exists()
    assert not (target / "file").exists()


def test_places_that_are_not_there_or_are_the_studys_own_are_refused(
    here: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        collect(here, [tmp_path / "absent"])
    for own in (here.root, here.root / "p"):
        with pytest.raises(UsageError, match="the study's own runs are"):
            collect(here, [own])


KILLED = """\
import os, signal, sys
from pathlib import Path
from cupel.studies import collect as module
from cupel.studies.manifest import load_manifest
count = 0
real = os.fsync
def fsync(fd):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(fd)
os.fsync = fsync
module.collect(load_manifest(Path(sys.argv[1])), [Path(sys.argv[2])])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 4, 9, 12])
def test_a_kill_leaves_a_run_whole_or_not_there_and_the_next_time_takes_it(
    here: Manifest, there: Manifest, at: int
) -> None:
    source = accepted(there)
    target = here.run_dir(here.runs[0])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(here.folder), str(there.root), str(at)], check=False
    )
    assert done.returncode == -9
    assert not target.exists() or bytes_of(target) == bytes_of(source)
    collect(here, [there.root])
    assert bytes_of(target) == bytes_of(source)
    assert not list(target.parent.glob(".tmp-*"))
