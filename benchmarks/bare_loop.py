"""The loop that somebody would write by hand for `gpt-tiny`: no record, no monitors, no cupel.

It makes the same updates as cupel's loop: same model class, fused AdamW, schedule and clipping;
so after the same number of steps both models are equal bit for bit, which the benchmark checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class BareLoop:
    """Makes as many steps as it is asked for; `losses` has the loss of each in nats."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        batches: Sequence[Batch],
        factor: Callable[[int], float],
        clip: float,
    ) -> None:
        self.model, self.losses = model, list[float]()
        self._optimizer, self._batches, self._clip = optimizer, batches, clip
        self._factor, self._peak = factor, optimizer.param_groups[0]["lr"]
        model.train()

    def make(self, steps: int) -> None:
        """Make so many steps, each with one `loss.item()`, as a loop does that prints its loss."""
        model, optimizer, groups = self.model, self._optimizer, self._optimizer.param_groups
        for _ in range(steps):
            step = len(self.losses) + 1
            for group in groups:
                group["lr"] = self._peak * self._factor(step - 1)
            x_BT, y_BT = self._batches[step % len(self._batches)]
            optimizer.zero_grad(set_to_none=True)
            _, loss = model(x_BT, y_BT)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self._clip)
            optimizer.step()
            self.losses.append(loss.item())


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are equal bit for bit."""
    pairs: Any = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(here, there) for here, there in pairs)
