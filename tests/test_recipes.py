"""The recipes that cupel ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.compose import recipe_folders, shipped_recipes
from cupel.config import load

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_says_what_it_is_for(path: Path) -> None:
    recipe = load(path)
    assert recipe.name == path.stem
    assert len(recipe.about) > 20


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
