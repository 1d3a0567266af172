"""The register of what is stateful in a run: each part by its name, saved and loaded as one.

Loading is strict and all or nothing as far as it can be told beforehand: names of parts, and names
and shapes of tensors, are compared before any part is touched. What only a part itself can refuse
(an optimizer with other parameter groups, say) is found when its turn comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from cupel.checkpoint.codec import state_hash
from cupel.errors import CheckpointError, ResumeError, UsageError

_MOST_NAMED = 3  # of the tensors that differ; the first ones nearly always tell what changed


@runtime_checkable
class Stateful(Protocol):
    """What can be a part: modules, optimizers, schedulers, scalers, and objects of your own."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Parts:
    """The parts of one run, in the order in which they were registered."""

    def __init__(self) -> None:
        self._parts: dict[str, Stateful] = {}

    def register(self, name: str, part: Stateful) -> None:
        """Add a part under a name of its own, which is its name in every checkpoint.

        Raises UsageError for a name that is taken or not made of [a-z0-9_], and for an object
        without state_dict and load_state_dict.
        """
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise UsageError(f"{name!r} cannot name a part; use lower-case letters, digits and _")
        if name in self._parts:
            raise UsageError(f"a part is called '{name}' already; give this one another name")
        if not isinstance(part, Stateful):
            raise UsageError(
                f"'{name}' is a {type(part).__name__}, which cannot be checkpointed; it must have "
                "the methods state_dict() and load_state_dict(state)"
            )
        self._parts[name] = part

    @property
    def names(self) -> list[str]:
        """The names of all parts, in order."""
        return list(self._parts)

    def state(self) -> dict[str, Any]:
        """Every part's `state_dict()` by name; its tensors are the parts' own, not copies."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def hashes(self) -> dict[str, str]:
        """Every part's `codec.state_hash`, by name. Raises CheckpointError that names the part."""
        return {name: _hashed(name, state) for name, state in self.state().items()}

    def load(self, states: Mapping[str, Any]) -> None:
        """Give every part its state.

        Raises CheckpointError when a part is missing or left over, and ResumeError when a model's
        tensors differ in name or shape; both before anything is loaded. Raises ResumeError too
        when a part itself refuses its state; parts before it are loaded then.
        """
        self._check_names(states)
        for name, current in self.state().items():
            _check_shapes(name, current, states[name])
        for name, part in self._parts.items():
            try:
                part.load_state_dict(states[name])
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ResumeError(
                    f"'{name}' does not accept the state in the checkpoint "
                    f"({type(error).__name__}: {reason}); resume with the settings and code that "
                    "wrote it, or start a new run"
                ) from error

    def _check_names(self, states: Mapping[str, Any]) -> None:
        missing = [name for name in self._parts if name not in states]
        left_over = [name for name in states if name not in self._parts]
        if missing:
            raise CheckpointError(
                f"the checkpoint has no {_quoted(missing)}, which this run registers; it has "
                f"{_quoted(states)}: resume with the settings that wrote it"
            )
        if left_over:
            raise CheckpointError(
                f"the checkpoint has {_quoted(left_over)}, which this run does not register; it "
                f"registers {_quoted(self._parts)}: resume with the settings that wrote it"
            )


def _hashed(name: str, state: Any) -> str:
    try:
        return state_hash(state)
    except TypeError as error:
        raise CheckpointError(f"the part '{name}' cannot be hashed: {error}") from error


def _check_shapes(name: str, current: Any, saved: Any) -> None:
    """Compare two states that are flat mappings of names to tensors, as a module's are."""
    if not (_is_flat(current) and _is_flat(saved)):
        return
    found = {key: tuple(tensor.shape) for key, tensor in saved.items()}
    expected = {key: tuple(tensor.shape) for key, tensor in current.items()}
    differing = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    if differing:
        shown = "; ".join(
            f"{key}: {found.get(key, 'absent')} in the checkpoint, {expected.get(key, 'absent')} "
            "in this run"
            for key in differing[:_MOST_NAMED]
        )
        more = f"; and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
        raise ResumeError(
            f"'{name}' is not what the checkpoint holds: {shown}{more}; resume with the settings "
            "that wrote it, or start a new run"
        )


def _is_flat(state: Any) -> bool:
    # An empty state says nothing about what the part would accept.
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    )


def _quoted(names: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
