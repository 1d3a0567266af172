"""What a run costs is counted, not estimated: FLOPs by a real pass, time over all sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cupel.models.gpt.model import GPT
from cupel.workloads.cost import flops_per_update
from cupel.workloads.gpt import GPTWorkload
from cupel.workloads.settings import GPTSettings
from fakes import Regression, RegressionSettings


@pytest.fixture
def workload(tmp_path: Path) -> GPTWorkload:
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 200)
    data = {"path": str(tmp_path / "text.txt"), "cache": str(tmp_path / "cache"), "batch": 6}
    model = {"layers": 2, "heads": 2, "width": 16, "block": 8, "dropout": 0.3}
    return GPTWorkload.build(GPTSettings.model_validate({"data": data, "model": model}), seed=1)


def test_flops_are_those_of_the_matrices(workload: GPTWorkload) -> None:
    C, T, V, L, B = 16, 8, 256, 2, 6
    forward = L * (12 * C * C * T + 2 * T * T * C) * 2 + 2 * T * C * V
    # Each product has two in the backward pass; that the ids need no gradient saves none of them.
    assert flops_per_update(workload) == 3 * forward * B


def test_counting_leaves_model_and_randomness_as_they_were(workload: GPTWorkload) -> None:
    model = workload.model
    assert isinstance(model, GPT)
    before = [p.clone() for p in model.parameters()]
    state = torch.random.get_rng_state()
    flops_per_update(workload)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_workload_whose_loss_fails_on_one_row_has_no_count() -> None:
    workload: Any = Regression.build(RegressionSettings(), seed=1)
    assert flops_per_update(workload) is not None
    real = workload.loss

    def refuses(batch: Any) -> Any:
        if len(batch) < 2:
            raise ValueError("expected more than one row")
        return real(batch)

    workload.loss = refuses
    assert flops_per_update(workload) is None
