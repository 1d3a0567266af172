"""What the tests of `record/exchange` share: planted runs, and what the real tools have written."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cupel.record import codec, layout
from cupel.record.exchange.foreign import Foreign, Point
from cupel.record.exchange.points import Line, Lines
from cupel.record.session import Session

GOLDEN = Path(__file__).parent / "golden" / "foreign"


def planted_run(folder: Path, lines: Iterable[Line]) -> Path:
    """A finished run whose metrics are these lines; several in one folder share their beginning."""
    template = folder / "template" / "planted" / "run"
    if not template.exists():
        session = Session.start(
            root=folder / "template",
            project="planted",
            name="planted",
            config={"lr": 0.1, "layers": 3, "model": {"act": "gelu", "bias": True}},
            identity="planted",
            tags=["a"],
            run_id="run",
        )
        session.event("begin", step=0)
        session.finish("finished", results={"step": 1, "final": {}})
    run_dir = folder / "planted" / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.copytree(template, run_dir)
    write_lines(run_dir, 1, lines)
    return run_dir


def write_lines(run_dir: Path, session: int, lines: Iterable[Line]) -> None:
    encoded = (
        codec.encode_line({"_step": line.step, "_t": line.t, **line.metrics}) for line in lines
    )
    path = layout.session_dir(run_dir, session) / layout.metrics_name()
    path.write_bytes(b"".join(encoded))


def lines_of(run_dir: Path) -> list[Line]:
    return list(Lines(run_dir))


def read(run: Foreign) -> list[Line]:
    """All points of a run of another tool, as lines."""
    points = [point for point in run.points(run) if isinstance(point, Point)]
    return [Line(p.step, math.nan if p.t is None else p.t, p.metrics) for p in points]


def same(one: Any, other: Any) -> bool:
    """Equal in type and in every bit, except that all NaNs are one."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return same_float(one, other)
    return type(one) is type(other) and one == other


def same_float(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return struct.pack("d", one) == struct.pack("d", other)


@cache
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
    return found


def check_expected(tool: str, found: Sequence[Line], wanted: dict[str, Any] | None = None) -> None:
    """Hold what was read against what was logged: names, order, steps, times and every bit."""
    points = [(name, line, value) for line in found for name, value in line.metrics.items()]
    for name in {name for name, *_ in points} | {point[0] for point in _points(tool, wanted)}:
        got = [(line.step, line.t, value) for other, line, value in points if other == name]
        logged = [point[1:] for point in _points(tool, wanted) if point[0] == name]
        assert [step for step, _, _ in got] == [step for step, _, _ in logged], name
        for (step, t, value), (_, text, time) in zip(got, logged, strict=True):
            assert _is(value, text), (name, step, value, text)
            assert time is None or t == time, (name, step)


def _points(tool: str, wanted: dict[str, Any] | None) -> list[list[Any]]:
    found: list[list[Any]] = (wanted or expected())[tool]["points"]
    return found


def _is(value: Any, text: str) -> bool:
    if isinstance(value, float) or (text.lstrip("-")[:1].isdigit() and "." in text):
        return same_float(float(value), float(text))
    return repr(value) == text


def unzipped_database(folder: Path, packed: Path | None = None) -> Path:
    path = folder / "mlflow.db"
    packed = packed or GOLDEN / "mlflow" / "mlflow.db.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path
