"""Which code runs were trained by: real sessions in a git repository of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cupel.record import environment
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.studies.code import code_here, code_of, code_text, newest_code, runs_of_other_code
from cupel.studies.manifest import Manifest, PlannedRun
from plans import Plans


def git(folder: Path, *arguments: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    told = ("-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)
    return subprocess.run(
        ["git", *told], cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, text: str) -> str:
    """The id of a commit in which model.py says this."""
    (folder / "model.py").write_text(text)
    git(folder, "add", "model.py")
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which this process is."""
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "x = 1\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def manifest(tmp_path: Path, code: Path) -> Manifest:
    return Plans(tmp_path)("seeds: [1, 2]")


def train(manifest: Manifest, run: PlannedRun) -> None:
    """A whole session of a run, of the code of this folder, or one more."""
    run_dir = manifest.run_dir(run)
    if run_dir.exists():
        session = Session.resume(run_dir)
    else:
        session = Session.start(
            root=manifest.root, project=manifest.project, name="n", config={},
            identity=run.identity, run_id=run.run_id,
        )  # fmt: skip
    session.begin_at(0)
    session.finish("interrupted")


def test_runs_of_the_code_that_is_here_are_not_reported(manifest: Manifest, code: Path) -> None:
    assert runs_of_other_code(manifest) == {}
    train(manifest, manifest.runs[0])
    assert newest_code(RunRecord(manifest.run_dir(manifest.runs[0]))) == code_here()
    assert runs_of_other_code(manifest) == {}


def test_a_commit_makes_it_other_code_and_going_back_undoes_that(
    manifest: Manifest, code: Path
) -> None:
    first, second = manifest.runs[:2]
    old = git(code, "rev-parse", "HEAD")
    train(manifest, first)
    commit(code, "x = 2\n")
    train(manifest, second)
    assert runs_of_other_code(manifest) == {first: old[:7]}
    assert runs_of_other_code(manifest, [second]) == {}
    assert runs_of_other_code(manifest, [first]) == {first: old[:7]}
    git(code, "checkout", "-q", old)
    assert list(runs_of_other_code(manifest)) == [second]


def test_a_tracked_file_that_was_edited_is_other_code_whatever_the_edit(
    manifest: Manifest, code: Path
) -> None:
    run = manifest.runs[0]
    (code / "model.py").write_text("x = 2\n")
    train(manifest, run)
    assert runs_of_other_code(manifest) == {}
    (code / "model.py").write_text("x = 3\n")
    head = git(code, "rev-parse", "HEAD")[:7]
    assert runs_of_other_code(manifest) == {run: f"{head}+"}
    (code / "model.py").write_text("x = 1\n")
    assert runs_of_other_code(manifest) == {run: f"{head}+"}
    (code / "model.py").write_text("x = 2\n")
    assert runs_of_other_code(manifest) == {}


def test_edits_too_large_to_be_kept_are_still_other_code_than_none(
    manifest: Manifest, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PATCH_LIMIT", 10)
    run = manifest.runs[0]
    (code / "model.py").write_text("x = 2\n")
    train(manifest, run)
    assert runs_of_other_code(manifest) == {}
    (code / "model.py").write_text("x = 1\n")
    assert list(runs_of_other_code(manifest)) == [run]


def test_files_that_git_does_not_track_are_no_code(manifest: Manifest, code: Path) -> None:
    train(manifest, manifest.runs[0])
    (code / "notes.txt").write_text("x")
    assert runs_of_other_code(manifest) == {}


def test_the_newest_session_counts(manifest: Manifest, code: Path) -> None:
    run = manifest.runs[0]
    train(manifest, run)
    commit(code, "x = 2\n")
    assert list(runs_of_other_code(manifest)) == [run]
    train(manifest, run)
    assert runs_of_other_code(manifest) == {}


def test_outside_a_repository_nothing_is_known_of_code(
    manifest: Manifest, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(manifest, manifest.runs[0])
    commit(code, "x = 2\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert code_here() is None
    assert runs_of_other_code(manifest) == {}
    train(manifest, manifest.runs[1])  # tells of no code
    monkeypatch.chdir(code)
    assert list(runs_of_other_code(manifest)) == [manifest.runs[0]]


def test_a_repository_without_a_commit_is_code_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    assert code_here() == ("", "")


@pytest.mark.parametrize("facts", [{}, {"git": None}, {"git": []}, {"git": {"commit": None}}])
def test_an_environment_that_tells_of_no_commit_tells_of_no_code(facts: dict[str, object]) -> None:
    assert code_of(facts) is None


def test_a_damaged_environment_leaves_the_session_before_it(manifest: Manifest, code: Path) -> None:
    run = manifest.runs[0]
    train(manifest, run)
    train(manifest, run)
    (manifest.run_dir(run) / "sessions" / "0002" / "env.json").write_text("{")
    record = RunRecord(manifest.run_dir(run))
    assert newest_code(record) == code_here()


def test_code_is_shown_short_with_a_plus_where_files_differ() -> None:
    assert code_text(("0123456789", "")) == "0123456"
    assert code_text(("0123456789", "ab")) == "0123456+"
