"""The wave ratio and its schedules: values by hand, exact ends, state, what stays untouched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.models.wave.ratio import RatioSchedule, WaveRatio


def schedule(kind: str, steps: int = 3000) -> tuple[WaveRatio, RatioSchedule]:
    ratio = WaveRatio(learned=kind != "decay").double()
    return ratio, RatioSchedule(ratio, kind, steps=steps)


def test_a_learned_ratio_starts_at_the_sigmoid_of_a_half():
    ratio = WaveRatio(learned=True)
    assert ratio.logit.item() == 0.5
    assert ratio().item() == pytest.approx(0.622, abs=5e-4)
    assert [name for name, _ in ratio.named_parameters()] == ["logit"]


@given(updates=st.integers(1, 60), start=st.floats(-8, 8))
@settings(deadline=None, max_examples=30)
def test_the_scheduled_ratio_is_pulled_by_a_hundredth_towards_its_target(updates, start):
    ratio, moved = schedule("scheduled")
    with torch.no_grad():
        ratio.logit.fill_(start)
    expected = 1 / (1 + math.exp(-start))
    for n in range(1, updates + 1):
        expected = min(max(0.99 * expected + 0.01 * (0.5 + 0.4 * n / updates), 0.01), 0.99)
        # float64 there and back through a logit of at most 5: a few roundings an update.
        assert moved.step(updates) == pytest.approx(expected, rel=1e-12)
        assert torch.sigmoid(ratio.logit).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("logit", "bound"), [(20.0, 0.99), (-20.0, 0.01)])
def test_the_scheduled_ratio_is_brought_back_within_its_bounds(logit, bound):
    ratio, moved = schedule("scheduled")
    with torch.no_grad():
        ratio.logit.fill_(logit)
    # A pull of a hundredth brings 0 to 0.005 and 1 to 0.995, which is outside still.
    assert moved.step(1000) == pytest.approx(bound, rel=1e-12)


def test_what_the_optimizer_did_in_between_counts():
    ratio, moved = schedule("scheduled")
    moved.step(10)
    with torch.no_grad():
        ratio.logit.zero_()
    assert moved.step(10) == pytest.approx(0.99 * 0.5 + 0.01 * 0.58, rel=1e-12)


def test_a_free_ratio_is_never_written_to():
    ratio, moved = schedule("free")
    version = ratio.logit._version
    assert {moved.step(5) for _ in range(5)} == {ratio().item()}
    assert ratio.logit._version == version


@given(steps=st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_a_decaying_ratio_falls_in_a_straight_line_from_exactly_1_to_exactly_0(steps):
    ratio, moved = schedule("decay", steps)
    assert ratio().item() == 1.0
    assert not list(ratio.parameters())
    values = [moved.step(10_000) for _ in range(steps + 3)]
    assert values[:steps] == [1 - n / steps for n in range(1, steps + 1)]
    assert values[steps - 1 :] == [0.0] * 4


def test_the_count_goes_on_after_a_resume():
    ratio, moved = schedule("decay", 10)
    for _ in range(4):
        moved.step(100)
    again, resumed = schedule("decay", 10)
    again.load_state_dict(ratio.state_dict())
    assert again().item() == 0.6
    resumed.load_state_dict(moved.state_dict())
    assert resumed.step(100) == moved.step(100) == 0.5


def test_a_schedule_that_cannot_move_its_ratio_is_the_programmers_mistake():
    with pytest.raises(AssertionError):
        RatioSchedule(WaveRatio(learned=True), "decay", steps=3)
