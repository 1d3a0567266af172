"""The monitor contract passes a good monitor, and fails each kind of bad one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from cupel.events import Event, StepView
from cupel.testing.monitor import MonitorContract

Measure = Callable[[StepView], Any]
DISTURBS = "test_leaves_weights_gradients_and_optimizer_as_they_are"
EVENTS = (Event.STEP_START, Event.AFTER_FORWARD, Event.AFTER_BACKWARD, Event.STEP_END)


class Measuring:
    """A monitor from a function; it tells that it returns `found`."""

    every = 1

    def __init__(self, measure: Measure, on: Event = Event.AFTER_BACKWARD) -> None:
        self.on, self._measure = on, measure

    def keys(self, model: Any) -> Iterable[str]:
        return ["found"]

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        value = self._measure(view)
        return value if isinstance(value, dict) else {"found": value}


def loss_again(view: StepView) -> float:
    return 0.0 if view.batch is None else float(view.loss_fn(view.batch).detach())


class TestOfNumbers(MonitorContract):
    def make(self) -> Measuring:
        return Measuring(lambda view: view.step)


class TestOfSmallArrays(MonitorContract):
    def make(self) -> Measuring:
        return Measuring(lambda view: torch.ones(32, 32))


class TestOfLists(MonitorContract):
    def make(self) -> Measuring:
        return Measuring(lambda view: [[1, 2.5], [3]])


@pytest.mark.parametrize("on", EVENTS)
def test_a_monitor_may_draw_and_take_losses_at_any_event(on: Event) -> None:
    check(DISTURBS, lambda view: loss_again(view) + float(torch.rand(1)), on)


def check(
    name: str, measure: Measure, on: Event = Event.AFTER_BACKWARD, *, model: Any = None
) -> None:
    """Run one test of the contract on a monitor."""

    class Contract(MonitorContract):
        def make(self) -> Any:
            return Measuring(measure, on)

        def model(self) -> Any:
            return super().model() if model is None else model()

    getattr(Contract(), name)()


def touch_gradient(view: StepView) -> int:
    view.model[0].weight.grad[0, 0] += 1e-3
    return 1


def touch_weight(view: StepView) -> int:
    with torch.no_grad():
        view.model[0].weight[0, 0] += 1e-3
    return 1


def touch_moment(view: StepView) -> int:
    for state in view.optimizer.state.values():
        state["exp_avg"].mul_(0.5)
    return 1


def touch_rate(view: StepView) -> int:
    view.optimizer.param_groups[0]["lr"] *= 0.5
    return 1


def add_gradients(view: StepView) -> int:
    view.loss_fn(view.batch).backward()
    return 1


@pytest.mark.parametrize("measure", [touch_gradient, touch_weight, touch_moment, add_gradients])
@pytest.mark.parametrize("on", [Event.AFTER_BACKWARD, Event.STEP_END])
def test_a_monitor_that_disturbs_is_caught(measure: Measure, on: Event) -> None:
    with pytest.raises(AssertionError, match="the monitor disturbs training"):
        check(DISTURBS, measure, on)


def test_a_monitor_that_changes_the_rate_is_caught() -> None:
    with pytest.raises(AssertionError, match="the monitor disturbs training"):
        check(DISTURBS, touch_rate)


def test_a_monitor_that_moves_a_buffer_is_caught() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    with pytest.raises(AssertionError, match="the monitor disturbs training"):
        check(DISTURBS, loss_again, Event.STEP_END, model=model)


def test_a_key_that_was_not_told_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"not told by keys\(\): {'other'}"):
        check("test_returns_only_the_keys_that_it_told_beforehand", lambda view: {"other": 1})


def test_a_monitor_that_never_measures_is_caught() -> None:
    with pytest.raises(AssertionError, match="measured nothing"):
        check("test_returns_only_the_keys_that_it_told_beforehand", lambda view: {})


@pytest.mark.parametrize(
    "value", [torch.ones(1025), torch.ones(2, 1024), [0.0] * 1025, "text", None, {"a": 1}]
)
def test_what_cannot_be_recorded_is_caught(value: Any) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check("test_returns_numbers_or_small_arrays", lambda view: {"found": value})


def test_a_model_left_in_evaluation_is_caught() -> None:
    with pytest.raises(AssertionError):
        check(
            "test_leaves_the_training_mode_as_it_is",
            lambda view: len(list(view.model.eval().parameters())),
        )


def test_what_is_no_monitor_is_caught() -> None:
    class Contract(MonitorContract):
        def make(self) -> Any:
            return lambda view: {}

    with pytest.raises(AssertionError):
        Contract().test_follows_the_protocol()


def test_an_event_without_a_step_is_caught() -> None:
    with pytest.raises(AssertionError, match="expected a step event"):
        check("test_follows_the_protocol", lambda view: 1, Event.EVAL_END)
