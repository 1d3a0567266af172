"""Name, tags, summary, axes and alerts: what describes a run is in the record at once."""

from __future__ import annotations

import datetime
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cupel
from cupel.api import facts
from cupel.errors import UsageError
from cupel.record import editing, files
from cupel.record.reader import RunRecord, list_runs
from fakes import status_of_fork

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


# ---- edits from two sides ----------------------------------------------------------------------


@pytest.mark.slow
def test_what_others_tagged_and_noted_meanwhile_stays(init: Init) -> None:
    with init(tags=["a", "b"]) as run:
        editing.change_tags(run.dir, add=["x"], remove=["b"])
        editing.add_note(run.dir, "from outside")
        run.tags += ("night",)
        run.notes = "from within"
        assert set(RunRecord(run.dir).run["tags"]) == {"a", "x", "night"} == set(run.tags)
        assert RunRecord(run.dir).run["notes"] == "from outside\nfrom within" == run.notes
        editing.add_note(run.dir, "again")
        run.notes += "\nand more"
        run.tags = ("only",)
    told = RunRecord(run.dir).run
    assert told["tags"] == ["only"]
    assert told["notes"] == "from outside\nfrom within\nagain\nand more"


@given(
    before=st.lists(st.sampled_from("abcd"), unique=True),
    mine=st.lists(st.sampled_from("abcd"), unique=True),
    theirs=st.lists(st.sampled_from("abcd"), unique=True),
)
def test_of_two_changes_of_tags_both_are_made(
    before: list[str], mine: list[str], theirs: list[str]
) -> None:
    notes = {"notes": "", "name": "n"}
    merged = facts._merged({"tags": theirs}, {"tags": before, **notes}, {"tags": mine, **notes})
    if mine == before:
        return  # then they are not written
    for tag in "abcd":
        changed = (tag in mine) != (tag in before)
        assert (tag in merged["tags"]) == ((tag in mine) if changed else (tag in theirs)), tag
    assert len(merged["tags"]) == len(set(merged["tags"]))


def test_what_the_disk_refused_of_name_tags_and_notes_is_written_at_the_end(
    init: Init, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_json

    def full(path: Path, fields: Any) -> None:
        if path.name == "run.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, fields)

    with init() as run:
        with monkeypatch.context() as context:
            context.setattr(files, "write_json", full)
            run.name = "renamed"
            run.tags += ("night",)
        assert RunRecord(run.dir).run["name"] == "n"
        assert (run.name, run.tags) == ("renamed", ("night",))
    told = RunRecord(run.dir).run
    assert (told["name"], told["tags"], told["status"]) == ("renamed", ["night"], "finished")
    assert capsys.readouterr().err.count("run.json: RecordError") == 1


@pytest.mark.slow
def test_an_editor_that_was_stopped_stops_no_training(init: Init) -> None:
    with init() as run, editing.locked(run.dir):
        begun = time.monotonic()
        run.name = "renamed"
        assert time.monotonic() - begun < 10
        assert RunRecord(run.dir).run["name"] == "renamed"


def test_a_resumed_run_is_called_and_tagged_as_run_json_says(init: Init) -> None:
    run = init(tags=["a"])
    run.name = "renamed"
    run.finish("interrupted")
    editing.change_tags(run.dir, add=["x"])
    with init(resume="auto") as resumed:
        assert (resumed.name, resumed.tags) == ("renamed", ("a", "x"))


# ---- a forked child, and after the end ---------------------------------------------------------


def contents(run: cupel.Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}


def call_everything(run: cupel.Run) -> None:
    run.name = "other"
    run.tags = ["other"]
    run.notes = "other"
    run.summary["best"] = 1
    run.config["late"] = 1
    run.log({"loss": 1.0})
    run.log_text("text", "text")
    run.define_metric("x", summary="max")
    run.alert("title")
    assert run.log_artifact(__file__) is None
    assert run.log_model(__file__) is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_nothing_into_its_parents_run(init: Init) -> None:
    with init(settings={"console": False}) as run:
        run._session._looking.join()
        before = contents(run)

        def work() -> None:
            call_everything(run)
            run.watch(torch.nn.Linear(1, 1))
            assert run._session.lost >= 10

        assert status_of_fork(work) == 0
        assert contents(run) == before
        assert run._session.lost == 0


def test_after_the_end_every_call_is_told_and_nothing_is_written(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        run.log({"loss": 0.5})
    before = contents(run)
    for _ in range(2):
        call_everything(run)
        assert run.save(__file__) == []
    assert contents(run) == before
    assert (run.name, run.tags, dict(run.config), dict(run.summary)) == (
        "n", (), {"lr": 0.1}, {"loss": 0.5},
    )  # fmt: skip
    told = capsys.readouterr().err.splitlines()
    assert all(f"run {run.id} is finished; start another one" in line for line in told)
    assert sorted(line.split(": ")[1] for line in told) == sorted(
        ["run.name", "run.tags", "run.notes", "summary", "config", "log", "define_metric", "alert",
         "artifact", "save"]
    )  # fmt: skip


# ---- mistaken arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda run: run.alert("t", wait_duration="5s"), "wait_duration='5s'.: it must be seconds"),
        (lambda run: run.alert("t", wait_duration=[5]), "it must be seconds, as 5.0, or a"),
        (lambda run: setattr(run, "tags", 5), "tags must be a list of texts, .* not int"),
        (lambda run: setattr(run, "name", None), "the name of a run must be text, not None"),
        (lambda run: run.define_metric("x", summary=["min"]), "summary=.* is not one of last"),
        (lambda run: run.define_metric("x", summary="min,median"), "'median' is not one of last"),
        (lambda run: run.summary.update(5), r"summary.update\(\) takes a dict, .* not int"),
        (lambda run: run.log_artifact(5), r"log_artifact\(\) takes an Artifact, .* not int"),
        (lambda run: run.log_artifact("\0"), "there is no file and no folder"),
        (lambda run: run.save(None), r"save\(\) takes a path or a pattern, .* not None"),
        (lambda run: next(run.steps("ten")), r"steps\(total='ten'\): it must be a whole number"),
        (lambda run: next(run.steps(9, save_every=0.5)), r"steps\(save_every=0.5\): it must be"),
        (lambda run: run.log(), r"log\(\) takes a dict, .* not a NoneType"),
        (lambda run: run.log({"a": 1}, data={"a": 1}), "as metrics or as data, not as both"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_in_one_line(
    init: Init, call: Callable[[cupel.Run], Any], told: str
) -> None:
    with init() as run:
        with pytest.raises(UsageError, match=told) as raised:
            call(run)
        assert len(str(raised.value).splitlines()) == 1


def test_titles_and_tags_that_are_no_texts_stop_nothing(init: Init) -> None:
    with init(tags=["a"]) as run:
        run.alert(["t"])
        run.tags = None
        run.notes = None
    (alert,) = events(run, "alert")
    assert alert["title"] == "['t']"
    assert (RunRecord(run.dir).run["tags"], run.notes) == ([], "")
