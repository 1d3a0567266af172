"""The family of exceptions: its drawing is true, and its messages say what to type."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel import errors
from cupel.errors import CupelError, MissingDependency, RecipeError, UnknownName, UsageError


def drawn_tree() -> dict[str, str | None]:
    """Each class of the docstring's drawing and the class that it hangs on."""
    parents: dict[str, str | None] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z][A-Za-z]+)(?:\s{2}|$)", line)
        if match:
            depth = len(match[1]) // 4
            parents[match[2]] = above.get(depth - 1)
            above[depth] = match[2]
    return parents


def family() -> list[type[CupelError]]:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in classes if issubclass(kind, CupelError)]


def test_the_tree_that_is_drawn_is_the_tree_of_classes() -> None:
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, CupelError)
    ]
    built = {c.__name__: c.__bases__[0].__name__ for c in classes if c is not CupelError}
    assert drawn_tree() == {"CupelError": None, **built}


def test_only_the_users_mistakes_exit_with_2() -> None:
    for kind in family():
        assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1), kind


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert errors.did_you_mean("adamv", ["sgd", "adamw"]) == "; did you mean 'adamw'?"
    assert errors.did_you_mean("quux", ["sgd", "adamw"]) == ""
    assert errors.did_you_mean("adamw", []) == ""


@given(st.text(), st.lists(st.text()))
def test_a_suggestion_is_always_one_of_the_known_names(name: str, known: list[str]) -> None:
    told = errors.did_you_mean(name, known)
    assert told == "" or told in {f"; did you mean '{one}'?" for one in known}


def test_an_unknown_name_lists_what_there_is() -> None:
    error = UnknownName("monitor", "norm", ["throughput", "norms"], hint="type another")
    assert str(error) == (
        "no monitor is called 'norm'; did you mean 'norms'? (there are: norms, throughput); "
        "type another"
    )
    assert "(there are: none)" in str(UnknownName("run", "x", []))
    many = str(UnknownName("run", "x", [f"run{i:02}" for i in range(20)]))
    assert "run11, …" in many
    assert "run12" not in many


def test_a_recipe_error_holds_a_line_for_each_problem() -> None:
    assert RecipeError("one").problems == ["one"]
    assert str(RecipeError(["one", "two"])) == "one\ntwo"
    with pytest.raises(AssertionError, match="at least one problem"):
        RecipeError([])


def test_a_missing_package_comes_with_the_command_that_installs_it() -> None:
    error = MissingDependency("torch", extra="train", purpose="training")
    assert "training needs the package 'torch'" in str(error)
    assert str(error).endswith("type: pip install 'cupel[train]'")
