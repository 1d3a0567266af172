"""Two notes of one paper: what changed, and what that reaches."""

from __future__ import annotations

import pytest

from cupel.errors import UsageError
from cupel.notes.diff import Diff, as_data, diff
from cupel.notes.reader import read
from papers import LASSO, RIDGE, changed

OLD = read(RIDGE, "old.md").paper


def compared(text: str) -> Diff:
    return diff(OLD, read(text, "new.md").paper)


def test_equal_notes_differ_in_nothing_whatever_the_white_space() -> None:
    found = compared(RIDGE.replace("\n", "\r\n").replace("theta_t * grad", "theta_t  *  grad"))
    assert found.is_empty
    assert not found.affected
    assert not found.modules


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("y_t = q_t M_t\n", "y_t = M_t q_t\n", "latex"),
        ("y_t = q_t @ M_t", "y_t = 1 * (q_t @ M_t)", "form"),
        ("| q_t | query | tensor | [d_k] |", "| q_t | query | tensor | [d_q] |", "shapes"),
        ("- Requires: eq2\n", "- Requires: eq1\n", "requires"),
        ("- [causal] no later", "- [value] no later", "tests"),
        ("One product with", "A product with", "words"),
        ("- Module: reader\n- Requires: eq2\n", "- Module: memory\n- Requires: eq2\n", "module"),
        ("- Priority: P1", "- Priority: P0", "priority"),
    ],
)
def test_each_aspect_of_an_equation_is_told(old: str, new: str, what: str) -> None:
    (change,) = compared(changed(old, new)).changes
    assert (change.part, change.what) == ("eq3", (what,))


def test_what_needs_a_changed_equation_is_affected() -> None:
    found = compared(changed("theta_t * grad(l_t, M_{t-1})\n", "theta_t * grad(l_t, M_0)\n"))
    assert found.affected == ("alg1", "eq2", "eq3", "eq4")
    assert found.modules == (
        ("memory", "src/ridge/memory.py"),
        ("reader", "src/ridge/reader.py"),
    )
    assert "tests/equations/test_ridge_eq3_read.py" in found.tests


def test_words_alone_affect_nothing() -> None:
    found = compared(changed("One product with", "A product with"))
    assert found.changes
    assert not found.affected
    assert not found.tests


def test_a_shape_of_the_papers_symbols_reaches_what_uses_it() -> None:
    found = compared(
        changed("| v_t | value | tensor | [d_v] |", "| v_t | value | tensor | [d_w] |")
    )
    assert [(c.part, c.what) for c in found.changes] == [("eq1", ("shapes",))]


def test_equations_that_come_and_go_are_told() -> None:
    gone = RIDGE[: RIDGE.index("### Equation 4")] + RIDGE[RIDGE.index("## 2. Algorithms") :]
    found = compared(gone)
    assert [(c.part, c.what) for c in found.changes] == [("eq4", ("removed",))]
    assert found.affected == ("eq4",)
    back = diff(read(gone, "new.md").paper, OLD)
    assert [(c.part, c.what) for c in back.changes] == [("eq4", ("added",))]


def test_another_version_is_compared_by_number_alone() -> None:
    found = compared(RIDGE.replace("version: v1", "version: v2", 1))
    assert (found.changes, found.front) == ((), ("version",))


def test_ambiguities_are_compared_too() -> None:
    found = compared(changed("- Chosen: before", "- Chosen: after"))
    assert [(c.part, c.what) for c in found.ambiguities] == [("A1", ("chosen",))]
    assert as_data(found)["ambiguities"][0]["what"] == ["chosen"]


def test_notes_of_two_papers_are_refused() -> None:
    with pytest.raises(UsageError, match="give two notes of one paper"):
        compared(LASSO)
