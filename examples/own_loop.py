"""A plain PyTorch loop with cupel's tracking, monitors and exact checkpoints.

Run it, stop it with Ctrl-C, run it again; then let cupel prove that this was exact:

    python examples/own_loop.py
    cupel verify resume examples/own_loop.py
    cupel verify monitors examples/own_loop.py
"""

import torch
from torch import nn

import cupel

STEPS = 200
config = {"lr": 0.05, "width": 32, "seed": 1}

torch.manual_seed(config["seed"])
model = nn.Sequential(
    nn.Linear(8, config["width"]), nn.Tanh(), nn.Dropout(0.1), nn.Linear(config["width"], 1)
)
optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

with cupel.init(project="examples", name="own-loop", config=config, resume="auto") as run:
    run.register(model=model, optimizer=optimizer, schedule=schedule)
    run.watch(model, optimizer, monitors={"norms": {"every": 10, "total": True}, "throughput": {}})

    for step in run.steps(STEPS, save_every=50):
        x = torch.randn(64, 8)
        y = x.sin().sum(dim=1, keepdim=True)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log({"loss": loss, "lr": schedule.get_last_lr()[0]})
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}")

print(f"the record is in {run.dir}")
