"""Trees with origins: what an overlay keeps, and that any YAML gives nodes or problems."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.origins import Branch, Leaf, Node, Origin, Problem, Reader, overlay, placed, planted

quick = settings(max_examples=50, deadline=None)
names = st.sampled_from(["a", "b", "c", "kind"])
leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y"])
mappings = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner), max_leaves=6)
)
LOWER, UPPER = Origin("lower"), Origin("upper")


def read(text: str) -> tuple[Node | None, list[Problem]]:
    reader = Reader(Origin("x.yaml"))
    return reader.read(text), reader.problems


def values_of(text: str) -> Any:
    node, problems = read(text)
    assert not problems
    assert node is not None
    return node.values() if isinstance(node, Branch) else node.value


@quick
@given(mappings, mappings)
def test_overlaid_values_win_and_keep_their_origin(below: Any, above: Any) -> None:
    merged = overlay(planted(below, LOWER), planted(above, UPPER))
    for path, leaf in planted(above, UPPER).leaves():
        _, found = merged.nearest(path)
        assert isinstance(found, Leaf)
        assert (found.value, found.origin) == (leaf.value, UPPER)


@quick
@given(mappings, mappings)
@pytest.mark.slow
def test_every_value_comes_from_one_of_the_two_and_says_from_which(below: Any, above: Any) -> None:
    sources = {LOWER: planted(below, LOWER), UPPER: planted(above, UPPER)}
    for path, leaf in overlay(sources[LOWER], sources[UPPER]).leaves():
        assert (path, leaf) in list(sources[leaf.origin].leaves())


@quick
@given(mappings, mappings)
def test_an_overlay_changes_neither_of_its_trees(below: Any, above: Any) -> None:
    trees = planted(below, LOWER), planted(above, UPPER)
    before = copy.deepcopy(trees)
    overlay(*trees)
    assert trees == before


@quick
@given(mappings)
def test_laying_a_tree_over_itself_or_over_nothing_changes_nothing(values: Any) -> None:
    tree = planted(values, LOWER)
    assert overlay(tree, tree).values() == overlay(planted({}, LOWER), tree).values() == values


def test_another_kind_forgets_the_old_branch_and_the_same_kind_keeps_it() -> None:
    below = planted({"optimizer": {"kind": "adamw", "lr": 1, "betas": [0, 1]}}, LOWER)
    other = overlay(below, planted({"optimizer": {"kind": "sgd"}}, UPPER))
    same = overlay(below, planted({"optimizer": {"kind": "adamw", "lr": 2}}, UPPER))
    assert other.values() == {"optimizer": {"kind": "sgd"}}
    assert same.values() == {"optimizer": {"kind": "adamw", "lr": 2, "betas": [0, 1]}}


def test_lists_are_replaced_whole() -> None:
    merged = overlay(planted({"a": [1, 2, 3]}, LOWER), planted({"a": [4]}, UPPER))
    assert merged.values() == {"a": [4]}


def test_placed_builds_the_way_to_a_node() -> None:
    assert placed(("a", "b", "c"), Leaf(1, LOWER)).values() == {"a": {"b": {"c": 1}}}


def test_yaml_1_2_values_become_plain_python_values() -> None:
    text = "a: 1e-4\nb: 12\nc: off\nd: true\ne: null\nf: [1, {g: x}]\nh: &anchor true\ni: 0x10"
    values = values_of(text)
    assert values == {
        "a": 1e-4,
        "b": 12,
        "c": "off",
        "d": True,
        "e": None,
        "f": [1, {"g": "x"}],
        "h": True,
        "i": 16,
    }
    plain = [float, int, str, bool, type(None), list, bool, int]
    assert [type(value) for value in values.values()] == plain


def test_every_value_knows_its_line() -> None:
    node, _ = read("a: 1\n\nb:\n  c: 2\n  d: {e: 3,\n      f: 4}\n")
    assert isinstance(node, Branch)
    assert {".".join(path): leaf.origin.line for path, leaf in node.leaves()} == {
        "a": 1,
        "b.c": 4,
        "b.d.e": 5,
        "b.d.f": 6,
    }


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: [1,\n", 3, "expected the node content"),
        ("a: 1\nb: 2\na: 3\n", 3, 'duplicate key "a"'),
        ("a: 1\nb: 2020-01-01\n", 2, "put text in quotes"),
        ("a: 1\nb: .nan\n", 2, "finite number"),
        ("a: .inf\n", 1, "finite number"),
        ("a: 9223372036854775808\n", 1, "must lie between"),
        ("a: !secret x\n", 1, "put text in quotes"),
        ("a: !secret {b: 1}\n", 1, "tags"),
        ("a: !!set {b, c}\n", 1, "put text in quotes"),
        ("1: a\n", 1, "a name must be text"),
        ("? [a, b]\n: c\n", 1, "a name must be text"),
        ('"": 1\n', 1, "a name must be text"),
        ('a: "\\ud800"\n', 1, "put text in quotes"),
        ("a: &x {b: 1}\nc: *x\n", 2, "aliases"),
        ("a: &x [1]\nb: [*x]\n", 2, "aliases"),
        ("a: 1\n<<: {b: 2}\n", 0, "aliases"),
        ("a: *x\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: \x00\n", 0, "special characters"),
        ("a: 2020-13-01\n", 0, "month"),
        ("{a: " * 300 + "1" + "}" * 300, 0, "recursion"),
    ],
)
def test_what_is_not_plain_yaml_is_a_problem_with_its_line(text: str, line: int, says: str) -> None:
    _, (problem,) = read(text)
    assert problem.origin == Origin("x.yaml", line)
    assert says in problem.text
    assert "\n" not in problem.text


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab:[]{}-?&*!|>'\"%@`#,\n\t .01e~<=\\x\x85é"), max_size=40))
@pytest.mark.slow
def test_garbage_gives_a_plain_node_or_a_problem(text: str) -> None:
    node, problems = read(text)
    assert node is not None or problems
    assert all("\n" not in str(problem) for problem in problems)
    if isinstance(node, Branch) and not problems:
        assert json.loads(json.dumps(node.values(), allow_nan=False)) == node.values()


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=60))
def test_a_file_of_garbage_gives_a_mapping_or_a_problem(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.yaml"
    path.write_bytes(data)
    reader = Reader(Origin("garbage.yaml"))
    assert reader.read_file(path).children or reader.problems or data.strip() == b"{}"


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "folder.yaml").mkdir()
    says = {"latin": "UTF-8", "list": "no settings", "empty": "no settings", "absent": "cannot be"}
    for name, expected in {**says, "folder": "cannot be read"}.items():
        reader = Reader(Origin(name))
        assert reader.read_file(tmp_path / f"{name}.yaml").children == {}
        assert expected in str(reader.problems[0])
