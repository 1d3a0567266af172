"""JSON replies in which no number is lost: NaN and infinities are the texts of the record."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cupel.errors import CupelError, UnknownName, UsageError
from cupel.record.codec import document

# A number as JSON has it. At run time it is a float; the types of the page are made of this.
Number = float | Literal["NaN", "Infinity", "-Infinity"]


def encode(content: Any) -> bytes:
    """Structs, mappings, lists and numbers as JSON."""
    return msgspec.json.encode(document(msgspec.to_builtins(content, str_keys=True)))


def reply(content: Any, status: int = 200) -> Response:
    """A reply of JSON."""
    return Response(encode(content), status, media_type="application/json")


def refusal(error: CupelError) -> Response:
    """What a mistake of the asker's becomes: one line, 404 for what is not there, else 400."""
    status = 404 if isinstance(error, UnknownName) else 400
    if not isinstance(error, UsageError):
        status = 500
    return reply({"error": " ".join(str(error).split())}, status)


async def refused(request: Request, error: Exception) -> Response:
    """For Starlette's table of handlers."""
    assert isinstance(error, CupelError)
    return refusal(error)


def whole(request: Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    """A whole number of the query. Raises UsageError."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
        raise UsageError(f"{name}={text[:40]!r} is no whole number from {least} to {most}")
    return int(text)
