"""`cupel study run` as typed: which runs it trains, of which code, and what it says of the rest."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cupel.cli.app import obey
from cupel.cli.study_run import settle_code, typed
from cupel.errors import UsageError
from cupel.jobs import control
from cupel.record.session import Session
from cupel.record.trash import find_trashed, restore, trashed
from cupel.studies.manifest import Manifest, PlannedRun, freeze, load_manifest
from cupel.studies.spec import plan_study
from cupel.studies.state import study_state
from desk import Desk, complaint, new_desk

RECIPE = """\
workload: fakes:Regression
train: {steps: 6, evaluate_every: 3}
checkpoint: {every: 3}
figures: {formats: []}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1]
"""


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=environment, check=True, capture_output=True
    )


def commit(folder: Path, text: str) -> None:
    """A commit in which model.py says this."""
    (folder / "model.py").write_text(text)
    git(folder, "add", "model.py")
    git(folder, "commit", "-qm", "x")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with a recipe, which is a repository of one commit."""
    desk = new_desk(tmp_path / "desk")
    (desk.folder / "sine.yaml").write_text(RECIPE)
    git(desk.folder, "init", "-q")
    commit(desk.folder, "x = 1\n")
    return desk


@pytest.fixture
def manifest(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The frozen study; this process is in the folder."""
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("CUPEL_ROOT", str(desk.runs))
    return freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))


def begin(manifest: Manifest, run: PlannedRun) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    return session


def accept(manifest: Manifest) -> None:
    """Have all runs accepted, of the code that is here."""
    for run in manifest.runs:
        session = begin(manifest, run)
        session.finish("finished", results={"step": 6, "final": {"val_loss": 1.0 + run.cell}})


def states(manifest: Manifest) -> list[str]:
    return [state.status for state in study_state(manifest)]


# ---- other code --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["keep", "rerun", "stop"])
def test_without_other_code_no_rule_does_anything(
    manifest: Manifest, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(manifest)
    settle_code(manifest, rule)
    assert states(manifest) == ["finished"] * 2
    assert capsys.readouterr().err == ""


def test_runs_of_other_code_are_kept_and_that_is_told(
    manifest: Manifest, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(manifest)
    commit(desk.folder, "x = 2\n")
    settle_code(manifest, "keep")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("2 runs of this study began with other code (")
    assert line.endswith("); they are kept (--code-changed rerun trains them anew)")
    assert states(manifest) == ["finished"] * 2


@pytest.mark.slow
def test_other_code_stops_a_study_before_anything_is_written(
    manifest: Manifest, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(manifest)
    commit(desk.folder, "x = 2\n")
    before = desk.fingerprint()
    for given in (["--code-changed", "stop"], ["study.code_changed=stop"]):
        wider = ["study.seeds=[1,2]", *given]
        assert obey(["study", "run", "sine.yaml", *wider]) == 2
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert out == ""
        assert line.startswith("cupel: 2 runs of this study began with other code (")
        assert line.endswith("--code-changed keep goes on with them, rerun trains them anew")
        assert desk.fingerprint() == before


def test_runs_of_other_code_go_to_the_trash_and_can_come_back(
    manifest: Manifest, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(manifest)
    commit(desk.folder, "x = 2\n")
    before = desk.fingerprint()
    settle_code(manifest, "rerun")
    assert "they are in the trash now (cupel runs restore) and trained anew" in (
        capsys.readouterr().err
    )
    assert states(manifest) == ["planned"] * 2
    assert {taken.run_id for taken in trashed(desk.runs)} == {r.run_id for r in manifest.runs}
    for run in manifest.runs:
        restore(desk.runs, find_trashed(desk.runs, run.run_id))
    assert states(manifest) == ["finished"] * 2
    assert {name: hash for name, hash in desk.fingerprint().items() if name in before} == before


def test_only_the_runs_that_are_meant_are_trained_anew(
    manifest: Manifest, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(manifest)
    commit(desk.folder, "x = 2\n")
    settle_code(manifest, "rerun", [run for run in manifest.runs if run.arm == "drop"])
    assert states(manifest) == ["finished", "planned"]
    assert "1 run of this study began with other code" in capsys.readouterr().err


def test_what_somebody_trains_is_not_taken_away(manifest: Manifest, desk: Desk) -> None:
    session = begin(manifest, manifest.runs[0])
    session.finish("interrupted")
    session = Session.resume(manifest.run_dir(manifest.runs[0]))
    session.begin_at(0)
    other = begin(manifest, manifest.runs[1])
    other.finish("interrupted")
    commit(desk.folder, "x = 2\n")
    with pytest.raises(UsageError, match=r"somebody trains sine-plain-s1-\w+ now; wait, or"):
        settle_code(manifest, "rerun")
    session.finish("interrupted")
    assert states(manifest) == ["interrupted"] * 2, "nor is any other run"


@pytest.mark.slow
def test_the_code_that_counts_is_that_of_the_folder_in_which_it_is_typed(desk: Desk) -> None:
    first = desk.type("study", "run", "sine.yaml", "--warm")
    assert first.returncode == 0, first.stderr
    manifest = load_manifest(desk.runs / "default" / "studies" / "sine")
    before = [manifest.run_dir(run).stat().st_ino for run in manifest.runs]

    commit(desk.folder, "x = 2\n")
    told = complaint(desk.type("study", "run", "sine.yaml", "--code-changed", "stop"))
    assert told.startswith("2 runs of this study began with other code (")
    kept = desk.type("study", "run", "sine.yaml")
    assert kept.returncode == 0
    assert "they are kept (--code-changed rerun trains them anew)" in kept.stderr
    assert [manifest.run_dir(run).stat().st_ino for run in manifest.runs] == before

    again = desk.type("study", "run", "sine.yaml", "--warm", "--code-changed", "rerun")
    assert again.returncode == 0, again.stderr
    assert "2 runs, 2 at a time" in again.stderr
    assert states(manifest) == ["finished"] * 2
    assert not set(before) & {manifest.run_dir(run).stat().st_ino for run in manifest.runs}
    assert len(trashed(desk.runs)) == 2
    settled = desk.type("study", "run", "sine.yaml", "--code-changed", "stop")
    assert settled.returncode == 0, "they are of this code now"


# ---- which runs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_arm_first_and_the_rest_and_more_seeds_later(desk: Desk) -> None:
    """Axes and tags come from the command line."""
    command = ("study", "run", "sine.yaml", "--param", "batch=4,8", "--tags", "first")
    done = desk.type(*command, "--arm", "plain", "--warm")
    assert done.returncode == 0, done.stderr
    assert "2 runs, 2 at a time" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == (
        "2 runs of other arms are not done yet; the same command without --arm does what is left"
    )
    manifest = load_manifest(desk.runs / "default" / "studies" / "sine")
    shown = [(state.run.arm, state.run.point, state.status) for state in study_state(manifest)]
    assert sorted(shown) == [
        ("drop", "batch=4", "planned"), ("drop", "batch=8", "planned"),
        ("plain", "batch=4", "finished"), ("plain", "batch=8", "finished"),
    ]  # fmt: skip
    assert {run.tags for run in manifest.runs} == {("first",)}
    plain = [run for run in manifest.runs if run.arm == "plain"]
    before = {run: manifest.run_dir(run).stat().st_ino for run in plain}

    done = desk.type(*command, "study.seeds=[1,2]", "--warm")
    assert done.returncode == 0, done.stderr
    assert "sine: 2 of 8 runs are accepted already" in done.stderr
    assert "6 runs, 2 at a time" in done.stderr
    wide = load_manifest(manifest.folder)
    assert wide.runs[:4] == manifest.runs
    assert {run.seed for run in wide.runs[4:]} == {2}
    assert states(wide) == ["finished"] * 8
    assert all(wide.run_dir(run).stat().st_ino == inode for run, inode in before.items())

    listed = json.loads(desk.type("jobs", "ls", "sine", "--tags", "first", "--json").stdout)
    assert len(listed["runs"]) == 8


def test_runs_of_another_arm_that_failed_are_not_tried_with_this_one(
    manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    from cupel.cli.study_run import _left_to_run
    from queues import refuse

    plain, drop = manifest.runs
    refuse(manifest, drop, "no such corpus")
    assert _left_to_run(manifest, retry_failed=True, only=[plain]) == [plain]
    assert not (manifest.folder / control.CONTROL).exists()
    assert _left_to_run(manifest, retry_failed=False, only=None) == [plain, drop]
    assert json.loads((manifest.folder / control.CONTROL).read_text())["runs"] == [drop.run_id]
    assert capsys.readouterr().err == ""


def test_the_command_to_go_on_with_has_every_option_that_plans_or_places() -> None:
    options = ["--param=a.b=1,2", "--arm=plain", "--warm"]
    told = typed("run", "sine.yaml", ["a=[1, 2]"], "else where", options)
    assert told.endswith(
        " study run sine.yaml 'a=[1, 2]' --param=a.b=1,2 --arm=plain --warm --root 'else where'"
    )
