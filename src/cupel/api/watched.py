"""What `Run.watch` does: monitors through an optimizer's hooks, histograms through a model's.

Neither torch nor pydantic is imported before a monitor is asked for by its settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from cupel import registry
from cupel.api.rows import Rows
from cupel.errors import UsageError
from cupel.events import Dispatcher, Event, Monitor, StepView

SEEN = (Event.AFTER_BACKWARD, Event.STEP_END)  # what an optimizer's two hooks can show


class Watcher:
    """Has monitors look at every `optimizer.step()`, until `stop`.

    `step()` is the step being made, None outside of `steps()`: there `rows` tells it. What is
    measured before the first line waits for it, since only that line tells where steps begin.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        rows: Rows,
        *,
        step: Callable[[], int | None],
        log: Callable[[Mapping[str, Any], int], None],
    ) -> None:
        self._dispatcher, self._rows, self._step, self._log = dispatcher, rows, step, log
        self._early: list[tuple[int, dict[str, Any]]] = []
        self._hooks: list[Any] = []
        self._updates = 0

    def add(self, monitors: Mapping[str, Any], model: Any) -> None:
        """Take monitors, unless $CUPEL_MONITORS is off. Raises UsageError."""
        if os.environ.get("CUPEL_MONITORS") != "off":
            for name, chosen in monitors.items():
                self._dispatcher.add_monitor(name, monitor_from(name, chosen))
        self._dispatcher.check_keys(model)

    def start(
        self,
        model: Any,
        optimizer: Any,
        units: Mapping[str, int],
        *,
        then: Callable[[int], None],
    ) -> None:
        """Look from now on; `then` is called with each step when it has been looked at."""

        def before(opt: Any, args: Any, kwargs: Any) -> None:
            self._updates = self._rows.updated()
            self._look(Event.AFTER_BACKWARD, model, opt, units)

        def after(opt: Any, args: Any, kwargs: Any) -> None:
            self._look(Event.STEP_END, model, opt, units)
            then(self._at())

        self._hooks = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]

    @property
    def looks(self) -> bool:
        """Whether an optimizer is watched."""
        return bool(self._hooks)

    def line_comes(self, step: int) -> None:
        """The line of this step is the next one: what waits belongs to it and to those before."""
        early, self._early = self._early, []
        for update, measured in early:
            self._log(measured, max(0, step - (self._updates - update)))

    def stop(self) -> None:
        """Look no longer; what waits is logged as if updates counted from 1."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.line_comes(self._updates)

    def _look(self, event: Event, model: Any, opt: Any, units: Mapping[str, int]) -> None:
        step, at = self._known(), self._at()
        if not self._dispatcher.watches(event, at):
            return
        measured = self._dispatcher.measure(event, StepView(model, opt, at, units=units))
        if measured and step is None:
            self._early.append((self._updates, measured))
        elif measured:
            self._log(measured, at)

    def _known(self) -> int | None:
        """The step being made, if that is known already."""
        step = self._step()
        return self._rows.of_update() if step is None else step

    def _at(self) -> int:
        step = self._known()
        return self._updates if step is None else step


def is_optimizer(given: Any) -> bool:
    """Whether this is an optimizer of torch, as `watch` needs one."""
    return hasattr(given, "register_step_pre_hook")


def check_module(model: Any) -> None:
    """Raises UsageError for what is no module of torch."""
    if not hasattr(model, "named_parameters"):
        raise UsageError(
            f"watch() needs the torch module as its first argument, not a {type(model).__name__}"
        )


def check_second(given: Any) -> None:
    """The second argument is cupel's optimizer or wandb's criterion. Raises UsageError."""
    if not is_optimizer(given) and not callable(given):
        raise UsageError(
            "watch() takes the torch optimizer (or a loss function, as wandb does) as its second "
            f"argument, not a {type(given).__name__}"
        )


def monitor_from(name: str, chosen: Any) -> Monitor:
    """A monitor from its settings, or the object itself when it is one already.

    Raises UsageError, UnknownName for a name that is not registered.
    """
    monitor = _built(name, chosen) if isinstance(chosen, Mapping) else chosen
    if isinstance(monitor, type) or not isinstance(monitor, Monitor):
        raise UsageError(
            f"monitor '{name}': expected settings as a dict, or an object with on, every, keys() "
            f"and a call; got {chosen!r}"
        )
    if monitor.on not in SEEN:
        raise UsageError(
            f"monitor '{name}' looks at {monitor.on}, which an optimizer's hooks do not show; "
            f"watch() can serve: {', '.join(SEEN)}"
        )
    return monitor


def _built(name: str, settings: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError

    from cupel.wording import worded

    kind = registry.settings_of("monitor", name)
    try:
        checked = kind.model_validate(dict(settings))
    except ValidationError as error:
        raise UsageError(
            "; ".join(
                worded(one, ".".join(map(str, (name, *one["loc"]))), known=kind.model_fields)
                for one in error.errors(include_url=False)
            )
        ) from None
    return registry.resolve("monitor", name)(checked)
