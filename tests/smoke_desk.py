"""A study of seconds as a person types it, in a folder of its own, and what it exports: `Study`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import polars

from cupel.jobs.attempts import Attempt, read_attempt
from cupel.record import layout
from desk import Desk

STEPS = 80  # of every run
# What tells of time and place, and how often a run was begun.
_ITS_OWN = (
    "wall_s", "cpu_s", "attempts", "accepted_session", "changes", "config_json", "host",
    "^git_.*$", "^monitors.*$",
)  # fmt: skip


class Study:
    """A study in a folder of its own, typed as a person does."""

    def __init__(self, folder: Path, recipe: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "smoke.yaml").write_text(recipe)
        self.desk = Desk(folder)

    @property
    def folder(self) -> Path:
        return self.desk.runs / "default" / "studies" / "smoke"

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.desk.type(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def finished(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """The end of what was started, and what it said."""
        try:
            said, told = process.communicate(timeout=500)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise AssertionError(process.communicate()) from None
        return subprocess.CompletedProcess(process.args, process.returncode, said, told)

    def run_dir(self, run_id: str) -> Path:
        return self.desk.runs / "default" / run_id

    def accepted(self) -> dict[str, int]:
        """When the results of each accepted run were written, in nanoseconds."""
        found = self.desk.runs.glob(f"default/*/{layout.RESULTS}")
        return {path.parent.name: path.stat().st_mtime_ns for path in found}

    def attempts(self, run_id: str) -> list[Attempt]:
        """Those that somebody judged."""
        numbers = layout.session_numbers(self.run_dir(run_id))
        found = [read_attempt(self.run_dir(run_id), number) for number in numbers]
        return [one for one in found if one is not None]

    def judged(self, runs: Sequence[str]) -> int:
        """How many attempts were judged to have failed."""
        return sum(one.outcome != "finished" for run in runs for one in self.attempts(run))

    def marks(self) -> list[str]:
        """The runs that failures have come to, each as often as they have."""
        marks = (self.desk.folder / "plan.came").glob("*")
        return [mark.name.rpartition(".")[0] for mark in marks]

    def table(self, pattern: str) -> polars.DataFrame:
        return polars.read_parquet(self.folder / "export" / pattern)


def assert_equal_data(quiet: Study, study: Study, *, besides: Set[str] = frozenset()) -> None:
    """Every number of every exported table, bit for bit, but of some runs."""
    ours, theirs = (
        one.table("runs.parquet")
        .filter(~polars.col("run_id").is_in(besides))
        .select(polars.exclude(*_ITS_OWN))
        for one in (study, quiet)
    )
    assert {"final.val_loss", "primary_last", "primary_best"} <= set(ours.columns)
    assert ours.height > 1
    assert ours.equals(theirs)
    for run in ours["run_id"]:
        assert points(study, run) == points(quiet, run)
        assert len(points(study, run)) > STEPS


def points(study: Study, run_id: str, *, upto: int = STEPS) -> list[tuple[str, int, bytes]]:
    """All numbers of a run up to a step: metric, step, and the bits."""
    found = study.table("trajectories/*.parquet").filter(
        (polars.col("run_id") == run_id) & (polars.col("step") <= upto)
    )
    values = found["value"].to_numpy()
    rows = zip(found["key"], found["step"], values, strict=True)
    return sorted((key, step, value.tobytes()) for key, step, value in rows)
