"""`cupel study verify`, `export` and `collect` as typed: what they print and what they return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from cupel.cli.study_collect import collect
from cupel.cli.study_export import export
from cupel.cli.study_verify import verify
from cupel.errors import RecordError, UnknownName, UsageError
from planted import Arm, around, plant

app = typer.Typer()
for command in (verify, export, collect):
    app.command()(command)


def typed(*arguments: object) -> Result:
    """Run a command; what it raises on purpose is raised here."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def arms(**wave: Any) -> dict[str, Arm]:
    return {"plain": Arm(around(2.0)), "wave": Arm(**{"values": around(1.8), **wave})}


# ---- verify ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_complete_study_is_shown_by_arm_and_ends_with_0(tmp_path: Path) -> None:
    plant(tmp_path, arms())
    done = typed("verify", "planted", "--root", tmp_path)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["arm", "runs", "accepted", "diverged", "failed", "missing"]
    assert lines[1].split() == ["plain", "3", "3", "0", "0", "0"]
    assert lines[-1] == "complete: of 6 runs 6 accepted; nothing is wrong"


@pytest.mark.slow
def test_problems_are_grouped_by_kind_with_counts_and_the_first_runs(tmp_path: Path) -> None:
    seeds = tuple(range(1, 9))
    quality = {"accuracy": {}, "val_loss": {"high": 1.9}}
    planted = {"plain": Arm(around(2.0, seeds=seeds)), "wave": Arm({})}
    plant(tmp_path, planted, seeds=seeds, quality=quality)
    done = typed("verify", "planted", "--root", tmp_path)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    at = lines.index("missing: 8")
    assert lines[at + 1] == "  planted-wave-s1-00000000: planned"
    assert lines[at + 5] == "  … and 4 more; --json lists them"
    assert "absent metric: 8" in lines
    assert "out of range: 8" in lines
    assert lines[-1] == "incomplete: 8 of 16 runs are missing, and 16 problems"


@pytest.mark.slow
def test_failed_runs_are_told_with_their_class_and_are_no_problem(tmp_path: Path) -> None:
    plant(tmp_path, arms(values={1: 1.8, 2: 1.8}, diverged=[3]))
    done = typed("verify", "planted", "--root", tmp_path)
    assert done.exit_code == 0
    assert (
        "  planted-wave-s3-00000000: diverged: loss is nan at step 12; try a lower learning rate"
        in done.stdout.splitlines()
    )
    last = done.stdout.splitlines()[-1]
    assert last == "complete: of 6 runs 5 accepted, 1 diverged; nothing is wrong"


@pytest.mark.slow
def test_verify_as_json_has_every_problem(tmp_path: Path) -> None:
    plant(tmp_path, arms(values={1: 1.8}))
    done = typed("verify", "planted", "--root", tmp_path, "--json")
    facts = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (facts["complete"], facts["clean"], facts["planned"]) == (False, False, 6)
    assert facts["arms"]["wave"] == {"accepted": 1, "diverged": 0, "failed": 0, "missing": 2}
    assert [problem["kind"] for problem in facts["problems"]] == ["missing", "missing"]
    assert {run["run_id"]: run["state"] for run in facts["runs"]} == {
        f"planted-{arm}-s{seed}-00000000": "missing" if arm == "wave" and seed > 1 else "accepted"
        for arm in ("plain", "wave")
        for seed in (1, 2, 3)
    }


@pytest.mark.parametrize("command", ["verify", "export", "collect"])
def test_an_unknown_study_is_a_usage_error(tmp_path: Path, command: str) -> None:
    plant(tmp_path, {"a": Arm({})})
    rest = [tmp_path] if command == "collect" else []
    with pytest.raises(UnknownName, match="did you mean 'planted'") as told:
        typed(command, "plantd", *rest, "--root", tmp_path)
    assert told.value.exit_code == 2


# ---- export ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_export_says_where_it_is_and_how_many_rows(tmp_path: Path) -> None:
    plant(tmp_path / "runs", arms())
    to = tmp_path / "data"
    done = typed("export", "planted", "--root", tmp_path / "runs", "--to", to, "--format", "both")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["runs", "6"], ["attempts", "6"], ["trajectories", "48"],
    ]  # fmt: skip
    assert lines[-1] == f"10 files in {to}; dictionary.md tells what is in them"
    assert (to / "runs.csv").is_file()


@pytest.mark.slow
def test_an_export_as_json_lists_its_files(tmp_path: Path) -> None:
    manifest = plant(tmp_path, arms())
    facts = json.loads(typed("export", "planted", "--root", tmp_path, "--json").stdout)
    assert facts["folder"] == str(manifest.folder / "export")
    assert facts["rows"]["runs"] == 6
    for name in facts["files"]:
        assert (manifest.folder / "export" / name).is_file()


@pytest.mark.slow
def test_an_export_in_an_unknown_format_or_over_other_files_is_refused(tmp_path: Path) -> None:
    plant(tmp_path / "runs", arms())
    with pytest.raises(UnknownName, match="did you mean 'parquet'"):
        typed("export", "planted", "--root", tmp_path / "runs", "--format", "parket")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RecordError, match="is not an export of study planted"):
        typed("export", "planted", "--root", tmp_path / "runs", "--to", tmp_path)


# ---- collect -----------------------------------------------------------------------------------


def two_roots(tmp_path: Path) -> tuple[Path, Path]:
    """A study whose arm `wave` was trained elsewhere."""
    plant(tmp_path / "here", arms(values={}))
    plant(tmp_path / "there", {"plain": Arm({}), "wave": Arm(around(1.8))})
    return tmp_path / "here", tmp_path / "there"


@pytest.mark.slow
def test_collecting_makes_a_study_complete(tmp_path: Path) -> None:
    here, there = two_roots(tmp_path)
    assert typed("verify", "planted", "--root", here).exit_code == 1
    done = typed("collect", "planted", there, "--root", here, "--dry-run")
    assert done.stdout.splitlines() == ["3 copies of 3 runs: would be: 3 taken"]
    assert typed("verify", "planted", "--root", here).exit_code == 1
    done = typed("collect", "planted", there, "--root", here)
    assert (done.exit_code, done.stdout) == (0, "3 copies of 3 runs: 3 taken\n")
    assert typed("verify", "planted", "--root", here).exit_code == 0
    facts = json.loads(typed("collect", "planted", there, "--root", here, "--json").stdout)
    assert [run["action"] for run in facts["runs"]] == ["same"] * 3


@pytest.mark.slow
def test_a_conflict_is_told_with_both_places_and_ends_with_1(tmp_path: Path) -> None:
    here, there = two_roots(tmp_path)
    plant(tmp_path / "again", {"plain": Arm(around(2.1)), "wave": Arm(around(1.7))})
    done = typed("collect", "planted", there, tmp_path / "again", "--root", here)
    assert done.exit_code == 1
    told = [line for line in done.stdout.splitlines() if line.startswith("conflict: ")]
    assert len(told) == 6
    assert str(tmp_path / "again/p/planted-plain-s1-00000000") in told[0]
    assert "are both accepted" in told[0]


@pytest.mark.slow
def test_a_view_can_be_made_beside_collecting_or_alone(tmp_path: Path) -> None:
    here, there = two_roots(tmp_path)
    view = tmp_path / "view"
    done = typed("collect", "planted", "--root", here, "--layout", view)
    assert done.stdout == f"3 runs in {view}\n"
    done = typed("collect", "planted", there, "--root", here, "--layout", view, "--copy")
    assert done.stdout.splitlines()[-1] == f"6 runs in {view}"
    assert (view / "wave/s1/results.json").is_file()
    assert not (view / "wave/s1").is_symlink()


@pytest.mark.slow
def test_what_is_missing_to_collect_is_said(tmp_path: Path) -> None:
    plant(tmp_path / "runs", arms())
    with pytest.raises(UsageError, match="say where to collect from"):
        typed("collect", "planted", "--root", tmp_path / "runs")
    with pytest.raises(UsageError, match="--layout"):
        typed("collect", "planted", tmp_path, "--copy", "--root", tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    done = typed("collect", "planted", tmp_path / "empty", "--root", tmp_path / "runs")
    assert (done.exit_code, done.stdout) == (0, "no run of the study is there\n")
