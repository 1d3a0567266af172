"""Runs side by side: each number with its statistic and step, goals, and settings that differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cupel.record import files, layout, metrics
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.record.sides import ACCEPTED, SET, Side, best_of, common_goal, differing, side_of

LOSSES = [5.0, 1.0, math.nan, 3.0, 2.0]


def began(root: Path) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i")


def side(run_dir: Path) -> Side:
    record = RunRecord(run_dir)
    return side_of(record, record.sessions)


@pytest.fixture(params=["lines", "columns"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small runs are read line by line, large ones as columns: the numbers are the same."""
    if request.param == "columns":
        monkeypatch.setattr(metrics, "LARGE", 1)


@pytest.mark.parametrize(
    ("how", "value", "step"),
    [("last", 2.0, 40), ("first", 5.0, 0), ("min", 1.0, 10), ("max", 5.0, 0), ("mean", 2.75, None)],
)
def test_a_number_stands_with_its_statistic_and_its_step(
    tmp_path: Path, how: str, value: float, step: int | None
) -> None:
    session = began(tmp_path)
    session.define_metric("loss", summary=how)
    for number, loss in enumerate(LOSSES):
        session.log({"loss": loss}, step=10 * number)
    session.log({"lr": 0.5}, step=45)
    session.finish("finished")
    found = side(session.run_dir).numbers
    assert found == {("loss", how): (value, step), ("lr", "last"): (0.5, 45)}


def test_steps_are_the_same_where_a_session_tells_them_and_where_lines_do(tmp_path: Path) -> None:
    session = began(tmp_path)
    for number, loss in enumerate(LOSSES):
        session.log({"loss": loss} | ({"acc": number} if number < 2 else {}), step=number)
    session.finish("finished")
    told = side(session.run_dir)
    assert told.numbers == {("loss", "last"): (2.0, 4), ("acc", "last"): (1, 1)}
    path = layout.session_dir(session.run_dir, 1) / layout.SESSION
    files.write_json(path, {**files.read_json(path), "last": None})
    assert side(session.run_dir) == told


def test_what_is_all_nan_has_no_step_of_its_least(tmp_path: Path) -> None:
    session = began(tmp_path)
    session.define_metric("loss", summary="min")
    session.log({"loss": math.nan}, step=3)
    session.finish("finished")
    ((pair, (value, step)),) = side(session.run_dir).numbers.items()
    assert (pair, math.isnan(value), step) == (("loss", "min"), True, None)


def test_numbers_set_by_hand_and_accepted_ones_are_statistics_of_their_own(tmp_path: Path) -> None:
    session = began(tmp_path)
    session.log({"loss": 1.0, "acc": 0.5}, step=7)
    session.set_summary({"loss": 0.25})
    session.finish("finished", results={"step": 9, "final": {"acc": 0.75, "text": "no number"}})
    assert side(session.run_dir).numbers == {
        ("loss", SET): (0.25, None),
        ("acc", "last"): (0.5, 7),
        ("acc", ACCEPTED): (0.75, 9),
    }


def test_the_goal_said_last_of_this_very_metric_counts(tmp_path: Path) -> None:
    session = began(tmp_path)
    session.define_metric("val/*", goal="min")
    session.define_metric("val/acc", goal="min")
    session.define_metric("val/acc", goal="max")
    session.log({"val/acc": 1.0, "val/loss": 1.0, "loss": 1.0}, step=1)
    session.finish("finished")
    assert side(session.run_dir).goals == {"val/acc": "max", "val/loss": "min"}


def test_runs_that_contradict_each_other_have_no_goal_in_common() -> None:
    low, high, none = Side({}, {"a": "min"}), Side({}, {"a": "max"}), Side({}, {})
    assert common_goal("a", [low, none]) == "min"
    assert common_goal("a", [low, high]) is None
    assert common_goal("a", [none]) is None


@pytest.mark.parametrize(
    ("values", "goal", "best"),
    [
        ([2, 1, 1.0], "min", [1, 2]),
        ([2, 1, None], "max", [0]),
        ([2, 1], None, []),
        ([1], "min", []),
        ([1, math.nan], "min", []),
        ([True, 1, 2], "min", [1]),
        ([math.inf, 1, 2, "3"], "max", [2]),
    ],
)
def test_the_best_is_told_only_of_finite_numbers_that_have_a_rival(
    values: list[Any], goal: str | None, best: list[int]
) -> None:
    assert best_of(values, goal) == best


def test_settings_differ_by_their_text_and_by_being_there() -> None:
    one = {"a": 1, "b": math.nan, "c": None, "e": 0.1}
    other = {"a": 1.0, "b": math.nan, "d": None, "e": 0.1}
    assert differing([one, other]) == (["a", "c", "d"], ["b", "e"])
