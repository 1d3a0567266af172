"""Where a wave model's angles are computed: never in less than float32.

bfloat16 has 8 significant bits, so an angle of 100 rad would be known to half a radian.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is when it is float64."""
    return x if x.element_size() >= 4 else x.float()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products, too, keep the precision of what they are given."""
    if device.type == "meta":  # which counts costs and knows no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
