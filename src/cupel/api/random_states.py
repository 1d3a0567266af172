"""The random states of a loop of one's own, as one stateful part: python, numpy, torch.

cupel's own loop has no use for it, since its draws are stateless. Of Python's and numpy's global
generators only those are saved from which something was drawn since this part was made: unseeded
ones start from chance, and two equal trainings would seem to end in different states. CUDA's are
included when the script has initialised it. Nothing is pickled: plain numbers and tensors.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


class RandomStates:
    """`state_dict` takes the global generators' states, `load_state_dict` sets them."""

    def __init__(self) -> None:
        self._untouched = {"python": _python(), "numpy": _numpy()}

    def state_dict(self) -> dict[str, Any]:
        now = {"python": _python(), "numpy": _numpy()}
        state: dict[str, Any] = {
            k: v for k, v in now.items() if v not in (None, self._untouched[k])
        }
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"].cpu())
        if "python" in state:
            version, internal, gauss = state["python"]
            random.setstate((version, tuple(internal), gauss))
        if "numpy" in state:
            import numpy

            name, keys, position, has_gauss, cached = state["numpy"]
            numpy.random.set_state(
                (name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached)
            )
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def _python() -> list[Any]:
    version, internal, gauss = random.getstate()
    return [version, list(internal), gauss]


def _numpy() -> list[Any] | None:
    """None as long as nothing has imported numpy."""
    if "numpy" not in sys.modules:
        return None
    name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
    return [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
