"""Learning-rate schedules: factors of the peak as pure functions of the number of updates done.

`Schedule` puts them to work on an optimizer and is the stateful part that a checkpoint saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from cupel.train.settings import (
    ConstantSettings,
    CosineSettings,
    LinearSettings,
    StepSettings,
)

Factor = Callable[[int], float]


def cosine(settings: CosineSettings, steps: int) -> Factor:
    """Warm-up, then half a cosine from 1 to `floor` (SGDR, arXiv:1608.03983 v5, eq. 5)."""

    def factor(done: int) -> float:
        wave = 0.5 * (1.0 + math.cos(math.pi * _progress(done, settings.warmup, steps)))
        return settings.floor + (1.0 - settings.floor) * wave

    return _warmed(factor, settings.warmup)


def linear(settings: LinearSettings, steps: int) -> Factor:
    """Warm-up, then a straight line from 1 to `floor`."""

    def factor(done: int) -> float:
        return 1.0 - (1.0 - settings.floor) * _progress(done, settings.warmup, steps)

    return _warmed(factor, settings.warmup)


def step(settings: StepSettings, steps: int) -> Factor:
    """Warm-up, then `factor` to the power of the milestones passed."""

    def factor(done: int) -> float:
        return float(settings.factor ** sum(done >= m for m in settings.milestones))

    return _warmed(factor, settings.warmup)


def constant(settings: ConstantSettings, steps: int) -> Factor:
    """Warm-up, then 1."""
    return _warmed(lambda done: 1.0, settings.warmup)


class Schedule:
    """Sets the learning rate of every parameter group before each update.

    Holds its own count of updates, so that it works in any loop; the count is its state.
    """

    def __init__(self, optimizer: Optimizer, factor: Factor) -> None:
        self._optimizer = optimizer
        self._factor = factor
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._updates = 0
        self._apply()

    def step(self) -> None:
        """Count one update as done and set the rate for the next."""
        self._updates += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "peaks": self._peaks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates = int(state["updates"])
        self._peaks = [float(peak) for peak in state["peaks"]]
        self._apply()

    def _apply(self) -> None:
        factor = self._factor(self._updates)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor


def _warmed(factor: Factor, warmup: int) -> Factor:
    # The first update uses 1/warmup of the peak, not 0: a step at rate 0 would be wasted.
    return lambda done: (done + 1) / warmup if done < warmup else factor(done)


def _progress(done: int, warmup: int, steps: int) -> float:
    """How far the decay has come: 0 after the warm-up, 1 at the last of `steps` updates."""
    return min(1.0, max(0.0, (done - warmup) / max(1, steps - 1 - warmup)))
