"""A graph is drawn in every format, the same whatever the order of files, whatever the names."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from cupel.notes.drawn import as_data, as_dot, as_mermaid, as_text
from cupel.notes.graph import Graph, Node, graph_of
from cupel.notes.svg import as_svg
from papers import LASSO, RIDGE, notes_of, papers

DRAWN = [as_text, as_mermaid, as_dot, as_svg, lambda graph: json.dumps(as_data(graph))]


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("kind", ["equations", "papers", "modules"])
def test_equal_notes_give_equal_bytes(draw, kind: str) -> None:  # type: ignore[no-untyped-def]
    one = draw(graph_of(notes_of(RIDGE, LASSO).papers, kind))
    assert one == draw(graph_of(tuple(reversed(papers())), kind))


def test_text_shows_levels_needs_and_the_chain() -> None:
    lines = as_text(graph_of(papers())).split("\n")
    assert lines[0] == "7 equations in 4 levels"
    assert "* ridge.v1:eq1   Loss" in lines
    assert "  ridge.v1:alg1  One pass             needs eq1, eq2, eq3" in lines
    assert "* lasso.v2:eq3   Shrinking            needs ridge.v1:eq2" in lines
    assert "* lasso.v2:eq4   Where it comes from  context; needs eq3" in lines
    assert lines[-2] == (
        "longest chain, 4: ridge.v1:eq1 → ridge.v1:eq2 → lasso.v2:eq3 → lasso.v2:eq4"
    )


def test_mermaid_and_dot_have_a_node_and_an_edge_for_each() -> None:
    graph = graph_of(papers())
    edges = sum(map(len, graph.needs.values()))
    mermaid, dot = as_mermaid(graph), as_dot(graph)
    assert mermaid.count("-->") + mermaid.count("==>") == edges == dot.count(" -> ")
    assert mermaid.count("==>") == 3
    assert all(f'"{name}" [label=' in dot for name in graph.nodes)
    assert 'ridge_v1_eq2["eq2 Step with decay"]' in mermaid
    assert 'lasso_v2_eq4(["eq4 Where it comes from"])' in mermaid


def test_the_image_is_xml_with_a_box_for_each() -> None:
    graph = graph_of(papers())
    root = ET.fromstring(as_svg(graph))
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{name}g")) == len(graph.nodes)
    assert len(root.findall(f"{name}path")) >= sum(map(len, graph.needs.values()))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter(f"{name}rect"):
        assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
        assert 0 <= float(box.attrib["y"]) <= height - float(box.attrib["height"])


def test_no_line_of_the_image_goes_through_a_box() -> None:
    names = [f"p.v1:eq{number}" for number in range(12)]
    graph = Graph(
        "equations",
        {name: Node(name, name, "p.v1") for name in names},
        {name: tuple(names[max(0, n - 7) : n : 2]) for n, name in enumerate(names)},
    )
    root = ET.fromstring(as_svg(graph))
    name = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        for box in root.iter(f"{name}rect")
    ]
    lanes = [path.attrib["d"] for path in root.iter(f"{name}path") if "H" in path.attrib["d"]]
    assert lanes
    for lane in lanes:
        x, y = map(float, lane[1:].partition("H")[0].split())
        assert not any(left == x and top <= y <= top + h for left, top, _, h in boxes)


@pytest.mark.parametrize("needs", [{"a": "b", "b": "a"}, {"a": "a"}])
def test_circles_are_drawn_all_the_same(needs: dict[str, str]) -> None:
    graph = Graph(
        "modules",
        {name: Node(name, name, "p.v1") for name in needs},
        {name: tuple(others) for name, others in needs.items()},
    )
    for draw in (as_svg, as_text, as_mermaid, as_dot):
        assert draw(graph)


def test_names_that_are_signs_elsewhere_break_nothing() -> None:
    label = '<b>"a" & \\b #1 \x00 | [x]</b>' + "long " * 40
    graph = Graph("equations", {"p.v1:eq1": Node("p.v1:eq1", label, "p.v1")}, {"p.v1:eq1": ()})
    ET.fromstring(as_svg(graph))
    assert "#lt;b#gt;#quot;a#quot;" in as_mermaid(graph)
    assert '\\"a\\" & \\\\b' in as_dot(graph)


def test_nothing_is_drawn_as_nothing() -> None:
    empty = graph_of(())
    assert as_text(empty).startswith("0 equations in 0 levels")
    ET.fromstring(as_svg(empty))
    assert as_data(empty)["levels"] == []
