"""Checks before the first step: will memory and disk carry this run?

Memory is a lower bound from parameter counts (weights, gradients, moments of the built-in
optimizers, EMA) and the copy from which checkpoints are written in the background; activations
are not counted, so passing is no promise, and failing is certain. Disk is what the checkpoints
take when all that are kept are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from cupel.errors import PreflightError
from cupel.train.settings import AdamWSettings, SGDSettings, TrainSettings


def check(
    model: nn.Module,
    settings: TrainSettings,
    *,
    folder: Path,
    checkpoints_kept: int,
    device: torch.device,
    background: bool = False,
) -> dict[str, int]:
    """Raise PreflightError when memory or disk is certainly too small; else the estimates in bytes.

    `folder` is where the run will be written; `checkpoints_kept` how many stand there at once;
    `background` says that this process will hold a copy of a checkpoint in the host's memory.
    """
    trained = _bytes(p for p in model.parameters() if p.requires_grad)
    weights = _bytes(model.parameters()) + _bytes(model.buffers())
    average = weights if settings.ema is not None else 0
    checkpoint = weights + _moments(settings.optimizer) * trained + average
    memory = checkpoint + trained  # the gradients
    here = next(model.parameters()).device.type == device.type
    missing = memory - (weights if here else 0)
    _check_memory(missing, device)
    if background:
        _check_copy(checkpoint, beside=missing if device.type == "cpu" else 0)
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


def _moments(optimizer: object) -> int:
    """How many tensors of a parameter's size the optimizer keeps; of one not ours, none."""
    match optimizer:
        case AdamWSettings():
            return 2
        case SGDSettings(momentum=momentum):
            return 1 if momentum else 0
    return 0


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _check_memory(needed: int, device: torch.device) -> None:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "cpu":
        free = psutil.virtual_memory().available
    else:
        return
    if needed > free:
        raise PreflightError(
            f"weights, gradients and optimizer state need {_size(needed)} on {device} before the "
            f"first step, and {_size(free)} are free there; make the model smaller"
        )


def _check_copy(checkpoint: int, *, beside: int) -> None:
    free = psutil.virtual_memory().available - beside
    if checkpoint > free:
        raise PreflightError(
            f"writing checkpoints in the background needs a copy of {_size(checkpoint)} in memory, "
            f"and {_size(max(0, free))} are left for it; do without with "
            "checkpoint.background=false"
        )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
