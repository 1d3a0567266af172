"""Broken notes, each a small change of sound ones: every fault at its line, by its rule, alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cupel.notes.faults import RULES
from papers import LASSO, RIDGE, changed, notes_of


@dataclass(frozen=True)
class Broken:
    """What is changed in ridge (or lasso), and the one fault that this makes."""

    name: str
    old: str
    new: str
    place: str
    rule: str
    says: str
    of: str = RIDGE
    warnings: bool = False


EACH = [
    Broken(
        "unknown key of the front matter",
        "contribution: One matrix", "contributions: One matrix",
        "ridge.context.md:8", "front", "unknown key 'contributions'; did you mean 'contribution'?",
    ),
    Broken(
        "a key twice",
        "year: 2020\n", "year: 2020\nyear: 2021\n",
        "ridge.context.md:8", "front", "'year' is given twice, first in line 7",
    ),
    Broken(
        "a range in a heading",
        "### Equation 4: All steps at once", "### Equation 4-5: All steps at once",
        "ridge.context.md:119", "heading", "stands for several equations; give each a heading",
    ),
    Broken(
        "a label in bold instead of a heading",
        "### Equation 4: All steps at once", "**Equation 4**: All steps at once",
        "ridge.context.md:119", "heading", "'Equation 4' in bold is no heading",
    ),
    Broken(
        "an unknown section",
        "## 6. Dependencies", "## 6. Requirements",
        "ridge.context.md:201", "heading", "unknown section '## 6. Requirements'",
    ),
    Broken(
        "an equation without LaTeX",
        "```latex\ny_t = q_t M_t\n```\n\n", "",
        "ridge.context.md:93", "block", "Equation 3 has no LaTeX; add a block that begins with",
    ),
    Broken(
        "a block that never closes",
        "M_t = (1 - \\alpha_t) M_{t-1} - \\theta_t \\nabla \\ell_t\n```\n",
        "M_t = (1 - \\alpha_t) M_{t-1} - \\theta_t \\nabla \\ell_t\n",
        "ridge.context.md:72", "block", "the block ```latex never closes",
    ),
    Broken(
        "a row with a cell too few",
        "| q_t | query | tensor | [d_k] | |", "| q_t | query | tensor | [d_k] |",
        "ridge.context.md:113", "table", "a row of 4 cells in a table of 5 columns",
    ),
    Broken(
        "a wrong count",
        "| equations | 4 |", "| equations | 5 |",
        "ridge.context.md:23", "count", "Quick Reference says 5 equations, and there are 4",
    ),
    Broken(
        "a gap in the numbers",
        "- Skipped: eq1-eq2, they repeat ridge\n\n", "",
        "lasso.context.md:32", "gap", "eq1-eq2 is missing before Equation 3", of=LASSO,
    ),
    Broken(
        "a symbol of the form that nothing declares",
        "theta_t * grad(l_t, M_{t-1})\n", "thata_t * grad(l_t, M_{t-1})\n",
        "ridge.context.md:77", "symbol", "'thata_t' is not declared; did you mean 'theta_t'?",
    ),
    Broken(
        "a symbol of the LaTeX that nothing declares",
        "y_t = q_t M_t\n```\n\n```form", "y_t = q_t M_t \\odot \\gamma_t\n```\n\n```form",
        "ridge.context.md:102", "symbol", "'\\gamma' in the LaTeX of Equation 3 is not declared",
    ),
    Broken(
        "a shape that does not close",
        "y_t = q_t @ M_t", "y_t = M_t @ q_t",
        "ridge.context.md:106", "shape",
        "'M_t @ q_t' does not close: [d_k, d_v] @ [d_k]: d_v is not d_k",
    ),
    Broken(
        "a left side of another shape",
        "| y_t | answer | tensor | [d_v] | |", "| y_t | answer | tensor | [d_k] | |",
        "ridge.context.md:106", "shape", "'y_t' is [d_k], and the right side is [d_v]",
    ),
    Broken(
        "a printed form that closes after all",
        "G = Theta @ (K @ M_0 - V)^T @ K", "G = K^T @ Theta @ (K @ M_0 - V)",
        "ridge.context.md:137", "printed", "the form as printed closes, and is said not to",
    ),
    Broken(
        "an equation that is required and not there",
        "- Requires: eq1, eq2\n", "- Requires: eq1, eq7\n",
        "ridge.context.md:123", "requires", "requires ridge.v1:eq7, which is not there",
    ),
    Broken(
        "another version of a paper than the one given",
        "- Requires: ridge.v1:eq2", "- Requires: ridge.v2:eq2",
        "lasso.context.md:38", "version",
        "requires ridge.v2:eq2, and the notes given are of ridge.v1", of=LASSO,
    ),
    Broken(
        "a circle",
        "- Module: memory\n- Requires: none", "- Module: memory\n- Requires: eq4",
        "ridge.context.md:46", "cycle",
        "a circle: ridge.v1:eq1 → ridge.v1:eq4 → ridge.v1:eq1 "
        "(eq1 ridge.context.md:46, eq4 ridge.context.md:123)", warnings=True,
    ),
    Broken(
        "a main equation with shapes only",
        "- [causal] no later step changes an answer", "- [shape] d_v",
        "ridge.context.md:117", "tests", "Equation 3 is only tested for shapes",
    ),
    Broken(
        "an unknown kind of test",
        "- [oracle] alpha 0 is plain descent", "- [oracel] alpha 0 is plain descent",
        "ridge.context.md:91", "kind", "unknown kind of test 'oracel'; did you mean 'oracle'?",
    ),
    Broken(
        "a module without a path",
        "| reader | src/ridge/reader.py |", "| reader | – |",
        "ridge.context.md:186", "path", "module 'reader' has no path",
    ),
    Broken(
        "an unknown module",
        "- Module: reader\n- Requires: eq2\n", "- Module: raeder\n- Requires: eq2\n",
        "ridge.context.md:96", "module",
        "Equation 3: Read is in module 'raeder', which section 3 does not have; "
        "did you mean 'reader'?",
    ),
    Broken(
        "an algorithm's line of an equation that is not there",
        "| 3 | eq3 | reader |", "| 3 | eq9 | reader |",
        "ridge.context.md:170", "step", "line 3 of Algorithm 1 names eq9, which is not there",
    ),
    Broken(
        "an ambiguity without its choice",
        "- Chosen: before", "- Chosen: neither",
        "ridge.context.md:215", "ambiguity", "A1 chooses 'neither', which is no reading",
    ),
    Broken(
        "a clarification of nothing",
        "needs_clarification: [A1]", "needs_clarification: [A1, A7]",
        "ridge.context.md:15", "clarification", "needs_clarification names A7",
    ),
    Broken(
        "a hyperparameter without a value",
        "| decay | 0.01 |", "| decay | – |",
        "ridge.context.md:192", "hyperparameter", "'decay' has no value",
    ),
    Broken(
        "something left to do",
        "| B1 | recall |", "| B1 | TODO |",
        "ridge.context.md:199", "todo", "still to do: '| B1 | TODO |",
    ),
    Broken(
        "a number twice",
        "### Equation 4: All steps at once", "### Equation 3: All steps at once",
        "ridge.context.md:119", "duplicate", "Equation 3 is there twice, first in line 93",
    ),
    Broken(
        "a section out of order",
        "## 7. Checklist\n\n- [ ] the loss falls\n\n## 8. Notes\n",
        "## 8. Notes\n",
        "ridge.context.md:1", "section", "there is no section '## 7. Checklist'",
    ),
    Broken(
        "an unknown field",
        "- Priority: P1", "- Prioritty: P1",
        "ridge.context.md:98", "field", "'Prioritty' is no field of 'Equation 3: Read'",
    ),
    Broken(
        "an unknown value of a field",
        "- Priority: P1", "- Priority: P4",
        "ridge.context.md:98", "value", "'Priority: P4' is none of P0, P1, P2",
    ),
    Broken(
        "a form that cannot be parsed",
        "y_t = q_t @ M_t", "y_t = q_t M_t",
        "ridge.context.md:106", "form", "'M_t' follows without an operator",
    ),
    Broken(
        "an equation without words",
        "One product with the memory.\n\n", "",
        "ridge.context.md:93", "words", "Equation 3 is not told in plain words",
    ),
]  # fmt: skip

# Where one mistake hides something else, its consequences are told, too.
CONSEQUENCES = {
    "unknown key of the front matter": {"front"},
    "a range in a heading": {"count", "duplicate"},
    "a label in bold instead of a heading": {"*"},
    "an unknown section": {"section"},
    "a row with a cell too few": {"symbol"},
    "an unknown kind of test": set(),
    "an unknown field": {"field"},
    "a symbol of the form that nothing declares": set(),
    "an algorithm's line of an equation that is not there": set(),
    "a number twice": {"gap", "cycle"},
    "a circle": set(),
}


@pytest.mark.parametrize("broken", EACH, ids=lambda one: one.name)
def test_every_fault_is_found_at_its_line_by_its_rule(broken: Broken) -> None:
    ridge = changed(broken.old, broken.new) if broken.of == RIDGE else RIDGE
    lasso = changed(broken.old, broken.new, LASSO) if broken.of == LASSO else LASSO
    faults = notes_of(ridge, lasso).faults
    meant = [f for f in faults if str(f.at) == broken.place and f.rule == broken.rule]
    assert any(broken.says in str(fault) for fault in meant), list(map(str, faults))
    others = {f.rule for f in faults if f not in meant and f.serious}
    expected = CONSEQUENCES.get(broken.name, set())
    assert others <= expected or "*" in expected, list(map(str, faults))


def test_almost_every_rule_has_a_broken_note() -> None:
    assert RULES.keys() - {one.rule for one in EACH} == {"mark"}  # of code: see test_code.py


def test_two_versions_of_a_paper_are_refused_together() -> None:
    other = RIDGE.replace("version: v1", "version: v2", 1)
    faults = notes_of(RIDGE, other).faults
    assert [f.rule for f in faults] == ["version"]
    assert "two versions of one paper: ridge.v2 here, ridge.v1 in ridge.context.md" in str(
        faults[0]
    )


def test_one_paper_twice_is_refused() -> None:
    (fault,) = {f for f in notes_of(RIDGE, RIDGE).faults if f.rule == "duplicate"}
    assert "ridge.v1 is also in" in fault.text
