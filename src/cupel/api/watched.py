"""Checks what `Run.watch` is given, and makes monitors from their settings.

Neither torch nor pydantic is imported before a monitor is asked for by its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cupel import registry
from cupel.errors import UsageError
from cupel.events import Event, Monitor

SEEN = (Event.AFTER_BACKWARD, Event.STEP_END)  # what an optimizer's two hooks can show


def check_watched(model: Any, optimizer: Any) -> None:
    """Raises UsageError for what is no module of torch, or no optimizer."""
    if not hasattr(optimizer, "register_step_pre_hook"):
        raise UsageError(
            f"watch() needs the torch optimizer as its second argument, not a "
            f"{type(optimizer).__name__}"
        )
    if not hasattr(model, "named_parameters"):
        raise UsageError(
            f"watch() needs the torch module as its first argument, not a {type(model).__name__}"
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
