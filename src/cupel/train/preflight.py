"""Checks before the first step: will memory and disk carry this run?

Estimates are lower bounds from parameter counts (weights, gradients, optimizer moments, EMA);
activations are not counted, so passing is no promise, and failing is certain.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import torch
from torch import nn

from cupel.errors import PreflightError
from cupel.train.settings import TrainSettings


def check(
    model: nn.Module,
    settings: TrainSettings,
    *,
    folder: Path,
    checkpoints_kept: int,
    device: torch.device,
) -> dict[str, int]:
    """Raise PreflightError when memory or disk is certainly too small; else the estimates in bytes.

    `folder` is where the run will be written; `checkpoints_kept` how many stand there at once.
    """
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    moments = 2 if settings.optimizer.kind == "adamw" else 1
    average = weights if settings.ema is not None else 0
    checkpoint = weights * (1 + moments) + average
    memory = weights + checkpoint
    _check_memory(memory, device)
    # One more than are kept: an old checkpoint goes only when the new one is safe.
    disk = checkpoint * (checkpoints_kept + 1)
    free = shutil.disk_usage(folder).free
    if free < disk:
        raise PreflightError(
            f"{checkpoints_kept + 1} checkpoints of {_size(checkpoint)} need {_size(disk)}, and "
            f"{folder} has {_size(free)} free; choose another place with --root, or keep fewer "
            "with checkpoint.keep_last=1"
        )
    return {"memory": memory, "checkpoint": checkpoint, "disk": disk}


def _check_memory(needed: int, device: torch.device) -> None:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "cpu":
        free = psutil.virtual_memory().available
    else:
        return
    if needed > free:
        raise PreflightError(
            f"weights, gradients and optimizer state need {_size(needed)} on {device}, which has "
            f"{_size(free)} free; make the model smaller"
        )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
