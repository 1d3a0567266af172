"""The recipes that cupel ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.compose import compose, recipe_folders, shipped_recipes
from cupel.config import load
from cupel.studies.spec import is_study, plan_study

RECIPES = Path(__file__).parents[1] / "recipes"


EVERY = sorted(RECIPES.glob("*.yaml"))
STUDIES = {path for path in EVERY if is_study(compose(path))}


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_says_what_it_is_for(path: Path) -> None:
    recipe = plan_study(path, root=Path("runs")) if path in STUDIES else load(path)
    assert recipe.name == path.stem
    assert len(recipe.about) > 20


def test_the_wave_ablation_holds_all_but_its_question_equal() -> None:
    manifest = plan_study(RECIPES / "wave-ablation.yaml", root=Path("runs"))
    arms = {cell.arm: cell.config for cell in manifest.cells}
    assert len(arms) == len(manifest.cells) == 8
    for config in arms.values():
        assert config["data"] == arms["baseline"]["data"]
        assert config["model"]["block"] == arms["baseline"]["model"]["block"]
        optimizer, plain = config["train"]["optimizer"], arms["baseline"]["train"]["optimizer"]
        assert optimizer["betas"] == plain["betas"]
        assert optimizer["weight_decay"] == plain["weight_decay"]
        left = {name: value for name, value in config["train"].items() if name != "optimizer"}
        assert left == {n: v for n, v in arms["baseline"]["train"].items() if n != "optimizer"}
    rates = {arm: config["train"]["optimizer"]["lr"] for arm, config in arms.items()}
    assert rates.pop("adamw-matched") < rates["baseline"]
    assert set(rates.values()) == {1e-3}


def test_the_matched_standard_model_has_as_many_parameters_as_the_wave_model() -> None:
    import torch

    from cupel import registry

    manifest = plan_study(RECIPES / "wave-ablation.yaml", root=Path("runs"))
    counts = {}
    for cell in manifest.cells:
        values = {**cell.config["model"], "vocabulary": 256}
        settings = registry.settings_of("model", values["kind"]).model_validate(values)
        with torch.device("meta"):
            model = registry.resolve("model", values["kind"])(settings)
        counts[cell.arm] = sum(p.numel() for p in model.parameters())
    assert counts["baseline"] == 942_245
    assert counts["standard-matched"] == pytest.approx(counts["baseline"], rel=0.002)
    assert counts["standard"] == 867_072


def test_the_recipes_of_the_checkout_are_the_shipped_ones() -> None:
    assert shipped_recipes() == RECIPES
    assert RECIPES in [folder.resolve() for folder in recipe_folders()]


def test_the_small_model_is_the_size_of_the_wave_study() -> None:
    import torch

    from cupel.models.gpt.model import GPT
    from cupel.models.gpt.settings import GPTModelSettings

    settings = load("gpt-tiny", ["model=small", "model.vocabulary=50257"]).workload_settings
    model_settings = settings.model  # type: ignore[attr-defined]
    assert isinstance(model_settings, GPTModelSettings)
    with torch.device("meta"):
        model = GPT(model_settings)
    assert sum(p.numel() for p in model.parameters()) == 52_892_160


def test_identity_is_the_same_wherever_the_cache_lies() -> None:
    assert load("gpt-tiny", ["data.cache=/x"]).identity() == load("gpt-tiny").identity()
    assert load("gpt-tiny", ["data.val_batch=3"]).identity() != load("gpt-tiny").identity()


def test_the_loss_slope_smoke_has_the_arms_points_and_seeds_of_the_whole_study() -> None:
    manifest = plan_study(RECIPES / "loss-slope-smoke.yaml", root=Path("runs"))
    assert (len(manifest.cells), len(manifest.runs)) == (36, 216)
    points = {(lr, decay) for lr in (0.05, 0.1, 0.2) for decay in (1e-4, 1e-3, 1e-2)}
    arms = {
        "base": {},
        "bn_off": {"model.norm": "none", "train.clip": 1.0},
        "narrow": {"model.width_multiplier": 0.5},
        "adamw": {"train.optimizer.kind": "adamw", "train.optimizer.betas": [0.9, 0.999]},
    }
    found = set()
    for cell in manifest.cells:
        optimizer = cell.config["train"]["optimizer"]
        point = (optimizer["lr"], optimizer["weight_decay"])
        found.add((cell.arm, point))
        axes = dict(zip(manifest.study.grid, point, strict=True))
        assert cell.changes == {**arms[cell.arm], **axes}
        assert optimizer["kind"] == ("adamw" if cell.arm == "adamw" else "sgd")
        assert cell.config["train"]["clip"] == (1.0 if cell.arm == "bn_off" else None)
    assert found == {(arm, point) for arm in arms for point in points}


def test_priorities_of_the_loss_slope_smoke_put_the_middle_of_the_grid_first() -> None:
    study = plan_study(RECIPES / "loss-slope-smoke.yaml", root=Path("runs")).study
    assert {rule.where: rule.add for rule in study.priorities} == {
        "train.optimizer.lr=0.1": 50,
        "train.optimizer.weight_decay=1e-4": 25,
        "seed=0": 10,
    }
