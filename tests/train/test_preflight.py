"""What certainly does not fit is refused in one line, and what fits is let through."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from cupel.errors import PreflightError
from cupel.train import preflight
from cupel.train.settings import AdamWSettings, SGDSettings, TrainSettings

CPU = torch.device("cpu")


def check(
    model: nn.Module, tmp_path: Path, kept: int = 2, background: bool = False, **train: Any
) -> dict[str, int]:
    given = TrainSettings(**train)
    return preflight.check(
        model,
        given,
        folder=tmp_path,
        checkpoints_kept=kept,
        device=CPU,
        background=background,
    )


def sized(bytes_of_weights: int) -> nn.Module:
    """A model whose weights are only promised, so that an absurd one costs nothing."""
    return nn.Linear(1024, bytes_of_weights // 4096, bias=False, device="meta")


def test_a_model_beyond_memory_is_refused_in_one_line(tmp_path: Path) -> None:
    needed = psutil.virtual_memory().total
    with pytest.raises(PreflightError, match=r"make the model smaller$") as caught:
        check(sized(needed), tmp_path)
    assert "\n" not in str(caught.value)
    assert "TB" in str(caught.value) or "GB" in str(caught.value)


def test_checkpoints_beyond_the_disk_are_refused_in_one_line(tmp_path: Path) -> None:
    small, free = nn.Linear(64, 1024), shutil.disk_usage(tmp_path).free
    kept = free // (64 * 1024 * 4 * 3)  # each takes the weights three times
    with pytest.raises(PreflightError, match=r"checkpoint\.keep_last=1$") as caught:
        check(small, tmp_path, kept=kept)
    assert "\n" not in str(caught.value)


def test_estimates_count_weights_gradients_moments_and_average(tmp_path: Path) -> None:
    model = nn.Linear(10, 10)
    weights = 110 * 4
    plain = check(model, tmp_path)
    assert plain == {
        "memory": 4 * weights,
        "checkpoint": 3 * weights,
        "disk": 3 * 3 * weights,
    }
    assert check(model, tmp_path, ema=0.9)["checkpoint"] == 4 * weights


@pytest.mark.parametrize(
    "optimizer, moments",
    [
        (AdamWSettings(), 2),
        (SGDSettings(momentum=0.9), 1),
        (SGDSettings(momentum=0.0), 0),
    ],
)
def test_estimates_are_no_more_than_a_checkpoint_takes(
    tmp_path: Path, optimizer: Any, moments: int
) -> None:
    """A lower bound must not count what is not there: tied and frozen tensors, absent moments."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    trained, held = (64 + 8 + 16) * 4, (64 + 8 + 8 + 16 + 16) * 4 + 8
    found = check(model, tmp_path, optimizer=optimizer)
    assert found["checkpoint"] == held + moments * trained
    assert found["memory"] == held + (moments + 1) * trained


def test_weights_that_are_in_memory_already_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(256, 256, bias=False)
    available = 3 * 256 * 256 * 4  # gradients and two moments
    fake = type("Memory", (), {"available": available})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: fake)
    check(model, tmp_path)
    fake.available -= 1
    with pytest.raises(PreflightError):
        check(model, tmp_path)


def test_the_copy_for_writing_in_the_background_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(256, 256, bias=False)
    weights = 256 * 256 * 4
    fake = type("Memory", (), {"available": (3 + 3) * weights})  # gradients and moments; the copy
    monkeypatch.setattr(psutil, "virtual_memory", lambda: fake)
    check(model, tmp_path, background=True)
    fake.available -= 1
    with pytest.raises(PreflightError, match=r"checkpoint\.background=false$") as caught:
        check(model, tmp_path, background=True)
    assert "\n" not in str(caught.value)
    check(model, tmp_path)
