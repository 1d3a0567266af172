"""The tables of docs/results/memory are those of its reports, which are whole; prose is unread."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "memory"
STUDIES = ["mqar", "formal-languages", "titans-ablation"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/memory/told.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "memory"))
    return importlib.import_module("told")


def test_the_tables_are_what_the_reports_say(told: Any) -> None:
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert told.written(page) == page
    changed = re.sub(r"± 0\.\d+", "± 0.77", page, count=1)
    assert changed != page
    assert told.written(changed) == page


@pytest.mark.parametrize("study", STUDIES)
def test_every_planned_run_of_five_seeds_is_finished(study: str) -> None:
    found = json.loads((RESULTS / study / "numbers.json").read_text(encoding="utf-8"))
    numbers = {one["name"]: one["value"] for one in found["numbers"]}
    assert numbers["seeds"] >= 5
    assert numbers["runs.finished"] == numbers["runs.planned"]


@pytest.mark.parametrize("study", STUDIES)
def test_the_figures_of_a_report_are_there(study: str) -> None:
    folder = RESULTS / study
    named = set(re.findall(r"figures/[\w.-]+\.svg", (folder / "report.md").read_text()))
    assert named
    assert {str(path.relative_to(folder)) for path in folder.glob("figures/*.svg")} == named
