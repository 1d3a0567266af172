"""A model trained by Lightning, with its numbers in cupel: one line says which logger.

    python examples/lightning_loop.py                      # cupel
    TRACKER=wandb WANDB_MODE=offline python examples/lightning_loop.py

Needs `pip install pytorch-lightning`. Digits are drawn, not downloaded: ten fixed patterns under
noise. `--logged FILE` also writes what was logged as JSON; a test compares it with the record.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--logged")
args = parser.parse_args()

if os.environ.get("TRACKER") == "wandb":
    from pytorch_lightning.loggers import WandbLogger

    logger = WandbLogger(project="lightning", name="digits")
else:
    from cupel.integrations.lightning import CupelLogger

    logger = CupelLogger(project="lightning", name="digits")


class Classifier(pl.LightningModule):
    """One hidden layer."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        right = (self.net(batch[0]).argmax(dim=1) == batch[1]).float()
        self.log("val/accuracy", right.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


class Notes(DummyLogger):
    """Notes what Lightning hands to its loggers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({"step": step, **metrics})


notes = Notes()
pl.seed_everything(1, verbose=False)
digits = torch.arange(10).repeat(40)
patterns = torch.randn(10, 8, 8)
images = patterns[digits] + 0.5 * torch.randn(len(digits), 8, 8)
parts = [
    torch.utils.data.TensorDataset(images[n], digits[n]) for n in (slice(200), slice(200, 400))
]
loaders = [torch.utils.data.DataLoader(part, batch_size=20) for part in parts]
trainer = pl.Trainer(
    max_epochs=args.epochs,
    logger=[logger, notes],
    accelerator="cpu",
    log_every_n_steps=2,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Classifier(args.lr), *loaders)
print(f"accuracy {trainer.callback_metrics['val/accuracy']:.3f}")
if args.logged:
    Path(args.logged).write_text(json.dumps({"rows": notes.rows}))
