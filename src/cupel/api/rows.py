"""Which step a line belongs to when the script does not say: wandb's rule, so that both agree.

Lines without a step count from 0. A line with `step=` opens that step, and it stays open: a line
without one that follows goes to it as well, and closes it. `commit=False` leaves a step open,
`commit=True` closes it. Unlike there, a step that lies back is not refused.
"""

from __future__ import annotations

import operator
from typing import Any

from cupel.errors import UsageError

_LAST_STEP = 2**53  # up to here JSON readers of every language keep integers exact


class Rows:
    """The steps of one run's lines. `open` is the step that the next line goes to."""

    def __init__(self) -> None:
        self.open = 0
        self._last: int | None = None
        self._updates = 0

    def place(self, step: int | None, commit: bool | None) -> int:
        """The step of a line, which counts from now on."""
        at = self.open if step is None else step
        if at > self.open:
            self.open = at
        closes = commit is not False if step is None else bool(commit)
        if closes and at == self.open:
            self.open += 1
        # What is measured next belongs to the step after this one, unless this one is unfinished.
        self._last = at if closes or step is not None else at - 1
        self._updates = 0
        return at

    def go_on_after(self, step: int) -> None:
        """The next line's step is one more than this."""
        self.open, self._last, self._updates = step + 1, step, 0

    def updated(self) -> int:
        """Count an update of the weights; how many there are since the last line."""
        self._updates += 1
        return self._updates

    def of_update(self) -> int | None:
        """The step of the last update; None before the first line, which alone can tell."""
        return None if self._last is None else self._last + self._updates


def whole(step: Any) -> int:
    """A step as an int. Raises UsageError for what is no whole number from 0 to 2**53."""
    if type(step) is int and 0 <= step <= _LAST_STEP:
        return step
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if 0 <= number <= _LAST_STEP:
        return number
    # Python refuses to print integers of more than 4,300 digits.
    long = isinstance(step, int) and step.bit_length() > 64
    shown = f"an integer of {step.bit_length()} bits" if long else " ".join(repr(step).split())
    raise UsageError(f"step is {shown}; it must be a whole number from 0 to 2**53")
