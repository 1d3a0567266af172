"""Values to JSON and back, exactly: shortest round-trip float64, NaN and infinities kept.

JSON has no NaN, and msgspec would write `null` for it without a word; on disk the three values are
the strings "NaN", "Infinity" and "-Infinity", and reading makes them floats again. The price: a
text that is exactly one of these words comes back as a number.
A line of metrics holds numbers and small arrays only (about 2 µs for ten floats); documents and
events also hold text and mappings. numpy and torch values are told by their `shape` and `tolist`,
so neither is imported; a tensor on a GPU waits for that GPU here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

MOST_NUMBERS = 1024  # of one array in one line; larger things belong into media/

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])
_PLAIN, _FLOATS = frozenset((float, int, bool)), frozenset((float,))
_LARGEST = 2**63
_SHOWN = 120  # characters of a name in a message


def encode_step(step: int, now: float, metrics: Mapping[str, Any]) -> bytes:
    """The line of one `log`: `encode_line` of `_step`, `_t` and the metrics.

    Raises TypeError also for metrics of those two names.
    """
    fields = {"_step": step, "_t": now, **metrics}
    if len(fields) != len(metrics) + 2:
        raise TypeError("the metric names '_step' and '_t' are the record's own; choose others")
    # What nearly every line is: plain numbers under names that are text. NaN and infinities become
    # null, so whatever has a null in it goes the careful way, as do integers that may be too large.
    kinds = set(map(type, metrics.values()))
    if kinds <= _PLAIN and -_LARGEST < step < _LARGEST:
        try:
            "".join(fields)
            if kinds <= _FLOATS or sum(map(abs, fields.values())) < _LARGEST:
                line = _encoder.encode(fields)
                if b"null" not in line:
                    return line + b"\n"
        except (TypeError, OverflowError, ValueError):
            pass  # the careful way tells what is wrong, and with which
    return encode_line(fields)


def encode_line(metrics: Mapping[str, Any]) -> bytes:
    """One line of metrics, with its newline.

    Takes bools, ints, floats, numpy scalars, 0-d tensors, and arrays or nested lists of at most
    1,024 numbers. Raises TypeError that names the key of anything else.
    """
    finite = math.isfinite
    plain = {
        key: value
        if type(value) is float and type(key) is str and finite(value)
        else metric(key, value)
        for key, value in metrics.items()
    }
    return _line(plain)


def encode_event(fields: Mapping[str, Any]) -> bytes:
    """One line that may hold anything a document may; see `document`."""
    return _line(document(fields))


def decode_line(line: bytes) -> dict[str, Any]:
    """The mapping of one line or document. Raises ValueError on anything that is not one."""
    try:
        fields = _decoder.decode(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if b'NaN"' in line or b'Infinity"' in line:
        return {key: _revived(value) for key, value in fields.items()}
    return fields


def encode_document(fields: Mapping[str, Any]) -> bytes:
    """A whole JSON file, indented for people."""
    return msgspec.json.format(_line(document(fields)), indent=2) + b"\n"


def metric(key: str, value: Any) -> Any:
    """The JSON form of one metric's value. Raises TypeError that names the key."""
    if not isinstance(key, str):
        raise TypeError(f"the metric {key!r}: a name must be text, not {type(key).__name__}")
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        _check_size(key, math.prod(value.shape))
        value = _listed(key, value)
    if isinstance(value, list | tuple):
        budget = [MOST_NUMBERS]
        return _numbers(key, value, budget)
    return _number(key, value)


def document(value: Any) -> Any:
    """The JSON form of a nested value: text, numbers, None, paths, sequences and mappings.

    Raises TypeError that shows what cannot be written.
    """
    if isinstance(value, Mapping):
        return {_text(str(key)): document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [document(item) for item in value]
    if isinstance(value, str | PurePath):
        return _text(str(value))
    if value is None:
        return None
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        return document(_listed("", value))
    return _number("", value)


def shortened(name: object) -> str:
    """A name as messages give it: of a very long one the beginning."""
    text = str(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _line(plain: dict[str, Any]) -> bytes:
    try:
        return _encoder.encode(plain) + b"\n"
    except UnicodeEncodeError as error:
        raise TypeError(f"a name is not valid text: {error.object[:_SHOWN]!r}") from error


def _numbers(key: str, values: list[Any] | tuple[Any, ...], budget: list[int]) -> list[Any]:
    budget[0] -= len(values)
    _check_size(key, MOST_NUMBERS - budget[0])
    return [
        _numbers(key, value, budget) if isinstance(value, list | tuple) else _number(key, value)
        for value in values
    ]


def _number(key: str, value: Any) -> bool | int | float | str:
    if hasattr(value, "tolist"):  # a numpy or torch number inside a list
        value = _listed(key, value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    of = f"the metric '{shortened(key)}': " if key else ""
    shown = repr(value)[:60]
    raise TypeError(f"{of}{shown} ({type(value).__name__}) is no number that can be recorded")


def _listed(key: str, value: Any) -> Any:
    try:
        return plain_numbers(value)
    except Exception as error:  # a meta or sparse tensor, a device that has failed
        what = f"the metric '{shortened(key)}'" if key else f"a {type(value).__name__}"
        raise TypeError(f"{what} has no numbers to give: {error}") from error


def plain_numbers(value: Any) -> Any:
    """What the `tolist` of an array or a tensor gives, in numbers of Python. Raises anything.

    A longdouble of numpy gives itself, for Python has none: it becomes the nearest float.
    """
    listed = value.tolist()
    if not hasattr(listed, "tolist"):
        return listed
    if getattr(getattr(listed, "dtype", None), "kind", None) != "f":
        raise TypeError(f"{type(listed).__name__} is no number that can be recorded")
    return float(listed)


def _check_size(key: str, numbers: int) -> None:
    if numbers > MOST_NUMBERS:
        raise TypeError(
            f"the metric '{shortened(key)}' holds {numbers} numbers; at most {MOST_NUMBERS} fit "
            "into a line"
        )


def _text(value: str) -> str:
    # File names may hold bytes that are not text; they become visible escapes instead of an error.
    return str(value) if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _revived(value: Any) -> Any:
    if isinstance(value, str):
        return WORDS.get(value, value)
    if isinstance(value, list):
        return [_revived(item) for item in value]
    if isinstance(value, dict):
        return {key: _revived(item) for key, item in value.items()}
    return value
