"""Early stopping and the best value so far: the two memories that evaluations leave."""

from __future__ import annotations

import math
from typing import Any

from cupel.train.settings import StoppingSettings


class EarlyStopping:
    """Says when a metric that should fall has not fallen for `patience` evaluations.

    A value that is not finite is never an improvement.
    """

    def __init__(self, settings: StoppingSettings) -> None:
        self._settings = settings
        self._best = math.inf
        self._bad = 0

    @property
    def stopped(self) -> bool:
        return self._bad >= self._settings.patience

    def update(self, value: float) -> None:
        """Hear of one evaluation."""
        if math.isfinite(value) and value < self._best - self._settings.min_delta:
            self._best, self._bad = value, 0
        else:
            self._bad += 1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._bad = float(state["best"]), int(state["bad"])


class Progress:
    """Where the loop stands: steps done, the last evaluation and the best one.

    No seconds: they differ between equal runs, and what is saved here is hashed and compared.
    """

    def __init__(self) -> None:
        self.step = 0
        self.loss = math.nan
        self.logged_at = 0  # the step of that loss
        self.evaluation: dict[str, float] = {}
        self.evaluated_at = 0
        self.best: float = math.inf
        self.best_step = 0

    def evaluated(self, metrics: dict[str, float], *, key: str) -> None:
        """Remember an evaluation at the present step, and whether `key` was the lowest so far."""
        self.evaluation, self.evaluated_at = metrics, self.step
        value = metrics.get(key, math.inf)
        if math.isfinite(value) and value < self.best:
            self.best, self.best_step = value, self.step

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "loss": self.loss,
            "logged_at": self.logged_at,
            "evaluation": dict(self.evaluation),
            "evaluated_at": self.evaluated_at,
            "best": self.best,
            "best_step": self.best_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.loss, self.logged_at = float(state["loss"]), int(state["logged_at"])
        self.evaluation = {k: float(v) for k, v in state["evaluation"].items()}
        self.evaluated_at = int(state["evaluated_at"])
        self.best, self.best_step = float(state["best"]), int(state["best_step"])
