"""`cupel recipe`: what its four commands print, and that mistakes go up as one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.testing
from click.testing import Result

from cupel import compose as composing
from cupel.cli.recipe import app
from cupel.errors import RecipeError, UnknownName

WORKLOAD = """
from pydantic import Field
from cupel.config import Settings

class Toy:
    class Settings(Settings):
        dim: int = Field(3, ge=1, description="a size")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a workload of one's own and two recipes; nothing shipped."""
    (tmp_path / "toy_workload.py").write_text(WORKLOAD)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "good.yaml").write_text("about: A toy\nworkload: 'toy_workload:Toy'\ndim: 5\n")
    (recipes / "bad.yaml").write_text("workload: 'toy_workload:Toy'\ndmi: 5\nseed: x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(composing, "shipped_recipes", lambda: tmp_path / "shipped")


def cupel_recipe(*arguments: str) -> Result:
    return typer.testing.CliRunner().invoke(app, arguments)


def test_list_shows_every_recipe_with_what_it_is_about() -> None:
    lines = cupel_recipe("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "bad", "good"]
    assert "A toy" in lines[2]
    assert lines[2].endswith("recipes/good.yaml")


def test_list_shows_a_recipe_that_cannot_be_read_with_the_reason() -> None:
    Path("recipes/odd.yaml").write_text("a: [\n")
    rows = json.loads(cupel_recipe("list", "--json").stdout)
    assert [row["name"] for row in rows] == ["bad", "good", "odd"]
    assert rows[2]["about"].startswith("recipes/odd.yaml:2: ")


def test_one_s_own_recipe_hides_the_shipped_one_of_its_name() -> None:
    Path("shipped").mkdir()
    for name in ("good", "given"):
        Path(f"shipped/{name}.yaml").write_text("about: shipped\nworkload: gpt\n")
    rows = json.loads(cupel_recipe("list", "--json").stdout)
    about = {row["name"]: row["about"] for row in rows}
    assert about == {"bad": "", "good": "A toy", "given": "shipped"}


def test_an_empty_folder_lists_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = cupel_recipe("list")
    assert (result.exit_code, result.stdout) == (0, "")


def test_show_prints_every_setting_with_its_value_and_origin() -> None:
    lines = cupel_recipe("show", "good", "seed=7").stdout.splitlines()
    shown = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines}
    assert shown["dim"].split() == ["5", "recipes/good.yaml:3"]
    assert shown["seed"].split() == ["7", "command", "line"]
    assert shown["train.steps"].split()[-1] == "default"


def test_show_as_json_holds_config_origins_and_identity() -> None:
    shown = json.loads(cupel_recipe("show", "good", "--json").stdout)
    assert shown["config"]["dim"] == 5
    assert shown["origins"]["dim"] == "recipes/good.yaml:3"
    assert len(shown["identity"]) == 64


def test_check_says_fine_or_raises_a_line_for_each_mistake() -> None:
    assert cupel_recipe("check", "good").stdout.startswith("good: fine (")
    result = cupel_recipe("check", "bad", "good", "dim=0")
    assert isinstance(result.exception, RecipeError)
    assert result.exception.exit_code == 2
    told = [" ".join(line.split()[:4]) for line in result.exception.problems]
    assert told == [
        "command line: dim: 0",
        "recipes/bad.yaml:2: dmi: no such",
        "recipes/bad.yaml:3: seed: 'x' is",
        "command line: dim: 0",
    ]


def test_check_as_json_tells_every_recipe_and_exits_with_2() -> None:
    result = cupel_recipe("check", "good", "bad", "absent", "--json")
    good, bad, absent = json.loads(result.stdout)
    assert result.exit_code == 2
    assert good["problems"] == []
    assert good["identity"]
    assert len(bad["problems"]) == 2
    assert "no recipe is called 'absent'" in absent["problems"][0]
    assert cupel_recipe("check", "good", "--json").exit_code == 0


def test_check_without_a_recipe_says_what_to_type() -> None:
    with pytest.raises(RecipeError, match="type cupel recipe check RECIPE"):
        raise cupel_recipe("check", "seed=3").exception or AssertionError("nothing was raised")


@pytest.mark.parametrize("command", [("show", "goood"), ("schema", "gptt")])
def test_an_unknown_name_goes_up_with_the_nearest(command: tuple[str, str]) -> None:
    assert isinstance(cupel_recipe(*command).exception, UnknownName)


def test_schema_prints_a_json_schema_with_descriptions() -> None:
    schema = json.loads(cupel_recipe("schema", "toy_workload:Toy").stdout)
    assert schema["properties"]["dim"]["anyOf"][0]["description"] == "a size"
    assert schema["properties"]["seed"]["minimum"] == 0


@pytest.mark.parametrize("command", ["list", "show", "check", "schema"])
def test_help_teaches_with_an_example(command: str) -> None:
    assert f"cupel recipe {command}" in cupel_recipe(command, "--help").stdout
