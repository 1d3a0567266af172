"""The index of what has settled saves time, and never makes an older truth be believed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cupel.jobs import control
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.index import LOCAL, Settled, SettledIndex, filesystem_of
from cupel.record.claims import claim_session
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun, freeze
from cupel.studies.spec import plan_study
from cupel.studies.state import RunState, study_state

ROW = Settled("a", "accepted", 7, 1, 0, b"told")


@pytest.fixture
def index(tmp_path: Path) -> SettledIndex:
    found = SettledIndex.open(tmp_path, tmp_path / "p" / "studies" / "s")
    assert found is not None, f"{tmp_path} lies on {filesystem_of(tmp_path)!r}"
    return found


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    path = tmp_path / "sine.yaml"
    path.write_text(
        "workload: fakes:Regression\ntrain: {steps: 40}\n"
        'study: {question: "?", arms: {plain: {}, drop: {dropout: 0.5}}, seeds: [1]}\n'
    )
    return freeze(plan_study(path, root=tmp_path / "runs"))


def end(manifest: Manifest, run: PlannedRun, outcome: str, number: int = 1) -> None:
    """Leave behind what a worker does whose run ended like this."""
    run_dir = manifest.run_dir(run)
    claim = claim_session(run_dir, number, {"worker": "w"})
    if number > 1:
        session = Session.resume(run_dir, claim=claim)
    else:
        session = Session.start(
            root=manifest.root,
            project=manifest.project,
            name=run.run_id,
            run_id=run.run_id,
            config={},
            identity=run.identity,
            claim=claim,
        )
    session.begin_at(0)
    session.log({"loss": 0.5}, step=40)
    if outcome == "finished":
        session.finish("finished", results={"step": 40, "final": {"val_loss": 0.25}})
    else:
        session.finish("failed", error=outcome)
    write_attempt(run_dir, Attempt(number, outcome, outcome, begun=True, last_step=40, ended=2.0))


def looked(manifest: Manifest) -> dict[str, RunState]:
    """How the runs stand, for somebody who begins to look; by their arm."""
    return {state.run.arm: state for state in study_state(manifest)}


def path_of(manifest: Manifest) -> Path:
    return manifest.root / ".cache" / "settled" / manifest.project / f"{manifest.name}.sqlite"


def test_what_was_added_is_there_for_the_next_one_and_the_last_word_counts(
    index: SettledIndex,
) -> None:
    assert index.load() == []
    index.add([ROW, Settled("b", "failed", 8, 3, 2)])
    index.add([Settled("b", "diverged", 8, 4, 2)])
    again = SettledIndex(index.path)
    assert sorted(again.load(), key=lambda row: row.run) == [ROW, Settled("b", "diverged", 8, 4, 2)]


def test_only_what_was_accepted_in_this_very_folder_is_final(tmp_path: Path) -> None:
    (tmp_path / "sessions" / "0001").mkdir(parents=True)
    failed = Settled("a", "failed", 7, 1, 3)
    assert not ROW.holds(7, tmp_path, 99), "its results are gone"
    (tmp_path / "results.json").touch()
    assert not ROW.holds(7, tmp_path, 99), "its results are empty"
    (tmp_path / "results.json").write_text("{}")
    assert ROW.holds(7, tmp_path, 99)
    assert not ROW.holds(8, tmp_path, 0)
    assert not ROW.holds(None, tmp_path, 0)
    assert failed.holds(7, tmp_path, 3)
    assert not failed.holds(7, tmp_path, 4), "a line of control.jsonl may have asked for a retry"
    (tmp_path / "sessions" / "0002").mkdir()
    assert not failed.holds(7, tmp_path, 3)


@pytest.mark.parametrize(
    "content", [b"", b"no database" * 999, b"SQLite format 3\0" + b"\1" * 5000]
)
def test_a_damaged_index_is_begun_anew(index: SettledIndex, content: bytes) -> None:
    index.path.write_bytes(content)
    assert index.load() == []
    index.add([ROW])
    index.add([ROW])  # the first one may only have taken the damaged file away
    assert index.load() == [ROW]


def test_it_may_be_deleted_at_any_time_and_a_place_that_refuses_it_costs_nothing(
    index: SettledIndex, tmp_path: Path
) -> None:
    index.add([ROW])
    shutil.rmtree(tmp_path / ".cache")
    assert index.load() == []
    index.add([ROW])
    assert index.load() == [ROW]
    shutil.rmtree(tmp_path / ".cache")
    (tmp_path / ".cache").write_text("a file")
    index.add([ROW])
    assert index.load() == []
    assert SettledIndex.open(tmp_path, tmp_path / "p" / "studies" / "s") is None


@pytest.mark.slow
def test_several_processes_add_at_once_and_nothing_is_lost(index: SettledIndex) -> None:
    script = (
        "import sys; from pathlib import Path; from cupel.jobs.index import *\n"
        "for n in range(50):\n"
        "    row = Settled(sys.argv[2] + str(n), 'failed', n, 1, 0)\n"
        "    SettledIndex(Path(sys.argv[1])).add([row])"
    )
    command = [sys.executable, "-c", script, str(index.path)]
    writers = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(index.load()) == 150


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    line = "36 35 98:0 / {} rw - {} /dev/x rw\n"
    own = str(tmp_path.resolve())
    mounts.write_text(line.format("/", "ext4") + "damaged\n" + line.format(own, "nfs4"))
    assert filesystem_of(tmp_path, mounts) == "nfs4"
    assert "nfs4" not in LOCAL
    mounts.write_text(line.format("/", "ext4") + line.format(own[:-1], "nfs4"))
    assert filesystem_of(tmp_path, mounts) == "ext4"


# ---- in use ------------------------------------------------------------------------------------


def test_who_looks_next_sees_the_same_without_reading_the_records(manifest: Manifest) -> None:
    plain, drop = manifest.runs
    end(manifest, plain, "finished")
    end(manifest, drop, "diverged")
    first = looked(manifest)
    assert (first["plain"].status, first["drop"].status) == ("finished", "diverged")
    for run in (plain, drop):
        (manifest.run_dir(run) / "run.json").unlink()  # whoever reads a record says that
    assert looked(manifest) == first
    shutil.rmtree(manifest.root / ".cache")
    assert looked(manifest) != first


@pytest.mark.slow
def test_a_run_that_is_retried_or_trained_anew_is_not_what_it_was(manifest: Manifest) -> None:
    plain, drop = manifest.runs
    end(manifest, plain, "finished")
    end(manifest, drop, "diverged")
    assert looked(manifest)["drop"].status == "diverged"
    assert path_of(manifest).exists()
    control.append(manifest.folder, "retry", [drop.run_id])
    assert looked(manifest)["drop"].status != "diverged"
    end(manifest, drop, "finished", number=2)
    assert looked(manifest)["drop"].status == "finished"
    run_dir = manifest.run_dir(plain)
    run_dir.rename(manifest.root / "gone")
    assert looked(manifest)["plain"].status == "planned"
    run_dir.mkdir()
    assert looked(manifest)["plain"].status == "planned"
