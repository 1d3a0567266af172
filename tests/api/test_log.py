"""What is logged is what the record holds, under the step that was meant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cupel
from cupel.errors import UsageError
from cupel.record.reader import RunRecord

Init = Callable[..., cupel.Run]


def rows(run: cupel.Run) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "_t"}
        for row in RunRecord(run.dir).history()
    ]


def test_numbers_of_every_kind_come_back_as_they_were(init: Init) -> None:
    weight = torch.tensor(1.5, requires_grad=True)
    with init() as run:
        run.log(
            {
                "float": 0.1, "int": 2**53 + 1, "bool": True, "nan": math.nan, "inf": -math.inf,
                "tensor": weight * 2, "half": torch.tensor(0.1, dtype=torch.float16),
                "float32": np.float32(0.1), "int64": np.int64(7), "array": np.arange(3),
            }
        )  # fmt: skip
    (row,) = rows(run)
    assert math.isnan(row.pop("nan"))
    assert row == {
        "_step": 1, "float": 0.1, "int": 2**53 + 1, "bool": True, "inf": -math.inf,
        "tensor": 3.0, "half": float(np.float16(0.1)), "float32": float(np.float32(0.1)),
        "int64": 7, "array": [0, 1, 2],
    }  # fmt: skip


def test_without_a_step_each_call_is_one_more_than_the_last(init: Init) -> None:
    with init() as run:
        run.log({"a": 1})
        run.log({"a": 2})
        run.log({"a": 3}, step=10)
        run.log({"b": 4}, step=np.int64(10))
        cupel.log({"a": 5})
        assert run.step == 11
    assert rows(run) == [
        {"_step": 1, "a": 1},
        {"_step": 2, "a": 2},
        {"_step": 10, "a": 3, "b": 4},
        {"_step": 11, "a": 5},
    ]


def test_results_hold_the_last_number_of_every_metric(init: Init) -> None:
    with init() as run:
        run.log({"loss": torch.tensor(2.0), "lr": np.float32(0.5), "curve": [1, 2]})
        run.log({"loss": torch.tensor(1.0), "acc": math.nan})
    results = RunRecord(run.dir).results
    assert results is not None
    assert math.isnan(results["final"].pop("acc"))
    assert results["final"] == {"loss": 1.0, "lr": 0.5}
    assert results["step"] == 2
    assert "state" not in results


def test_what_cannot_be_kept_never_stops_training_and_is_told_once(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        for _ in range(2):
            run.log({"loss": 0.5, "huge": 10**5000, "text": "no", "meta": torch.ones(1).to("meta")})
    assert rows(run) == [{"_step": 1, "loss": 0.5}, {"_step": 2, "loss": 0.5}]
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in told] == [
        "metric huge",
        "metric text",
        "metric meta",
    ]


@pytest.mark.parametrize(
    "arguments,told",
    [
        (({"loss": 1.0}, 1.5), "step is 1.5; it must be a whole number"),
        (({"loss": 1.0}, "ten"), "step is 'ten'; it must be a whole number"),
        (({"loss": 1.0}, True), "step is True; it must be a whole number from 0 to 2"),
        (({"loss": 1.0}, -1), r"step is -1; it must be a whole number from 0 to 2\*\*53"),
        (({"loss": 1.0}, 2**53 + 1), "step is 9007199254740993; it must be a whole number"),
        (({"loss": 1.0}, 2**63), "step is 9223372036854775808; it must be a whole number"),
        (({"loss": 1.0}, 2**70), "step is an integer of 71 bits; it must be a whole number"),
        (({"loss": 1.0}, 10**5000), "step is an integer of 16610 bits; it must be"),
        (
            ({"loss": 1.0}, np.ones((2, 2))),
            r"step is array\(\[\[1., 1.\], \[1., 1.\]\]\); it must be",
        ),
        ((0.5, None), r'log\(\) takes a dict, as run.log\({"loss": 0.5}\), not a float'),
    ],
)
def test_a_call_that_means_nothing_is_refused_in_one_line(
    init: Init, arguments: tuple[Any, Any], told: str
) -> None:
    with init() as run:
        with pytest.raises(UsageError, match=told) as raised:
            run.log(arguments[0], step=arguments[1])
        assert len(str(raised.value).splitlines()) == 1
        assert run.step == 0


def test_the_last_step_that_json_keeps_exact_can_be_logged(init: Init) -> None:
    with init() as run:
        run.log({"loss": 1.0}, step=0)
        run.log({"loss": 1.0}, step=2**53)
    assert [row["_step"] for row in rows(run)] == [0, 2**53]


@pytest.mark.parametrize("value", [1, 1.0])
@pytest.mark.parametrize("key", [None, 5, 0.5, True, ("a", 1)])
def test_a_name_that_is_no_text_is_that_metrics_problem(
    init: Init, capsys: pytest.CaptureFixture[str], key: Any, value: Any
) -> None:
    with init() as run:
        for _ in range(2):
            run.log({key: value, "loss": 0.5})
    assert rows(run) == [{"_step": 1, "loss": 0.5}, {"_step": 2, "loss": 0.5}]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"the metric {key!r}: a name must be text, not {type(key).__name__}" in told


@pytest.mark.parametrize("resumed", [False, True])
def test_logging_after_the_end_is_told_in_one_line_and_harms_nothing(
    init: Init, capsys: pytest.CaptureFixture[str], resumed: bool
) -> None:
    run = init()
    run.log({"loss": 1.0})
    if resumed:
        run.finish("interrupted")
        run = init(resume="auto")
    run.finish()
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    run.log({"loss": 2.0})
    run.log({"loss": "no number"}, step=1)
    cupel.log({"loss": 3.0})
    assert {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"run {run.id} is finished; " in told
    assert run._session.problems == {"log": 3}
