"""Norms of gradients and weights, whole and by layer: `grad_norm/<layer>`, `weight_norm/<layer>`.

A layer is a parameter's name up to its first number (`blocks.3`), or its first part (`head`).
All norms are taken in two fused calls; on a GPU one synchronisation a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cupel.events import Event, StepView
from cupel.monitors.settings import NormsSettings


class Norms:
    """L2 norms just after backward: gradients are averaged and not yet clipped."""

    Settings = NormsSettings
    on = Event.AFTER_BACKWARD

    def __init__(self, settings: NormsSettings) -> None:
        self.every = settings.every
        self._total = settings.total

    def keys(self, model: nn.Module) -> Iterator[str]:
        yield from ["grad_norm/total"] if self._total else []
        yield "weight_norm/total"
        for layer in dict.fromkeys(layer_of(name) for name, _ in _trained(model)):
            yield f"grad_norm/{layer}"
            yield f"weight_norm/{layer}"

    @torch.no_grad()
    def __call__(self, view: StepView) -> dict[str, Any]:
        named = [(name, p) for name, p in _trained(view.model) if p.grad is not None]
        if not named:
            return {}
        layers = [layer_of(name) for name, _ in named]
        weights = _by_layer(layers, [p.detach() for _, p in named])
        gradients = _by_layer(layers, [p.grad for _, p in named if p.grad is not None])
        measured = {f"weight_norm/{layer}": norm for layer, norm in weights.items()}
        measured |= {f"grad_norm/{layer}": norm for layer, norm in gradients.items()}
        if not self._total:
            del measured["grad_norm/total"]
        return measured


def layer_of(parameter: str) -> str:
    """`blocks.3.attention.weight` → `blocks.3`; `head.weight` → `head`."""
    parts = parameter.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: position + 1])
    return parts[0]


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _by_layer(layers: list[str], tensors: list[Tensor]) -> dict[str, float]:
    """The norm of each layer's tensors together, and of all of them as `total`."""
    norms = torch.stack([n.float() for n in torch._foreach_norm(tensors)]).tolist()
    squares = dict.fromkeys(["total", *layers], 0.0)
    for layer, norm in zip(layers, norms, strict=True):
        squares[layer] += norm * norm
        squares["total"] += norm * norm
    return {layer: square**0.5 for layer, square in squares.items()}
