"""Training curves drawn from the record at intervals: `CurveDrawer`, a listener.

It draws what was recorded and nothing else. Each drawing carries its step in its name and its
data beside it. A failure to draw is a listener's failure: counted, told, training goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cupel.events import Event
from cupel.figures.curves import CurveData
from cupel.figures.files import draw_training_curves
from cupel.figures.settings import FigureSettings
from cupel.record.reader import RunRecord


class CurveDrawer:
    """Draws at every `settings.every` steps and at the run's end; `drawn` lists the last files.

    A step's figure is drawn when the next step starts, so that it shows the step's evaluation.
    """

    events = (Event.STEP_START, Event.RUN_END)

    def __init__(
        self, run_dir: Path, settings: FigureSettings, *, references: Mapping[str, float]
    ) -> None:
        self._run_dir, self._settings, self._references = run_dir, settings, dict(references)
        self.drawn: list[Path] = []

    def __call__(self, event: Event, payload: Any) -> None:
        ended = event == Event.RUN_END
        step, every = payload["step"] - (not ended), self._settings.every
        if ended or (every is not None and step > 0 and step % every == 0):
            data = curve_data(RunRecord(self._run_dir), references=self._references)
            self.drawn = draw_training_curves(
                data, self._run_dir / "figures", step=step, settings=self._settings
            )


def curve_data(record: RunRecord, *, references: Mapping[str, float]) -> CurveData:
    """The arrays of a run's curves, from its record."""
    rows = record.history()
    curves = {key: _series(rows, key) for key in ("loss", "val_loss", "lr", "grad_norm/total")}
    steps, loss = curves["loss"]
    val_steps, val_loss = curves["val_loss"]
    return CurveData(
        name=record.run["name"],
        steps=steps,
        loss=loss,
        val_steps=val_steps,
        val_loss=val_loss,
        lr=curves["lr"][1],
        grad_norm=curves["grad_norm/total"][1],
        references=dict(references),
        resumed_at=[s.start_step for s in record.sessions if s.start_step],
    )


def _series(rows: list[dict[str, Any]], key: str) -> tuple[NDArray[Any], NDArray[Any]]:
    found = [(row["_step"], row[key]) for row in rows if key in row]
    steps, values = [step for step, _ in found], [value for _, value in found]
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)
