"""A plan has every section, follows what depends on what, and is equal for equal notes."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from cupel.errors import UnknownName, UsageError
from cupel.notes.graph import module_of
from cupel.notes.markdown import block, table
from cupel.notes.plan import plan
from cupel.notes.plan_phases import spans
from cupel.notes.plan_scope import ENVIRONMENTS, INTENTS, scope_of
from papers import LASSO, RIDGE, notes_of, papers

SECTIONS = [
    "# Implementation Plan: lasso-ridge",
    "## Executive Summary",
    "## 1. Dependency Graph",
    "### Paper Dependencies",
    "### Equation Dependencies",
    "### Module Dependencies",
    "## 2. Implementation Phases",
    "### Phase 1: Project Setup",
    "### Phase 2: Equation Tests (Test-First)",
    "### Phase 3: Core Implementation",
    "### Phase 4: Model Assembly",
    "### Phase 5: Training Infrastructure",
    "### Phase 6: Code Quality",
    "### Phase 7: Documentation",
    "### Phase 8: Git & Release Prep",
    "## 3. File Manifest",
    "### Source Files",
    "### Test Files",
    "### Config Files",
    "## 4. Verification Checkpoints",
    "## 5. Risk Mitigation",
    "### Identified Risks",
    "### Contingency Plans",
    "## 6. Success Criteria",
    "### Minimum Viable Success",
    "### Full Success",
    "### Stretch Goals",
    "## Metadata",
]
WAYS = [
    (intent, environment)
    for intent, environment in itertools.product(INTENTS, ENVIRONMENTS)
]  # fmt: skip


def planned(intent: str = "full", environment: str = "local-cpu", **more: Any) -> str:
    if intent == "component":
        more.setdefault("components", ["shrink"])
    return plan(scope_of(papers(), intent=intent, environment=environment, **more))


@pytest.mark.parametrize(("intent", "environment"), WAYS)
def test_every_plan_has_every_section_once_and_in_order(intent: str, environment: str) -> None:
    lines = planned(intent, environment).split("\n")
    places = [lines.index(section) for section in SECTIONS]
    assert places == sorted(places)
    assert [line for line in lines if line in SECTIONS] == SECTIONS


@pytest.mark.parametrize(("intent", "environment"), WAYS)
def test_plans_are_whole_markdown_without_durations(intent: str, environment: str) -> None:
    text = planned(intent, environment)
    assert not re.search(r"\b\d+\s*(hours?|minutes?|days?|weeks?)\b", text)
    assert "uv " not in text
    assert "None" not in re.sub(r"-> None|^None\.$", "", text, flags=re.MULTILINE)
    assert text.count("```") % 2 == 0
    assert text.endswith("\n")
    assert "\n\n\n\n" not in text
    for head in re.findall(r"^(\|.*\|)\n\|(?:---\|)+$", text, re.MULTILINE):
        assert head.count("|") > 2


def test_equal_notes_give_equal_bytes_in_any_order() -> None:
    one = plan(scope_of(notes_of(RIDGE, LASSO).papers))
    from cupel.notes.load import together
    from cupel.notes.reader import read

    other = together([read(LASSO, "lasso.context.md"), read(RIDGE, "ridge.context.md")])
    assert all(plan(scope_of(other.papers)) == one for _ in range(10))


def test_levels_come_in_the_order_of_what_they_need() -> None:
    scope = scope_of(papers())
    order = {m.id: n for n, level in enumerate(scope.module_levels) for m in level}
    for name, needed in scope.parts.needs.items():
        assert all(order[other] < order[name] for other in needed)
    text = planned()
    assert text.index("Phase 3.1: Level 0 – memory") < text.index("Phase 3.2: Level 1 – ")


def test_counts_are_those_of_the_notes() -> None:
    text = planned()
    assert "- Equations to implement: 5 (3 P0, 1 P1, 1 P2)" in text
    assert "- Algorithms to implement: 1" in text
    assert "- Test files: 6; test criteria: 9" in text
    assert "total_test_criteria: 9" in text
    assert "total_equations: 5" in text


def test_every_criterion_is_a_task_by_priority() -> None:
    rows = re.findall(r"^\| (2\.\d+\.\d+) \| (.*?) \|.*\| (P\d) \|$", planned(), re.MULTILINE)
    assert [row[1] for row in rows] == [
        "eq3: Shrinking", "alg1: One pass", "eq1: Loss", "eq2: Step with decay", "eq3: Read",
        "eq4: All steps at once",
    ]  # fmt: skip
    assert [row[2] for row in rows] == ["P0", "P0", "P0", "P0", "P1", "P2"]


def test_risks_come_from_ambiguities_confidence_print_and_assumptions() -> None:
    text = planned()
    assert "| ridge.v1:A1 Is the gradient that of the decayed memory? (eq2) | High |" in text
    assert "| ridge.v1:eq2 is of confidence B | Low |" in text
    assert "| lasso.v2:eq3 is of confidence C | Medium |" in text
    assert "| ridge.v1:eq4 does not close as printed | High |" in text
    assert "| ridge.v1 does not state width | Medium |" in text


def test_validating_leaves_out_assembly_and_training() -> None:
    text = planned("validate")
    assert text.count("Not part of this plan: it validates equations only.") == 2
    assert "train.py" not in text
    assert "configs/default.yaml" not in text
    assert "Training Runs" not in text
    assert "Equations to implement: 5" in text


def test_a_component_comes_with_all_that_it_needs_and_no_more() -> None:
    scope = scope_of(papers(), intent="component", components=["shrink"])
    assert [m.name for m in scope.modules] == ["shrink", "memory"]
    assert {e.id for e in scope.entries} == {"lasso.v2:eq3", "ridge.v1:eq1", "ridge.v1:eq2"}
    assert {module_of(e) for e in scope.entries} == {m.id for m in scope.modules}
    assert "reader" not in plan(scope)


def test_extending_says_where_and_a_benchmark_says_how() -> None:
    assert "## 7. Extension Points" in planned("extend")
    assert "| gradient_at | ridge.v1:A1 | before, after | before |" in planned("extend")
    assert "#### Benchmark Protocol" in planned("benchmark")
    assert "| ridge.v1:B1 | recall | accuracy | 0.98 | 64 pairs | paper p.3 |" in planned(
        "benchmark"
    )
    assert "Benchmark Protocol" not in planned()


def test_environments_change_devices_numbers_and_limits() -> None:
    assert "download.pytorch.org/whl/cpu" in planned()
    assert "bfloat16" in planned(environment="local-gpu")
    colab = planned(environment="colab-free")
    assert "float16 with a gradient scaler" in colab
    assert "python3 -m venv" not in colab


def test_a_package_moves_every_module() -> None:
    text = planned(package="small.memory")
    assert "src/small/memory/memory.py" in text
    assert "src/ridge" not in text
    assert "--package small.memory" in text


def test_a_date_is_there_only_when_it_is_given() -> None:
    assert "**Generated:** undated" in planned()
    assert "generated_at: null" in planned()
    assert "generated_at: 2026-11-22" in planned(date="2026-11-22")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"intent": "fll"}, UnknownName, "no intent is called 'fll'; did you mean 'full'?"),
        ({"environment": "gpu"}, UnknownName, "no environment is called 'gpu'"),
        ({"intent": "component"}, UsageError, "--component names modules"),
        ({"components": ["memory"]}, UsageError, "--component names modules"),
        ({"intent": "component", "components": ["memry"]}, UnknownName, "did you mean 'memory'?"),
        ({"package": "My-Package"}, UsageError, "cannot name a package"),
    ],
)
def test_what_cannot_be_planned_is_refused(given: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as refused:
        scope_of(papers(), **given)
    assert told in str(refused.value)


def test_spans_are_told_by_their_ends() -> None:
    assert spans(["eq8", "eq9", "eq10", "eq12", "alg1"]) == "eq8-eq10, eq12, alg1"
    assert spans(["eq1", "eq2b", "eq3"]) == "eq1, eq2b, eq3"


def test_tables_and_blocks_hold_any_text() -> None:
    assert table(("a",), [("x | y",)]) == "| a |\n|---|\n| x \\| y |"
    assert block("", "```\ninner\n```").startswith("````\n")
