"""Schedules are pure functions with the values they promise, and `Schedule` resumes exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cupel.train import schedule
from cupel.train.schedule import Schedule
from cupel.train.settings import (
    ConstantSettings,
    CosineSettings,
    LinearSettings,
    StepSettings,
)

STEPS = st.integers(1, 300)
WARMUP = st.integers(0, 400)
FRACTION = st.floats(0, 1)


@st.composite
def factors(draw: st.DrawFn) -> tuple[schedule.Factor, int]:
    """Any schedule that settings can describe, and its number of steps."""
    steps, warmup, fraction = draw(STEPS), draw(WARMUP), draw(FRACTION)
    milestones = tuple(draw(st.lists(st.integers(0, 400), max_size=5)))
    step = StepSettings(warmup=warmup, milestones=milestones, factor=fraction)
    made = [
        schedule.cosine(CosineSettings(warmup=warmup, floor=fraction), steps),
        schedule.linear(LinearSettings(warmup=warmup, floor=fraction), steps),
        schedule.step(step, steps),
        schedule.constant(ConstantSettings(warmup=warmup), steps),
    ]
    return draw(st.sampled_from(made)), steps


@given(factors(), st.integers(0, 500))
def test_a_factor_is_between_0_and_1(made: tuple[schedule.Factor, int], done: int) -> None:
    assert 0.0 <= made[0](done) <= 1.0


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@given(steps=STEPS, warmup=WARMUP, floor=FRACTION)
def test_after_the_warm_up_it_only_falls(kind: str, steps: int, warmup: int, floor: float) -> None:
    factor = falling(kind, warmup=warmup, floor=floor, steps=steps)
    values = [factor(done) for done in range(warmup, steps + 3)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@given(steps=st.integers(3, 300), floor=FRACTION, data=st.data())
@pytest.mark.slow
def test_warm_up_peak_and_floor_are_where_they_should_be(
    kind: str, steps: int, floor: float, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, steps - 2))
    factor = falling(kind, warmup=warmup, floor=floor, steps=steps)
    assert [factor(done) for done in range(warmup)] == [(n + 1) / warmup for n in range(warmup)]
    assert factor(warmup) == 1.0
    # Sums of a floor and what is above it: two roundings.
    assert math.isclose(factor(steps - 1), floor, abs_tol=1e-15)
    assert factor(steps) == factor(steps - 1)


def test_cosine_follows_its_equation() -> None:
    """SGDR, eq. 5, written out: eta_min + (eta_max - eta_min)/2 * (1 + cos(pi * T_cur/T_i))."""
    factor = schedule.cosine(CosineSettings(warmup=10, floor=0.02), 110)
    for done in range(10, 110):
        expected = 0.02 + 0.5 * (1 - 0.02) * (1 + math.cos(math.pi * (done - 10) / 99))
        assert factor(done) == pytest.approx(expected, abs=1e-15)


def test_step_drops_at_every_milestone() -> None:
    factor = schedule.step(StepSettings(warmup=2, milestones=(4, 6), factor=0.5), 8)
    assert [factor(done) for done in range(8)] == [0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_constant_stays_at_the_peak() -> None:
    factor = schedule.constant(ConstantSettings(), 5)
    assert {factor(done) for done in range(9)} == {1.0}


def falling(kind: str, *, warmup: int, floor: float, steps: int) -> schedule.Factor:
    if kind == "cosine":
        return schedule.cosine(CosineSettings(warmup=warmup, floor=floor), steps)
    return schedule.linear(LinearSettings(warmup=warmup, floor=floor), steps)


def scheduled(factor: schedule.Factor) -> tuple[Schedule, torch.optim.Optimizer]:
    groups: list[dict[str, Any]] = [
        {"params": nn.Linear(1, 1).parameters(), "lr": 0.5},
        {"params": nn.Linear(1, 1).parameters(), "lr": 0.25},
    ]
    optimizer = torch.optim.SGD(groups)
    return Schedule(optimizer, factor), optimizer


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def test_the_first_update_has_the_first_rate_and_every_group_its_own_peak() -> None:
    made, optimizer = scheduled(lambda done: 1 / (1 + done))
    assert rates(optimizer) == [0.5, 0.25]
    made.step()
    assert rates(optimizer) == [0.25, 0.125]


@settings(max_examples=20)
@given(factors(), st.integers(0, 20), st.integers(1, 20))
def test_a_resumed_schedule_goes_on_with_equal_bits(
    made: tuple[schedule.Factor, int], before: int, after: int
) -> None:
    one, optimizer = scheduled(made[0])
    for _ in range(before):
        one.step()
    two, other = scheduled(made[0])
    two.load_state_dict(one.state_dict())
    assert rates(other) == rates(optimizer)
    for _ in range(after):
        one.step()
        two.step()
        assert rates(other) == rates(optimizer)
    assert one.state_dict() == two.state_dict()
