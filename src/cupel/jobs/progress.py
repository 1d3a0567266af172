"""How far a run has come, read from the end of its newest metrics: `progress(run_dir)`.

At most 64 KB a call, whatever the length of the run (about 0.3 ms). What was logged further back
than that is not found; whoever needs all of it reads the history (`cupel.record.reader`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.record.reader import RunRecord, SessionInfo, newest_lines


@dataclass(frozen=True, slots=True)
class Progress:
    """The step of a run's newest session, when that was (Unix seconds), and the last losses."""

    step: int = 0
    time: float | None = None
    loss: float | None = None
    val_loss: float | None = None


def progress(run_dir: Path) -> Progress:
    """How far a run has come. A session that has logged nothing yet counts from its start."""
    for session in reversed(RunRecord(run_dir).sessions):
        last = _last_values(session)
        if last or session.start_step is not None:
            start = session.start_step or 0
            return Progress(
                max(start, int(last.get("_step", 0))),
                last.get("_t"),
                last.get("loss"),
                last.get("val_loss"),
            )
    return Progress()


def _last_values(session: SessionInfo) -> dict[str, Any]:
    """The last value of each name that matters."""
    wanted = {"_step", "_t", "loss", "val_loss"}
    found: dict[str, Any] = {}
    for fields in newest_lines(session):
        found = {name: fields[name] for name in wanted & fields.keys()} | found
        if len(found) == len(wanted):
            break
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def steps_of(session: SessionInfo) -> tuple[int, int]:
    """The step after which a session began, and the last one that it logged."""
    start = session.start_step or 0
    return start, max(start, int(_last_values(session).get("_step", 0)))
