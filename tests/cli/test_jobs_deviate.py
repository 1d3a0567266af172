"""`cupel jobs deviate`: a rerun with other settings is another run, never the planned one's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupel.cli.jobs_deviate import deviating, deviation_id
from cupel.errors import RecipeError, UsageError
from cupel.record.reader import list_runs
from cupel.studies.completeness import check
from cupel.studies.manifest import freeze, load_manifest
from desk import Desk, complaint, new_desk
from plans import Plans

RECIPE = """\
workload: fakes:Regression
train: {steps: 6, evaluate_every: 3, clip: null, optimizer: {kind: adamw, lr: 1e30}}
figures: {formats: []}
study: {question: "Does it diverge?", arms: {hot: {}}, seeds: [1]}
"""


def test_what_changes_nothing_is_refused_and_the_same_change_is_the_same_run(
    tmp_path: Path,
) -> None:
    manifest = freeze(Plans(tmp_path)())
    run = manifest.runs[0]
    with pytest.raises(UsageError, match="changes nothing that"):
        deviating(manifest, run, ["train.optimizer.lr=1e-3"])
    with pytest.raises(UsageError, match="beside the runs of its study"):
        deviating(manifest, run, ["project=other", "train.steps=3"])
    with pytest.raises(RecipeError, match=r"train\.stepz"):
        deviating(manifest, run, ["train.stepz=3"])
    ids = [
        deviation_id(run, deviating(manifest, run, given))
        for given in (["train.steps=3"], ["train.steps=3"], ["train.steps=4"])
    ]
    assert ids[0] == ids[1] != ids[2]
    assert not {run.run_id for run in manifest.runs} & set(ids)


@pytest.mark.slow
def test_a_rerun_of_what_diverged_is_never_counted_in_its_cell(tmp_path: Path) -> None:
    desk: Desk = new_desk(tmp_path / "desk")
    (desk.folder / "hot.yaml").write_text(RECIPE)
    assert desk.type("study", "run", "hot.yaml").returncode == 0
    before = json.loads(desk.type("study", "status", "hot", "--json").stdout)["counts"]
    assert before == {"diverged": 1}

    done = desk.type("jobs", "deviate", "hot", "hot-s1", "train.optimizer.lr=1e-3")
    assert done.returncode == 0, done.stderr
    assert "is a deviation of hot-hot-s1-" in done.stderr
    after = json.loads(desk.type("study", "status", "hot", "--json").stdout)["counts"]
    assert after == before
    (mine,) = [run for run in list_runs(desk.runs) if run.status == "finished"]
    manifest = load_manifest(desk.runs / "default/studies/hot")
    assert mine.run["deviation_of"] == manifest.runs[0].run_id
    assert mine.config["train"]["optimizer"]["lr"] == 1e-3
    assert [one.run_id for one in check(manifest).deviations] == [mine.run_id]
    again = desk.type("jobs", "deviate", "hot", "hot-s1", "train.optimizer.lr=1e-3")
    assert again.returncode == 2
    assert "is finished already" in complaint(again)
