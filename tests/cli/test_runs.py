"""`cupel runs` tells of every run, however damaged one is, and a root or project that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.cli.app import obey
from cupel.record import files, layout

RUN = "20260101-000000-a-nogit-0000"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record with a finished run, and one beside it of which tests make something else."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    monkeypatch.setenv("CUPEL_ROOT", str(root))
    for run in (RUN, "other"):
        folder = root / "p" / run
        session = layout.session_dir(folder, 1)
        session.mkdir(parents=True)
        files.write_json(folder / layout.RUN, {"schema": 1, "identity": "i", "created": 1.0})
        files.write_json(session / layout.SESSION, {"schema": 1, "status": "finished"})
        files.write_json(folder / layout.RESULTS, {"step": 3, "final": {"val_loss": 2.5}})
    return root


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert obey(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert obey(["runs", "ls", "--json"]) == 0
    return {row["run"]: row for row in json.loads(capsys.readouterr().out)}


def test_damaged_results_are_told_in_their_own_row(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "p" / "other" / layout.RESULTS).write_text("{")
    rows = listed(capsys)
    assert rows[RUN]["val_loss"] == 2.5
    assert rows["other"]["val_loss"] is None
    assert "results.json is damaged" in rows["other"]["about"]
    assert obey(["runs", "show", "other"]) == 0
    assert "results.json is damaged" in capsys.readouterr().out


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from([layout.RESULTS, layout.RUN, layout.SESSION]), value=VALUES)
@pytest.mark.slow
def test_whatever_a_file_of_a_run_holds_all_runs_are_listed_and_shown(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    folder = root / "p" / "other"
    path = (layout.session_dir(folder, 1) if name == layout.SESSION else folder) / name
    good = path.read_bytes()
    keys = ("final", "best", "step", "status", "about", "created", "started", "ended", "error")
    for content in (value, dict.fromkeys(keys, value)):
        path.write_text(json.dumps(content))
        assert listed(capsys).keys() == {RUN, "other"}
        assert obey(["runs", "ls"]) == 0
        assert obey(["runs", "show", "other"]) == 0
    path.write_bytes(good)


def test_a_project_that_is_none_is_refused_with_those_that_are(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["runs", "ls", "--project", "q"], capsys)
    assert line == f"cupel: no project is called 'q' (there are: p); looked in {root}"


def test_no_runs_of_a_status_is_said_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert obey(["runs", "ls", "--status", "crashed"]) == 0
    assert capsys.readouterr().out == f"none of 2 runs in {root} is crashed\n"


@pytest.mark.parametrize("command", [["runs", "ls"], ["runs", "show", "x"], ["sample", "x"]])
def test_a_root_that_is_no_folder_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    Path("file").touch()
    told = refused([*command, "--root", "file"], capsys)
    assert "cannot look for runs in file: Not a directory" in told
    assert "--root is empty" in refused([*command, "--root", ""], capsys)
    assert "File name too long" in refused([*command, "--root", "x" * 300], capsys)
