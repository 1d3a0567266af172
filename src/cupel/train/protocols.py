"""What the loop asks of others: a workload to train, a recorder to write to.

`cupel.testing.WorkloadContract` checks a workload; docs/workloads.md shows how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn


class Workload(Protocol):
    """What is trained: a model, its data and its objective.

    `Settings` (a `cupel.config.Settings`, importable without torch) describes it; its fields
    stand at the top level of a recipe. `model` is what is optimized. `unit` and `units_per_step`
    say what throughput counts ("tokens", "images") and how many an update sees over all ranks.
    """

    Settings: Any
    model: nn.Module
    unit: str
    units_per_step: int

    @classmethod
    def build(cls, settings: Any, *, seed: int) -> Self:
        """Make model and data on the CPU. Every draw comes from `seed` through named streams."""
        ...

    def stateful(self) -> Mapping[str, Any]:
        """Parts besides the model that change while training, by name; each has `state_dict`."""
        ...

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        """The `part[0]`-th of `part[1]` equal shares of step's global batch: a pure function."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Any]]:
        """The mean loss of a share with its graph, and further numbers to log."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics on a fixed, named set, `val_loss` among them; the loop has set eval mode."""
        ...


@runtime_checkable
class Updated(Protocol):
    """A workload that changes something of its own after each update of the parameters."""

    def after_update(self, *, steps: int) -> Mapping[str, Any]:
        """Called once an update, of `steps` in all; returns further numbers to log.

        What it counts must be in `stateful()`, or a resumed run would begin to count anew.
        """
        ...


class Recorder(Protocol):
    """Where the loop writes; `record.session.Session` is one. None of these may raise on IO."""

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None: ...

    def event(self, name: str, /, **fields: Any) -> None: ...

    def note(self, line: str) -> None: ...


class SilentRecorder:
    """Writes nothing: for ranks other than 0, and for training without a record."""

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """Drop the line."""

    def event(self, name: str, /, **fields: Any) -> None:
        """Drop the event."""

    def note(self, line: str) -> None:
        """Drop the note."""
