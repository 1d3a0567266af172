"""A training loop that writes with TensorBoard's `SummaryWriter`: one script for both trackers.

    python examples/tensorboard_loop.py                        # cupel
    TRACKER=tensorboard python examples/tensorboard_loop.py    # event files

`--logged FILE` also writes what was logged as JSON; a test compares it with the record.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from torch import nn

if os.environ.get("TRACKER") == "tensorboard":
    from torch.utils.tensorboard import SummaryWriter
else:
    from cupel.compat import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--log_dir", default="logs/regression/sgd")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--logged")
args = parser.parse_args()

torch.manual_seed(1)
inputs = torch.randn(256, 4)
targets = inputs.sin().sum(dim=1, keepdim=True)
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

logged: list[tuple[str, int, float]] = []
with SummaryWriter(args.log_dir) as writer:

    def add(tag: str, value: float, step: int) -> None:
        """A float32, since that is what TensorBoard keeps of a number."""
        number = float(torch.tensor(value, dtype=torch.float32))
        writer.add_scalar(tag, number, step)
        logged.append((tag, step, number))

    step = 0
    for epoch in range(args.epochs):
        for batch, target in zip(inputs.split(32), targets.split(32), strict=True):
            loss = nn.functional.mse_loss(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            add("train/loss", loss.item(), step)
            step += 1
        with torch.no_grad():
            error = nn.functional.mse_loss(model(inputs), targets).item()
        add("val/loss", error, step)
        writer.add_histogram("weights", model[0].weight, step)
        writer.add_text("note", f"epoch {epoch} is over", step)
        print(f"epoch {epoch}: {error:.4f}")
    writer.add_image("weights as a picture", model[0].weight.detach().abs().clip(0, 1)[None], step)
    writer.add_hparams({"lr": args.lr, "epochs": args.epochs}, {"hparam/error": error})

if args.logged:
    Path(args.logged).write_text(json.dumps({"points": logged, "error": error}))
