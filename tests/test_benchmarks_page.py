"""docs/benchmarks.md shows the kept measurement, all of it; a missed target says so."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "record"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/record/run.py, which finds its neighbours beside itself."""
    monkeypatch.syspath_prepend(str(RECORD))
    before = set(sys.modules)
    yield importlib.import_module("run")
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and RECORD in Path(str(sys.modules[name].__file__)).parents
        ):
            del sys.modules[name]


def measured() -> Any:
    return json.loads((RECORD / "measured.json").read_text())


def test_the_page_shows_the_kept_measurement(run: Any) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert run.with_tables(page, measured()) == page
    assert measured()["machine"]["date"] in page


def test_every_peer_is_named_with_its_version(run: Any) -> None:
    found = measured()
    page = "\n".join(run.tables(found))
    for name in run.BACKENDS:
        version = found["log"].get(name, {}).get("version")
        assert f"| {name} | {version} |" in page or f"{name} was left out" in page


def test_a_target_that_is_missed_says_so(run: Any) -> None:
    found = copy.deepcopy(measured())
    found["log"]["cupel"]["median_us"] = 10.5
    found["kills"]["cupel, as fast as it can"]["lost"] = 1
    lines = list(run.tables(found))
    assert "| `log` of ten scalars: ≤ 10 µs | 10.5 µs | **no** |" in lines
    assert any("lost by `kill -9`" in line and line.endswith("| **no** |") for line in lines)


def test_only_a_peer_that_lost_nothing_is_called_so(run: Any) -> None:
    found = copy.deepcopy(measured())
    for name, loss in found["kills"].items():
        loss["lost"] = 0 if name == "mlflow" else 1
    (line,) = [line for line in run.tables(found) if "the fastest peer that lost no call" in line]
    assert f"(mlflow {found['log']['mlflow']['version']})" in line
