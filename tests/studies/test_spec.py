"""A study's plan: which runs it makes, how they are called, and what is refused before any run."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.config import from_config, load
from cupel.errors import RecipeError, UnknownName, UsageError
from cupel.names import refusal
from cupel.studies.manifest import Manifest
from cupel.studies.spec import plan_study

RECIPE = """\
workload: fakes:Regression
train: {steps: 40, optimizer: {kind: adamw, lr: 1e-3}}
study:
  question: Does dropout help?
  arms:
    plain: {}
    drop: {dropout: 0.5}
  seeds: [1, 2]
"""
Planner = Callable[..., Manifest]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    """Plans a recipe's text with overrides."""

    def planned(*overrides: str, recipe: str = RECIPE) -> Manifest:
        path = tmp_path / "sine.yaml"
        path.write_text(recipe)
        return plan_study(path, overrides, root=tmp_path / "runs")

    return planned


def refused(plan: Planner, *overrides: str, recipe: str = RECIPE) -> list[str]:
    """The problems that a plan is refused for, without the folder of the file."""
    with pytest.raises(RecipeError) as error:
        plan(*overrides, recipe=recipe)
    return [re.sub(r"^\S*/", "", problem) for problem in error.value.problems]


# ---- what is planned ---------------------------------------------------------------------------


def test_every_arm_runs_with_every_seed_pair_by_pair(plan: Planner) -> None:
    runs = plan().runs
    assert [(run.arm, run.seed) for run in runs] == [
        ("plain", 1), ("drop", 1), ("plain", 2), ("drop", 2),
    ]  # fmt: skip


def test_a_run_has_the_settings_of_its_arm_and_seed(plan: Planner) -> None:
    manifest = plan()
    for run in manifest.runs:
        recipe = from_config(manifest.config_of(run), where="manifest")
        assert recipe.identity() == run.identity
        assert recipe.seed == run.seed
        assert recipe.resolved()["dropout"] == (0.5 if run.arm == "drop" else 0.0)


def test_a_grid_multiplies_the_arms_and_names_its_points(plan: Planner) -> None:
    manifest = plan("study.grid.train.optimizer.lr=[1e-3,2e-3]", "study.grid.batch=[4,8]")
    points = [f"lr={lr},batch={batch}" for lr, batch in product((0.001, 0.002), (4, 8))]
    assert [(c.arm, c.point) for c in manifest.cells] == list(product(("plain", "drop"), points))
    assert len(manifest.runs) == 16
    cell = manifest.cells[5]
    assert (cell.arm, cell.point) == ("drop", "lr=0.001,batch=8")
    assert cell.changes == {"dropout": 0.5, "train.optimizer.lr": 0.001, "batch": 8}
    assert cell.config["train"]["optimizer"]["lr"] == 0.001


def test_axes_with_equal_last_names_are_told_apart(plan: Planner) -> None:
    grid = ["study.grid.train.evaluate_every=[5]", "study.grid.checkpoint.every=[5]"]
    steps = "study.grid.figures.every=[5]"
    assert (
        plan(*grid, steps).cells[0].point == "evaluate_every=5,checkpoint.every=5,figures.every=5"
    )


def test_a_grid_may_be_over_groups_and_whole_sections(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "short.yaml").write_text("steps: 5\n")
    recipe = RECIPE + "  grid: {train: [short, {steps: 7}]}\n"
    cells = plan(recipe=recipe).cells
    assert [cell.config["train"]["steps"] for cell in cells] == [5, 7, 5, 7]
    # A group replaces the section; a mapping is laid over it, as everywhere in a recipe.
    assert [cell.config["train"]["optimizer"]["lr"] for cell in cells[1:3]] == [0.001, 0.001]


def test_an_arm_names_groups_like_a_recipe(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "long.yaml").write_text("steps: 999\nclip: 2.0\n")
    recipe = RECIPE.replace("dropout: 0.5", "train: long")
    plain, drop = plan(recipe=recipe).cells
    assert (plain.config["train"]["steps"], drop.config["train"]["steps"]) == (40, 999)
    assert drop.changes == {"train.steps": 999, "train.clip": 2.0}
    (drop,) = plan("study.arms.drop.train.steps=7", recipe=recipe).cells[1:]
    assert drop.config["train"]["steps"] == 7
    assert drop.config["train"]["clip"] == 2.0


def test_a_group_that_is_not_there_is_told_with_file_and_line(plan: Planner) -> None:
    recipe = RECIPE.replace("dropout: 0.5", "train: nosuch")
    (problem,) = refused(plan, recipe=recipe)
    assert problem.startswith("sine.yaml:7: no train group is called 'nosuch'")


def test_the_command_line_wins_over_arms_and_grid_points(plan: Planner) -> None:
    recipe = RECIPE.replace("plain: {}", "plain: {train: {steps: 70}}")
    manifest = plan("train.steps=50", recipe=recipe)
    assert {cell.config["train"]["steps"] for cell in manifest.cells} == {50}


def test_threads_are_the_studys_unless_they_are_given(plan: Planner) -> None:
    def threads(*overrides: str) -> list[int | None]:
        return [cell.config["train"]["threads"] for cell in plan(*overrides).cells]

    assert threads() == [1, 1]
    assert threads("study.threads=3") == [3, 3]
    assert threads("train.threads=2") == [2, 2]
    assert threads("train.threads=null") == [None, None]
    assert threads("study.arms.drop.train.threads=2") == [1, 2]


def test_nothing_is_written(plan: Planner, tmp_path: Path) -> None:
    plan()
    assert [path.name for path in tmp_path.iterdir()] == ["sine.yaml"]


def test_a_study_may_extend_another_and_change_its_arms(plan: Planner, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(RECIPE)
    child = "extends: base.yaml\nstudy: {arms: {more: {dropout: 0.8}}, seeds: [5]}\n"
    manifest = plan(recipe=child)
    assert manifest.name == "sine"
    assert [(run.arm, run.seed) for run in manifest.runs] == [
        ("plain", 5),
        ("drop", 5),
        ("more", 5),
    ]


# ---- ids ---------------------------------------------------------------------------------------


def test_ids_are_readable(plan: Planner) -> None:
    pattern = r"sine-(plain|drop)-lr-0-001-s[12]-[0-9a-f]{8}"
    for run in plan("study.grid.train.optimizer.lr=[1e-3]").runs:
        assert re.fullmatch(pattern, run.run_id), run.run_id
    assert re.fullmatch(r"sine-plain-s1-[0-9a-f]{8}", plan().runs[0].run_id)


def test_ids_depend_on_what_changes_a_number_and_on_nothing_else(plan: Planner) -> None:
    def ids(*overrides: str) -> list[str]:
        return [run.run_id for run in plan(*overrides).runs]

    assert ids() == ids()
    assert ids() == ids("study.workers=7", "figures.every=3", "monitors=off", "about=x")
    assert not set(ids()) & set(ids("train.steps=41"))
    assert not set(ids()) & set(ids("name=other"))
    assert set(ids()) < set(ids("study.seeds=[1,2,3]"))


QUICKSTART = (
    "quickstart-standard-s1-e5940c25", "quickstart-wave-s1-2561957a",
    "quickstart-standard-s2-4526aacb", "quickstart-wave-s2-ef6f7ac0",
    "quickstart-standard-s3-65735e48", "quickstart-wave-s3-f01cf5d9",
)  # fmt: skip
WAVE_ABLATION = (
    "wave-ablation-baseline-s1-16983e06", "wave-ablation-standard-s1-be96d474",
    "wave-ablation-standard-matched-s1-7b22182e", "wave-ablation-rgd-s1-167dd654",
    "wave-ablation-adamw-matched-s1-4ff0f982", "wave-ablation-qfe-s1-32035e87",
    "wave-ablation-full-s1-4c0c28a0", "wave-ablation-pure-s1-27814821",
    "wave-ablation-baseline-s2-b18690d7", "wave-ablation-standard-s2-433860da",
    "wave-ablation-standard-matched-s2-2c16ba25", "wave-ablation-rgd-s2-483398fd",
    "wave-ablation-adamw-matched-s2-3f0b7a41", "wave-ablation-qfe-s2-028b9371",
    "wave-ablation-full-s2-b5506119", "wave-ablation-pure-s2-8ded3492",
    "wave-ablation-baseline-s3-8d9e7665", "wave-ablation-standard-s3-398680d7",
    "wave-ablation-standard-matched-s3-11103500", "wave-ablation-rgd-s3-954be83d",
    "wave-ablation-adamw-matched-s3-fd734b0a", "wave-ablation-qfe-s3-04fca2ba",
    "wave-ablation-full-s3-fd3fbd04", "wave-ablation-pure-s3-0b378dd6",
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "ids"), [("quickstart", QUICKSTART), ("wave-ablation", WAVE_ABLATION)]
)
def test_ids_stay_what_they_were_when_the_first_studies_were_frozen(
    tmp_path: Path, recipe: str, ids: tuple[str, ...]
) -> None:
    assert tuple(run.run_id for run in plan_study(recipe, root=tmp_path).runs) == ids


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=40).filter(
    lambda name: name[0] not in "-_"
)


@settings(max_examples=25)
@given(
    study=st.text("aZ9 _-é中'\"", min_size=1, max_size=60).filter(
        lambda name: refusal(name) is None
    ),
    arms=st.lists(names, min_size=2, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
    values=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=2, unique=True),
)
@pytest.mark.slow
def test_ids_are_unique_and_fit_into_a_folders_name(
    study: str, arms: list[str], seeds: list[int], values: list[float]
) -> None:
    text = json.dumps(
        {
            "name": study,
            "workload": "fakes:Regression",
            "study": {
                "question": "?",
                "arms": {arm: {"batch": n + 1} for n, arm in enumerate(arms)},
                "seeds": seeds,
                "grid": {"train.optimizer.lr": values},
            },
        },
        ensure_ascii=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(text)
        runs = plan_study(path, root=Path(folder)).runs
    ids = [run.run_id for run in runs]
    assert len(set(ids)) == len(ids) == len(arms) * len(seeds) * len(values)
    assert [refusal(run_id) for run_id in ids] == [None] * len(ids)


# ---- what is refused ---------------------------------------------------------------------------


def test_a_recipe_that_is_no_study_says_what_to_type(plan: Planner) -> None:
    with pytest.raises(UsageError, match=r"is one run and no study; type: cupel run \S+sine.yaml"):
        plan(recipe="workload: fakes:Regression\n")


def test_running_a_study_as_one_run_says_what_to_type(plan: Planner, tmp_path: Path) -> None:
    plan()
    path = tmp_path / "sine.yaml"
    with pytest.raises(
        UsageError, match="is a study of 4 runs, not one run; type: cupel study run"
    ):
        load(path)
    with pytest.raises(UsageError, match="is a study of 12 runs"):
        load(path, ["study.grid.batch=[1,2,3]"])
    with pytest.raises(UsageError, match="is a study, not one run"):
        load(path, ["study.seeds=null"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("study.seeds=[1,2,1]", "study.seeds: 1 is there more than once"),
        ("study.seeds=[-1]", "study.seeds: -1 is out of range; a seed is 0 to 2**63 - 1"),
        ("study.seeds=[true]", "study.seeds: true and false are not numbers"),
        ("study.seeds=[]", "study.seeds: there are none; give one or more, as [1, 2, 3]"),
        ("study.seeds=[1.5]", "study.seeds: 1.5 is not a whole number"),
        ("study.seeds=[a]", "study.seeds: 'a' is not a whole number"),
        ("study.arms={}", "'study.arms={}' takes no arm away"),
        ("study={arms: {}, seeds: [1]}", "takes no arm away"),
        ("study.grid={}", "'study.grid={}' takes no axis away"),
        ("study.seeds=3", "study.seeds: 3 is not a list"),
        ("seed=3", "seed: a study has several; type study.seeds=[1, 2, 3]"),
        ("study.compare.baseline=plian", "did you mean 'plain'?"),
        ("study.arms.Plain.batch=2", "'Plain' cannot be an arm's name"),
        ("study.arms.drop.seed=2", "study.arms.drop.seed: the seeds of all arms are study.seeds"),
        ("study.arms.drop.project=x", "study.arms.drop.project: it belongs to the study"),
        ("study.arms.drop.extends=x", "it extends no recipe"),
        ("study.arms.drop=5", "study.arms.drop: 5 is not a mapping"),
        ("study.arms.drop.dropuot=0.1", "dropuot: no such setting; did you mean 'dropout'?"),
        ("study.arms.drop.dropout=2", "dropout: 2 is out of range; it must be below 1"),
        ("study.grid.train.stpes=[1]", "train.stpes: no such setting; did you mean 'steps'?"),
        ("study.grid.train.steps=[]", "study.grid.train.steps: has no values"),
        ("study.grid.train.steps=5", "study.grid.train.steps: 5 is not a list"),
        ("study.grid.train.steps=[5,7,5.0]", "study.grid.train.steps: 5.0 is there more than once"),
        ("study.grid.train=[{steps: 5}, {steps: 5}]", "{steps: 5} is there more than once"),
        ("study.grid.seed=[1]", "study.grid.seed: the seeds of all arms are study.seeds"),
        ("study.quesiton=x", "study.quesiton: no such setting; did you mean 'question'?"),
        ("study.compare.correction=holm", "correction is holm, but kind is interval"),
        ("study.arms.drop.dropout=???", "study.arms.drop.dropout must be given"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_origin(
    plan: Planner, override: str, told: str
) -> None:
    (problem,) = refused(plan, override)
    assert problem.startswith("command line: "), problem
    assert told in problem


def test_a_mistake_in_the_base_is_told_once_and_those_of_all_arms_together(plan: Planner) -> None:
    recipe = RECIPE.replace("steps: 40", "steps: 0").replace("dropout: 0.5", "dropuot: 0.5")
    problems = refused(plan, recipe=recipe)
    assert problems == [
        "sine.yaml:2: train.steps: 0 is out of range; it must be 1 or more",
        "sine.yaml:7: dropuot: no such setting; did you mean 'dropout'?",
    ]


@pytest.mark.parametrize("last", ["study.arms.more.batch=2", "study.arms={more: {}}"])
def test_arms_cannot_be_taken_away_by_typing_them_anew(plan: Planner, last: str) -> None:
    (problem,) = refused(plan, "study.arms={}", last)
    assert "takes no arm away" in problem


def test_a_study_without_arms_is_told_so(plan: Planner) -> None:
    recipe = "workload: fakes:Regression\nstudy: {question: '?', arms: {}}\n"
    assert refused(plan, recipe=recipe) == [
        "sine.yaml:2: study: there are no arms; write one or more, as arms: {plain: {}}"
    ]


def test_an_axis_of_the_grid_is_not_typed_like_a_setting(plan: Planner) -> None:
    grid = "study.grid.train.optimizer.lr=[1e-3]"
    (problem,) = refused(plan, grid, "train.optimizer.lr=5e-3")
    assert problem.endswith("type study.grid.train.optimizer.lr=[…]")


@pytest.mark.parametrize(
    "overrides",
    [
        ["study.arms.drop.dropout=0.0"],
        ["dropout=0.3"],
        ["study.arms.twin.dropout=0.5"],
        ["study.grid.figures.every=[5,6]"],
    ],
)
def test_arms_with_equal_settings_are_refused_by_name(plan: Planner, overrides: list[str]) -> None:
    with pytest.raises(UsageError, match=r"the arms \S+.* and \S+.* have equal settings"):
        plan(*overrides)


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        plan_study("nosuch", root=tmp_path)


@pytest.mark.parametrize("override", ["study.arms.odd={train: 3}", "study.grid={train: [1]}"])
def test_a_section_that_is_no_section_is_refused(plan: Planner, override: str) -> None:
    assert any("train" in line for line in refused(plan, override))
