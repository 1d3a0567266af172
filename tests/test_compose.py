"""Composition of recipes: what extends what, groups, overrides, and what each mistake says."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel import compose as composing
from cupel.compose import compose, find_recipe
from cupel.errors import RecipeError, UnknownName


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and shipped recipes apart from it."""
    (tmp_path / "work/recipes").mkdir(parents=True)
    (tmp_path / "shipped").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(composing, "shipped_recipes", lambda: tmp_path / "shipped")
    return tmp_path / "work"


def write(path: str, text: str) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def problems_of(source: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        compose(source, overrides)
    return raised.value.problems


def origins_of(source: str, *overrides: str) -> dict[str, str]:
    leaves = compose(source, overrides).leaves()
    return {".".join(path): str(leaf.origin) for path, leaf in leaves}


def test_a_recipe_is_found_by_path_by_name_and_among_the_shipped() -> None:
    write("recipes/mine.yaml", "a: 1")
    write("elsewhere/other.yaml", "a: 2")
    write("../shipped/given.yaml", "a: 3")
    for source, value in [("mine", 1), ("elsewhere/other.yaml", 2), ("given", 3)]:
        assert compose(source).values()["a"] == value


def test_an_unknown_recipe_names_the_nearest() -> None:
    write("recipes/quickstart.yaml", "a: 1")
    with pytest.raises(UnknownName, match="did you mean 'quickstart'"):
        find_recipe("quikstart")
    with pytest.raises(UnknownName, match=r"did you mean 'recipes/quickstart\.yaml'"):
        find_recipe("recipes/quickstrt.yaml")
    with pytest.raises(UnknownName):
        find_recipe("x" * 5000)


def test_the_name_is_the_file_s_unless_the_recipe_gives_one() -> None:
    write("recipes/plain.yaml", "a: 1")
    write("recipes/named.yaml", "name: other")
    assert compose("plain").values()["name"] == "plain"
    assert compose("named").values()["name"] == "other"
    assert compose("named", ["name=third"]).values()["name"] == "third"


def test_a_recipe_overlays_what_it_extends_and_origins_tell_the_file() -> None:
    write("recipes/base.yaml", "train:\n  steps: 10\n  batch: 4\n")
    write("recipes/child.yaml", "extends: base\ntrain:\n  steps: 20\n")
    assert compose("child").values() == {"name": "child", "train": {"steps": 20, "batch": 4}}
    assert origins_of("child", "train.batch=8") == {
        "name": "default",
        "train.steps": "recipes/child.yaml:3",
        "train.batch": "command line",
    }
    assert origins_of("child")["train.batch"] == "recipes/base.yaml:3"


def test_of_several_extended_files_the_last_lies_uppermost() -> None:
    write("recipes/a.yaml", "x: {one: 1, two: 1}")
    write("recipes/b.yaml", "x: {two: 2}")
    write("recipes/c.yaml", "extends: [a, b.yaml]\ny: 3")
    assert compose("c").values() == {"name": "c", "x": {"one": 1, "two": 2}, "y": 3}


def test_a_recipe_may_extend_the_shipped_one_of_its_own_name() -> None:
    write("../shipped/gpt.yaml", "a: 1\nb: 1")
    write("recipes/gpt.yaml", "extends: gpt\nb: 2")
    assert compose("gpt").values() == {"name": "gpt", "a": 1, "b": 2}


def test_a_circle_of_extends_is_named() -> None:
    write("recipes/a.yaml", "extends: b")
    write("recipes/b.yaml", "\nextends: a")
    (problem,) = problems_of("a")
    assert problem.startswith("recipes/b.yaml:2: extends goes in a circle: recipes/a.yaml -> ")
    assert problem.endswith("recipes/b.yaml -> recipes/a.yaml")


def test_a_group_replaces_the_section_and_can_be_changed() -> None:
    write("recipes/model/small.yaml", "layers: 2\nwidth: 8\n")
    write("../shipped/model/large.yaml", "extends: small\nlayers: 20\n")
    write("../shipped/model/small.yaml", "layers: 2\nheads: 1\n")
    write("recipes/base.yaml", "model: {layers: 1, tied: true}")
    write("recipes/group.yaml", "extends: base\nmodel: small")
    write("recipes/changed.yaml", "extends: base\nmodel: {extends: small, width: 9}")
    write("recipes/merged.yaml", "extends: base\nmodel: {width: 9}")
    write("recipes/shipped.yaml", "model: large")
    models = {name: compose(name).values()["model"] for name in ("group", "changed", "merged")}
    assert models == {
        "group": {"layers": 2, "width": 8},
        "changed": {"layers": 2, "width": 9},
        "merged": {"layers": 1, "tied": True, "width": 9},
    }
    assert compose("shipped").values()["model"] == {"layers": 20, "heads": 1}
    assert origins_of("changed")["model.layers"] == "recipes/model/small.yaml:1"


def test_a_group_in_an_upper_file_replaces_the_section_of_its_neighbour() -> None:
    write("recipes/model/small.yaml", "layers: 2")
    write("recipes/a.yaml", "model: {tied: true}")
    write("recipes/b.yaml", "model: small")
    write("recipes/c.yaml", "extends: [a, b]\nmodel: {width: 3}")
    assert compose("c").values()["model"] == {"layers": 2, "width": 3}


def test_an_unknown_group_names_the_nearest_and_the_file_it_would_be() -> None:
    write("recipes/model/small.yaml", "layers: 2")
    write("recipes/a.yaml", "about: x\nmodel: smal")
    (problem,) = problems_of("a")
    assert problem.startswith("recipes/a.yaml:2: no model group is called 'smal'")
    assert "did you mean 'small'?" in problem
    assert "recipes/model/smal.yaml" in problem


def test_plain_top_level_texts_and_off_name_no_group() -> None:
    write("recipes/a.yaml", "about: text\nworkload: gpt\nproject: p\nmonitors: off\ndata: ???")
    assert compose("a").values() == {
        "name": "a",
        "about": "text",
        "workload": "gpt",
        "project": "p",
        "monitors": "off",
        "data": "???",
    }


def test_overrides_mean_the_same_in_any_order() -> None:
    write("recipes/model/small.yaml", "layers: 2\ndropout: 0.0")
    write("recipes/a.yaml", "model: {width: 4}\ntrain: {optimizer: {kind: adamw, betas: [0, 1]}}")
    overrides = [
        "model=small",
        "model.dropout=0.2",
        "train.optimizer.kind=sgd",
        "train.optimizer.lr=1e-3",
    ]
    for order in itertools.permutations(overrides):
        assert compose("a", order).values() == {
            "name": "a",
            "model": {"layers": 2, "dropout": 0.2},
            "train": {"optimizer": {"kind": "sgd", "lr": 0.001}},
        }


def test_overrides_are_yaml() -> None:
    write("recipes/a.yaml", "a: {b: 1}")
    given = ["a.c=[1, x]", "a.d={e: null}", "a.f=2e3", "a.g=a=b", "monitors={p.q:R: {every: 5}}"]
    values = compose("a", given).values()
    assert values["a"] == {"b": 1, "c": [1, "x"], "d": {"e": None}, "f": 2000.0, "g": "a=b"}
    assert values["monitors"] == {"p.q:R": {"every": 5}}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.steps", "type name=value or section.name=value"),
        ("=3", "type name=value"),
        ("train..steps=3", "type name=value"),
        ("train.steps=", "type train.steps=VALUE, or train.steps=null for none"),
        ("train.steps= ", "type train.steps=VALUE"),
        ("train.steps=[1", "'train.steps=[1': "),
        ("data.path=@x", "'data.path=@x': "),
    ],
)
def test_an_override_that_is_none_says_what_to_type(override: str, says: str) -> None:
    write("recipes/a.yaml", "a: 1")
    (problem,) = problems_of("a", override)
    assert problem.startswith("command line: ")
    assert says in problem


def test_all_that_cannot_be_read_is_told_together_and_in_order() -> None:
    write("recipes/base.yaml", "a: 2020-01-01\nb: .nan\n")
    write("recipes/a.yaml", "extends: [base, absent]\nmodel: absent\ntrain.steps: 3\n")
    problems = problems_of("a", "x", "y=")
    starts = ["command line: 'x'", "command line: 'y='"]
    starts += ["recipes/a.yaml:1: ", "recipes/a.yaml:2: ", "recipes/a.yaml:3: 'train.steps'"]
    starts += ["recipes/base.yaml:1: ", "recipes/base.yaml:2: "]
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize("text", ["extends: {a: 1}", "extends: 3", "extends: []", "extends: [1]"])
def test_extends_takes_names(text: str) -> None:
    write("recipes/a.yaml", text)
    assert problems_of("a") == [
        "recipes/a.yaml:1: extends takes a name, or a list of names: [a, b]"
    ]


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(st.sampled_from("extnds: [a]{}.,-\n'\"?&*!/\\0ab=~\t"), max_size=60),
    st.text(st.sampled_from("a.b=[]{}:'\"\\0*&!~ "), max_size=12),
)
@pytest.mark.slow
def test_garbage_composes_or_raises_recipe_error_and_does_so_twice(text: str, over: str) -> None:
    def outcome() -> object:
        try:
            return compose("recipes/a.yaml", [over])
        except RecipeError as error:
            return error.problems

    write("recipes/a.yaml", text)
    result = outcome()
    assert result == outcome()
    if isinstance(result, list):
        assert all(line.startswith(("recipes/a.yaml", "command line: ")) for line in result)
