"""The memory itself: a small network without biases, whose weights are written while it is read.

One layer is a matrix memory. More are an MLP with an activation between layers; with `residual` and
`norm` it is `x + LN(W_1 sigma(W_2 x))`. Derivatives are written out, since the surprise of a token
is part of the model: a gradient by autograd inside the forward pass would cost a graph a chunk.

Legend: N sequences (times heads), T tokens, I and O a layer's input and output widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.errors import UnknownName
from cupel.tags import implements

_NORM_EPS = 1e-5


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(z)
    value = z * gate
    return value, gate + value * (1 - gate)


def _gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    below = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
    return z * below, below + z * torch.exp(-0.5 * z * z) * (0.5 * math.sqrt(2 / math.pi))


def _relu(z: Tensor) -> tuple[Tensor, Tensor]:
    value = F.relu(z)
    return value, (z > 0).to(z.dtype)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(z)
    return value, 1 - value * value


def _identity(z: Tensor) -> tuple[Tensor, Tensor]:
    return z, torch.ones_like(z)


# name: value and derivative
ACTIVATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "silu": _silu,
    "gelu": _gelu,
    "relu": _relu,
    "tanh": _tanh,
    "identity": _identity,
}
# The value alone, by one kernel each.
_VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


class Tape(NamedTuple):
    """What the pass through the network leaves for the gradients of its layers."""

    inputs: list[Tensor]  # of each layer, (N, T, I)
    slopes: list[Tensor]  # derivative of the activation behind each layer but the last, (N, T, O)
    last: Tensor  # output of the last layer, before norm and residual, (N, T, O)


class Net:
    """How a memory's layers are put together; the weights are passed to each call, (N, I, O) each.

    `residual` needs equal widths at both ends. `norm` is a LayerNorm without weights of its own.
    Raises UnknownName for an activation that there is not.
    """

    def __init__(
        self, activation: str = "silu", *, residual: bool = False, norm: bool = False
    ) -> None:
        if activation not in ACTIVATIONS:
            raise UnknownName("activation", activation, ACTIVATIONS)
        self.activation, self.residual, self.norm = activation, residual, norm
        self._both, self.value = ACTIVATIONS[activation], _VALUES[activation]

    def forward(self, x_NTI: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tape]:
        """Output (N, T, O) for inputs, and what `deltas` needs."""
        inputs, slopes = [x_NTI], []
        z = torch.bmm(x_NTI, weights[0])
        for weight in weights[1:]:
            hidden, slope = self._both(z)
            inputs.append(hidden)
            slopes.append(slope)
            z = torch.bmm(hidden, weight)
        return self.finish(x_NTI, z), Tape(inputs, slopes, z)

    @implements("miras.v1:eq23c", "nl.v1:eq89", "nl.v1:eq91")
    def finish(self, x_NTI: Tensor, z_NTO: Tensor) -> Tensor:
        """What follows the last layer: LayerNorm and residual, where the memory has them."""
        if self.norm:
            z_NTO = F.layer_norm(z_NTO, z_NTO.shape[-1:], eps=_NORM_EPS)
        return x_NTI + z_NTO if self.residual else z_NTO

    @implements("titans.v1:eq12")
    def deltas(self, delta_NTO: Tensor, tape: Tape, weights: Sequence[Tensor]) -> list[Tensor]:
        """Gradient of a loss with regard to each layer's output, from that to the memory's output.

        The gradient of layer l's weights for one token is then the outer product of its input and
        its delta: rank one, and never made.
        """
        if self.norm:
            delta_NTO = _through_norm(delta_NTO, tape.last)
        found = [delta_NTO]
        for weight, slope in zip(reversed(weights[1:]), reversed(tape.slopes), strict=True):
            found.append(torch.bmm(found[-1], weight.mT) * slope)
        return found[::-1]


def _through_norm(delta_NTO: Tensor, z_NTO: Tensor) -> Tensor:
    """Back through `(z - mean) / sqrt(variance + eps)`."""
    centred = z_NTO - z_NTO.mean(-1, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + _NORM_EPS)
    normal = centred * scale
    along = (delta_NTO * normal).mean(-1, keepdim=True)
    return scale * (delta_NTO - delta_NTO.mean(-1, keepdim=True) - normal * along)
