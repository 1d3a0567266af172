"""Runs chosen from a plan, and plans narrowed from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.errors import RecipeError, UnknownName, UsageError
from cupel.studies.manifest import Manifest, freeze, load_manifest
from cupel.studies.narrowing import axis_overrides, select
from plans import Plans, points_of, values_of

STUDY = """\
seeds: [1, 2]
grid: {train.optimizer.lr: [0.1, 0.2]}
folds: {count: 2, setting: train.schedule.warmup, total: null}
tags: [all]
tag_by: [arm, lr]
priorities: [{where: seed=1, add: 10}]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


@pytest.fixture(params=["planned", "frozen"])
def manifest(plan: Plans, request: pytest.FixtureRequest) -> Manifest:
    planned = plan(STUDY)
    return load_manifest(freeze(planned).folder) if request.param == "frozen" else planned


# ---- chosen ------------------------------------------------------------------------------------


def test_without_a_choice_all_runs_are_meant(manifest: Manifest) -> None:
    assert select(manifest) == list(manifest.runs)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"arms": ["drop"]}, lambda run: run.arm == "drop"),
        ({"arms": ["drop", "plain"]}, lambda run: True),
        ({"seeds": [2]}, lambda run: run.seed == 2),
        ({"tags": ["all", "lr=0.1"]}, lambda run: "lr=0.1" in run.point),
        ({"where": ["fold=1 and lr<0.2"]}, lambda run: run.point == "lr=0.1,fold=1"),
        ({"where": ["train.optimizer.lr=0.2", "dropout=0"]}, lambda run: (
            run.arm == "plain" and "lr=0.2" in run.point)),
        ({"where": ["priority>100"]}, lambda run: run.seed == 1),
        ({"where": ["tag='lr=0.2' and not arm=drop"]}, lambda run: (
            run.arm == "plain" and "lr=0.2" in run.point)),
        ({"arms": ["drop"], "seeds": [1], "where": ["fold=0"]}, lambda run: (
            (run.arm, run.seed, run.fold) == ("drop", 1, 0))),
    ],
)  # fmt: skip
def test_runs_are_chosen_in_their_order(manifest: Manifest, chosen: dict, expected) -> None:  # type: ignore[type-arg,no-untyped-def]
    found = select(manifest, **chosen)
    assert found == [run for run in manifest.runs if expected(run)]
    assert found


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"arms": ["drpo"]}, r"no arm of study sine is called 'drpo'; did you mean 'drop'\?"),
        ({"seeds": [3]}, r"no seed of study sine is called '3'.*there are: 1, 2"),
        ({"tags": ["al"]}, r"no tag of study sine is called 'al'; did you mean 'all'\?"),
        ({"where": ["lrr=1"]}, r"no axis or setting is called 'lrr'; did you mean 'lr'\?"),
    ],
)  # fmt: skip
def test_what_a_study_does_not_have_is_refused_with_the_nearest(
    manifest: Manifest, chosen: dict[str, list[str]], told: str
) -> None:
    with pytest.raises(UnknownName, match=told):
        select(manifest, **chosen)  # type: ignore[arg-type]


def test_a_choice_that_leaves_nothing_is_refused(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="no run of study sine is in all of what was asked for"):
        select(manifest, arms=["drop"], where=["arm=plain"])


# ---- typed -------------------------------------------------------------------------------------


def test_a_parameter_adds_an_axis_or_takes_the_place_of_one(plan: Plans) -> None:
    grid = "grid: {train.optimizer.lr: [0.1, 0.2]}"
    manifest = plan(grid, narrowed={"params": ["train.optimizer.lr=0.3,0.4", "batch=4"]})
    assert points_of(manifest) == ["lr=0.3,batch=4", "lr=0.4,batch=4"]


def test_the_values_of_a_parameter_are_yaml(plan: Plans) -> None:
    betas = "train.optimizer.betas=[0.5, 0.9],[0.6,0.95]"
    manifest = plan(narrowed={"params": [betas, "train.clip=null,1e-1"]})
    assert values_of(manifest, "train.optimizer.betas") == [[0.5, 0.9]] * 2 + [[0.6, 0.95]] * 2
    assert values_of(manifest, "train.clip") == [None, 0.1, None, 0.1]


@given(st.lists(st.integers() | st.booleans() | st.none() | st.text("ab[]{},'\"#: \n"), max_size=4))
def test_no_text_is_an_axis_with_more_than_was_typed(values: list[object]) -> None:
    text = ",".join(map(str, values))
    try:
        (override,) = axis_overrides([f"a.b={text}"])
    except UsageError:
        return
    assert override == f"study.grid.a.b=[{text}]"


@pytest.mark.parametrize("text", ["lr", "lr=", "=1", "a..b=1", "lr= ", "lr=1 # one", "lr=1\n2"])
def test_what_is_no_parameter_is_refused(plan: Plans, text: str) -> None:
    with pytest.raises(UsageError, match="is no axis"):
        plan(narrowed={"params": [text]})


def test_values_that_are_no_yaml_are_refused(plan: Plans) -> None:
    (problem,) = plan.refused(narrowed={"params": ["batch=[1,2"]})
    assert problem.startswith("'study.grid.batch=[[1,2]'")


def test_a_parameter_of_another_source_is_refused(plan: Plans) -> None:
    (problem,) = plan.refused("zip: {batch: [4, 8]}", narrowed={"params": ["batch=1,2"]})
    assert problem == "study.zip: batch is in study.grid already; leave it in one of them"


def test_named_arms_alone_are_planned(plan: Plans) -> None:
    manifest = plan(narrowed={"arms": ["drop"]})
    assert {run.arm for run in manifest.runs} == {"drop"}
    assert list(manifest.study.arms) == ["drop"]
    assert set(manifest.runs) < set(plan().runs) or {run.run_id for run in manifest.runs} < {
        run.run_id for run in plan().runs
    }


def test_an_arm_that_is_not_there_is_refused_with_the_nearest(plan: Plans) -> None:
    with pytest.raises(UnknownName, match="did you mean 'drop'"):
        plan(narrowed={"arms": ["dorp"]})


def test_the_baseline_is_not_left_out(plan: Plans) -> None:
    with pytest.raises(UsageError, match=r"'plain'.*type study\.compare\.baseline=drop"):
        plan("compare: {baseline: plain}", narrowed={"arms": ["drop"]})


def test_a_mistake_in_an_arm_that_is_left_out_is_not_told(plan: Plans) -> None:
    arms = "arms: {plain: {}, odd: {batch: 0}}"
    with pytest.raises(RecipeError):
        plan(arms=arms)
    assert plan(arms=arms, narrowed={"arms": ["plain"]}).runs
