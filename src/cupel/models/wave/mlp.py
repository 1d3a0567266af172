"""The position-wise layers of a wave GPT: GELU with a ripple, a sine with a slope, or plain GELU.

Names follow what each computes: `gelu_sine` is gelu(x) + 0.1·sin(x), `sine` is sin(x) + 0.1·x.
GELU is the exact one, by the error function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cupel.models.wave.settings import WaveModelSettings

_RIPPLE = 0.1


class MLP(nn.Module):
    """Two linear layers with the activation of the settings between, four times as wide inside."""

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        self.up = nn.Linear(settings.width, 4 * settings.width, bias=settings.bias)
        self.down = nn.Linear(4 * settings.width, settings.width, bias=settings.bias)
        self._activate = _ACTIVATIONS[settings.mlp]

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Each position on its own, (B, T, C)."""
        y_BTC: Tensor = self.down(self._activate(self.up(x_BTC)))
        return y_BTC


def gelu_sine(x: Tensor) -> Tensor:
    """gelu(x) + 0.1·sin(x); differentiable once. On a CPU it costs about twice GELU."""
    return _gelu_sine(x)


def sine(x: Tensor) -> Tensor:
    """sin(x) + 0.1·x."""
    return torch.sin(x) + _RIPPLE * x


class _GeluSine(torch.autograd.Function):
    """Keeps x alone, where autograd would keep it twice, and adds in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x).add_(torch.sin(x), alpha=_RIPPLE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        by_gelu: Tensor = torch.ops.aten.gelu_backward(gradient, x)
        return by_gelu.addcmul_(gradient, torch.cos(x), value=_RIPPLE)


_gelu_sine: Callable[[Tensor], Tensor] = _GeluSine.apply


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_sine": gelu_sine,
    "sine": sine,
    "gelu": F.gelu,
}
