"""The wave ratio r, which mixes a wave embedding with an ordinary one, and how training moves it.

r is a learned logit ρ that starts at 0.5, so that r starts at sigmoid(0.5) = 0.622. Where it is to
reach exactly 0 it is a buffer instead, which starts at 1 and which no optimizer sees.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

_START = 0.5  # of ρ
_PULL = 0.01  # towards the target, an update
_BOUNDS = (0.01, 0.99)


class WaveRatio(nn.Module):
    """One number r; `learned` as a logit, else as a buffer. Calling it gives a 0-d tensor."""

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.learned = learned
        if learned:
            self.logit = nn.Parameter(torch.tensor(_START))
        else:
            self.register_buffer("value", torch.tensor(1.0))

    def forward(self) -> Tensor:
        """r, with its graph where it is learned."""
        return torch.sigmoid(self.logit) if self.learned else self.get_buffer("value")

    @torch.no_grad()
    def set(self, ratio: float) -> None:
        """Make r this number; a learned one must lie strictly between 0 and 1."""
        if self.learned:
            self.logit.fill_(math.log(ratio / (1 - ratio)))
        else:
            self.get_buffer("value").fill_(ratio)


class RatioSchedule:
    """What happens to r after each of the optimizer's updates; the update just made is number n.

    - scheduled: r ← 0.99·r + 0.01·(0.5 + 0.4·n/updates), kept within [0.01, 0.99], written back as
      a logit. The optimizer moves the same logit in between
    - free: r is the optimizer's alone
    - decay: r = max(0, 1 − n/steps)

    It counts updates itself; the count is its state. It reads r off the device at every
    update, which waits for an accelerator.
    """

    def __init__(
        self, ratio: WaveRatio, kind: Literal["scheduled", "free", "decay"], *, steps: int
    ) -> None:
        assert ratio.learned == (kind != "decay"), (ratio.learned, kind)
        self._ratio, self._kind, self._steps = ratio, kind, steps
        self._updates = 0

    @torch.no_grad()
    def step(self, updates_in_all: int) -> float:
        """Count one update of `updates_in_all` and return r as it now is."""
        self._updates += 1
        if self._kind == "scheduled":
            target = 0.5 + 0.4 * self._updates / updates_in_all
            pulled = (1 - _PULL) * float(self._ratio()) + _PULL * target
            self._ratio.set(min(max(pulled, _BOUNDS[0]), _BOUNDS[1]))
        elif self._kind == "decay":
            self._ratio.set(max(0.0, 1 - self._updates / self._steps))
        return float(self._ratio())

    def state_dict(self) -> dict[str, int]:
        """The updates counted so far; r itself is the model's."""
        return {"updates": self._updates}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting from there."""
        self._updates = int(state["updates"])
