"""Memories keeps the monitor's contract, and says where there is nothing to measure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.events import StepView
from cupel.models.memory.model import MemoryLM
from cupel.models.memory.settings import MemoryModelSettings
from cupel.monitors.memories import MOST_NUMBERS, Memories
from cupel.monitors.settings import MemoriesSettings
from cupel.record.codec import encode_line
from cupel.testing.monitor import MonitorContract


def made(**changes: Any) -> MemoryLM:
    size: dict[str, Any] = {"layers": 2, "heads": 1, "width": 8, "vocabulary": 6, "persistent": 1}
    return MemoryLM(MemoryModelSettings.model_validate(size | changes))


class MemoryRegression(nn.Module):
    """A memory that reads the signs of its input as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = made()

    def memory_trace(self, x_T: Tensor) -> dict[str, Tensor]:
        return self.lm.memory_trace((x_T > 0).long())

    def forward(self, x: Tensor) -> Tensor:
        return self.lm((x > 0).long() + 2 * (x > 1).long())[0].sum(1)[:, :1]


class TestMemoriesOfAMemory(MonitorContract):
    def make(self) -> Memories:
        return Memories(MemoriesSettings(every=1, tokens=4))

    def model(self) -> Any:
        return MemoryRegression()


def view(model: nn.Module, length: int) -> StepView:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    tokens_BT = torch.arange(length)[None].remainder(6)
    return StepView(model, optimizer, 1, batch=(tokens_BT, tokens_BT))


def test_a_measurement_is_the_models_trace_of_the_first_sequence() -> None:
    model = made()
    found = Memories(MemoriesSettings(tokens=5))(view(model, 9))
    assert found["memory/tokens"] == [0, 1, 2, 3, 4]
    trace = model.memory_trace(torch.arange(5))
    assert set(found) == {"memory/tokens"} | {f"memory/{name}" for name in trace}
    for name, values_LT in trace.items():
        torch.testing.assert_close(found[f"memory/{name}"], values_LT)


@pytest.mark.slow
def test_many_layers_are_cut_to_what_a_line_holds() -> None:
    model = made(layers=6)
    found = Memories(MemoriesSettings(tokens=256))(view(model, 256))
    encode_line(found)
    length = MOST_NUMBERS // 6 - 1
    assert len(found["memory/tokens"]) == found["memory/norm"].shape[1] == length


def test_it_says_that_there_is_nothing_to_measure() -> None:
    monitor = Memories(MemoriesSettings())
    assert monitor.note(made()) is None
    plain = nn.Linear(2, 2)
    assert "has no memory_trace()" in str(monitor.note(plain))
    assert list(monitor.keys(plain)) == []
    assert monitor(view(plain, 4)) == {}
    without = made(mixer="attention")
    assert "has no memories" in str(monitor.note(without))
    assert monitor(view(without, 4)) == {}


def test_a_batch_without_tokens_is_refused_in_one_line() -> None:
    monitor, model = Memories(MemoriesSettings()), made()
    for batch in (None, (), torch.zeros(3), {"x": torch.zeros(1, 3)}):
        with pytest.raises(UsageError, match=r"reads the batch's tokens, a tensor \(B, T\)"):
            monitor(replace(view(model, 4), batch=batch))
