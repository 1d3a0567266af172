"""The dispatcher calls who is due, measures what it costs, and is never stopped by a monitor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.events import Dispatcher, Event, Monitor, StepView


class Counting:
    """A monitor that returns the step, or does what it was given."""

    def __init__(
        self,
        key: str = "seen",
        *,
        on: Event = Event.STEP_END,
        every: int = 1,
        does: Callable[[StepView], Any] | None = None,
    ) -> None:
        self.on, self.every, self._key = on, every, key
        self._does = does or (lambda view: {key: view.step})

    def keys(self, model: Any) -> list[str]:
        return [self._key]

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        return self._does(view)


def view(step: int) -> StepView:
    return StepView(model=None, optimizer=None, step=step)


def fail(_: Any) -> Any:
    raise ValueError("broken")


def test_there_are_ten_events() -> None:
    assert len(Event) == 10
    assert isinstance(Counting(), Monitor)


@given(st.lists(st.integers(1, 7), max_size=5), st.integers(0, 60))
def test_exactly_the_monitors_that_are_due_are_called(every: list[int], step: int) -> None:
    dispatcher = Dispatcher(debug=True)
    for number, interval in enumerate(every):
        dispatcher.add_monitor(str(number), Counting(str(number), every=interval))
    due = {str(n): step for n, interval in enumerate(every) if step % interval == 0}
    assert dispatcher.watches(Event.STEP_END, step) == bool(due)
    assert dispatcher.measure(Event.STEP_END, view(step)) == due
    assert {name for name, cost in dispatcher.costs().items() if cost.calls} == set(due)


def test_a_monitor_looks_at_its_own_event_only() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_monitor("a", Counting(on=Event.AFTER_BACKWARD))
    assert not dispatcher.watches(Event.STEP_END, 1)
    assert dispatcher.measure(Event.STEP_END, view(1)) == {}
    assert dispatcher.measure(Event.AFTER_BACKWARD, view(1)) == {"seen": 1}


@pytest.mark.parametrize("does", [fail, lambda view: None, lambda view: 0.5, lambda view: [1, 2]])
def test_a_failing_monitor_is_counted_and_told_and_the_others_go_on(does: Any) -> None:
    told: list[tuple[str, Exception]] = []
    dispatcher = Dispatcher(on_problem=lambda name, error: told.append((name, error)))
    dispatcher.add_monitor("bad", Counting("bad", does=does))
    dispatcher.add_monitor("good", Counting("good"))
    for step in (1, 2):
        assert dispatcher.measure(Event.STEP_END, view(step)) == {"good": step}
    assert [name for name, _ in told] == ["bad", "bad"]
    assert (dispatcher.costs()["bad"].calls, dispatcher.costs()["bad"].failures) == (2, 2)
    assert dispatcher.costs()["good"].failures == 0


def test_with_debug_a_failure_is_raised() -> None:
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_monitor("bad", Counting(does=fail))
    with pytest.raises(ValueError, match="broken"):
        dispatcher.measure(Event.STEP_END, view(1))
    dispatcher.add_listener("deaf", lambda event, payload: fail(payload), [Event.RUN_END])
    with pytest.raises(ValueError, match="broken"):
        dispatcher.tell(Event.RUN_END)


def test_ctrl_c_inside_a_monitor_is_not_swallowed() -> None:
    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    dispatcher = Dispatcher()
    dispatcher.add_monitor("slow", Counting(does=interrupt))
    with pytest.raises(KeyboardInterrupt):
        dispatcher.measure(Event.STEP_END, view(1))


def test_costs_are_measured_for_every_call() -> None:
    def work(_: Any) -> Mapping[str, Any]:
        until = time.process_time() + 0.01
        while time.process_time() < until:
            pass
        return {}

    dispatcher = Dispatcher()
    dispatcher.add_monitor("busy", Counting(does=work))
    dispatcher.add_monitor("idle", Counting("idle"))
    for step in (1, 2):
        dispatcher.measure(Event.STEP_END, view(step))
    busy, idle = dispatcher.costs()["busy"], dispatcher.costs()["idle"]
    assert busy.calls == idle.calls == 2
    assert busy.cpu_s >= 0.02 > idle.cpu_s
    assert busy.wall_s >= 0.02


def test_names_and_intervals_are_checked_when_a_monitor_is_added() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_monitor("a", Counting())
    with pytest.raises(UsageError, match="a monitor is called 'a' already; give this one another"):
        dispatcher.add_monitor("a", Counting("other"))
    with pytest.raises(UsageError, match="monitor 'b': every is 0; it must be 1 or more"):
        dispatcher.add_monitor("b", Counting(every=0))


def test_two_sources_of_one_metric_are_refused_by_name() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_monitor("a", Counting("loss"))
    dispatcher.check_keys(None)
    with pytest.raises(UsageError, match="'loss' would be written twice, by the training loop and"):
        dispatcher.check_keys(None, taken=["loss"])
    dispatcher.add_monitor("b", Counting("loss"))
    with pytest.raises(UsageError, match="twice, by monitor 'a' and by monitor 'b'; remove or"):
        dispatcher.check_keys(None)


def test_listeners_hear_their_events_in_order_and_a_deaf_one_harms_nobody() -> None:
    heard: list[Any] = []
    told: list[str] = []
    dispatcher = Dispatcher(on_problem=lambda name, error: told.append(name))
    dispatcher.add_listener("deaf", lambda event, payload: fail(payload), [Event.STEP_END])
    dispatcher.add_listener("all", lambda event, payload: heard.append((event, payload)), Event)
    for event in (Event.RUN_START, Event.STEP_END):
        dispatcher.tell(event, {"step": 1})
    assert heard == [("run_start", {"step": 1}), ("step_end", {"step": 1})]
    assert told == ["deaf"]
