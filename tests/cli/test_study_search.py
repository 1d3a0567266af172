"""A study that searches asks for cells until its trials are used up, and then no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from desk import complaint, new_desk

RECIPE = """\
workload: fakes:Regression
train: {steps: 12, evaluate_every: 6, threads: 1, optimizer: {kind: adamw, lr: 1e-2}}
figures: {formats: []}
study:
  question: Which rate?
  arms: {plain: {}}
  seeds: [1]
  search:
    trials: 3
    at_once: 2
    space: {train.optimizer.lr: {low: 1.0e-3, high: 1.0e-1, log: true}}
"""


@pytest.mark.slow
def test_a_search_that_wants_more_than_this_machine_has_is_refused_before_it_is_begun(
    tmp_path: Path,
) -> None:
    desk = new_desk(tmp_path / "desk")
    (desk.folder / "rate.yaml").write_text(RECIPE)
    told = complaint(desk.type("study", "run", "rate.yaml", "study.resources.cpus=4096"))
    assert told.startswith("a run of rate asks for 4096 CPU cores")
    assert not desk.runs.exists()


@pytest.mark.slow
def test_a_search_runs_its_trials_batch_by_batch_and_ends(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    (desk.folder / "rate.yaml").write_text(RECIPE)
    done = desk.type("study", "run", "rate.yaml", "study.resources.cpus=0.5", "--warm")
    assert done.returncode == 0, done.stderr
    status = json.loads(desk.type("study", "status", "rate", "--json").stdout)
    assert status["counts"] == {"finished": 3}
    assert len({run["point"] for run in status["runs"]}) == 3
    folder = desk.runs / "default/studies/rate"
    frozen = {path.name: path.read_bytes() for path in folder.glob("manifest*.json")}
    assert sorted(frozen) == ["manifest.002.json", "manifest.json"]

    again = desk.type("study", "run", "rate.yaml", "study.resources.cpus=0.5")
    assert again.returncode == 0, again.stderr
    assert "rate: 3 of 3 runs are accepted already" in again.stderr
    assert frozen == {path.name: path.read_bytes() for path in folder.glob("manifest*.json")}
