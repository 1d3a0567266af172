"""`CupelLogger` with the real Lightning: its numbers, settings and checkpoints are the run's."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cupel
from cupel.record.reader import RunRecord, list_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),  # with Slurm installed
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]


@pytest.fixture(scope="module")
def pl() -> Any:
    return pytest.importorskip("pytorch_lightning")


@pytest.fixture
def logger_class(pl: Any) -> Any:
    from cupel.integrations.lightning import CupelLogger

    return CupelLogger


def model_of(pl: Any, *, fails_at: int | None = None) -> Any:
    class Model(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            if index == fails_at:
                raise RuntimeError("bad batch")
            loss = self.layer(batch).square().mean()
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val/loss", self.layer(batch).square().mean())

        def test_step(self, batch: Any, index: int) -> None:
            self.log("test/loss", self.layer(batch).square().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    return Model()


def trainer(pl: Any, logger: Any, **changes: Any) -> Any:
    return pl.Trainer(
        **{
            "max_epochs": 2,
            "logger": logger,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **changes,
        }
    )


def batches() -> Any:
    return torch.utils.data.DataLoader(torch.ones(6, 2), batch_size=2)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_fit_and_test_are_one_run_at_lightnings_steps(
    pl: Any, logger_class: Any, root: Path, tmp_path: Path
) -> None:
    logger = logger_class("digits", "fit", tags=["a"], prefix="my/", log_model=True)
    assert logger.version is None
    fitting = trainer(pl, logger)
    fitting.fit(model_of(pl), batches(), batches())
    fitting.test(model_of(pl), batches(), verbose=False)
    run = logger.experiment
    assert isinstance(run, cupel.Run)
    assert not run.finished  # more may follow
    assert (logger.name, logger.version) == ("digits", run.id)
    assert logger.log_dir == str(run.dir)
    cupel.finish()
    (record,) = list_runs(root)
    assert record.status == "finished"
    assert record.run["tags"] == ["a"]
    assert record.config == {"lr": 0.1}
    assert [r["_step"] for r in record.history(["my/train/loss"])] == [0, 1, 2, 3, 4, 5]
    assert [r["_step"] for r in record.history(["my/val/loss"])] == [2, 5]
    assert [r["_step"] for r in record.history(["my/test/loss"])] == [6]
    (checkpoint,) = record.run_dir.glob("checkpoints/*.ckpt")
    (artifact,) = record.run_dir.glob("artifacts/model/v0/files/*.ckpt")
    assert artifact.read_bytes() == checkpoint.read_bytes()


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_fit_that_fails_leaves_a_failed_run(root: Path, tmp_path: Path) -> None:
    code = """
import warnings; warnings.simplefilter("ignore")
import pytorch_lightning as pl, torch
from cupel.integrations.lightning import CupelLogger
class Model(pl.LightningModule):
    def __init__(self):
        super().__init__(); self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        self.log("loss", 1.0)
        if index == 2: raise RuntimeError("bad batch")
        return self.layer(batch[0]).sum()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)
data = torch.utils.data.TensorDataset(torch.ones(6, 2))
pl.Trainer(max_epochs=1, logger=CupelLogger("p", "n"), accelerator="cpu", log_every_n_steps=1,
           enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False
          ).fit(Model(), torch.utils.data.DataLoader(data, batch_size=1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 1
    (record,) = list_runs(root)
    assert record.status == "failed"
    assert "RuntimeError: bad batch" in record.sessions[0].fields["error"]
    assert [row["_step"] for row in record.history(["loss"])] == [0, 1]


def test_an_open_run_is_used_and_a_given_one_before_it(logger_class: Any, root: Path) -> None:
    with cupel.init("p", "current") as run:
        assert logger_class().experiment is run
        given = cupel.init("p", "given", reinit="create_new")
        assert logger_class(run=given).experiment is given
        given.finish()


def test_the_logger_by_itself_takes_what_lightning_and_people_give(
    logger_class: Any, root: Path
) -> None:
    logger = logger_class("p", "n", prefix="x/")
    logger.log_hyperparams(Namespace(lr=0.1, net={"width": 3}))
    logger.log_hyperparams({"seed": 1}, {"hp_metric": -1})
    logger.log_hyperparams(None)
    logger.log_metrics({"loss": torch.tensor(1.0)}, step=3)
    logger.log_metrics({"more": 2.0})
    logger.log_image("image", [np.zeros((2, 2)), np.ones((2, 2))], step=3)
    logger.log_text("text", "t")
    logger.log_table("table", ["a"], [[1]])
    logger.watch(torch.nn.Linear(1, 1))
    logger.finalize("success")
    run = logger.experiment
    run.finish()
    logger.finalize("failed")  # once more, when all is over
    record = RunRecord(run.dir)
    assert record.config == {"lr": 0.1, "net": {"width": 3}, "seed": 1}
    assert [(r["_step"], r.get("x/loss"), r.get("x/more")) for r in record.history()] == [
        (3, 1.0, 2.0)
    ]
    keys = [event["key"] for event in record.events() if event["_event"] == "media"]
    assert keys == ["x/image", "x/image", "x/text", "x/table"]


def test_other_processes_than_the_first_record_nothing(
    logger_class: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    logger = logger_class("p", "n")
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_hyperparams({"lr": 1})
    logger.experiment.anything("goes")
    assert not root.exists()


def test_without_lightning_the_command_that_installs_it_is_told() -> None:
    code = (
        "import sys\n"
        "for name in ('lightning', 'pytorch_lightning'): sys.modules[name] = None\n"
        "import cupel.integrations.lightning"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "CupelLogger needs the package 'pytorch-lightning', which is not installed" in last
    assert "pip install 'cupel[lightning]'" in last
