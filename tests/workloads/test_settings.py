"""What a GPT recipe's sections say of each other is checked with the recipe, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cupel.config import load
from cupel.errors import RecipeError
from cupel.workloads.settings import GPTSettings

PHYSICS = "model.embedding=physics"


def refused(recipe: str | Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(recipe, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides, told",
    [
        (
            [PHYSICS, "model.harmonics=8"],
            "model: harmonics is 8, but embedding is physics, whose harmonics are half of width; "
            "set harmonics: 4 (the default), or embedding: packet",
        ),
        (
            [PHYSICS, "objective={kind: coherence, harmonic_deviation: 0.2}"],
            "objective: harmonic_deviation is 0.2, but amplitudes of embedding: physics are 1/n "
            "and not learned; set harmonic_deviation: 0, or leave it out",
        ),
        (
            ["model=tiny", "objective={kind: coherence}"],
            "objective: kind: coherence measures waves, and model.kind=gpt has none; type "
            "model=wave-tiny or objective.kind=cross_entropy",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_in_one_line(overrides: list[str], told: str) -> None:
    assert refused("wave-tiny", *overrides).endswith(f": {told}")


def test_the_refusal_names_file_and_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: gpt-tiny\nobjective: {kind: coherence}\n")
    assert refused(recipe).startswith(f"{recipe}:2: objective: ")


def test_an_arm_that_switches_the_embedding_says_no_more_than_that() -> None:
    for overrides in ([], ["objective={kind: coherence}"], ["objective={kind: qfe}"]):
        assert load("wave-tiny", [PHYSICS, *overrides]).settings
    off = "objective={kind: coherence, harmonic_deviation: 0}"
    assert load("wave-tiny", [PHYSICS, off]).settings


def test_an_arm_that_switches_the_embedding_of_other_harmonics_can_take_the_default(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: wave-tiny\nmodel: {harmonics: 8, embedding: physics}\n")
    assert "harmonics is 8" in refused(recipe)
    assert load(recipe, ["model.harmonics=4"]).settings


def test_a_wrong_model_is_told_alone() -> None:
    """The objective is not held against settings that are none."""
    overrides = ["model.waves=none", "objective={kind: coherence, harmonic_deviation: 0.2}"]
    assert "model.waves" in refused("wave-tiny", *overrides)


def test_an_objective_of_ones_own_may_refuse_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_objective.py").write_text(
        "from typing import Any, Literal\n"
        "from cupel.config import Settings\n"
        "class Narrow:\n"
        "    class Settings(Settings):\n"
        "        kind: Literal['own_objective:Narrow'] = 'own_objective:Narrow'\n"
        "        def check_model(self, model: Any) -> None:\n"
        "            if model.width > 64:\n"
        "                raise ValueError(f'width is {model.width}; type model.width=64')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["objective={kind: own_objective:Narrow}"]
    assert refused("gpt-tiny", *overrides).endswith("objective: width is 128; type model.width=64")
    assert load("gpt-tiny", [*overrides, "model.width=64"]).settings


def test_the_settings_alone_refuse_as_the_recipe_does() -> None:
    values = {"model": {"kind": "gpt"}, "objective": {"kind": "coherence"}}
    with pytest.raises(ValueError, match="measures waves"):
        GPTSettings.model_validate(values)


@pytest.mark.slow
def test_the_refusal_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from cupel.config import load\n"
        "from cupel.errors import RecipeError\n"
        "try:\n"
        "    load('gpt-tiny', ['objective={kind: coherence}'])\n"
        "except RecipeError:\n"
        "    sys.exit('torch' in sys.modules)\n"
        "sys.exit(2)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- models of the other workload --------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe, kind, told",
    [
        (
            "gpt-tiny",
            "resnet",
            "model: kind: resnet does not read tokens, which workload gpt gives (its settings have "
            "no block and no vocabulary); set kind: gpt, or your own",
        ),
        (
            "digits",
            "wave",
            "model: kind: wave does not read images, which workload images gives (its settings "
            "have no channels_in and no classes); set kind: resnet, or your own",
        ),
    ],
)
def test_a_model_that_cannot_read_the_data_is_refused_in_one_line(
    recipe: str, kind: str, told: str
) -> None:
    assert refused(recipe, f"model={{kind: {kind}}}").endswith(f": {told}")
