"""What neural memories do with a sequence of the batch, token by token, as `memory/…`.

A model is asked by name, not by class: `memory_trace(tokens_T)` gives (L, T) of each quantity for
its L layers with a memory (`cupel.models.memory.trace`). Of any other model nothing is measured,
and `note` says so. A measurement gives the model tokens one by one: about 3 ms a token and layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.events import Event, StepView
from cupel.monitors.settings import MemoriesSettings

MOST_NUMBERS = 1024  # of one array in one line of a record
QUANTITIES = ("norm", "surprise", "decay", "momentum", "step")


class Memories:
    """After an update, of the first sequence of the batch; draws no random numbers.

    | key | shape | what |
    |---|---|---|
    | `tokens` | T | the ids that were read |
    | `norm` | L × T | Frobenius norm of a memory's weights behind each token, mean over heads |
    | `surprise` | L × T | Frobenius norm of the gradient of its loss at each token |
    | `decay`, `momentum`, `step` | L × T | the gates alpha, eta, theta, mean over heads |
    """

    Settings = MemoriesSettings
    on = Event.STEP_END

    def __init__(self, settings: MemoriesSettings) -> None:
        self.every, self._length = settings.every, settings.tokens

    def keys(self, model: nn.Module) -> Iterator[str]:
        found = ("tokens", *QUANTITIES) if _has_memories(model) else ()
        return (f"memory/{name}" for name in found)

    @torch.no_grad()
    def note(self, model: nn.Module) -> str | None:
        """Whether nothing can be measured of this model; None when something can."""
        if not _has_memories(model):
            return f"memories: {type(model).__name__} has no memory_trace(), so nothing is measured"
        if not _trace(model, torch.zeros(1, dtype=torch.long)):
            return f"memories: this {type(model).__name__} has no memories, so nothing is measured"
        return None

    @torch.no_grad()
    def __call__(self, view: StepView) -> dict[str, Any]:
        if not _has_memories(view.model):
            return {}
        tokens_T = _tokens(view.batch)[0, : self._length]
        found = _trace(view.model, tokens_T)
        if not found:
            return {}
        most = MOST_NUMBERS // len(found["norm"]) - 1  # a row counts as a number, too
        measured = {"tokens": tokens_T[:most].tolist()} | {
            name: values_LT[:, :most].float().cpu() for name, values_LT in found.items()
        }
        return {f"memory/{name}": value for name, value in measured.items()}


def _tokens(batch: Any) -> Tensor:
    """(B, T) of a batch that is them, or begins with them."""
    found = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise UsageError(
            "memories reads the batch's tokens, a tensor (B, T) or a tuple that begins with one; "
            f"the batch is {type(batch).__name__}"
        )
    return found


def _trace(model: Any, tokens_T: Tensor) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    found: dict[str, Tensor] = model.memory_trace(tokens_T.to(device))
    return found


def _has_memories(model: nn.Module) -> bool:
    return callable(getattr(model, "memory_trace", None))
