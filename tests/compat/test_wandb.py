"""`import cupel as wandb`: scripts that keep to wandb's core run, and hear what has no effect."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cupel as wandb
from cupel.errors import ResumeError, UsageError
from cupel.record.reader import RunRecord, list_runs


def rows(record: RunRecord) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "_t"} for row in record.history()]


def only(root: Path) -> RunRecord:
    (record,) = list_runs(root)
    return record


def test_a_script_in_wandbs_words_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written as wandb's documentation writes such scripts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args([])
    wandb.login()
    run = wandb.init(
        project="my-project",
        entity="my-team",
        name="baseline",
        config=args,
        tags=["a"],
        notes="first",
        group="g",
        job_type="train",
        save_code=True,
        reinit=True,
        settings=wandb.Settings(start_method="thread", console="off", _disable_stats=True),
    )
    assert wandb.run is run
    wandb.config.update({"epochs": 2}, allow_val_change=True)
    wandb.define_metric("val/*", step_metric="epoch")
    model = torch.nn.Linear(2, 1)
    wandb.watch(model, torch.nn.MSELoss(), log="all", log_freq=1)
    for epoch in range(wandb.config.epochs):
        model(torch.ones(1, 2)).sum().backward()
        wandb.log({"epoch": epoch}, commit=False)
        wandb.log({"val/loss": torch.tensor(1.0 / (epoch + 1))})
    table = wandb.Table(columns=["a", "b"], data=[[1, 2]])
    wandb.log(
        {
            "table": table,
            "image": wandb.Image(np.zeros((4, 4, 3)), caption="c"),
            "hist": wandb.Histogram(np.random.default_rng(1).normal(size=10)),
            "html": wandb.Html("<b>x</b>"),
            "nested": {"a": 1},
        }
    )
    wandb.run.summary["best"] = 0.5
    wandb.summary.update({"more": 1})
    wandb.alert(title="t", text="x", level=wandb.AlertLevel.INFO)
    artifact = wandb.Artifact("model", type="model")
    artifact.add_file(__file__)
    run.log_artifact(artifact)
    wandb.run.name = "renamed"
    wandb.unwatch(model)
    wandb.finish()
    record = only(root)
    assert rows(record) == [
        {"_step": 0, "epoch": 0, "val/loss": 1.0},
        {"_step": 1, "epoch": 1, "val/loss": 0.5},
        {"_step": 2, "nested/a": 1},
    ]
    assert (record.status, record.run["name"], record.run["group"]) == ("finished", "renamed", "g")
    assert record.config == {"lr": 0.1, "epochs": 2}
    assert record.summary["best"] == 0.5
    kinds = {event["kind"] for event in record.events() if event["_event"] == "media"}
    assert kinds == {"table", "image", "histogram", "html"}
    session = record.run_dir / "sessions" / "0001"
    assert not (session / "console.log").exists()  # console="off"
    assert not list(session.glob("system.*"))
    told = [line for line in capsys.readouterr().err.splitlines() if "effect" in line]
    assert [line.split(" here")[0] for line in told] == [
        "cupel: init(entity=…) has no effect",
        "cupel: init(save_code=…) has no effect",
        "cupel: the setting start_method has no effect",
    ]


def test_each_argument_without_a_meaning_is_told_once_and_why(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {
        "entity": "x", "dir": "/tmp", "save_code": True, "tensorboard": True, "force": True,
        "sync_tensorboard": True, "monitor_gym": True, "allow_val_change": True,
        "anonymous": "allow", "magic": True, "resume_from": None, "fork_from": None,
    }  # fmt: skip
    for _ in range(2):
        wandb.init(**given).finish()
    lines = capsys.readouterr().err.splitlines()
    named = [line.split("(")[1].split("=")[0] for line in lines]
    assert sorted(named) == sorted(name for name, value in given.items() if value is not None)
    assert all(": " in line.split("here")[1] for line in lines)
    assert "the record goes to root=, else $CUPEL_ROOT, else ./runs" in "".join(lines)


def test_arguments_that_are_none_are_as_if_they_were_not_given(root: Path) -> None:
    none = dict.fromkeys(
        ("project", "name", "config", "tags", "notes", "group", "resume", "id", "mode", "settings",
         "entity", "dir", "job_type", "reinit", "save_code")
    )  # fmt: skip
    with wandb.init(**none) as run:
        assert run.project == "default"


@pytest.mark.parametrize("reinit", [True, "finish_previous"])
def test_reinit_ends_the_run_before(root: Path, reinit: Any) -> None:
    first = wandb.init()
    second = wandb.init(reinit=reinit)
    assert first.finished
    assert not second.finished


def test_reinit_may_return_the_open_run_or_open_one_beside_it(root: Path) -> None:
    first = wandb.init()
    assert wandb.init(reinit="return_previous") is first
    second = wandb.init(reinit="create_new")
    assert wandb.run is second
    first.log({"a": 1})
    second.finish()
    first.finish()
    assert [record.status for record in list_runs(root)] == ["finished", "finished"]
    wandb.init()
    with pytest.raises(UsageError, match="reinit is 'maybe'; it must be True"):
        wandb.init(reinit="maybe")


def test_an_id_is_the_runs_and_a_second_one_is_refused(root: Path) -> None:
    wandb.init(id="abc").finish()
    assert only(root).run_id == "abc"
    with pytest.raises(UsageError, match="the run abc exists already"):
        wandb.init(id="abc")


@pytest.mark.slow
def test_must_and_allow_go_on_after_the_last_line_as_in_wandb(root: Path) -> None:
    """With another config, too: scripts say there that they resume."""
    run = wandb.init(project="p", id="abc", resume="allow", config={"init_from": "scratch"})
    run.log({"loss": 2.0})
    run.log({"loss": 1.0}, step=5)
    run.finish(exit_code=1)
    for how, step in (("must", 6), ("allow", 7)):
        again = wandb.init(project="p", id="abc", resume=how, config={"init_from": "resume"})
        assert again.id == "abc"
        again.log({"loss": 0.5})
        again.finish(exit_code=1)
        assert rows(only(root))[-1] == {"_step": step, "loss": 0.5}
    assert [row["_step"] for row in rows(only(root))] == [0, 5, 6, 7]
    assert only(root).config == {"init_from": "resume"}
    with pytest.raises(ResumeError, match=r"there is no run xyz in .* to resume"):
        wandb.init(project="p", id="xyz", resume="must")
    wandb.init(project="p", id="xyz", resume="allow").finish()
    with pytest.raises(ResumeError, match="run xyz is finished"):
        wandb.init(project="p", id="xyz", resume="must")


def test_true_resumes_as_auto_does(root: Path) -> None:
    run = wandb.init(name="n", config={"lr": 1})
    run.finish(exit_code=1)
    with wandb.init(name="n", config={"lr": 1}, resume=True) as again:
        assert again.id == run.id


def test_names_that_are_not_there_say_which_are() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sweep'; of wandb's names it has"):
        _ = wandb.sweep
    assert not hasattr(wandb, "Api")
    assert wandb.__version__
    assert {"run", "config", "summary", "init", "log"} <= set(dir(wandb))


def test_every_public_name_is_there_and_is_fetched_once() -> None:
    for name in wandb.__all__:
        assert getattr(wandb, name) is getattr(wandb, name)


def test_the_config_of_the_run_and_the_module_of_that_name_do_not_meet(root: Path) -> None:
    """`cupel.config` is a module of ours as well; importing it in a run may not hide the config."""
    with wandb.init(config={"lr": 0.1}) as run:
        run.watch(
            torch.nn.Linear(1, 1),
            torch.optim.SGD(torch.nn.Linear(1, 1).parameters()),
            monitors={"norms": {"total": True}},
        )  # imports cupel.config
        assert "cupel.config" in sys.modules
        assert wandb.config.lr == 0.1
        wandb.config = {"late": 1}  # as old scripts do
        assert run.config == {"lr": 0.1, "late": 1}
    from cupel.config import load

    assert load.__module__ == "cupel.config"


@pytest.mark.slow
def test_importing_the_module_config_before_and_after_works_in_every_form(tmp_path: Path) -> None:
    code = (
        "import cupel\nfrom cupel.config import Settings\nfrom cupel import config as a\n"
        "import cupel.config as b\nassert a.Settings is b.Settings is Settings\n"
        f"cupel.init('p', 'n', {{'lr': 1}}, root={str(tmp_path)!r})\n"
        "assert cupel.config.lr == 1\nassert cupel.run.config == {'lr': 1}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_star_import_brings_the_calls(tmp_path: Path) -> None:
    code = "from cupel import *\nprint(init.__name__, Image.__name__, 'config' in globals())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "init Image False\n", done.stderr


@pytest.mark.parametrize("mode", ["online", "disabled"])
def test_log_takes_wandbs_names_of_its_arguments(root: Path, mode: str) -> None:
    with wandb.init(project="p", mode=mode, job_type="train") as run:
        run.log(data={"loss": 0.5}, step=3, commit=True, sync=False)
        wandb.log(data={"loss": 0.25})
        wandb.log({"acc": 1}, 5, True, False)
        assert dict(run.summary) == {"loss": 0.25, "acc": 1}
        assert (run.job_type, run.entity, run.path) == ("train", "", f"p/{run.id}")
        assert run.settings.durability == run.settings["durability"] == "process"
    if mode == "online":
        steps = [(row["_step"], row.get("loss")) for row in rows(only(root))]
        assert steps == [(3, 0.5), (4, 0.25), (5, None)]


def test_of_several_summaries_the_first_counts_and_that_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with wandb.init(project="p") as run:
        run.define_metric("several/loss", summary="min,max")
        for loss in (2.0, 1.0, 3.0):
            run.log({"several/loss": loss})
        assert run.summary["several/loss"] == 1.0
    told = capsys.readouterr().err
    assert "summary='min,max'): a metric comes to one number here, min; set others in" in told
