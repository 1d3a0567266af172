"""Levels, cycles, the longest chain and closures, in an order that is that of ids."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.notes.graph import Graph, Node, graph_of
from cupel.notes.ids import order, ordered, slug
from papers import LASSO, RIDGE, changed, notes_of, papers


def graph(**needs: str) -> Graph:
    """A graph of letters: `b="a"` says that b needs a."""
    names = sorted({*needs, *"".join(needs.values())})
    return Graph(
        "equations",
        {name: Node(name, name, "p.v1") for name in names},
        {name: tuple(sorted(needs.get(name, ""))) for name in names},
    )


def test_levels_follow_the_longest_way() -> None:
    assert graph(b="a", c="ab", d="a").levels() == [["a"], ["b", "d"], ["c"]]


def test_the_longest_chain_is_found_and_of_equals_the_first() -> None:
    assert graph(b="a", c="b", d="a", e="d").longest() == ["a", "b", "c"]
    assert graph().longest() == []


def test_a_circle_is_told_whole_once_from_its_first_member() -> None:
    assert graph(a="c", b="a", c="b", d="a").cycles() == [["a", "c", "b", "a"]]
    assert graph(a="a").cycles() == [["a", "a"]]
    assert graph(b="a").cycles() == []


def test_what_is_in_a_circle_shares_a_level() -> None:
    assert graph(a="b", b="a", c="b").levels() == [["a", "b"], ["c"]]


def test_closures_go_both_ways() -> None:
    one = graph(b="a", c="b", d="a")
    assert one.required(["c"]) == ["a", "b", "c"]
    assert one.reached(["b"]) == ["b", "c"]


def test_the_graph_of_notes_goes_across_papers() -> None:
    found = graph_of(papers())
    assert found.needs["lasso.v2:eq3"] == ("ridge.v1:eq2",)
    assert found.needs["ridge.v1:alg1"] == ("ridge.v1:eq1", "ridge.v1:eq2", "ridge.v1:eq3")
    assert found.longest() == ["ridge.v1:eq1", "ridge.v1:eq2", "lasso.v2:eq3", "lasso.v2:eq4"]
    modules = graph_of(papers(), "modules")
    assert modules.needs["lasso.v2:shrink"] == ("ridge.v1:memory",)
    assert graph_of(papers(), "papers").needs == {"lasso.v2": ("ridge.v1",), "ridge.v1": ()}


def test_the_order_of_files_makes_no_difference() -> None:
    for kind in ("equations", "papers", "modules"):
        one = graph_of(notes_of(RIDGE, LASSO).papers, kind)
        other = graph_of(tuple(reversed(papers())), kind)
        assert one == other
        assert list(one.nodes) == list(other.nodes)


def test_what_is_not_there_is_left_out() -> None:
    text = changed("- Requires: eq1, eq2\n", "- Requires: eq1, eq7\n")
    assert graph_of(notes_of(text).papers).needs["ridge.v1:eq4"] == ("ridge.v1:eq1",)


def test_ids_are_in_the_order_of_their_numbers() -> None:
    assert ordered({"a.v1:eq10", "a.v1:eq9", "a.v1:eq71b", "a.v1:eq71", "a.v1:alg2"}) == [
        "a.v1:alg2", "a.v1:eq9", "a.v1:eq10", "a.v1:eq71", "a.v1:eq71b"
    ]  # fmt: skip
    assert order("9" * 10_000) > order("8" * 10_000)


def test_a_slug_keeps_whole_words() -> None:
    assert slug("Momentary surprise (8)") == "momentary_surprise_8"
    assert slug("a" * 60) == "a" * 40
    assert slug("é") == "unnamed"
    assert slug("one two three", most=8) == "one_two"


EDGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


@given(EDGES)
@pytest.mark.slow
def test_levels_hold_every_node_once_and_below_what_needs_it(edges: list[tuple[int, int]]) -> None:
    needs: dict[str, str] = {}
    for a, b in edges:
        needs[str(a)] = needs.get(str(a), "") + str(b)
    found = graph(**{name: "".join(sorted(set(others))) for name, others in needs.items()})
    level = {name: n for n, names in enumerate(found.levels()) for name in names}
    assert level.keys() == found.nodes.keys()
    circles = [set(group) for group in found.groups() if len(group) > 1]
    for name, others in found.needs.items():
        for other in others:
            together = name == other or any({name, other} <= circle for circle in circles)
            assert level[other] == level[name] if together else level[other] < level[name]
    chain = found.longest()
    assert all(one in found.needs[other] for one, other in itertools.pairwise(chain))
    if not found.cycles():
        assert len(chain) == len(found.levels())


def test_a_chain_of_thousands_is_no_trouble() -> None:
    names = [f"n{number}" for number in range(5000)]
    found = Graph(
        "equations",
        {name: Node(name, name, "p.v1") for name in names},
        {name: (names[n - 1],) if n else () for n, name in enumerate(names)},
    )
    assert len(found.levels()) == 5000
