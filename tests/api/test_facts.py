"""Name, tags, summary, axes and alerts: what describes a run is in the record at once."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cupel
from cupel.errors import UsageError
from cupel.record.reader import RunRecord, list_runs

Init = Callable[..., cupel.Run]
Script = Callable[..., Any]


def events(run: cupel.Run, name: str) -> list[dict[str, Any]]:
    return [event for event in RunRecord(run.dir).events() if event["_event"] == name]


def rows(run: cupel.Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_t"} for row in RunRecord(run.dir).history()]


def test_name_tags_and_notes_can_be_set_while_it_runs(init: Init) -> None:
    with init(tags=["a"], group="g", job_type="train") as run:
        run.name = "renamed"
        run.tags += ("b",)
        run.notes = "looks good"
        assert (run.name, run.tags, run.notes, run.group) == (
            "renamed", ("a", "b"), "looks good", "g",
        )  # fmt: skip
        told = RunRecord(run.dir).run
        with pytest.raises(UsageError, match=r"type tags=\['night'\]"):
            run.tags = "night"
    assert (told["name"], told["tags"], told["notes"]) == ("renamed", ["a", "b"], "looks good")
    assert (told["group"], told["job_type"]) == ("g", "train")
    assert RunRecord(run.dir).run["status"] == "finished"
    assert run.url == run.dir.absolute().as_uri()


def test_a_renamed_run_is_resumed_by_the_name_it_began_with(init: Init) -> None:
    run = init()
    run.name = "renamed"
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        assert resumed.id == run.id


def test_the_summary_is_the_last_numbers_and_what_is_set_wins(init: Init) -> None:
    with init() as run:
        run.log({"loss": 2.0, "acc": 0.1})
        run.summary["acc"] = 0.9
        run.summary.best = torch.tensor(3.0)
        run.summary.update({"note": "good", "nested": {"a": 1}})
        run.log({"loss": 1.0, "acc": 0.2})
        summary = run.summary
        assert (summary["loss"], summary.acc, summary.best) == (1.0, 0.9, 3.0)
        assert set(summary) == {"loss", "acc", "best", "note", "nested"}
        assert len(summary) == 5
        assert cupel.summary["note"] == "good"
        assert "absent" not in summary
        assert summary.get("absent", 7) == 7
        with pytest.raises(AttributeError, match="the summary has no 'absent'"):
            _ = summary.absent
    assert RunRecord(run.dir).summary == {
        "loss": 1.0, "acc": 0.9, "best": 3.0, "note": "good", "nested": {"a": 1},
    }  # fmt: skip


def test_a_kill_loses_nothing_that_was_set(script: Script, root: Path) -> None:
    code = (
        "import cupel, os, signal\nrun = cupel.init('p', 'n')\nrun.summary['best'] = 0.5\n"
        "run.config.late = 1\nrun.define_metric('acc', goal='max')\n"
        "run.alert('title', 'text')\nrun.log({'x': 1}, commit=False)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert script(code).returncode == -signal.SIGKILL
    (run,) = list_runs(root)
    assert run.summary == {"x": 1, "best": 0.5}
    assert run.config == {"late": 1}
    assert {"define_metric", "alert"} <= {event["_event"] for event in run.events()}


def test_a_resumed_run_has_the_summary_that_was_set_before(init: Init) -> None:
    run = init()
    run.summary["best"] = 1
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        assert resumed.summary["best"] == 1


@pytest.mark.parametrize(
    "rule,expected",
    [("min", 1.0), ("max", 3.0), ("mean", 2.0), ("last", 2.0), ("first", 3.0), ("copy", 2.0)],
)
def test_define_metric_says_what_a_metric_comes_to(init: Init, rule: str, expected: float) -> None:
    with init() as run:
        run.define_metric("loss", summary=rule)
        for value in (3.0, 1.0, 2.0):
            run.log({"loss": value})
    assert RunRecord(run.dir).summary["loss"] == expected


def test_the_best_goes_by_the_goal(init: Init) -> None:
    with init() as run:
        cupel.define_metric("acc", summary="best", goal="maximize")
        run.define_metric("val/*", summary="best", goal="min")
        for value in (1.0, 3.0, 2.0):
            run.log({"acc": value, "val/loss": value})
    assert RunRecord(run.dir).summary == {"acc": 3.0, "val/loss": 1.0}


def test_a_metric_gets_the_last_value_of_its_axis(init: Init) -> None:
    """As wandb does, so that each line can be drawn over its axis."""
    with init() as run:
        epoch = run.define_metric("epoch")
        run.define_metric("val/*", step_metric=epoch)
        run.define_metric("alone", step_metric="epoch", step_sync=False)
        run.log({"val/a": 0})
        run.log({"epoch": 3})
        run.log({"val/a": 1, "other": 1})
        run.log({"val/a": 2, "epoch": 4})
        run.log({"alone": 1})
        run.log({"epoch": 5, "val/a": 3})
    assert rows(run) == [
        {"_step": 0, "val/a": 0},
        {"_step": 1, "epoch": 3},
        {"_step": 2, "val/a": 1, "other": 1, "epoch": 3},
        {"_step": 3, "val/a": 2, "epoch": 4},
        {"_step": 4, "alone": 1},
        {"_step": 5, "epoch": 5, "val/a": 3},
    ]
    told = {event["name"]: event["step_metric"] for event in events(run, "define_metric")}
    assert told == {"epoch": None, "val/*": "epoch", "alone": "epoch"}


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"summary": "median"}, "summary='median' is not one of last, first, min"),
        ({"goal": "up"}, "goal='up' is not one of min, max"),
        ({"summary": "best"}, r'define_metric\(summary="best"\) needs goal="min" or goal="max"'),
        ({"step_metric": 5}, r"define_metric\(step_metric=5\): it must be a metric's name"),
        ({"name": ""}, r"define_metric\(name=''\): it must be a metric's name"),
    ],
)
def test_words_of_define_metric_that_mean_nothing_are_refused(
    init: Init, wrong: dict[str, Any], told: str
) -> None:
    with init() as run, pytest.raises(UsageError, match=told):
        run.define_metric(**{"name": "x", **wrong})


def test_an_alert_is_recorded_and_said(init: Init, capsys: pytest.CaptureFixture[str]) -> None:
    with init() as run:
        run.alert("Loss is NaN", "at step 3", level="warn")
        cupel.alert(title="done", level=cupel.AlertLevel.ERROR)
        for _ in range(3):
            run.alert("again", wait_duration=datetime.timedelta(minutes=1))
            run.alert("often", wait_duration=0)
        with pytest.raises(UsageError, match="level='LOUD' is not one of INFO, WARN, ERROR"):
            run.alert("x", level="loud")
    found = [(e["title"], e["text"], e["level"]) for e in events(run, "alert")]
    assert found == [
        ("Loss is NaN", "at step 3", "WARN"), ("done", "", "ERROR"), ("again", "", "INFO"),
        ("often", "", "INFO"), ("often", "", "INFO"), ("often", "", "INFO"),
    ]  # fmt: skip
    told = capsys.readouterr().err
    assert "cupel: WARN Loss is NaN: at step 3\n" in told
    assert told.count("again") == 1


@pytest.mark.parametrize(
    "arguments,status,error",
    [
        ({"exit_code": 0}, "finished", None),
        ({"exit_code": 3}, "failed", "exit code 3"),
        ({"status": 1}, "failed", "exit code 1"),
        ({"status": None, "quiet": True}, "finished", None),
        ({"status": "failed", "error": "no"}, "failed", "no"),
    ],
)
def test_a_run_ends_as_the_exit_code_says(
    init: Init, arguments: dict[str, Any], status: str, error: str | None
) -> None:
    run = init()
    run.finish(**arguments)
    record = RunRecord(run.dir)
    assert record.status == status
    assert record.sessions[0].fields["error"] == error
    with pytest.raises(UsageError, match="a run ends as finished, failed or interrupted"):
        init().finish("done")
    cupel.finish(exit_code=1)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_may_open_a_run_of_its_own(init: Init, root: Path) -> None:
    run = init()
    child = os.fork()
    if child == 0:
        try:
            with init(name="child") as own:
                own.log({"loss": 1.0})
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    run.finish()
    assert {record.run["name"]: record.status for record in list_runs(root)} == {
        "n": "finished", "child": "finished",
    }  # fmt: skip
