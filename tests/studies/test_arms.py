"""Arms that an ablation makes: the baseline, each component taken out of it, every two."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.studies.manifest import freeze, load_manifest
from plans import Plans

ABLATION = """\
ablation:
  baseline: {dropout: 0.5, train: {clip: 2.0}}
  components: {dropout: {dropout: 0.0}, clip: {train: {clip: null}}, size: {batch: 4}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def test_each_component_is_taken_out_of_the_baseline_on_its_own(plan: Plans) -> None:
    manifest = plan(ABLATION, arms="")
    found = {
        cell.arm: (cell.config["dropout"], cell.config["train"]["clip"], cell.config["batch"])
        for cell in manifest.cells
    }
    assert found == {
        "baseline": (0.5, 2.0, 8),
        "no-dropout": (0.0, 2.0, 8),
        "no-clip": (0.5, None, 8),
        "no-size": (0.5, 2.0, 4),
    }
    assert list(manifest.study.arms) == list(found)


def test_every_two_components_make_an_arm_when_pairs_are_asked_for(plan: Plans) -> None:
    manifest = plan(ABLATION + "  pairs: true", arms="")
    assert [cell.arm for cell in manifest.cells[4:]] == [
        "no-dropout-no-clip", "no-dropout-no-size", "no-clip-no-size",
    ]  # fmt: skip
    assert manifest.cells[4].changes == {"dropout": 0.0, "train.clip": None}


def test_arms_written_out_stand_beside_those_of_the_ablation(plan: Plans) -> None:
    manifest = plan(ABLATION)
    assert [cell.arm for cell in manifest.cells][:3] == ["plain", "drop", "baseline"]


def test_the_ablations_baseline_is_what_arms_are_compared_with_unless_another_is_named(
    plan: Plans,
) -> None:
    assert plan(ABLATION).baseline == "baseline"
    assert plan(ABLATION + "  name: full").baseline == "full"
    assert plan(ABLATION, "study.compare.baseline=no-clip").baseline == "no-clip"
    assert plan(ABLATION, "study.compare.baseline=plain").baseline == "plain"


def test_a_component_changes_something_in_the_group_that_the_baseline_names(
    plan: Plans, tmp_path: Path
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "long.yaml").write_text("steps: 99\nclip: 2.0\n")
    ablation = "ablation: {baseline: {train: long}, components: {clip: {train: {clip: null}}}}"
    _, cell = plan(ablation, arms="").cells
    assert (cell.config["train"]["steps"], cell.config["train"]["clip"]) == (99, None)


def test_an_ablation_multiplies_the_grid_and_is_frozen_like_any_study(plan: Plans) -> None:
    manifest = freeze(plan(ABLATION + "grid: {train.steps: [10, 20]}", arms=""))
    assert len(manifest.cells) == 8
    assert load_manifest(manifest.folder) == manifest
    assert freeze(plan(ABLATION + "grid: {train.steps: [10, 20]}", arms="")) == manifest


@pytest.mark.parametrize(
    ("study", "overrides", "told"),
    [
        (ABLATION + "  name: plain", [], "study.ablation: there is an arm 'plain' already"),
        (ABLATION + "  name: no-clip", [], "there is an arm 'no-clip' already; rename one"),
        (ABLATION + "  name: A", [], "study.ablation: 'A' cannot be an arm's name"),
        (ABLATION, ["study.compare.baseline=no-clop"], "did you mean 'no-clip'?"),
        (ABLATION, ["study.ablation.components.A.batch=2"], "'no-A' cannot be an arm's name"),
        (ABLATION, ["study.ablation.components.seed.seed=2"], "the seeds of all arms are"),
        (ABLATION, ["study.ablation.baseline.project=x"], "ablation.baseline.project: it belongs"),
        (ABLATION, ["study.ablation.components.none={}"], "components.none: changes nothing"),
        (ABLATION, ["study.ablation.components.odd=5"], "components.odd: 5 is not a mapping"),
        ("ablation: {components: {}}", [], "study.ablation.components: there are none"),
        (
            ABLATION + "  pairs: true",
            ["study.ablation.components.clip2.train.clip=9.0"],
            "components clip and clip2 both set train.clip, so they make no pair",
        ),
    ],
)
def test_an_ablation_that_is_none_is_told_in_one_line(
    plan: Plans, study: str, overrides: list[str], told: str
) -> None:
    (problem,) = plan.refused(study, *overrides)
    assert told in problem


def test_a_study_has_arms_or_an_ablation(plan: Plans) -> None:
    (problem,) = plan.refused(arms="")
    assert problem == "study: there are no arms; write one or more, as arms: {plain: {}}"
