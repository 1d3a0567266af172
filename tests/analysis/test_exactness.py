"""A comparison finds the first difference, wherever it is, and never calls nothing equal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.analysis.exactness import compare
from cupel.record.reader import RunRecord
from cupel.record.session import Session

NUMBERS = st.floats() | st.integers(-5, 5) | st.lists(st.floats(), max_size=3)
ROWS = st.dictionaries(
    st.integers(1, 6),
    st.dictionaries(st.sampled_from(["loss", "lr", "_tokens", "perf/x"]), NUMBERS),
    max_size=6,
)


def record(path: Path, rows: dict[int, dict[str, Any]], state: dict[str, str]) -> RunRecord:
    session = Session.start(root=path, project="p", name="r", config={}, identity="i")
    session.begin_at(0)
    for step, row in rows.items():
        session.log(row, step=step)
    session.finish("finished", results={"state": state})
    return RunRecord(session.run_dir)


def compared(
    path: Path, here: dict[int, dict[str, Any]], there: dict[int, dict[str, Any]], **given: Any
) -> Any:
    state = {"model": "a"}
    return compare(record(path, here, state), record(path, there, state), **given)


@settings(deadline=None, max_examples=10)
@given(rows=ROWS)
@pytest.mark.slow
def test_a_record_equals_itself(tmp_path_factory: Any, rows: dict[int, dict[str, Any]]) -> None:
    found = compared(tmp_path_factory.mktemp("root"), rows, rows)
    assert found.equal
    assert found.first is None
    counted = [key for row in rows.values() for key in row if key != "perf/x"]
    assert found.numbers == len(counted)


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    here = {step: {"loss": 1.0, "lr": 0.5} for step in range(1, 6)}
    there = {**here, 4: {"loss": 2.0, "lr": 0.5}, 3: {"loss": 1.0, "lr": 0.25}}
    found = compared(tmp_path, here, there)
    assert not found.equal
    assert found.first == (3, "lr", 0.5, 0.25)


@pytest.mark.slow
def test_the_smallest_differences_count(tmp_path: Path) -> None:
    pairs: list[tuple[Any, Any]] = [
        (1.0, math.nextafter(1.0, 2.0)),
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        (math.nan, 1.0),
        ([1.0, math.nan], [1.0, 2.0]),
    ]
    for i, (one, two) in enumerate(pairs):
        found = compared(tmp_path / str(i), {1: {"x": one}}, {1: {"x": two}})
        assert found.first is not None, (one, two)


@pytest.mark.slow
def test_a_metric_or_a_step_that_one_lacks_is_a_difference_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    here = {1: {"loss": 1.0, "norm": 3.0}, 2: {"norm": 4.0}}
    there = {1: {"loss": 1.0}}
    assert compared(tmp_path / "a", here, there).first == (1, "norm", 3.0, None)
    assert compared(tmp_path / "b", here, there, only_common=True).equal


def test_what_clocks_measured_does_not_count(tmp_path: Path) -> None:
    here = {1: {"loss": 1.0, "perf/tokens_per_s": 5.0, "time/step": 1.0}}
    there = {1: {"loss": 1.0, "perf/tokens_per_s": 6.0}}
    assert compared(tmp_path, here, there).equal


def test_parts_whose_state_differs_or_is_missing_are_named(tmp_path: Path) -> None:
    rows = {1: {"loss": 1.0}}
    here = record(tmp_path, rows, {"model": "a", "optimizer": "b", "ema": "c"})
    there = record(tmp_path, rows, {"model": "a", "optimizer": "x"})
    found = compare(here, there)
    assert not found.equal
    assert found.parts == ["ema", "optimizer"]
    assert found.compared_parts == ["ema", "model", "optimizer"]


def test_nothing_is_not_equal_to_nothing(tmp_path: Path) -> None:
    assert not compare(record(tmp_path, {}, {}), record(tmp_path, {}, {})).equal
