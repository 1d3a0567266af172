"""An exponential moving average of a model's weights, updated after every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """`average ← decay · average + (1 − decay) · weight`, in place, for floating-point tensors.

    Costs one copy of the weights in memory. Buffers that are not floating point are copied.
    No bias correction: the average starts at the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = {name: t.detach().clone() for name, t in _tensors(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present weights."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, tensor in _tensors(self._model).items():
            if tensor.is_floating_point():
                averages.append(self._average[name])
                weights.append(tensor)
            else:
                self._average[name].copy_(tensor)
        torch._foreach_lerp_(averages, weights, 1.0 - self._decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averaged weights."""
        tensors = _tensors(self._model)
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        _copy(self._average, tensors)
        try:
            yield
        finally:
            _copy(kept, tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _copy(state["average"], self._average)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tied tensor appears once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    assert source.keys() == target.keys(), (source.keys() ^ target.keys(), "differ")
    for name, tensor in target.items():
        tensor.copy_(source[name])
