"""What a run of another tool is to the importer: facts, and points in the order of its file.

Every reader makes `Foreign` objects. Their points are read while they are asked for, so that a run
of any length passes through; what a tool says only at the end of its file (status, summary, what
was left out) is therefore complete only when all points have been read.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from cupel.record import codec

OWN_NAMES = ("_step", "_t")
LARGEST_STEP = 2**63 - 1

_BLOCK = 1 << 20
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Point(NamedTuple):
    """Numbers that were logged together; `t` is None where the source tells no time."""

    step: int
    t: float | None
    metrics: dict[str, Any]


class Restart(NamedTuple):
    """The source's run began again after this step: later steps of before are void."""

    after: int


class Picture(NamedTuple):
    """An encoded image (PNG, JPEG or GIF)."""

    step: int
    t: float | None
    key: str
    suffix: str
    data: bytes


class Definition(NamedTuple):
    """What `Session.define_metric` takes."""

    name: str
    step_metric: str | None = None
    summary: str | None = None
    goal: str | None = None


Item = Point | Restart | Picture


@dataclass
class Foreign:
    """One run of another tool. `points(run)` reads it, once; afterwards all fields are complete.

    `sha256` identifies the content, whatever its file is called.
    """

    tool: str
    name: str
    source: str
    sha256: str
    points: Callable[[Foreign], Iterator[Item]]
    version: str | None = None
    project: str | None = None
    foreign_id: str | None = None
    created: float | None = None
    ended: float | None = None
    status: Literal["finished", "failed", "interrupted"] = "finished"
    error: str | None = None
    notes: str = ""
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # of its environment, for env.json
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    unread: int = 0  # bytes


class SourceFile:
    """A file as long as it was when this was made: one that still grows is read up to there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stat = path.stat()
        self.size, self.modified = stat.st_size, stat.st_mtime

    def open(self) -> BinaryIO:
        """The bytes. Raises OSError."""
        return io.BufferedReader(_Bounded(self.path, self.size), _BLOCK)

    def sha256(self) -> str:
        """The hash of the bytes, as `sha256sum` prints it. Raises OSError."""
        digest = sha256()
        with self.open() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()


def sha256_of(files: list[SourceFile]) -> str:
    """The hash of one file, or of what `sha256sum` prints for several."""
    if len(files) == 1:
        return files[0].sha256()
    lines = [f"{file.sha256()}  {file.path.name}\n" for file in files]
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def own_key(key: str) -> str:
    """The name under which a metric is recorded: the record's own two names are not to be had."""
    return f"{key}_" if key in OWN_NAMES else key


def recordable(value: Any) -> bool:
    """Whether a line of metrics can hold this: a number, or an array that is not too large."""
    if isinstance(value, bool | float):
        return True
    try:
        codec.metric("", value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def kind_of(value: Any) -> str:
    """What a value that is no number is called when it is counted as left out."""
    if isinstance(value, Mapping):
        return str(value.get("_type", "mappings"))[:60]
    if isinstance(value, list):
        return "arrays that are large or hold other things than numbers"
    if isinstance(value, int):
        return "integers of more than 64 bits"
    return {str: "texts", type(None): "nulls"}.get(type(value), type(value).__name__)


def suffix_of(image: bytes) -> str | None:
    """How the file of an encoded image is called; None for what is none that browsers show."""
    beginnings = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif"}
    return next((kind for begin, kind in beginnings.items() if image.startswith(begin)), None)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names; those with a `_type`, which are media, stay whole."""
    pending: list[tuple[str, Any]] = [(prefix + key, value) for key, value in values.items()]
    pending.reverse()
    while pending:
        key, value = pending.pop()
        if isinstance(value, Mapping) and "_type" not in value:
            pending += [(f"{key}.{name}", item) for name, item in reversed(list(value.items()))]
        else:
            yield key, value


def sorted_out(values: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
    """What of these values is a metric; the rest is counted."""
    found: dict[str, Any] = {}
    for name, value in flattened(values):
        key = own_key(name)
        if key in found:
            left_out["values of a name that is there already"] += 1
        elif recordable(value):
            found[key] = value
        else:
            left_out[kind_of(value)] += 1
    return found


def parsed(text: str | bytes) -> Any:
    """The value of JSON text as other tools write it, bare NaN and Infinity included.

    The three words are floats also where they stand as text. A number that no float64 is (1e999)
    stays the text that it is written as. Raises ValueError.
    """
    try:
        return _revived(json.loads(text, parse_int=_integer, parse_float=_real))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)  # Go writes -0.0 so, in wandb's files


def _real(digits: str) -> float | str:
    return digits if math.isinf(number := float(digits)) else number


def _revived(value: Any) -> Any:
    if isinstance(value, str):
        return _WORDS.get(value, value)
    if isinstance(value, list):
        return [_revived(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _revived(item) for key, item in value.items()}
    return value


def _plain(text: str) -> str:
    # JSON may hold half of a surrogate pair, which is no text.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class _Bounded(io.RawIOBase):
    def __init__(self, path: Path, size: int) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        read = os.readv(self._fd, [view]) if len(view) else 0
        self._left -= read
        return read

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
