"""Metrics as arrays: what a segment's lines say, as a column for each key, in the lines' order.

Keys that are logged together share their rows: one array of steps and one of times for all of
them. A column holds every number of its key as float64; where that does not tell all that the
lines say (integers beyond 2^53, bools, integers among floats, arrays) its `kind` is "mixed", and
whoever wants the very values reads the lines. `cupel.record.growing` makes columns from lines,
`cupel.record.compaction` keeps them in files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cupel.record.pyramid import Level

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Kind = Literal["float", "int", "mixed"]

_MOST_RUNS = 64


class Steps:
    """The steps of some rows: an array, or arithmetic runs (first, stride, count) in its place."""

    def __init__(
        self, array: Ints | None, runs: Sequence[tuple[int, int, int]] | None = None
    ) -> None:
        self.runs = runs
        self._array = array
        self._count = len(array) if array is not None else sum(run[2] for run in runs or ())

    @classmethod
    def compressed(cls, steps: Ints) -> Steps:
        """As runs where steps increase and at most 64 runs are needed, else as they are."""
        import numpy as np

        if not is_increasing(steps) or (len(steps) and int(steps[-1]) - int(steps[0]) >= 2**62):
            return cls(steps)
        strides = np.diff(steps)
        turns = np.flatnonzero(strides[1:] != strides[:-1]) + 1
        if len(turns) > 2 * _MOST_RUNS:
            return cls(steps)
        runs: list[tuple[int, int, int]] = []
        start = 0
        for end in [*turns.tolist(), len(strides)]:  # rows at which a stretch of one stride ends
            if end > start:  # else it is the leap to the next one, which begins at that row
                runs.append((int(steps[start]), int(strides[end - 1]), end - start + 1))
                start = end + 1
        if start < len(steps):
            runs.append((int(steps[start]), 1, 1))
        return cls(None, runs) if len(runs) <= _MOST_RUNS else cls(steps)

    def __len__(self) -> int:
        return self._count

    def at(self, row: int) -> int:
        """The step of one row."""
        return int(self.array(row, row + 1)[0])

    def array(self, start: int = 0, stop: int | None = None) -> Ints:
        """The steps of the rows from `start` to `stop`."""
        import numpy as np

        stop = self._count if stop is None else stop
        if self._array is not None:
            return self._array[start:stop]
        parts, before = [np.empty(0, np.int64)], 0
        for first, stride, count in self.runs or ():
            begin, end = max(start - before, 0), min(stop - before, count)
            if begin < end:
                parts.append(first + stride * np.arange(begin, end, dtype=np.int64))
            before += count
        whole: Ints = np.concatenate(parts)
        return whole

    def search(self, targets: Ints) -> Ints:
        """For each target, how many steps are less; the steps must be increasing."""
        import numpy as np

        if self._array is not None:
            return np.searchsorted(self._array, targets)
        if not self._count:
            return np.zeros(len(targets), np.int64)
        firsts, strides, counts = np.array(self.runs, dtype=np.int64).T
        run = np.maximum(np.searchsorted(firsts, targets) - 1, 0)
        first, stride = firsts[run], strides[run]
        last = first + stride * (counts[run] - 1)
        # Clipped before the division: a target far outside would overflow.
        inside = -(-(np.clip(targets, first, last) - first) // stride)
        found: Ints = (np.cumsum(counts) - counts)[run] + inside + (targets > last)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The lines that one or more keys share, in the lines' order.

    `times` holds `_t`, NaN where a line has none. `increasing` says that each step is greater than
    the one before, `timely` that all times are finite and none goes back. `top` is the greatest
    step.
    """

    steps: Steps
    times: Floats
    increasing: bool
    timely: bool
    top: int

    @classmethod
    def of(cls, steps: Ints, times: Floats) -> Rows:
        """Rows of these steps and times; there must be some."""
        increasing, timely = is_increasing(steps), is_ascending(times)
        return cls(Steps.compressed(steps), times, increasing, timely, int(steps.max()))


@dataclass(slots=True, eq=False)
class Column:
    """All numbers of one key; `ascending` says that they are finite and never go back."""

    rows: Rows
    values: Floats
    kind: Kind
    ascending: bool
    built: list[Level] | None = field(default=None, repr=False)

    @property
    def levels(self) -> list[Level]:
        """The pyramid over the values; built when it is first asked for."""
        if self.built is None:
            from cupel.record import pyramid

            self.built = pyramid.build(self.values)
        return self.built

    def exact(self, start: int, stop: int) -> list[Any]:
        """The values of some rows as the lines have them; not of a mixed column."""
        import numpy as np

        assert self.kind != "mixed"
        values = self.values[start:stop]
        found: list[Any] = (values if self.kind == "float" else values.astype(np.int64)).tolist()
        return found


class Table(Protocol):
    """A segment as columns, wherever they lie.

    `lines` are those that can be read, `damaged` counts the others. `kinds` names every key that
    the table covers, in the order in which they came first. `whole` is False where steps are not
    all plain integers: those beyond int64 are in no column. `version` grows when anything changes.
    """

    @property
    def version(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def damaged(self) -> int: ...
    @property
    def whole(self) -> bool: ...
    @property
    def kinds(self) -> dict[str, Kind]: ...

    def covers(self, keys: Collection[str] | None) -> bool:
        """Whether it holds all that the lines say of some keys (None: of all keys)."""

    def column(self, key: str) -> Column | None:
        """A key's column; None when no line holds a number under that key."""

    def ends(self, key: str) -> tuple[int, bool, Any] | None:
        """A key's greatest step, whether its steps increase, and its last number as its line has
        it (None when that cannot be said); None when `column` is. Reads no column."""


def covers(held: Collection[str] | None, keys: Collection[str] | None) -> bool:
    """Whether what holds some keys (None: all) has these (None: all)."""
    return held is None or (keys is not None and {*keys} <= {*held})


def is_increasing(array: Ints) -> bool:
    """Whether each is greater than the one before."""
    return bool((array[1:] > array[:-1]).all())


def is_ascending(array: Floats) -> bool:
    """Whether all are finite and none is less than the one before."""
    import numpy as np

    return bool(np.isfinite(array).all() and (array[1:] >= array[:-1]).all())
