"""An axis of a drawing: where values are, and at which of them are ticks, with their texts.

Ticks are multiples of 1, 2 or 5 times a power of ten; on a logarithmic axis powers of ten, and
their multiples where few of these are seen; on an axis of time whole seconds, minutes, hours, days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LINEAR, LOG, TIME, DURATION = "linear", "log", "time", "duration"
MINUS = "−"

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SPANS = (
    1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE,
    30 * _MINUTE, _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY,
    14 * _DAY,
)  # fmt: skip
_MOST = 64  # ticks, whatever is asked
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high`, which lie from `start` to `end` on the sheet."""

    kind: str
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value is; NaN for what the axis does not have."""
        if self.kind == LOG:
            if not value > 0:
                return math.nan
            low = math.log(self.low)
            part = (math.log(value) - low) / (math.log(self.high) - low)
        else:  # halves, since the difference could overflow
            part = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + part * (self.end - self.start)

    def places(self, values: NDArray[np.float64]) -> list[float]:
        """Where some values are."""
        return [self.place(value) for value in values.tolist()]

    def ticks(self, *, most: int) -> list[tuple[float, str]]:
        """At most about so many values, and their texts."""
        if self.kind == LOG:
            values = _log(self.low, self.high, most)
            return [(value, number(value)) for value in values]
        span = (self.high / 2 - self.low / 2) / max(1, most) * 2
        if self.kind in (TIME, DURATION) and span >= _SPANS[0] / 2:
            step = next((s for s in _SPANS if s >= span), None) or _DAY * nice(span / _DAY)
            values = list(_multiples(self.low, self.high, step))
            write = _durations if self.kind == DURATION else _times
            return list(zip(values, write(values, step), strict=True))
        step = nice(span)
        values = list(_multiples(self.low, self.high, step))
        if self.kind == TIME:
            return list(zip(values, _times(values, step), strict=True))
        unit = " s" if self.kind == DURATION else ""
        return [(value, number(value, step) + unit) for value in values]


def nice(span: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not less."""
    if not 0 < span < math.inf:
        return 1.0
    exponent = math.floor(math.log10(span))
    for factor, more in ((1, 0), (2, 0), (5, 0), (1, 1)):
        found = float(f"{factor}e{exponent + more}")
        if found >= span * (1 - 1e-9):
            return found
    raise AssertionError(span)


def number(value: float, step: float | None = None) -> str:
    """A tick's text, in as many digits as tell it from the ticks beside it."""
    size = abs(value)
    if size == 0 and step and step < 1e-4:
        return "0"
    if size != 0 and (size < 1e-4 or size >= 1e6):
        digits = 0
        if step:
            digits = max(0, math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9))
        text = f"{value:.{min(digits, 15)}e}"
        mantissa, exponent = text.split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        text = f"{mantissa}e{int(exponent)}"
    elif step:
        text = f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    else:
        text = f"{value:,.10f}".rstrip("0").rstrip(".")
    return text.replace("-", MINUS)


def _multiples(low: float, high: float, step: float) -> Iterator[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    for count in range(first, min(last, first + _MOST) + 1):
        yield count * step


def _log(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        found = [
            value
            for exponent in range(first, last + 1)
            for factor in factors
            if low <= (value := _power(factor, exponent)) <= high
        ]
        if len(found) <= most:
            break
    if len(found) > most:
        every = math.ceil(len(found) / most)
        found = [value for n, value in enumerate(found) if (first + n) % every == 0]
    if len(found) < 2:  # within one decade, or less
        return [v for v in _multiples(low, high, nice((high - low) / max(1, most))) if v > 0]
    return found


def _power(factor: int, exponent: int) -> float:
    return float(f"{factor}e{exponent}")


def _times(values: Sequence[float], step: float) -> list[str]:
    """Times of day in UTC, the date at the first and where a new one begins."""
    texts, day = [], ""
    for value in values:
        try:
            at = _EPOCH + timedelta(seconds=value)
        except OverflowError:  # beyond the year 9999
            texts.append(number(value))
            continue
        clock = f"{at:%H:%M}" if step >= _MINUTE else f"{at:%H:%M:%S}"
        if step < 1:
            clock += f".{at.microsecond // 1000:03d}"
        date = f"{at:%Y-%m-%d}"
        texts.append(date if step >= _DAY else clock if date == day else f"{date[5:]} {clock}")
        day = date
    return texts


def _durations(values: Sequence[float], step: float) -> list[str]:
    return [_duration(value, step) for value in values]


def _duration(seconds: float, step: float) -> str:
    sign = MINUS if seconds < 0 else ""
    whole = round(abs(seconds))
    if whole == 0:
        return "0"
    days, hours = whole // _DAY, whole % _DAY // _HOUR
    minutes, left = whole % _HOUR // _MINUTE, whole % _MINUTE
    parts: list[Any] = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    return sign + " ".join(f"{count} {name}" for count, name in parts if count)
