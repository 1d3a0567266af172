"""What happens in a run, and who is told: ten events, monitors, listeners, one dispatcher.

The same dispatcher serves cupel's loop and a loop of the user's own. A *monitor* measures: it
looks at one event every so many steps and returns numbers, which go into that step's line of the
record. A *listener* only hears (progress display, figures). Neither can stop training: a failure
is counted, told once and training goes on, unless `debug=True`. Every monitor's wall and CPU
seconds are measured at each call, and `costs()` reports them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from cupel.errors import UsageError


class Event(StrEnum):
    """The ten events of a run, in the order in which they may come."""

    RUN_START = "run_start"
    RESUMED = "resumed"
    STEP_START = "step_start"
    AFTER_FORWARD = "after_forward"
    AFTER_BACKWARD = "after_backward"  # gradients present, averaged, before clipping
    STEP_END = "step_end"  # parameters updated, gradients still present
    EVAL_END = "eval_end"
    CHECKPOINT_SAVED = "checkpoint_saved"
    RUN_END = "run_end"
    FAILURE = "failure"


@dataclass(slots=True)
class StepView:
    """What a monitor may look at, and must leave as it found it.

    `step` counts finished updates and so is 1 during the first one. `loss` is the step's mean
    loss over its micro-batches in nats (a number or a detached 0-d tensor), `batch` the last
    micro-batch, and `loss_fn(batch)` a fresh loss with its graph, for curvature. `units` counts
    what this update has seen over all ranks, as `{"tokens": 768}`.
    """

    model: Any
    optimizer: Any
    step: int
    loss: Any = None
    batch: Any = None
    loss_fn: Callable[[Any], Any] | None = None
    units: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Monitor(Protocol):
    """Measures during training and never disturbs it. `cupel.testing.MonitorContract` checks one.

    `on` is the event it looks at (a step event), `every` its schedule in steps, `keys(model)`
    the metric keys that it may return, told beforehand so that two monitors cannot write the
    same key. A call returns numbers, or small named arrays (at most 1,024 numbers each).
    """

    on: Event
    every: int

    def keys(self, model: Any) -> Iterable[str]: ...

    def __call__(self, view: StepView) -> Mapping[str, Any]: ...


Listener = Callable[[Event, Any], None]


@dataclass(slots=True)
class Cost:
    """What one monitor has cost so far; seconds are of this process, all threads."""

    calls: int = 0
    failures: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(slots=True)
class Dispatcher:
    """Tells monitors and listeners what happens.

    `on_problem(name, error)` hears of every failure of a monitor or listener (the record counts
    them); with `debug=True` the failure is raised instead.
    """

    debug: bool = False
    on_problem: Callable[[str, Exception | SystemExit], None] | None = None
    _monitors: dict[str, Monitor] = field(default_factory=dict)
    _costs: dict[str, Cost] = field(default_factory=dict)
    _listeners: list[tuple[str, frozenset[Event], Listener]] = field(default_factory=list)

    def add_monitor(self, name: str, monitor: Monitor) -> None:
        """Add a monitor under a name of its own. Raises UsageError when the name is taken."""
        if name in self._monitors:
            raise UsageError(f"a monitor is called '{name}' already; give this one another name")
        if monitor.every < 1:
            raise UsageError(f"monitor '{name}': every is {monitor.every}; it must be 1 or more")
        self._monitors[name] = monitor
        self._costs[name] = Cost()

    def add_listener(self, name: str, listener: Listener, events: Iterable[Event]) -> None:
        """Have `listener(event, payload)` called at the given events."""
        self._listeners.append((name, frozenset(events), listener))

    def check_keys(self, model: Any, taken: Iterable[str] = ()) -> None:
        """Refuse, before the first step, two sources that would write one metric key.

        Raises UsageError that names the key and both sources.
        """
        owner = dict.fromkeys(taken, "the training loop")
        for name, monitor in self._monitors.items():
            for key in monitor.keys(model):
                if key in owner:
                    raise UsageError(
                        f"the metric '{key}' would be written twice, by {owner[key]} and by "
                        f"monitor '{name}'; remove or rename one of them"
                    )
                owner[key] = f"monitor '{name}'"

    def watches(self, event: Event, step: int) -> bool:
        """Whether any monitor looks at this event in this step (building a view costs little)."""
        return any(m.on == event and step % m.every == 0 for m in self._monitors.values())

    def measure(self, event: Event, view: StepView) -> dict[str, Any]:
        """Call every monitor that is due, and return all they measured."""
        measured: dict[str, Any] = {}
        for name, monitor in self._monitors.items():
            if monitor.on == event and view.step % monitor.every == 0:
                measured.update(self._call(name, monitor, view))
        return measured

    def tell(self, event: Event, payload: Any = None) -> None:
        """Tell every listener of this event."""
        for name, events, listener in self._listeners:
            if event in events:
                try:
                    listener(event, payload)
                except (Exception, SystemExit) as error:
                    self._problem(name, error)

    def monitors(self) -> list[Monitor]:
        """All monitors, in the order in which they were added."""
        return list(self._monitors.values())

    def costs(self) -> dict[str, Cost]:
        """Each monitor's measured cost up to now."""
        return dict(self._costs)

    def _call(self, name: str, monitor: Monitor, view: StepView) -> Mapping[str, Any]:
        cost = self._costs[name]
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return dict(monitor(view))  # what is no mapping is the monitor's failure as well
        except (Exception, SystemExit) as error:  # a sys.exit in a monitor ends nothing, either
            cost.failures += 1
            self._problem(name, error)
            return {}
        finally:
            cost.calls += 1
            cost.wall_s += time.perf_counter() - wall
            cost.cpu_s += time.process_time() - cpu

    def _problem(self, name: str, error: Exception | SystemExit) -> None:
        if self.debug:
            raise error
        if self.on_problem is not None:
            self.on_problem(name, error)
