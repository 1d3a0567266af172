"""The smallest real parts: a workload, and monitors, named in recipes as `fakes:Regression`.

Importing this file brings in no torch, as the contract of settings wants.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from cupel.config import Settings
from cupel.events import Event, StepView
from cupel.randomness import Streams


class RegressionSettings(Settings):
    """A network of two layers that learns the sine of a sum."""

    batch: int = Field(8, ge=1, description="rows an update")
    dropout: float = Field(0.0, ge=0, lt=1, description="between the two layers")


class Regression:
    """Its batches, and its validation set, are drawn from streams; nothing else is random."""

    Settings = RegressionSettings
    unit = "rows"

    def __init__(self, settings: RegressionSettings, *, model: Any, seed: int) -> None:
        self.settings, self.model, self._streams = settings, model, Streams(seed)
        self.units_per_step = settings.batch

    @classmethod
    def build(cls, settings: RegressionSettings, *, seed: int) -> Self:
        import torch
        from torch import nn

        torch.default_generator.manual_seed(Streams(seed).key("init"))
        middle = (nn.Tanh(), nn.Dropout(settings.dropout))
        model = nn.Sequential(nn.Linear(4, 16), *middle, nn.Linear(16, 1))
        return cls(settings, model=model, seed=seed)

    def stateful(self) -> Mapping[str, Any]:
        return {}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        rows = self.settings.batch // part[1]
        return self._rows(step)[part[0] * rows : (part[0] + 1) * rows]

    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        error = self.model(batch) - batch.sum(1, keepdim=True).sin()
        return (error**2).mean(), {"error/largest": error.detach().abs().max()}

    def evaluate(self) -> dict[str, float]:
        batch = self._rows(0).to(next(self.model.parameters()).device)
        return {"val_loss": float(self.loss(batch)[0])}

    def _rows(self, step: int) -> Any:
        import torch

        generator = torch.Generator().manual_seed(self._streams.key("data", step=step))
        return torch.randn(self.settings.batch, 4, generator=generator)


class _Every(Settings):
    every: int = Field(1, ge=1, description="steps between calls")


class GateSettings(_Every):
    """Where to wait."""

    step: int = Field(ge=1, description="the step at whose start training waits")
    path: str = Field(description="waits until this file is gone, and says so in <path>.waiting")


class Gate:
    """Holds training up within a step, so that a test can send a signal there without a race."""

    Settings = GateSettings
    on = Event.STEP_START

    def __init__(self, settings: GateSettings) -> None:
        self.every, self._step, self._path = settings.every, settings.step, Path(settings.path)

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._step and self._path.exists():
            self._path.with_suffix(".waiting").touch()
            while self._path.exists():
                time.sleep(0.005)
        return {}


class Slow:
    """Makes every step last twenty milliseconds more, so that a kill comes before the end."""

    Settings = _Every
    on = Event.STEP_START

    def __init__(self, settings: _Every) -> None:
        self.every = settings.every

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        time.sleep(0.02)
        return {}


class Nudge:
    """A monitor that must not be: it changes a gradient by the least that can be seen."""

    Settings = _Every
    on = Event.AFTER_BACKWARD

    def __init__(self, settings: _Every) -> None:
        self.every = settings.every

    def keys(self, model: Any) -> Iterator[str]:
        return iter(["nudged"])

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        gradient = next(view.model.parameters()).grad
        gradient.view(-1)[0] += 1e-6
        return {"nudged": 1}


class StopSettings(_Every):
    """When to ask for a stop."""

    step: int = Field(ge=1, description="the step at whose start this process gets a SIGTERM")


class Stop:
    """Asks its own process to stop, as a scheduler would."""

    Settings = StopSettings
    on = Event.STEP_START

    def __init__(self, settings: StopSettings) -> None:
        self.every, self._step = settings.every, settings.step

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}
