"""Notes are read whole, whatever way a file was saved, and any other text gives faults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.notes import graph
from cupel.notes.faults import Place
from cupel.notes.load import together
from cupel.notes.model import Criterion
from cupel.notes.reader import read
from cupel.notes.svg import as_svg
from papers import LASSO, RIDGE, changed, faults_of, notes_of, papers


def test_everything_in_sound_notes_is_read() -> None:
    lasso, ridge = papers()
    assert ridge.id == "ridge.v1"
    assert ridge.authors == ("Ada Example", "Bo Example")
    assert [e.id for e in ridge.equations] == [f"ridge.v1:eq{n}" for n in (1, 2, 3, 4)]
    step = ridge.equations[1]
    assert (step.name, step.location, step.confidence) == ("Step with decay", "section 2", "B")
    assert (step.module, step.requires, step.priority) == ("memory", ("ridge.v1:eq1",), "P0")
    assert step.latex is not None
    assert step.form is not None
    assert step.printed is None
    assert step.latex.at == Place("ridge.context.md", 73)
    assert step.words == "A part is forgotten, then the step is made."
    assert step.notes == "the gradient is that of the memory before it decays."
    assert [(s.name, s.type, s.shape) for s in step.symbols] == [
        ("alpha_t", "gate", "scalar"),
        ("theta_t", "gate", "scalar"),
    ]
    assert step.tests[0] == Criterion(
        "value", "of two steps by hand", Place("ridge.context.md", 90)
    )
    (algorithm,) = ridge.algorithms
    assert algorithm.steps[1].equations == ("ridge.v1:eq1", "ridge.v1:eq2")
    assert algorithm.steps[0].module == ""
    assert ridge.module("reader") is not None
    (ambiguity,) = ridge.ambiguities
    assert (ambiguity.options, ambiguity.chosen) == (("before", "after"), "before")
    assert ridge.checklist == ("the loss falls",)
    assert ridge.remarks[0].title == "Limits"
    assert lasso.builds_on == ("ridge.v1",)
    assert lasso.skipped[0].last == 2
    assert [e.is_main for e in lasso.equations] == [True, False]


def without_places(value: Any) -> Any:
    """A paper without lines, which white space may move."""
    if isinstance(value, Place):
        return None
    if dataclasses.is_dataclass(value):
        named = dataclasses.fields(value)
        return [(field.name, without_places(getattr(value, field.name))) for field in named]
    return [without_places(one) for one in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "   \n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(" | ", "\t|\t").replace("### Equation", "###\tEquation"),
        lambda text: "\n\n" + text,
    ],
    ids=["CRLF", "CR", "BOM", "trailing spaces", "no last newline", "tabs", "empty lines above"]
)  # fmt: skip
def test_how_a_file_was_saved_makes_no_difference(saved: Callable[[str], str]) -> None:
    reading = read(saved(RIDGE), "ridge.context.md")
    assert reading.faults == ()
    expected = read(RIDGE, "ridge.context.md").paper
    assert without_places(reading.paper) == without_places(expected)


def test_a_tab_is_four_spaces_in_a_block() -> None:
    one, other = (read(changed("2:     write", f"{gap}2: write"), "x.md") for gap in ("\t", "    "))
    assert without_places(one.paper) == without_places(other.paper)


@given(st.text(max_size=400))
def test_any_text_gives_faults_and_never_an_exception(text: str) -> None:
    assert together([read(text, "x.md")]).faults


PIECES = sorted(set(re.findall(r"[^\n]+\n?", RIDGE + LASSO)))


@given(
    st.lists(st.sampled_from([*PIECES, "```\n", "---\n", "| a |\n", "$$\n", "\x00\n"]), max_size=40)
)
def test_any_lines_of_notes_in_any_order_never_raise(lines: list[str]) -> None:
    together([read("".join(lines), "x.md")])


@given(st.integers(0, len(RIDGE)), st.integers(0, 40), st.text(max_size=12))
@pytest.mark.slow
def test_a_damaged_file_never_raises_and_is_drawn_as_far_as_it_goes(
    at: int, gone: int, put: str
) -> None:
    damaged = read(RIDGE[:at] + put + RIDGE[at + gone :], "ridge.context.md")
    notes = together([damaged, read(LASSO, "lasso.context.md")])
    for kind in graph.KINDS:
        assert as_svg(graph.graph_of(notes.papers, kind))


@pytest.mark.parametrize("version", ["v1:eq1", "v.1", "", "V 1"])
def test_a_version_that_is_none_breaks_no_id(version: str) -> None:
    notes = notes_of(RIDGE.replace("version: v1", f"version: {version}", 1), LASSO)
    assert any(fault.rule == "front" for fault in notes.faults)
    assert graph.graph_of(notes.papers, "papers").nodes


HEADINGS = [
    line for line in RIDGE.split("\n") if line.startswith(("## ", "### "))
]  # fmt: skip


@given(st.sampled_from(HEADINGS), st.text(st.characters(blacklist_characters="\r\n#"), max_size=20))
@pytest.mark.slow
def test_no_heading_goes_unseen(heading: str, title: str) -> None:
    """A heading with another title is understood, and then counted, or refused with its line."""
    sharps = heading.partition(" ")[0]
    text = RIDGE.replace(f"{heading}\n", f"{sharps} {title}\n")
    if " ".join(title.split()) == heading.partition(" ")[2]:
        return
    line = text.split("\n").index(f"{sharps} {title}") + 1
    faults = faults_of(text)
    assert any(f.at.line == line and f.rule in ("heading", "section") for f in faults) or any(
        f.rule in ("count", "duplicate", "gap", "clarification") for f in faults
    ) or re.fullmatch(r"(Equation|Algorithm|Ambiguity) \w+ ?: .+|Limits|Optimisations|Errata",
                      " ".join(title.split()))  # fmt: skip


@pytest.mark.parametrize(
    ("heading", "told"),
    [
        ("### Equation 3", "is not understood; type '### Equation 14: Name'"),
        ("### Eq. 3: Read", "is not understood"),
        ("### Equations 3 and 4: Read", "stands for several equations"),
        ("### Equation 3–4: Read", "stands for several equations"),
        ("### Equation 03: Read", "is not understood"),
        ("### Algorithm 3: Read", "is not understood"),
        ("#### Equation 3: Read", "a heading of level 4"),
        ("## Equation 3: Read", "an entry has three signs: '### Equation 3: Read'"),
        ("###Equation 3: Read", "is no heading; type '### Equation 3: Read'"),
        ("- **Equation 3**: Read", "'Equation 3' in bold is no heading"),
        ("__Eq. (3)__ Read", "in bold is no heading"),
    ],
)
def test_headings_that_would_be_missed_are_refused_by_name(heading: str, told: str) -> None:
    faults = faults_of(changed("### Equation 3: Read", heading))
    assert any(f.at.line == 93 and f.rule == "heading" and told in str(f) for f in faults), [
        *map(str, faults)
    ]


def test_labels_without_any_heading_are_refused_too() -> None:
    text = changed("- Skipped: eq1-eq2, they repeat ridge", "Equation 1: Loss\n", LASSO)
    faults = read(text, "lasso.context.md").faults
    assert [(f.rule, f.at.line) for f in faults] == [("heading", 32)]


def test_a_bar_in_a_cell_is_escaped() -> None:
    text = changed("| key | tensor | [d_k] | |", "| key \\| code | tensor | [d_k] | |")
    (key,) = (s for s in read(text, "x.md").paper.symbols if s.name == "k_t")
    assert key.meaning == "key | code"


def test_front_matter_has_comments_quotes_and_lists_of_lines() -> None:
    text = changed("title: A memory that decays", 'title: "A memory: #1"  # in quotes')
    text = changed("authors: [Ada Example, Bo Example]", "authors:\n  - Ada Example\n  - Bo", text)
    reading = read(text, "x.md")
    assert reading.faults == ()
    assert reading.paper.title == "A memory: #1"
    assert reading.paper.authors == ("Ada Example", "Bo")


def test_front_matter_that_never_closes_is_told_and_the_rest_is_read() -> None:
    text = changed("needs_clarification: [A1]\n---\n", "needs_clarification: [A1]\n")
    reading = read(text, "x.md")
    assert [(f.rule, f.at.line) for f in reading.faults] == [("front", 1)]
    assert len(reading.paper.equations) == 4
