"""Pure wave attention: kernels on sines, without a softmax, and so in linear time if wanted.

    q = sin(frequency·t + phase), the same for k, where frequency and phase are linear in x
    weight_ij = φ(q_i)·φ(k_j) for j ≤ i, else 0;   φ is elu + 1, sigmoid or exp, elementwise
    out_i = Σ_j weight_ij·v_j / divisor_i

t is the position. q and k are normalised to length W^¼ each, so that their product is √W times a
cosine. The divisor is √(i + 1), the root of the number of visible positions, or Σ_j weight_ij.

Shapes: B batch, T tokens, C width, H heads, W waves of a head, D = C/H, N chunks of L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cupel.models.wave.attention import visible
from cupel.models.wave.precision import wide, without_autocast
from cupel.models.wave.settings import WaveModelSettings

# Tokens within which the linear form is quadratic. At W = D = 32 a chunk's matrix of weights is
# then as large as its sum of keys times values.
_CHUNK = 32

_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.elu(x) + 1,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
}
Normaliser = Literal["sqrt", "sum"]


class PureWaveAttention(nn.Module):
    """Attention by a kernel on sines. The core runs in float32 at least, also under autocast.

    Dropout acts on the weights, which only the quadratic form has: the linear form has none here.

    Parameters: (4·H·W + C)·(C + 1) + C·(C + 1), with biases.
    """

    def __init__(self, settings: WaveModelSettings) -> None:
        super().__init__()
        self.heads, self.waves, self.form = settings.heads, settings.waves, settings.pure.form
        self.normaliser: Normaliser = settings.pure.normaliser
        self._kernel = _KERNELS[settings.pure.kernel]
        C = settings.width
        self.qkv = nn.Linear(C, 4 * self.heads * self.waves + C, bias=settings.bias)
        self.drop = nn.Dropout(settings.dropout)
        self.out = nn.Linear(C, C, bias=settings.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """What each position gathers from itself and the positions before it, (B, T, C)."""
        projected = self.qkv(x_BTC)
        with without_autocast(x_BTC.device):
            q_BHTW, k_BHTW, v_BHTD = self._features(projected)
            if self.form == "linear":
                y_BHTD = linear_sums(q_BHTW, k_BHTW, v_BHTD, normaliser=self.normaliser)
            else:
                weights_BHTT = kernel_weights(q_BHTW, k_BHTW, normaliser=self.normaliser)
                y_BHTD = self.drop(weights_BHTT) @ v_BHTD
        y_BTC = y_BHTD.transpose(1, 2).reshape(x_BTC.shape)
        out_BTC: Tensor = self.out(y_BTC.to(projected.dtype))
        return out_BTC

    def weights(self, x_BTC: Tensor) -> Tensor:
        """How much of each position goes into each, (B, H, T, T), whatever the form."""
        q_BHTW, k_BHTW, _ = self._features(self.qkv(x_BTC))
        return kernel_weights(q_BHTW, k_BHTW, normaliser=self.normaliser)

    def _features(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ(q) and φ(k), (B, H, T, W), and the values (B, H, T, D)."""
        B, T, _ = projected.shape
        H, W = self.heads, self.waves
        sizes = (2 * H * W, 2 * H * W, projected.size(2) - 4 * H * W)
        frequency, phase, v = wide(projected).split_with_sizes(sizes, dim=2)
        t_T1 = torch.arange(T, device=projected.device)[:, None]
        sines_BTHW = (frequency * t_T1 + phase).sin().view(B, T, 2 * H, W)
        features_BHTW = self._kernel(F.normalize(sines_BTHW, dim=-1) * W**0.25).transpose(1, 2)
        return features_BHTW[:, :H], features_BHTW[:, H:], v.view(B, T, H, -1).transpose(1, 2)


def kernel_weights(q_BHTW: Tensor, k_BHTW: Tensor, *, normaliser: Normaliser) -> Tensor:
    """The whole matrix of weights (B, H, T, T), divided."""
    products_BHTT = q_BHTW @ k_BHTW.transpose(-1, -2)
    weights_BHTT = products_BHTT * visible(products_BHTT)
    if normaliser == "sum":
        return weights_BHTT / weights_BHTT.sum(-1, keepdim=True)
    return weights_BHTT / _root_of_visible(q_BHTW)


def linear_sums(
    q_BHTW: Tensor,
    k_BHTW: Tensor,
    v_BHTD: Tensor,
    *,
    normaliser: Normaliser,
    chunk: int = _CHUNK,
) -> Tensor:
    """`kernel_weights(q, k) @ v`, (B, H, T, D), in time and memory proportional to T.

    Each chunk sees its own positions by a small matrix of weights, and all earlier chunks through
    the sum of their kᵀv. Sums of k alone are those of a value that is always 1.
    """
    T, D = v_BHTD.shape[2:]
    if normaliser == "sum":
        v_BHTD = F.pad(v_BHTD, (0, 1), value=1.0)
    q, k, v = (_in_chunks(x, chunk) for x in (q_BHTW, k_BHTW, v_BHTD))
    states_BHNWD = k.transpose(-1, -2) @ v
    # Shifted before it is summed: to subtract a chunk's own state afterwards would let the later
    # tokens of a chunk change the last bits of the earlier ones.
    earlier_BHNWD = F.pad(states_BHNWD[:, :, :-1], (0, 0, 0, 0, 1, 0)).cumsum(2)
    products_BHNLL = q @ k.transpose(-1, -2)
    within = (products_BHNLL * visible(products_BHNLL)) @ v
    sums_BHTD: Tensor = (within + q @ earlier_BHNWD).flatten(2, 3)[:, :, :T]
    if normaliser == "sum":
        return sums_BHTD[..., :D] / sums_BHTD[..., D:]
    return sums_BHTD / _root_of_visible(q_BHTW)


def _in_chunks(x_BHTD: Tensor, chunk: int) -> Tensor:
    """(B, H, N, L, D), filled up with zeros."""
    B, H, T, D = x_BHTD.shape
    return F.pad(x_BHTD, (0, 0, 0, -T % chunk)).view(B, H, -1, chunk, D)


def _root_of_visible(q_BHTW: Tensor) -> Tensor:
    """√(i + 1), (T, 1)."""
    counts_T = torch.arange(1, q_BHTW.size(2) + 1, dtype=q_BHTW.dtype, device=q_BHTW.device)
    return counts_T.sqrt()[:, None]
