"""Pydantic's errors in the words of somebody who writes a recipe: no jargon, no addresses.

Only the words: where a mistake stands, and which names would have been right, `cupel.config`
finds out. An error type that is not in the table keeps pydantic's own sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from pydantic_core import ErrorDetails

from cupel.errors import did_you_mean

_BARE = re.compile(r"[A-Za-z_/][\w./:-]*")

# Beginnings of pydantic's error types -> what the value should have been.
_NOT_A = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
}
_LIMITS = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "above {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "below {lt}",
    "multiple_of": "a multiple of {multiple_of}",
}


def worded(error: ErrorDetails, path: str, *, known: Collection[str] = ()) -> str:
    """One line for one error at a dotted path; `known` are the names that could stand there."""
    kind, context = error["type"], error.get("ctx", {})
    given = _quoted(error["input"])
    if kind == "missing" and isinstance(error["loc"][-1], int):
        return f"{path}: {given} is too short"
    if kind == "missing":
        return f"{path} must be given; type {path}=VALUE"
    if kind == "extra_forbidden":
        listed = f"; there are: {', '.join(sorted(known))}"
        return f"{path}: no such setting{did_you_mean(str(error['loc'][-1]), known) or listed}"
    if kind == "literal_error":
        return f"{path}: {given} is not {context['expected']}"
    if kind == "union_tag_not_found":
        path = f"{path}.{_unquoted(context['discriminator'])}"
        return f"{path} must be given; type {path}=VALUE"
    if kind == "union_tag_invalid":
        tag, tags = context["tag"], re.findall(r"'([^']*)'", context["expected_tags"])
        near = did_you_mean(tag, tags) or f"; there are: {', '.join(tags)}"
        return f"{path}.{_unquoted(context['discriminator'])}: '{tag}' is none of them{near}"
    if kind in _LIMITS:
        return f"{path}: {given} is out of range; it must be {_LIMITS[kind].format(**context)}"
    for beginning, expected in _NOT_A.items():
        if kind.startswith(beginning):
            return f"{path}: {given} is not {expected}"
    if kind in ("value_error", "assertion_error"):
        return f"{path}: {_one_line(context['error'])}"
    if kind == "cupel":
        return f"{path}: {error['msg']}"
    return f"{path}: {given} was given: {_one_line(error['msg'])}"


def as_yaml(value: Any) -> str:
    """A plain value on one line, as it could stand in a recipe."""
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and value not in ("null", "true", "false")
        return value if bare else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {as_yaml(one)}' for name, one in value.items())}}}"
    return json.dumps(value, default=str)


def _unquoted(name: str) -> str:
    """A name that pydantic has put between quotes."""
    return name.strip("'")


def _quoted(value: Any) -> str:
    """A value as a message cites it, cut when it is long."""
    text = repr(value) if isinstance(value, str) else as_yaml(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
