"""What is logged is what the record holds, under the step that was meant."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cupel
from cupel.api.rows import Rows
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
        "_step": 0, "float": 0.1, "int": 2**53 + 1, "bool": True, "inf": -math.inf,
        "tensor": 3.0, "half": float(np.float16(0.1)), "float32": float(np.float32(0.1)),
        "int64": 7, "array": [0, 1, 2],
    }  # fmt: skip


def test_steps_are_counted_as_wandb_counts_them(init: Init) -> None:
    """The rows are what wandb 0.31 writes for the same calls."""
    with init() as run:
        run.log({"a": 1})
        cupel.log({"a": 2})
        run.log({"b": 1}, commit=False)
        run.log({"c": 1})
        run.log({"a": 3}, step=10)
        run.log({"b": 4}, step=np.int64(10))
        run.log({"a": 5})  # still of step 10, which this closes
        run.log({"a": 6})
        run.log({"a": 8}, 20, True)
        run.log({"a": 9})
        assert run.step == 21
    assert rows(run) == [
        {"_step": 0, "a": 1},
        {"_step": 1, "a": 2},
        {"_step": 2, "b": 1, "c": 1},
        {"_step": 10, "a": 5, "b": 4},
        {"_step": 11, "a": 6},
        {"_step": 20, "a": 8},
        {"_step": 21, "a": 9},
    ]


def test_a_step_that_lies_back_is_kept_and_does_not_turn_the_count_back(init: Init) -> None:
    """wandb drops such a line; nothing that was measured is dropped here."""
    with init() as run:
        run.log({"a": 1}, step=10)
        run.log({"b": 2}, step=3)
        run.log({"c": 3})
    assert rows(run) == [{"_step": 3, "b": 2}, {"_step": 10, "a": 1, "c": 3}]


@given(
    calls=st.lists(
        st.tuples(st.none() | st.integers(0, 50), st.sampled_from([None, True, False])), max_size=30
    )
)
def test_the_step_that_is_open_never_goes_back_and_a_given_step_is_taken(calls: Any) -> None:
    counted, before = Rows(), 0
    for step, commit in calls:
        at = counted.place(step, commit)
        assert at == (before if step is None else step)
        assert counted.open >= before
        assert counted.open - max(before, at) in (0, 1)
        before = counted.open


def test_lines_of_several_threads_each_have_a_step_of_their_own(init: Init) -> None:
    with init() as run:

        def work(number: int) -> None:
            for count in range(100):
                run.log({f"thread{number}": count})

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = rows(run)
    assert [row["_step"] for row in found] == list(range(400))
    for number in range(4):
        key = f"thread{number}"
        assert [row[key] for row in found if key in row] == list(range(100))


def test_an_uncommitted_line_is_on_disk_at_once(init: Init) -> None:
    with init() as run:
        run.log({"a": 1}, commit=False)
        assert rows(run) == [{"_step": 0, "a": 1}]


def test_mappings_inside_give_names_with_slashes(init: Init) -> None:
    with init() as run:
        run.log({"train": {"loss": 1, "acc": {"top1": 0.5, "top5": 0.9}}, "lr": 0.1})
    assert rows(run) == [
        {"_step": 0, "train/loss": 1, "train/acc/top1": 0.5, "train/acc/top5": 0.9, "lr": 0.1}
    ]


def test_a_mapping_that_holds_itself_costs_only_itself(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    endless: dict[str, Any] = {"a": 1}
    endless["self"] = endless
    with init() as run:
        run.log({"endless": endless, "loss": 2})
    (row,) = rows(run)
    assert row["loss"] == 2
    assert "nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["é🎈/ünï", "x" * 10_000, "../../etc/passwd", " ", "a/b//c", ""])
def test_a_name_may_be_any_text(init: Init, key: str) -> None:
    with init() as run:
        run.log({key: 1.0})
    assert rows(run) == [{"_step": 0, key: 1.0}]


def test_logging_numpy_and_torch_numbers_imports_neither() -> None:
    """Values are told by their shape and tolist, so cupel itself stays without both."""
    source = Path(cupel.__file__).parent / "api"
    for name in ("run.py", "logged.py", "rows.py", "facts.py", "kept.py", "current.py"):
        assert "import torch" not in (source / name).read_text()
        assert "import numpy" not in (source / name).read_text()


def test_results_hold_the_last_number_of_every_metric(init: Init) -> None:
    with init() as run:
        run.log({"loss": torch.tensor(2.0), "lr": np.float32(0.5), "curve": [1, 2]})
        run.log({"loss": torch.tensor(1.0), "acc": math.nan})
    results = RunRecord(run.dir).results
    assert results is not None
    assert math.isnan(results["final"].pop("acc"))
    assert results["final"] == {"loss": 1.0, "lr": 0.5}
    assert results["step"] == 1
    assert "state" not in results


def test_what_cannot_be_kept_never_stops_training_and_is_told_once(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        for _ in range(2):
            run.log({"loss": 0.5, "huge": 10**5000, "text": "no", "meta": torch.ones(1).to("meta")})
    assert rows(run) == [{"_step": 0, "loss": 0.5}, {"_step": 1, "loss": 0.5}]
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
    assert rows(run) == [{"_step": 0, "loss": 0.5}, {"_step": 1, "loss": 0.5}]
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
