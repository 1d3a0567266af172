"""The random states of a loop of one's own, as one stateful part: python, numpy, torch.

cupel's own loop has no use for it, since its draws are stateless. Numpy and CUDA are included
when the script has imported or initialised them. Nothing is pickled: states are plain numbers
and tensors.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


class RandomStates:
    """`state_dict` takes the global generators' states, `load_state_dict` sets them."""

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        state: dict[str, Any] = {
            "python": [version, list(internal), gauss],
            "torch": torch.get_rng_state(),
        }
        if "numpy" in sys.modules:
            name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
            state["numpy"] = [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        torch.set_rng_state(state["torch"].cpu())
        if "numpy" in state:
            import numpy

            name, keys, position, has_gauss, cached = state["numpy"]
            numpy.random.set_state(
                (name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached)
            )
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
