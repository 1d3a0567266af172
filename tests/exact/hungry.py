"""A monitor that needs memory: `hungry:Hungry`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from cupel.config import Settings
from cupel.events import Event, StepView


class HungrySettings(Settings):
    """How much it needs, and from when on."""

    step: int = Field(ge=1, description="the step at whose start it takes the memory")
    mb: int = Field(ge=1, description="MB, which it keeps")
    every: int = Field(1, ge=1, description="steps between calls")


class Hungry:
    """Takes the memory whenever training comes to that step, however often that is begun."""

    Settings = HungrySettings
    on = Event.STEP_START

    def __init__(self, settings: HungrySettings) -> None:
        self.every, self._settings, self._kept = settings.every, settings, b""

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._settings.step:
            self._kept = b"x" * (self._settings.mb * 2**20)
        return {}
