"""Throughput: `perf/tokens_per_s` by the clock, and `perf/tokens_per_cpu_s` by CPU seconds used.

CPU seconds tell a slow program from a busy machine. Both count everything between two
measurements, evaluations and checkpoints included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cupel.events import Event, StepView
from cupel.monitors.settings import ThroughputSettings


class Throughput:
    """Rates since the last measurement; the first one only starts the clocks."""

    Settings = ThroughputSettings
    on = Event.STEP_END

    def __init__(self, settings: ThroughputSettings) -> None:
        self.every = settings.every
        self._units = settings.units
        self._last: tuple[int, float, float] | None = None

    def keys(self, model: Any) -> Iterator[str]:
        for unit in self._units:
            yield f"perf/{unit}_per_s"
            yield f"perf/{unit}_per_cpu_s"

    def __call__(self, view: StepView) -> dict[str, float]:
        now = (view.step, time.perf_counter(), time.process_time())
        last, self._last = self._last, now
        if last is None or now[0] <= last[0]:
            return {}
        steps, wall, cpu = (new - old for new, old in zip(now, last, strict=True))
        rates: dict[str, float] = {}
        for unit, count in {"steps": 1, **view.units}.items():
            if unit in self._units:
                rates[f"perf/{unit}_per_s"] = steps * count / max(wall, 1e-9)
                rates[f"perf/{unit}_per_cpu_s"] = steps * count / max(cpu, 1e-9)
        return rates
