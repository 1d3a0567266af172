"""Autocast changes the forward pass and nothing else; the scaler works with AdamW on a CPU."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from cupel.train.optim import adamw
from cupel.train.precision import autocast, scaler
from cupel.train.settings import AdamWSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "precision, dtype",
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_made_in_the_precision_and_parameters_stay_fp32(
    precision: Literal["fp32", "bf16", "fp16"], dtype: torch.dtype
) -> None:
    linear = nn.Linear(4, 4)
    with autocast(precision, CPU):
        made = linear(torch.ones(2, 4))
    made.float().sum().backward()
    assert made.dtype == dtype
    assert linear.weight.dtype == torch.float32
    assert linear.weight.grad is not None
    assert linear.weight.grad.dtype == torch.float32


def test_only_fp16_has_a_scaler() -> None:
    assert scaler("fp32", CPU) is None
    assert scaler("bf16", CPU) is None
    assert scaler("fp16", CPU) is not None


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_skips_the_update_and_halves_the_scale(fused: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 1)
    optimizer, scale = adamw(linear, AdamWSettings(fused=fused)), scaler("fp16", CPU)
    assert scale is not None

    def step(loss_factor: float) -> tuple[float, bool]:
        before = linear.weight.detach().clone()
        optimizer.zero_grad()
        with autocast("fp16", CPU):
            loss = linear(torch.ones(2, 4)).float().mean() * loss_factor
        scale.scale(loss).backward()
        scale.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
        scale.step(optimizer)
        scale.update()
        return scale.get_scale(), not torch.equal(before, linear.weight)

    assert step(1e-3) == (65536.0, True)
    assert step(1e3) == (32768.0, False)  # 1000 times 65536 is beyond float16
    assert step(1e-3) == (32768.0, True)
    assert torch.isfinite(linear.weight).all()
