"""A run's config: a dict with attributes, whose changes are recorded; and how it becomes plain.

`plain` turns what scripts have in their configs into what JSON can hold, so that equal settings
are equal text. The first config is the run's identity; later changes are recorded, and do not
make another run of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from cupel.api.told import tell_once
from cupel.errors import UsageError, did_you_mean
from cupel.record.codec import plain_numbers

_MOST_NUMBERS = 1024  # of one array in a config
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Config(dict[str, Any]):
    """The settings of a run: `config["lr"]` and `config.lr`, to read and to change.

    Every change is one recorded line. Nothing can be taken out; a mapping inside is a plain dict,
    whose own changes are not seen: set it anew.
    """

    def __init__(
        self, values: Mapping[str, Any], record: Callable[[dict[str, Any]], bool] | None = None
    ) -> None:
        super().__init__(values)
        object.__setattr__(self, "_record", record)

    def update(self, *given: Any, allow_val_change: bool | None = None, **named: Any) -> None:
        """Take over settings from a mapping, a namespace or pairs, in one recorded line.

        `allow_val_change` is wandb's; a change is always allowed here.
        """
        changes: dict[str, Any] = {}
        for one in given:
            changes |= plain(_of_pairs(one) if _is_pairs(one) else one)
        changes |= plain(named)
        self._take({k: v for k, v in changes.items() if k not in self or self[k] != v})

    def setdefaults(self, given: Any) -> None:
        """Take over only the settings that are not there yet."""
        self._take({k: v for k, v in plain(given).items() if k not in self})

    def setdefault(self, name: str, default: Any = None) -> Any:
        self.setdefaults({name: default})
        return self.get(name, default)  # an ended run takes nothing any more

    def as_dict(self) -> dict[str, Any]:
        """A copy as a plain dict."""
        return dict(self)

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __setattr__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the config has no '{name}'{did_you_mean(name, self)}")

    def __ior__(self, given: Any) -> Config:  # type: ignore[override,misc]  # dict's is overloaded
        self.update(given)
        return self

    def _refuse(self, *_: Any) -> Any:
        raise UsageError("a config keeps what was recorded; set it to None instead")

    __delitem__ = __delattr__ = pop = popitem = clear = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a copy, also one in another process, records nothing

    def record(self, changes: dict[str, Any]) -> bool:
        """Record settings; False once the run has ended, which takes none any more."""
        return self._record is None or self._record(changes)

    def _take(self, changes: dict[str, Any]) -> None:
        if changes and self.record(changes):
            super().update(changes)


def plain(config: Any) -> dict[str, Any]:
    """Settings as reading them from JSON would give them: texts, numbers, lists and dicts.

    Takes a mapping, a namespace (argparse's too) or a dataclass. Paths, enums, sets, dates, small
    arrays, tensors and dtypes have an obvious form; what else there is becomes its text, told of
    once. Raises UsageError for what has no settings or cannot be written.
    """
    given = {} if config is None else _fields(config)
    if given is None:
        raise UsageError(
            f"config must be a dict or a namespace, not {_a(config)}; type config={{'lr': 0.1}}"
        )
    try:
        found: dict[str, Any] = json.loads(json.dumps(_plain(given, "config")))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"config must be plain data (numbers, strings, lists, dicts): {error}"
        ) from error
    return found


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """What a mapping, namespace or dataclass says by names; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, types.SimpleNamespace) or _is_argparses(value):
        return dict(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return None


def _is_argparses(value: Any) -> bool:
    argparse = sys.modules.get("argparse")  # who has none made has not imported it
    return argparse is not None and isinstance(value, argparse.Namespace)


def _plain(value: Any, path: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value.value if isinstance(value, enum.Enum) else value
    if (fields := _fields(value)) is not None:
        return {str(k): _plain(v, f"{path}.{k}") for k, v in fields.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, path) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(one, path) for one in value), key=repr)
    if isinstance(value, enum.Enum):
        return _plain(value.value, path)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        if math.prod(value.shape) <= _MOST_NUMBERS:
            try:
                return _plain(plain_numbers(value), path)
            except Exception:  # a meta or sparse tensor, a device that has failed
                return _told_as(
                    f"{type(value).__name__} of shape {tuple(value.shape)}", value, path
                )
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return _text(value, path)


def _text(value: Any, path: str) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    text = _ADDRESS.sub("", str(value))  # or no two runs would have equal settings
    if type(value).__module__ != "torch":  # a device or a dtype says all in its text
        return _told_as(text, value, path)
    return text


def _told_as(text: str, value: Any, path: str) -> str:
    tell_once(f"config {path}", f"{path} is {_a(value)}; its text is recorded: {text[:80]!r}")
    return text


def _is_pairs(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, Mapping | str | bytes)


def _of_pairs(pairs: Iterable[Any]) -> dict[Any, Any]:
    try:
        return dict(pairs)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"config takes a dict, a namespace or pairs, as [('lr', 0.1)]: {error}"
        ) from error


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
