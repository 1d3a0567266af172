"""Writes a run's metrics as an event file that TensorBoard shows, and from which nothing is lost.

A number is a `simple_value`, the only scalar that every viewer shows: TensorBoard's fast loader,
which is its default, passes over tensors of float64 (seen with tensorboard 2.21.0). A simple_value
is a float32, so a number that is none is also written out, as JSON, into a field of Summary.Value
that TensorBoard does not know and by the rules of protobuf skips (EXACT). Reading the file back
here gives every integer, boolean and float64 again. Beyond the range of float32 TensorBoard shows
infinity. The configuration becomes hyperparameters; arrays and other ranks are left out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from cupel.errors import RecordError
from cupel.record.exchange.foreign import LARGEST_STEP, flattened
from cupel.record.exchange.points import Line
from cupel.record.exchange.protobuf import (
    rounded,
    written_bytes,
    written_double,
    written_single,
    written_varint,
)
from cupel.record.exchange.tensorboard import EXACT
from cupel.record.exchange.tfrecord import framed

_SUCCESS, _FAILURE, _RUNNING = 1, 2, 3
_STATUS = {"finished": _SUCCESS, "failed": _FAILURE, "running": _RUNNING}
_WORDS = {math.inf: "Infinity", -math.inf: "-Infinity"}


def write(
    file: BinaryIO,
    lines: Iterable[Line],
    *,
    created: float,
    config: Mapping[str, Any],
    status: str,
) -> Counter[str]:
    """Write the events; returns what was left out. Raises RecordError for steps over 63 bits."""
    left_out: Counter[str] = Counter()
    file.write(framed(written_double(1, created) + written_bytes(3, "brain.Event:2")))
    writer = written_bytes(10, written_bytes(1, "cupel"))
    file.write(framed(written_double(1, created) + writer))
    file.write(framed(_event(created, 0, [_hparams(config, created)])))
    t = created
    for line in lines:
        t = line.t
        if not -LARGEST_STEP - 1 <= line.step <= LARGEST_STEP:
            raise RecordError(
                f"step {line.step} does not fit into TensorBoard's 64 bits with a sign; "
                "export to csv or jsonl instead"
            )
        values = list(_values(line.metrics, left_out))
        if values:
            file.write(framed(_event(line.t, line.step, values)))
    file.write(framed(_event(t, 0, [_ending(status, t)])))
    return left_out


def _event(t: float, step: int, values: list[bytes]) -> bytes:
    summary = b"".join(written_bytes(1, value) for value in values)
    return written_double(1, t) + written_varint(2, step) + written_bytes(5, summary)


def _values(metrics: Mapping[str, Any], left_out: Counter[str]) -> Iterator[bytes]:
    for key, value in metrics.items():
        if not isinstance(value, bool | int | float):
            left_out["arrays" if isinstance(value, list) else "values that are no numbers"] += 1
            continue
        simple = written_bytes(1, key) + written_single(2, value)
        yield simple if _is_single(value) else simple + written_bytes(EXACT, _text(value))


def _is_single(value: bool | int | float) -> bool:
    """Whether a float32 is all that this number is; integers and booleans are more."""
    return isinstance(value, float) and (value != value or rounded(value) == value)


def _text(value: bool | int | float) -> str:
    return _WORDS.get(value) or json.dumps(value)


def _hparams(config: Mapping[str, Any], created: float) -> bytes:
    entries = b"".join(
        written_bytes(1, written_bytes(1, key) + written_bytes(2, _value(value)))
        for key, value in flattened(config)
    )
    return _plugin_value("_hparams_/session_start_info", 3, entries + written_double(5, created))


def _ending(status: str, t: float) -> bytes:
    info = written_varint(1, _STATUS.get(status, 0)) + written_double(2, t)
    return _plugin_value("_hparams_/session_end_info", 4, info)


def _plugin_value(tag: str, field: int, info: bytes) -> bytes:
    plugin = written_bytes(1, "hparams") + written_bytes(2, written_bytes(field, info))
    nothing = written_varint(1, 1) + written_bytes(2, written_bytes(2, b""))  # float[0]
    return (
        written_bytes(1, tag)
        + written_bytes(8, nothing)
        + written_bytes(9, written_bytes(1, plugin))
    )


def _value(value: Any) -> bytes:
    """A google.protobuf.Value: it knows float64, text and booleans; the rest becomes JSON text."""
    if isinstance(value, bool):
        return written_varint(4, value)
    if isinstance(value, int | float) and math.isfinite(value) and float(value) == value:
        return written_double(2, value)
    return written_bytes(3, value if isinstance(value, str) else json.dumps(value))
