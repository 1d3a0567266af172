"""Notes as plain data, and as a rubric: a tree of requirements whose leaves tests can decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from cupel.notes.faults import Place
from cupel.notes.model import Algorithm, Equation, Paper

SCHEMA = 1
FORMATS = ("json", "rubric")
_WEIGHTS = {"P0": 3, "P1": 2, "P2": 1}


def as_data(papers: Sequence[Paper]) -> dict[str, Any]:
    """All entities, with their files and lines."""
    return {"schema": SCHEMA, "papers": [_plain(paper) for paper in papers]}


def _plain(value: Any) -> Any:
    if isinstance(value, Place):
        return {"path": value.path, "line": value.line}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def as_rubric(papers: Sequence[Paper]) -> dict[str, Any]:
    """A rubric in the form that PaperBench gave it.

    Equations are leaves of code development, test criteria of code execution, reported results of
    result analysis. Weights follow priorities, and count among siblings only.
    """
    return _branch(
        "notes",
        "The papers are implemented, tested and their results looked at.",
        1,
        [_paper(paper) for paper in papers],
    )


def _paper(paper: Paper) -> dict[str, Any]:
    branches = []
    for module in paper.modules:
        own: list[Equation | Algorithm] = [e for e in paper.main if e.module == module.name]
        own += [a for a in paper.algorithms if a.module == module.name]
        if own:
            told = f"{module.name} is implemented in {module.path}: {module.description}."
            branches.append(_branch(module.id, told, len(own), [_entry(entry) for entry in own]))
    if paper.benchmarks:
        leaves = [
            _leaf(
                f"{paper.id}:{one.id}",
                f"{one.metric} on {one.dataset} is measured as: {one.setup}; it is held against "
                f"{one.value} ({one.source}), and what is not equal is said.",
                1,
                "Result Analysis",
                "Evaluation, Metrics & Benchmarking",
            )
            for one in paper.benchmarks
        ]
        told = "The reported results are measured and compared."
        branches.append(_branch(f"{paper.id}:results", told, max(len(branches), 1), leaves))
    return _branch(paper.id, f"{paper.title} is reproduced.", 1, branches)


def _entry(entry: Equation | Algorithm) -> dict[str, Any]:
    """What an equation asks for: code, and each of its criteria."""
    weight = _WEIGHTS[entry.priority] if isinstance(entry, Equation) else _WEIGHTS["P0"]
    what = f"{entry.title} ({entry.location})"
    if isinstance(entry, Equation) and entry.form:
        what += f": {'; '.join(line.strip() for line in entry.form.text.split(chr(10)))}"
    leaves = [
        _leaf(f"{entry.id}:code", f"{what} is implemented.", 2, "Code Development",
              "Method Implementation")
    ]  # fmt: skip
    for number, criterion in enumerate(entry.tests, 1):
        leaves.append(
            _leaf(
                f"{entry.id}:test{number}",
                f"A test of kind {criterion.kind} runs and passes: {criterion.text}.",
                1,
                "Code Execution",
                "Experimental Setup",
            )
        )
    return _branch(entry.id, f"{what} is implemented and tested.", weight, leaves)


def _branch(
    identity: str, requirements: str, weight: int, sub_tasks: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": identity,
        "requirements": requirements,
        "weight": weight,
        "sub_tasks": sub_tasks,
        "task_category": None,
        "finegrained_task_category": None,
    }


def _leaf(
    identity: str, requirements: str, weight: int, category: str, finer: str
) -> dict[str, Any]:
    return _branch(identity, requirements, weight, []) | {
        "task_category": category,
        "finegrained_task_category": finer,
    }


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The leaves of a rubric."""
    if not node["sub_tasks"]:
        return [node] if node["task_category"] else []
    return [leaf for inner in node["sub_tasks"] for leaf in leaves(inner)]
