"""What a memory is for: recall of pairs of which the weights know nothing."""

from __future__ import annotations

import pytest
import torch

from cupel.workloads.memory import MemoryWorkload
from cupel.workloads.settings import MemoryWorkloadSettings


def recalled(*, steps: int, **memory: object) -> float:
    """The share of right values behind some steps of AdamW, of four pairs of 8 keys and 8 values.

    Pairs are new in every sequence, and asked for anywhere behind them, so that without a memory
    of the sequence an answer is one of eight.
    """
    data = {"kind": "mqar", "pairs": 4, "block": 24, "keys": 8, "values": 8, "gaps": "uniform"}
    model = {
        "kind": "memory", "mixer": "lmm", "layers": 1, "width": 32, "heads": 1, "persistent": 0,
        "memory": {"kind": "deltanet", "chunk": 8, **memory},
    }  # fmt: skip
    settings = MemoryWorkloadSettings.model_validate(
        {"data": data, "model": model, "batch": 32, "val_batches": 2, "val_batch": 64}
    )
    workload = MemoryWorkload.build(settings, seed=1)
    optimizer = torch.optim.AdamW(workload.model.parameters(), lr=5e-3, weight_decay=0)
    for step in range(steps):
        loss, _ = workload.loss(workload.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return workload.evaluate()["val_acc"]


@pytest.mark.slow
def test_a_delta_rule_recalls_every_pair_and_the_same_without_writes_guesses() -> None:
    """Without writes all else stays: first weights, decay, convolution, read-out, and training."""
    assert recalled(steps=250) == 1.0
    assert 0.05 < recalled(steps=250, step_max=1e-12) < 0.2
