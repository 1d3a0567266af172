"""The examples with other trackers' calls: the record holds what was logged, the peers' do too.

Each example also writes what it logged, which is compared with what is read back. The same scripts
run on the real wandb and TensorBoard when $CUPEL_PEERS names a python that has these, torch,
pytorch-lightning and transformers; what they wrote is imported and compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cupel.record.reader import RunRecord, list_runs

EXAMPLES = Path(__file__).parents[2] / "examples"
Row = dict[str, Any]

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Run an example in a folder of its own; what it says that it logged."""

    def start(name: str, *arguments: str, python: str = sys.executable, **environment: str) -> Any:
        done = subprocess.run(
            [python, EXAMPLES / f"{name}.py", "--logged", tmp_path / "logged.json", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUPEL_ROOT": "runs", **environment},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((tmp_path / "logged.json").read_text())

    return start


@pytest.fixture
def peers() -> str:
    """The python that has the real ones."""
    python = os.environ.get("CUPEL_PEERS")
    if not python:
        pytest.skip("$CUPEL_PEERS names no python with wandb, tensorboard and torch")
    needed = "import wandb, tensorboard, torch, pytorch_lightning, transformers"
    done = subprocess.run([python, "-c", needed], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{python} lacks a package: {done.stderr.splitlines()[-1]}")
    return python


def only(tmp_path: Path) -> RunRecord:
    (record,) = list_runs(tmp_path / "runs")
    return record


def rows(record: RunRecord) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "_t"} for row in record.history()]


def imported(tmp_path: Path, source: Path) -> RunRecord:
    """A run of another tool, as cupel's importer reads it."""
    importing = pytest.importorskip("cupel.record.exchange.importing")
    (folder,) = importing.import_runs(source, root=tmp_path / "imported", tell=lambda line: None)
    return RunRecord(folder)


def merged(lines: list[Row], step: str) -> list[Row]:
    """Rows by their step, as reading gives them."""
    found: dict[int, Row] = {}
    for line in lines:
        at = line[step]
        found.setdefault(at, {"_step": at}).update({k: v for k, v in line.items() if k != step})
    return [found[at] for at in sorted(found)]


def expected_nanogpt(logged: Any) -> list[Row]:
    return [{"_step": step, **row} for step, row in enumerate(logged["rows"])]


def test_a_script_in_wandbs_words_is_recorded_number_by_number(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    logged = run("nanogpt_style")
    record = only(tmp_path)
    assert rows(record) == expected_nanogpt(logged)
    assert len(rows(record)) == 4
    assert record.status == "finished"
    assert record.config["n_embd"] == 32
    assert record.summary["best_val_loss"] == logged["summary"]["best_val_loss"]
    assert record.summary["val/loss"] == min(row["val/loss"] for row in logged["rows"])
    media = [event for event in record.events() if event["_event"] == "media"]
    assert {event["step"] for event in media} == {1, 2, 3}
    assert "gradients/head.weight" in {event["key"] for event in media}


def test_without_logging_the_script_leaves_no_record(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    run("nanogpt_style", "--wandb_log", "0", "--max_iters", "2")
    assert not (tmp_path / "runs").exists()


def test_the_same_script_on_the_real_wandb_gives_equal_numbers_at_equal_steps(
    run: Callable[..., Any], tmp_path: Path, peers: str
) -> None:
    ours = run("nanogpt_style")
    here = rows(only(tmp_path))
    theirs = run(
        "nanogpt_style", python=peers, TRACKER="wandb", WANDB_MODE="offline", WANDB_SILENT="true"
    )
    assert theirs == ours  # the training itself is the same
    (source,) = (tmp_path / "wandb").glob("offline-run-*")
    there = imported(tmp_path, source)
    kept = [{k: row[k] for k in ("_step", *ours["rows"][0])} for row in rows(there)]
    assert kept == here
    assert there.summary["best_val_loss"] == ours["summary"]["best_val_loss"]


def test_event_writers_calls_are_recorded_number_by_number(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    logged = run("tensorboard_loop")
    record = only(tmp_path)
    lines = [{"step": step, tag: value} for tag, step, value in logged["points"]]
    assert rows(record) == merged(lines, "step")
    assert (record.run["project"], record.run["name"]) == ("regression", "sgd")
    assert (record.config["lr"], record.summary["hparam/error"]) == (0.1, logged["error"])
    kinds = [event["kind"] for event in record.events() if event["_event"] == "media"]
    assert sorted(kinds) == ["histogram"] * 5 + ["image"] + ["text"] * 5


def test_the_same_script_on_the_real_tensorboard_gives_equal_numbers_at_equal_steps(
    run: Callable[..., Any], tmp_path: Path, peers: str
) -> None:
    ours = run("tensorboard_loop")
    here = rows(only(tmp_path))
    assert run("tensorboard_loop", python=peers, TRACKER="tensorboard") == ours
    (source,) = (tmp_path / "logs/regression/sgd").glob("events.out.*")
    there = rows(imported(tmp_path, source))
    names = ("_step", "train/loss", "val/loss")
    kept = [{k: row[k] for k in names if k in row} for row in there]
    assert [row for row in kept if len(row) > 1] == here


def test_lightnings_numbers_are_recorded_at_lightnings_steps(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    logged = run("lightning_loop")
    record = only(tmp_path)
    assert rows(record) == merged(logged["rows"], "step")
    assert len(rows(record)) == 10
    assert (record.config, record.status) == ({"lr": 0.01}, "finished")
    assert list(record.run_dir.glob("checkpoints/*.ckpt"))


def test_lightnings_own_wandb_logger_gives_equal_numbers(
    run: Callable[..., Any], tmp_path: Path, peers: str
) -> None:
    """That logger counts lines, and keeps Lightning's step as trainer/global_step."""
    ours = run("lightning_loop")
    here = rows(only(tmp_path))
    theirs = run(
        "lightning_loop", python=peers, TRACKER="wandb", WANDB_MODE="offline", WANDB_SILENT="true"
    )
    assert theirs == ours
    (source,) = (tmp_path / "wandb").glob("offline-run-*")
    there = [
        {k: v for k, v in row.items() if k != "_step"} for row in rows(imported(tmp_path, source))
    ]
    assert merged(there, "trainer/global_step") == here


def expected_trainer(logged: Any) -> list[Row]:
    """transformers' rule for names; its totals are no rows."""

    def renamed(name: str) -> str:
        return f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"

    totals = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
              "total_flos")  # fmt: skip
    lines = [
        {"step": row["step"], **{renamed(k): v for k, v in row.items() if k != "step"}}
        for row in ({k: v for k, v in row.items() if k not in totals} for row in logged["rows"])
    ]
    return merged(lines, "step")


def test_the_trainers_numbers_are_recorded_at_its_steps(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    logged = run("hf_trainer")
    record = only(tmp_path)
    assert rows(record) == expected_trainer(logged)
    assert [row["_step"] for row in rows(record)] == [3, 6, 9, 12]
    assert record.summary["train_loss"] == logged["rows"][-1]["train_loss"]
    assert (record.run["project"], record.run["name"]) == ("huggingface", "tiny-gpt2")
    assert (record.config["n_embd"], record.config["max_steps"]) == (16, 12)


def test_the_trainers_own_wandb_callback_gives_equal_numbers(
    run: Callable[..., Any], tmp_path: Path, peers: str
) -> None:
    """That callback counts lines, and keeps the step as train/global_step. Times differ."""

    def untimed(found: list[Row]) -> list[Row]:
        timed = ("eval/runtime", "eval/samples_per_second", "eval/steps_per_second")
        return [{k: v for k, v in row.items() if k not in timed} for row in found]

    run("hf_trainer")
    here = rows(only(tmp_path))
    run("hf_trainer", python=peers, TRACKER="wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    (source,) = (tmp_path / "wandb").glob("offline-run-*")
    there = [
        {k: v for k, v in row.items() if k.startswith(("train/", "eval/"))}
        for row in rows(imported(tmp_path, source))
    ]
    assert untimed(merged(there, "train/global_step")) == untimed(here)
