"""The stretches of an axis that a chart has one row each for: `Grid`.

All curves of a chart share them, and a stretch is never wider than a pixel needs: its width is a
power of two, so a chart of a run that grows goes on with the same stretches until they are twice
as many as its pixels can show. On a logarithmic axis the stretches are equal in log2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from cupel.record.series import STEP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# 2^-10 s is a millisecond; what is finer than the 40th part of a float64's bits is rounding.
_FINEST = {"linear": -40, "log": -20}
_LEAST_LOG = 2.0**-60
_MOST_LOG = math.nextafter(1024.0, 0.0)


class Grid(msgspec.Struct, array_like=True, frozen=True):
    """Stretches of width 2^`power` on an axis; number i is [i·w, (i+1)·w), in log2 if `log`."""

    power: int
    log: bool

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.power)

    def number(self, x: float) -> int:
        """The stretch of a place; on a logarithmic axis what is not positive is in the first."""
        return math.floor(self._on_axis(x) / self.width)

    def edges(self, first: int, last: int) -> Floats:
        """The ends of the stretches first … last, one more than there are."""
        import numpy as np

        edges = np.arange(first, last + 2, dtype=np.float64) * self.width
        # The end of the last stretch may lie beyond all floats.
        return np.exp2(np.minimum(edges, _MOST_LOG)) if self.log else edges

    def _on_axis(self, x: float) -> float:
        return math.log2(max(x, _LEAST_LOG)) if self.log else x


def fitting(low: float, high: float, most: int, *, x: str, log: bool) -> Grid:
    """The finest grid that has at most so many stretches between two places."""
    finest = 0 if x == STEP and not log else _FINEST["log" if log else "linear"]
    grid = Grid(finest, log)
    a, b = grid._on_axis(low), grid._on_axis(high)
    scale = max(abs(a), abs(b))
    if scale:  # of places around 1.7e9 not even microseconds can be told apart
        finest = max(finest, math.frexp(scale)[1] - 48)
    span = (b - a) / max(1, most)
    power = max(finest, math.frexp(span)[1] - 1 if span > 0 else finest)
    while count(Grid(power, log), low, high) > most:
        power += 1
    return Grid(power, log)


def count(grid: Grid, low: float, high: float) -> int:
    """How many stretches lie between two places, those of both included."""
    return grid.number(high) - grid.number(low) + 1


def centres(grid: Grid, numbers: Any, *, x: str) -> Floats:
    """Where the stretches are drawn: in their middle; of whole steps in the middle of these."""
    import numpy as np

    indices = np.asarray(numbers, dtype=np.float64)
    if grid.log:
        return np.exp2((indices + 0.5) * grid.width)
    half = (grid.width - 1) / 2 if x == STEP else grid.width / 2
    return indices * grid.width + half
