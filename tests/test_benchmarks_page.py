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
JOBS = ROOT / "benchmarks" / "jobs"
DASHBOARD = ROOT / "benchmarks" / "dashboard"
MEMORY = ROOT / "benchmarks" / "memory"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/record/run.py, which finds its neighbours beside itself."""
    yield from imported(RECORD, monkeypatch)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/jobs/run.py."""
    yield from imported(JOBS, monkeypatch)


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/dashboard/run.py."""
    yield from imported(DASHBOARD, monkeypatch)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/memory/run.py; it sets what torch reads when it comes in."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    yield from imported(MEMORY, monkeypatch)


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield importlib.import_module("run")
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and folder in Path(str(sys.modules[name].__file__)).parents
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


def test_the_page_shows_the_kept_measurement_of_sweeps_and_names_every_peer(jobs: Any) -> None:
    found = json.loads((JOBS / "measured.json").read_text())
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert jobs.with_tables(page, found) == page
    for name, version in jobs.PINS.items():
        assert f"| {', '.join(version)} |" in page or f"{name} was left out" in page


def test_a_target_of_sweeps_that_is_missed_says_so(jobs: Any) -> None:
    found = json.loads((JOBS / "measured.json").read_text())
    found["jobs"]["cupel warm"] = {"jobs": 216, "wall_s": 10.9, "cpu_s": 1.0, "load": 0.0}
    found["jobs"]["huey"] = {"jobs": 216, "wall_s": 10.8, "cpu_s": 1.0, "load": 0.0}
    found["large"]["claim_median_ms"] = 5.1
    lines = list(jobs.tables(found))
    missed = [line for line in lines if line.endswith("| **no** |")]
    for told in ("warm: ≤ 10.8 s", "faster than every peer", "a claim ≤ 5 ms"):
        assert any(told in line for line in missed), told


def test_the_page_shows_the_kept_measurement_of_the_dashboard_and_both_peers(
    dashboard: Any,
) -> None:
    found = json.loads((DASHBOARD / "measured.json").read_text())
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert dashboard.with_tables(page, found) == page
    for tool, version in found["first"]["versions"].items():
        assert f"| {tool} {version}, cold |" in page
    assert {"cupel", "tensorboard", "trackio"} == (
        found["first"]["versions"].keys() | found["first"]["left out"].keys()
    )


def test_a_target_of_the_dashboard_that_is_missed_says_so(dashboard: Any) -> None:
    found = json.loads((DASHBOARD / "measured.json").read_text())
    views = found["first"]["views"]
    views["cupel, warm"] |= {"opened_s": 1.0, "cpu_s": 1.0, "heap_mb": 15.1}
    for tool in ("tensorboard", "trackio"):
        views[f"{tool}, warm"] |= {"opened_s": 50.0, "cpu_s": 50.0}
    views["trackio, warm"]["opened_s"] = 4.9  # one peer is enough
    found["long"]["drawn_worst_ms"] = 201
    found["live"]["p95_ms"] = 501
    found["training"]["conditions"]["killed"]["wall_ms_differs"] = [0.0, -0.011, 0.009]
    found["training"]["conditions"]["stopped"]["wall_ms_differs"] = [0.0, -0.009, 0.009]
    found["appends"]["slope_mb"] = 0.21
    found["table"]["cold"]["longest_frame_ms"] = 101
    lines = [line for line in dashboard.tables(found) if line.startswith("| ")]
    missed = "\n".join(line for line in lines if line.endswith("| **no** |"))
    for told in (
        "first chart, warm", "heap after it", "any zoom", "to painted", "heap of the page",
        "| time of a training step, dashboard killed", "no frame over",
    ):  # fmt: skip
        assert told in missed, told
    held = "\n".join(line for line in lines if line.endswith("| yes |"))
    assert "browser's processor time, warm" in held
    assert "| time of a training step, dashboard stopped" in held


def test_the_page_shows_the_kept_measurement_of_memories(memory: Any) -> None:
    found = json.loads((MEMORY / "measured.json").read_text())
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert memory.with_tables(page, found) == page
    assert memory.PINS[0] in page


def test_a_target_of_memories_that_is_missed_says_so(memory: Any) -> None:
    found = json.loads((MEMORY / "measured.json").read_text())
    found["same"]["1, 256"]["gradients"] = 2e-12
    found["time"]["2 both"]["paper"]["ms"] = 34.9 * found["time"]["2 both"]["cupel"]["ms"]
    found["growth"] = {"1024": 1.0, "4096": 4.3}
    found["memory"] |= {"1 cupel": 10.0, "1 paper": 49.0}
    found["oracles"]["yaad"] = {"chunk": 1.0, "sequential": 4.9}
    lines = [line for line in memory.tables(found) if line.startswith("| ")]
    missed = "\n".join(line for line in lines if line.endswith("| **no** |"))
    for told in (
        "tokens 1, 256", "depth 2, forward and backward, against the paper's rule",
        "from 1,024 to 4,096", "extra memory, depth 1", "yaad, in chunks",
    ):  # fmt: skip
        assert told in missed, told
