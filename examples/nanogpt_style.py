"""A small GPT on characters, tracked with wandb's calls: one script for both trackers.

    python examples/nanogpt_style.py                      # cupel
    TRACKER=wandb WANDB_MODE=offline python examples/nanogpt_style.py

Which one it is, the import says and nothing else. Without `step=` both count log calls from 0.
`--logged FILE` also writes what was logged as JSON; a test compares it with the record.
"""

import argparse
import json
import math
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

if os.environ.get("TRACKER") == "wandb":
    import wandb
else:
    import cupel as wandb

parser = argparse.ArgumentParser()
parser.add_argument("--max_iters", type=int, default=60)
parser.add_argument("--eval_interval", type=int, default=20)
parser.add_argument("--eval_iters", type=int, default=4)
parser.add_argument("--batch_size", type=int, default=8)
parser.add_argument("--block_size", type=int, default=32)
parser.add_argument("--n_embd", type=int, default=32)
parser.add_argument("--learning_rate", type=float, default=3e-3)
parser.add_argument("--min_lr", type=float, default=3e-4)
parser.add_argument("--warmup_iters", type=int, default=10)
parser.add_argument("--seed", type=int, default=1337)
parser.add_argument("--wandb_log", type=int, default=1)
parser.add_argument("--logged")
args = parser.parse_args()

torch.manual_seed(args.seed)
text = "to be, or not to be: that is the question. " * 200
letters = sorted(set(text))
data = torch.tensor([letters.index(letter) for letter in text])
split = {"train": data[: len(data) * 9 // 10], "val": data[len(data) * 9 // 10 :]}


class Block(nn.Module):
    """Attention and a feed-forward net, each behind a normalisation and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.net = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (2, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x_BTD)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).flatten(-2))
        return x_BTD + self.net(self.norm2(x_BTD))


class GPT(nn.Module):
    """Predicts the next character at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(len(letters), args.n_embd)
        self.place = nn.Embedding(args.block_size, args.n_embd)
        self.blocks = nn.Sequential(Block(args.n_embd), Block(args.n_embd))
        self.head = nn.Linear(args.n_embd, len(letters))

    def forward(self, idx_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        places = torch.arange(idx_BT.shape[1])
        logits = self.head(self.blocks(self.token(idx_BT) + self.place(places)))
        return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())


def get_batch(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    starts = torch.randint(len(split[name]) - args.block_size, (args.batch_size,)).tolist()
    x = torch.stack([split[name][i : i + args.block_size] for i in starts])
    y = torch.stack([split[name][i + 1 : i + 1 + args.block_size] for i in starts])
    return x, y


@torch.no_grad()
def estimate_loss() -> dict[str, torch.Tensor]:
    model.eval()
    means = {
        name: torch.stack([model(*get_batch(name)) for _ in range(args.eval_iters)]).mean()
        for name in split
    }
    model.train()
    return means


def get_lr(it: int) -> float:
    if it < args.warmup_iters:
        return args.learning_rate * (it + 1) / (args.warmup_iters + 1)
    done = (it - args.warmup_iters) / max(1, args.max_iters - args.warmup_iters)
    return args.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (args.learning_rate - args.min_lr)


model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)

if args.wandb_log:
    wandb.init(project="nanogpt-style", name="mini-gpt", config=args, tags=["example"])
    wandb.define_metric("val/loss", step_metric="iter", summary="min")
    wandb.watch(model, log="gradients", log_freq=args.eval_interval)

logged: list[dict[str, float]] = []
best_val_loss = 1e9
for iter_num in range(args.max_iters + 1):
    lr = get_lr(iter_num)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if iter_num % args.eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: train {losses['train']:.4f}, val {losses['val']:.4f}")
        metrics = {
            "iter": iter_num,
            "train/loss": losses["train"],  # a tensor, as nanoGPT passes it
            "val/loss": losses["val"],
            "lr": lr,
        }
        if args.wandb_log:
            wandb.log(metrics)
        logged.append({key: float(value) for key, value in metrics.items()})
        best_val_loss = min(best_val_loss, float(losses["val"]))
    loss = model(*get_batch("train"))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

if args.wandb_log:
    wandb.run.summary["best_val_loss"] = best_val_loss
    wandb.finish()
if args.logged:
    Path(args.logged).write_text(
        json.dumps({"rows": logged, "summary": {"best_val_loss": best_val_loss}})
    )
