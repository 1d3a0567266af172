"""Throughput keeps the monitor's contract, and its rates are counts by seconds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.events import StepView
from cupel.monitors.settings import ThroughputSettings
from cupel.monitors.throughput import Throughput
from cupel.testing.monitor import MonitorContract


class TestThroughput(MonitorContract):
    def make(self) -> Throughput:
        return Throughput(ThroughputSettings(every=1))


def view(step: int) -> StepView:
    return StepView(None, None, step, units={"tokens": 500, "rows": 2})


def clocks(monkeypatch: pytest.MonkeyPatch, *, wall: list[float], cpu: list[float]) -> None:
    monkeypatch.setattr(time, "perf_counter", iter(wall).__next__)
    monkeypatch.setattr(time, "process_time", iter(cpu).__next__)


@given(st.integers(1, 50), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_rates_are_counts_by_seconds(steps: int, wall: float, cpu: float) -> None:
    monitor = Throughput(ThroughputSettings(units=("steps", "tokens")))
    with pytest.MonkeyPatch.context() as patch:
        clocks(patch, wall=[0.0, wall], cpu=[0.0, cpu])
        assert monitor(view(7)) == {}, "there is no rate before the second measurement"
        found = monitor(view(7 + steps))
    assert found == pytest.approx(
        {
            "perf/steps_per_s": steps / wall,
            "perf/steps_per_cpu_s": steps / cpu,
            "perf/tokens_per_s": 500 * steps / wall,
            "perf/tokens_per_cpu_s": 500 * steps / cpu,
        }
    )


def test_a_clock_that_stands_still_gives_no_division_by_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitor = Throughput(ThroughputSettings())
    clocks(monkeypatch, wall=[1.0, 1.0], cpu=[1.0, 1.0])
    monitor(view(1))
    assert monitor(view(2))["perf/steps_per_s"] > 0


def test_going_back_to_an_earlier_step_starts_anew() -> None:
    monitor = Throughput(ThroughputSettings())
    monitor(view(9))
    assert monitor(view(3)) == {}
    assert monitor(view(3)) == {}
    assert monitor(view(4))["perf/steps_per_s"] > 0
