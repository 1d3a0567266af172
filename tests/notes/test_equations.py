"""The page of equations links code and tests that are marked, and says what is missing."""

from __future__ import annotations

from pathlib import PurePath

from cupel.notes.code import Evidence, Mark, TestMark
from cupel.notes.equations import page
from papers import papers

EVIDENCE = Evidence(
    marks=(Mark("ridge.v1:eq1", "src/ridge/memory.py", 7, 9, "loss"),),
    tests=(
        TestMark("ridge.v1:eq1", "value", "tests/test_a.py", 3, "tests/test_a.py::test_it", ()),
    ),
    faults=(),
)


def test_every_entry_is_there_with_latex_form_and_words() -> None:
    text = page(papers(), None, beside=PurePath())
    for paper in papers():
        for entry in (*paper.equations, *paper.algorithms):
            assert f"### {entry.title}\n" in text
    assert "$$\ny_t = q_t M_t\n$$" in text
    assert "As printed this does not close. Read as:" in text
    assert "Code:" not in text


def test_links_lead_from_the_page_to_the_line() -> None:
    text = page(papers(), EVIDENCE, beside=PurePath("docs"))
    assert "- Code: [`loss`](../src/ridge/memory.py#L7)" in text
    assert (
        "- Tests: [`test_it`](../tests/test_a.py#L3) (value); asked for and absent: gradient"
        in text
    )
    assert "- Code: none yet\n- Tests: none yet, criteria: 2" in text
    assert "| `ridge.v1` | 4 | 1 | 1 |" in text
