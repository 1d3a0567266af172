"""The frozen study: written once, read back equal, and refused when another plan has its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import RecordError, UnknownName, UsageError
from cupel.studies.manifest import MANIFEST, Manifest, find_study, freeze, load_manifest
from cupel.studies.spec import plan_study

RECIPE = """\
workload: fakes:Regression
about: A sine
train: {steps: 40}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2]
  grid: {train.optimizer.lr: [1e-3, 2e-3]}
"""
Planner = Callable[..., Manifest]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    path = tmp_path / "sine.yaml"
    path.write_text(RECIPE)
    return lambda *overrides: plan_study(path, overrides, root=tmp_path / "runs")


def rewritten(folder: Path, **changes: Any) -> None:
    """The manifest with changes, without a hash: as of a cupel that wrote none."""
    found = json.loads((folder / MANIFEST).read_text())
    del found["hash"]
    (folder / MANIFEST).write_text(json.dumps({**found, **changes}))


def test_what_is_frozen_is_read_back_equal(plan: Planner) -> None:
    manifest = freeze(plan())
    assert load_manifest(manifest.folder) == manifest
    assert manifest.folder.parts[-4:] == ("runs", "default", "studies", "sine")
    assert manifest.run_dir(manifest.runs[0]).parent == manifest.root / "default"


def test_freezing_again_adds_nothing(plan: Planner) -> None:
    first = freeze(plan())
    content = (first.folder / MANIFEST).read_bytes()
    assert freeze(plan()) == first
    assert freeze(plan("study.workers=9", "about=other words")) == first
    assert (first.folder / MANIFEST).read_bytes() == content
    assert [path.name for path in first.folder.iterdir()] == [MANIFEST]


def test_of_many_that_freeze_at_once_all_get_the_same(plan: Planner) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: freeze(plan()), range(8)))
    assert {manifest.created for manifest in found} == {found[0].created}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.steps=50"], "(train.steps: 40 -> 50)"),
        (["study.seeds=[1,2,3]"], "(seeds: [1, 2] -> [1, 2, 3])"),
        (["study.compare.margin=0.1"], "(compare.margin: null -> 0.1)"),
        (["study.primary.statistic=best"], "(primary.statistic: last -> best)"),
        (["study.question=Why?"], 'question: "Does dropout help?" -> "Why?"'),
        (["study.arms.more.dropout=0.9"], "arm more at lr=0.001: absent -> planned"),
        (["study.grid.train.optimizer.lr=[1e-3]"], "arm drop at lr=0.002: planned -> absent"),
        (["study.arms.drop.dropout=0.4"], "(arm drop at lr=0.001: dropout: 0.5 -> 0.4; arm drop"),
        (["monitors={norms: {every: 5}}"], "monitors.norms.every: absent -> 5"),
    ],
)
def test_another_plan_of_the_same_name_is_refused_with_what_differs(
    plan: Planner, overrides: list[str], told: str
) -> None:
    folder = freeze(plan()).folder
    with pytest.raises(UsageError) as error:
        freeze(plan(*overrides))
    message = str(error.value)
    assert told in message, message
    assert message.endswith(f"give this one another name (name=NAME), or delete {folder}")
    assert freeze(plan(*overrides, "name=other")).name == "other"


def test_a_setting_that_a_newer_cupel_adds_changes_no_study(plan: Planner) -> None:
    manifest = freeze(plan())
    cells = json.loads((manifest.folder / MANIFEST).read_text())["cells"]
    for cell in cells:
        del cell["config"]["train"]["nonfinite"]  # as if it had not existed then
    rewritten(manifest.folder, cells=cells)
    assert freeze(plan()).runs == manifest.runs


def test_what_a_newer_cupel_has_written_besides_is_ignored(plan: Planner) -> None:
    manifest = freeze(plan())
    found = json.loads((manifest.folder / MANIFEST).read_text())
    found["study"]["novel"] = found["study"]["primary"]["novel"] = 1
    for one in (*found["cells"], *found["runs"]):
        one["novel"] = 1
    rewritten(manifest.folder, **{**found, "hash": "", "novel": 1})
    assert load_manifest(manifest.folder) == manifest


def test_a_manifest_of_a_newer_format_is_refused(plan: Planner) -> None:
    folder = freeze(plan()).folder
    rewritten(folder, schema=99)
    with pytest.raises(RecordError, match="written by a newer cupel"):
        load_manifest(folder)


@pytest.mark.parametrize(
    "changes",
    [{"runs": 5}, {"study": None}, {"cells": [{}]}, {"study": {"question": ""}}, {"runs": [7]}],
)
def test_a_damaged_manifest_is_named(plan: Planner, changes: dict[str, Any]) -> None:
    folder = freeze(plan()).folder
    rewritten(folder, **changes)
    with pytest.raises(RecordError, match=r"manifest.json is damaged"):
        load_manifest(folder)


@pytest.mark.parametrize("wrong", [{"cell": 9}, {"cell": -1}, {"arm": "nope"}, {"seed": "1"}])
def test_a_run_that_belongs_to_no_cell_is_damage(plan: Planner, wrong: dict[str, Any]) -> None:
    folder = freeze(plan()).folder
    runs = json.loads((folder / "manifest.json").read_text())["runs"]
    rewritten(folder, runs=[{**runs[0], **wrong}, *runs[1:]])
    with pytest.raises(RecordError, match=r"manifest.json is damaged"):
        load_manifest(folder)


def test_an_unknown_run_is_refused_with_the_nearest(plan: Planner) -> None:
    manifest = plan()
    run = manifest.runs[0]
    assert manifest.run(run.run_id) is run
    with pytest.raises(UnknownName, match=f"did you mean '{run.run_id}'"):
        manifest.run(run.run_id + "x")


# ---- finding one -------------------------------------------------------------------------------


def test_a_study_is_found_by_name_project_and_folder(plan: Planner, tmp_path: Path) -> None:
    folder, root = freeze(plan()).folder, tmp_path / "runs"
    for text in ("sine", "default/sine", "default/studies/sine", str(folder)):
        assert find_study(root, text) == folder
    with pytest.raises(UnknownName, match=r"no study is called 'sin'; did you mean 'sine'\?"):
        find_study(root, "sin")
    with pytest.raises(UnknownName):
        find_study(root, "")


def test_a_name_of_several_projects_is_refused_with_all_of_them(
    plan: Planner, tmp_path: Path
) -> None:
    freeze(plan())
    other = freeze(plan("project=other")).folder
    root = tmp_path / "runs"
    with pytest.raises(RecordError, match=r"2 projects; type one of: default/sine, other/sine"):
        find_study(root, "sine")
    assert find_study(root, "other/sine") == other


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="begin one with: cupel study run RECIPE"):
        find_study(tmp_path / "absent", "sine")


def test_a_root_that_cannot_be_written_to_is_told(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(RecordError, match="choose another place with --root"):
        freeze(plan())
