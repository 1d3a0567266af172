"""Logs of metrics of every kind that a disk can hold, and the plainest reading of them.

`RUNS` draws whole runs: sessions that go on from one another, segments, lines with numbers of all
kinds, lines that are none, ends that were cut off. `write` puts one into a folder. `rows_of` and
`points_of` say what must be read from it, without any code of the package but the line decoder.
`regular` makes runs as they mostly are, a different one of each seed.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cupel.record import layout
from cupel.record.codec import decode_line

KEYS = ("loss", "val/loss", "epoch", "count", "flag", "odd", "spectrum")
AXES = ("step", "time", "epoch", "count", "odd")

_FLOATS = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e-320, 1.5, 2.5, 1e308])
_INTS = st.integers(-5, 5) | st.sampled_from([2**53, 2**53 + 1, -(2**53), 2**64, 10**400])
_ODD = st.one_of(_FLOATS, _INTS, st.booleans(), st.none(), st.just("text"), st.just([1.0, 2.0]))
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "loss": _FLOATS,
    "val/loss": _FLOATS,
    "epoch": st.integers(0, 3).map(float) | st.sampled_from([math.nan, math.inf]),
    "count": st.integers(-5, 5),
    "flag": st.booleans(),
    "odd": _ODD,
    "spectrum": st.lists(_FLOATS, max_size=3),
}
_BAD = st.sampled_from(
    [
        b"", b"  ", b"[1]", b"{}", b'{"_step":1', b'{"_step":1.5}', b'{"_step":"1"}',
        b'{"_step":1} {"_step":2}', b'{"_step":1}{"_step":2}', b'{"_step":3,"loss":1e999}',
        b'{"_step":1,\n"loss":2}', b'{"_step":4,"loss":"\xff"}', b"\r", b'{"_step":5,"loss":5}\r',
        b'{"_step":6,"note":"\\u004eaN","loss":"NaN"}', b'{"_step":true,"loss":1.0}', b"\0" * 40,
    ]
) | st.binary(max_size=12)  # fmt: skip


@dataclass(frozen=True)
class Log:
    """One session: the step it went on from, and the bytes of its segments."""

    start_step: int | None
    segments: list[bytes] = field(repr=True)


def _line(fields: dict[str, Any]) -> bytes:
    """JSON as the writer has it: NaN and infinities are words, integers may be of any size."""
    return json.dumps(fields).replace("NaN", '"NaN"').replace("Infinity", '"Infinity"').replace(
        '-"Infinity"', '"-Infinity"'
    ).encode()  # fmt: skip


@st.composite
def _segment(draw: st.DrawFn, orderly: bool, first: int, plain: bool) -> tuple[bytes, int]:
    lines: list[bytes] = []
    step, now = first, float(first)
    keys = KEYS[:4] if plain else KEYS
    for _ in range(draw(st.integers(0, 9))):
        if not plain and draw(st.integers(0, 9)) == 0:
            lines.append(draw(_BAD))
            continue
        step += draw(st.integers(1, 3)) if orderly else draw(st.integers(-3, 3))
        now += 1.0 if orderly else draw(st.sampled_from([1.0, 0.0, -2.0, 0.25]))
        fields: dict[str, Any] = {"_step": step, "_t": now}
        if not plain and draw(st.integers(0, 15)) == 0:
            fields["_t"] = draw(_ODD)
        if not plain and draw(st.integers(0, 15)) == 0:
            del fields["_t"]
        if not plain and draw(st.integers(0, 30)) == 0:
            fields["_step"] = draw(st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63)]))
        chosen = keys[:2] if draw(st.booleans()) else draw(st.lists(st.sampled_from(keys)))
        fields |= {key: draw(_VALUES[key]) for key in chosen}
        lines.append(_line(fields))
    whole = b"".join(line + b"\n" for line in lines)
    if whole and draw(st.integers(0, 5)) == 0:
        whole = whole[: -draw(st.integers(1, min(len(whole), 20)))]
    return whole, step


@st.composite
def _run(draw: st.DrawFn) -> list[Log]:
    orderly, plain = draw(st.booleans()), draw(st.booleans())
    step = 0
    run: list[Log] = []
    for number in range(draw(st.integers(0, 3))):
        start = None
        if number and draw(st.integers(0, 4)):
            start = step = draw(st.integers(max(0, step - 5), max(0, step) + 1))
        segments = []
        for _ in range(draw(st.integers(1, 2))):
            content, step = draw(_segment(orderly, step, plain))
            segments.append(content)
        run.append(Log(start, segments))
    return run


RUNS = _run()


def write(run_dir: Path, run: list[Log], *, status: str = "failed") -> Path:
    """The run as a record; its sessions have ended."""
    run_dir.mkdir(parents=True)
    about = {"schema": 1, "run_id": run_dir.name, "project": run_dir.parent.name, "created": 1.0}
    (run_dir / layout.RUN).write_text(json.dumps({**about, "identity": "i", "status": status}))
    for number, log in enumerate(run, start=1):
        folder = layout.session_dir(run_dir, number)
        folder.mkdir(parents=True)
        fields = {"schema": 1, "status": status, "start_step": log.start_step}
        (folder / layout.SESSION).write_text(json.dumps(fields))
        for segment, content in enumerate(log.segments):
            (folder / layout.metrics_name(0, segment)).write_bytes(content)
    return run_dir


def lines_of(content: bytes) -> list[dict[str, Any]]:
    """The lines of one segment that can be read."""
    *whole, _ = content.split(b"\n")
    found = []
    for line in filter(None, whole):
        try:
            fields = decode_line(line)
        except ValueError:
            continue
        if isinstance(fields.get("_step"), int):
            found.append(fields)
    return found


def damage_in(run: list[Log]) -> int:
    """How many lines cannot be read, unfinished ones included."""
    count = 0
    for segment in (segment for log in run for segment in log.segments):
        *whole, tail = segment.split(b"\n")
        count += len(list(filter(None, whole))) - len(lines_of(segment)) + bool(tail)
    return count


def rows_of(run: list[Log]) -> list[dict[str, Any]]:
    """The rows of the history."""
    rows: dict[int, dict[str, Any]] = {}
    for log in run:
        if log.start_step is not None:
            rows = {step: row for step, row in rows.items() if step <= log.start_step}
        for line in (line for segment in log.segments for line in lines_of(segment)):
            rows.setdefault(line["_step"], {}).update(line)
    return [rows[step] for step in sorted(rows)]


def number_of(value: Any) -> float | None:
    """The value as a float, if it is a number that can be one."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def points_of(run: list[Log], key: str, x: str) -> list[tuple[float, float]]:
    """The points of a key in the order of an axis."""
    told: dict[int, tuple[float, Any]] = {}
    others: dict[int, float] = {}
    for log in run:
        if log.start_step is not None:
            told = {step: point for step, point in told.items() if step <= log.start_step}
            others = {step: place for step, place in others.items() if step <= log.start_step}
        for line in (line for segment in log.segments for line in lines_of(segment)):
            step = line["_step"]
            if not -(2**63) <= step < 2**63:
                continue
            if (value := number_of(line.get(key))) is not None:
                time = number_of(line.get("_t"))
                told[step] = (math.nan if time is None else time, value)
            if (place := number_of(line.get(x))) is not None:
                others[step] = place
    points = []
    for step, (time, value) in sorted(told.items()):
        place = {"step": int(step), "time": time}.get(x, others.get(step, math.nan))
        if math.isfinite(place):
            points.append((place, value))
    return sorted(points, key=lambda point: point[0])


def regular(seed: int) -> list[Log]:
    """A run as runs mostly are: steps that increase, keys that come together, sessions that go on
    from a step that was logged; now and then a clock that goes back, or a step that comes again."""
    chance = random.Random(seed)
    run: list[Log] = []
    step, now, odd = 0, 100.0, chance.random() < 0.3
    for number in range(chance.randint(1, 3)):
        start = None
        if number:
            start = step = max(0, step - chance.randint(-1, 6))
        segments = []
        for _ in range(chance.randint(1, 3)):
            lines = []
            for _ in range(chance.randint(0, 9)):
                step += chance.choice([1, 1, 1, 5]) if not odd or chance.random() < 0.9 else 0
                now += -3.0 if odd and chance.random() < 0.1 else chance.choice([0.0, 0.5, 1.0])
                fields = {"_step": step, "_t": now, "loss": chance.gauss(0, 1), "count": step % 7}
                if step % 2:
                    fields["epoch"] = float(step // 4)
                lines.append(_line(fields))
                if step % 3 == 0:
                    more = {"val/loss": chance.gauss(0, 1), "epoch": step / 4}
                    lines.append(_line({"_step": step, "_t": now + 0.25, **more}))
            segments.append(b"".join(line + b"\n" for line in lines))
        run.append(Log(start, segments))
    return run
