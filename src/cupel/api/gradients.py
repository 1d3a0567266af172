"""Histograms of gradients and parameters without an optimizer: what wandb's `watch(model)` gives.

Every so many backward passes each parameter's values are counted into 64 bins as they are
accumulated, and kept in memory until the next `log`, to whose step they belong. Each costs a copy
to the CPU and a small file; with the default of 1,000 passes little, with 1 a lot. Parameters that
are not trained have no gradient and are not looked at. torch is not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cupel.api.media import Histogram
from cupel.errors import UsageError

KINDS = {"gradients": (True, False), "parameters": (False, True), "all": (True, True)}


class Histograms:
    """Looks at one model's backward passes until `stop`; `take` gives what has been seen.

    `on_problem(name, error)` hears of a histogram that cannot be made; the pass goes on.
    """

    def __init__(
        self,
        model: Any,
        kind: str,
        *,
        every: int,
        prefix: str,
        on_problem: Callable[[str, Exception], None],
    ) -> None:
        if kind not in KINDS:
            raise UsageError(
                f"watch(log={kind!r}) is not one of {', '.join(map(repr, KINDS))} or None"
            )
        if not isinstance(every, int) or every < 1:
            raise UsageError(f"watch(log_freq={every!r}): it must be a whole number, 1 or more")
        self._gradients, self._parameters = KINDS[kind]
        self._every, self._prefix, self._on_problem = every, prefix, on_problem
        self._passes: dict[str, int] = {}
        self._seen: dict[str, Histogram] = {}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._look, name))
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]

    def take(self) -> dict[str, Histogram]:
        """What was counted since the last time, by name."""
        seen, self._seen = self._seen, {}
        return seen

    def stop(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _look(self, name: str, parameter: Any) -> None:
        passes = self._passes[name] = self._passes.get(name, 0) + 1
        if passes % self._every:
            return
        try:
            if self._gradients:
                self._seen[f"gradients/{self._prefix}{name}"] = Histogram(parameter.grad)
            if self._parameters:
                self._seen[f"parameters/{self._prefix}{name}"] = Histogram(parameter)
        except Exception as error:  # whatever libraries raise, the backward pass goes on
            self._on_problem(f"watch {name}", error)
