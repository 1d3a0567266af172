"""`CupelCallback` with the real Trainer of transformers: its numbers at its steps."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import cupel
from cupel.record.reader import RunRecord, list_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("accelerate")
    return pytest.importorskip("transformers")


@pytest.fixture
def train(transformers: Any, tmp_path: Path) -> Any:
    """Train a tiny GPT-2 for some steps; the Trainer."""
    import_module("cupel.integrations.huggingface")  # makes report_to="cupel" known

    def start(*, resume: bool = False, callbacks: Any = None, **changes: Any) -> Any:
        transformers.set_seed(1)
        rows = torch.randint(0, 20, (16, 8))
        dataset = [{"input_ids": row, "labels": row} for row in rows]
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=20,
                n_positions=8,
                n_embd=8,
                n_layer=1,
                n_head=2,
                bos_token_id=0,
                eos_token_id=0,
                loss_type="ForCausalLM",
            )
        )
        arguments = transformers.TrainingArguments(
            tmp_path / "out",
            **{
                "max_steps": 4,
                "per_device_train_batch_size": 4,
                "logging_steps": 2,
                "report_to": "cupel",
                "use_cpu": True,
                "disable_tqdm": True,
                "save_strategy": "no",
                "dataloader_pin_memory": False,
                **changes,
            },
        )
        trainer = transformers.Trainer(
            model, arguments, train_dataset=dataset, eval_dataset=dataset, callbacks=callbacks
        )
        trainer.train(resume_from_checkpoint=resume or None)
        return trainer

    return start


def rows(record: RunRecord, *keys: str) -> list[tuple[Any, ...]]:
    return [(row["_step"], *(row.get(key) for key in keys)) for row in record.history(list(keys))]


def test_report_to_cupel_is_known_and_records_every_number(train: Any, root: Path) -> None:
    trainer = train(run_name="tiny", project="my-project")
    evaluated = trainer.evaluate()
    predicted = trainer.predict(trainer.eval_dataset).metrics
    run = cupel.run
    assert run is not None  # evaluate and predict follow train
    cupel.finish()
    (record,) = list_runs(root)
    history = trainer.state.log_history
    logged = [(row["step"], row["loss"]) for row in history if "loss" in row]
    assert rows(record, "train/loss") == logged
    assert rows(record, "eval/loss") == [(4, evaluated["eval_loss"])]
    assert rows(record, "test/loss") == [(4, predicted["test_loss"])]
    (totals,) = (row for row in history if "train_loss" in row)
    assert record.summary["train_loss"] == totals["train_loss"]
    assert (record.run["project"], record.run["name"]) == ("my-project", "tiny")
    assert record.status == "finished"
    assert (record.config["n_embd"], record.config["learning_rate"]) == (8, 5e-5)


def test_the_current_run_is_used_and_gets_the_settings(train: Any, root: Path) -> None:
    with cupel.init("p", "mine", {"learning_rate": "my own"}) as run:
        train()
        assert not run.finished
    (record,) = list_runs(root)
    assert record.run["name"] == "mine"
    assert (record.config["learning_rate"], record.config["max_steps"]) == ("my own", 4)
    assert [step for step, _ in rows(record, "train/loss")] == [2, 4]


def test_a_callback_takes_a_run_or_inits_arguments(train: Any, root: Path) -> None:
    from cupel.integrations.huggingface import CupelCallback

    train(report_to="none", callbacks=[CupelCallback(project="q", name="n", config={"a": 1})])
    cupel.finish()
    with cupel.init("q", "given") as run:
        train(report_to="none", callbacks=[CupelCallback(run)])
    newest, first = list_runs(root)
    assert (first.run["name"], first.config["a"]) == ("n", 1)
    assert first.config["n_embd"] == 8
    assert len(rows(newest, "train/loss")) == 2


def test_going_on_from_the_trainers_checkpoint_goes_on_at_its_step(train: Any, root: Path) -> None:
    with cupel.init("p", "n") as run:
        run.config.update({})
        train(save_strategy="steps", save_steps=2, max_steps=2)
        run.finish("interrupted")
    with cupel.init("p", "n", resume="auto"):
        train(save_strategy="steps", save_steps=2, max_steps=6, resume=True)
    (record,) = list_runs(root)
    assert [step for step, _ in rows(record, "train/loss")] == [2, 4, 6]
    assert len(record.sessions) == 2


def test_other_processes_than_the_first_record_nothing(transformers: Any, root: Path) -> None:
    from cupel.integrations.huggingface import CupelCallback

    class State:
        is_world_process_zero = False
        global_step = 1

    callback = CupelCallback()
    callback.on_train_begin(None, State(), None)
    callback.on_log(None, State(), None, logs={"loss": 1.0})
    callback.on_predict(None, State(), None, metrics={"test_loss": 1.0})
    assert not root.exists()


def test_without_transformers_the_command_that_installs_it_is_told() -> None:
    code = "import sys; sys.modules['transformers'] = None\nimport cupel.integrations.huggingface"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "CupelCallback needs the package 'transformers', which is not installed" in last
    assert "pip install 'cupel[huggingface]'" in last
