"""`cupel.runs`: every run is a row, and what was recorded of it stands in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cupel
from cupel.errors import MissingDependency, UnknownName, UsageError

Init = Callable[..., cupel.Run]


@pytest.fixture
def three(init: Init) -> list[str]:
    """The ids of three runs, oldest first."""
    ids = []
    for number, lr in enumerate((0.1, 0.2, "auto")):
        with init(name=f"n{number}", config={"lr": lr, "loss": "mse"}, tags=["t"]) as run:
            run.log({"loss": float(number), **({"rare": 1} if number else {})})
            ids.append(run.id)
    return ids


@pytest.mark.slow
def test_every_run_is_a_row_newest_first(three: list[str], root: Path) -> None:
    frame = cupel.runs(root)
    assert frame["id"].to_list() == three[::-1]
    assert frame["loss"].to_list() == [2.0, 1.0, 0.0]
    assert frame["config.loss"].to_list() == ["mse"] * 3  # its name is taken by the summary
    assert frame["rare"].to_list() == [1, 1, None]
    assert frame["lr"].to_list() == ["auto", "0.2", "0.1"]  # of two kinds, so as texts
    assert frame["tags"].to_list() == [["t"]] * 3
    assert set(frame["status"]) == {"finished"}


@pytest.mark.slow
def test_filters_and_order_are_those_of_the_command_line(three: list[str], root: Path) -> None:
    assert cupel.runs(root, where="loss<1.5", sort="loss")["name"].to_list() == ["n0", "n1"]
    assert cupel.runs(where="name=n2", project="p")["id"].to_list() == [three[2]]
    with pytest.raises(UnknownName, match="lss"):
        cupel.runs(root, where="lss<1")
    with pytest.raises(UsageError):
        cupel.runs(root, where="loss<<")


def test_metrics_and_settings_that_are_called_like_fields_are_in_every_row(
    init: Init, root: Path
) -> None:
    with init(config={"seed": 1, "step": "large", "clip": None}) as run:
        run.log({"step": 0.5, "point": 2.0, "seconds": 9.0})
    (row,) = cupel.runs(root, where="seed=1 and clip=none", frame=False)
    assert (row["seed"], row["config.seed"], row["point"], row["summary.point"]) == (1, 1, 2.0, 2.0)
    assert (row["step"], row["config.step"], row["summary.step"]) == (0, "large", 0.5)
    assert row["summary.seconds"] == 9.0 != row["seconds"]
    assert cupel.runs(root)["summary.step"].to_list() == [0.5]


@pytest.mark.slow
def test_without_polars_rows_are_dicts(
    three: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = cupel.runs(root, frame=False)
    assert [row["lr"] for row in rows] == ["auto", 0.2, 0.1]
    monkeypatch.setitem(sys.modules, "polars", None)
    assert cupel.runs(root) == rows
    with pytest.raises(MissingDependency, match="polars"):
        cupel.runs(root, frame=True)


def test_no_runs_are_an_empty_table(root: Path) -> None:
    assert cupel.runs(root, frame=False) == []
    assert len(cupel.runs(root)) == 0


def test_what_define_metric_says_is_what_the_table_shows(init: Init, root: Path) -> None:
    with init() as run:
        run.define_metric("acc", summary="max")
        for value in (0.1, 0.9, 0.5):
            run.log({"acc": value, "loss": 1 - value})
        run.summary["loss"] = 7
    (row,) = cupel.runs(root, frame=False)
    assert (row["acc"], row["loss"]) == (0.9, 7)
