"""All lines of a run's metrics that count, one after another, as they were logged.

`RunRecord.history` merges the lines of one step and sorts them; here each line keeps its own time,
and steps may repeat or go back, so that an export loses neither. Of a resumed run, what a later
session made void is left out, as there. Only rank 0; lines pass through, about 1 µs each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cupel.record import layout
from cupel.record.lines import LineFile
from cupel.record.reader import RunRecord, SessionInfo


class Line(NamedTuple):
    """What one call of `log` recorded."""

    step: int
    t: float
    metrics: dict[str, Any]


class Lines:
    """The lines of a run. Iterating reads the files anew; `damaged` counts for the last time."""

    def __init__(self, run_dir: Path) -> None:
        self.record = RunRecord(run_dir)
        self.damaged = 0

    def __iter__(self) -> Iterator[Line]:
        self.damaged = 0
        sessions = self.record.sessions
        for number, session in enumerate(sessions):
            begun = [later.start_step for later in sessions[number + 1 :]]
            last = min((step for step in begun if step is not None), default=math.inf)
            t = session.started or 0.0  # for lines that tell none
            for fields in self._read(session):
                step, t = fields.pop("_step"), _time(fields.pop("_t", None), t)
                if step <= last:
                    yield Line(step, t, fields)

    def further_ranks(self) -> int:
        """How many files of metrics other ranks have written, which are not read here."""
        return sum(
            not file.name.startswith("metrics.r0.")
            for session in self.record.sessions
            for file in session.dir.glob("metrics.r*.jsonl")
        )

    def _read(self, session: SessionInfo) -> Iterator[dict[str, Any]]:
        for path in layout.all_segments(session.dir, "metrics"):
            file = LineFile(path, "_step", int)
            for found in file.read():
                yield from found
            self.damaged += file.damaged + file.unfinished


def _time(t: Any, before: float) -> float:
    try:
        return float(t) if isinstance(t, int | float) and math.isfinite(t) else before
    except OverflowError:  # some hundred digits: something else wrote it
        return before
