"""How a value of a run compares with a word that somebody typed: numbers, texts, dates.

A number is compared with a number, a text with a text; of two texts that both are numbers their
numbers. A date is a stretch of time: a year, a month, a day, a minute or a second, in UTC.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE
)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d?)(?:-(\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d))?)?)?)?(?:Z|UTC)?", re.ASCII
)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def equals(value: object, text: str) -> bool:
    """Whether a value is what the word says; NaN is `nan`, True is `true` and 1."""
    if isinstance(value, bool) and text.lower() in ("true", "false"):
        return value is (text.lower() == "true")
    if isinstance(value, int | float):
        wanted = _number(text)
        if wanted is not None and math.isnan(wanted):
            return math.isnan(value) if isinstance(value, float) else False
        return wanted is not None and value == wanted
    return str(value) == text


def contains(value: object, text: str) -> bool:
    """Whether a value, written out, holds the word, whatever the case."""
    return text.lower() in str(value).lower()


def ordered(value: object, sign: str, text: str) -> bool | None:
    """Whether `value sign word` is true; None for a number with a text."""
    wanted, order = _number(text), _ORDERS[sign]
    if isinstance(value, int | float):
        return None if wanted is None else bool(order(value, wanted))
    own = _number(str(value))
    if own is not None and wanted is not None:
        return bool(order(own, wanted))
    return bool(order(str(value), text))


def in_time(value: object, sign: str, texts: Sequence[str]) -> bool | None:
    """Whether Unix seconds stand so to dates, or to other Unix seconds, of which `span` is one."""
    if not isinstance(value, int | float) or sign.endswith("~"):
        return None
    spans = [found for text in texts if (found := span(text)) is not None]
    if sign in ("=", "!=", "in"):
        inside = any(start <= value < end or value == start for start, end in spans)
        return inside != (sign == "!=")
    start, end = spans[0]
    if sign in ("<", ">="):
        return (value < start) is (sign == "<")
    return (value < end or value == start) is (sign == "<=")


def span(text: str) -> tuple[float, float] | None:
    """The Unix seconds at which a date begins and ends; both the same for a number, None for
    what is neither."""
    date = _DATE.fullmatch(text)
    if date is None:
        seconds = _number(text)
        return None if seconds is None or math.isnan(seconds) else (seconds, seconds)
    parts = [int(part) for part in date.groups() if part is not None]
    try:
        year, month, day, hour, minute, second = (parts + [1, 1, 0, 0, 0][len(parts) - 1 :])[:6]
        start = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if len(parts) == 1:
            end = start.replace(year=year + 1)
        elif len(parts) == 2:
            end = (start + timedelta(days=31)).replace(day=1)
        else:
            lasts = {3: timedelta(days=1), 5: timedelta(minutes=1), 6: timedelta(seconds=1)}
            end = start + lasts[len(parts)]
    except (ValueError, OverflowError):  # no such day, or the end of all years
        return None
    return start.timestamp(), end.timestamp()


def _number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return int(text)
    except ValueError:  # a fraction, or more digits than Python reads as an integer
        return float(text)
