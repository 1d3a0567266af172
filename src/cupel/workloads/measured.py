"""What monitors measured, drawn from the record at intervals: `MeasuredDrawer`, a listener.

It draws what the monitors `spectral` and `memories` recorded; where they recorded nothing, no file
appears. Token names come from the run's tokenizer, where it left one. A drawing costs two to four
seconds, and is a listener's: a failure is counted and told, and training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cupel.data.tokenizer import Tokenizer
from cupel.events import Event
from cupel.figures.memories import PREFIX as MEMORY
from cupel.figures.memories import draw_memories, memory_data
from cupel.figures.settings import FigureSettings
from cupel.figures.spectra import PREFIX as SPECTRAL
from cupel.figures.spectra import draw_spectra, spectra_data
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.workloads.gpt import TOKENIZER

# Of each kind: how its numbers are gathered, and how they are drawn.
_KINDS: tuple[tuple[Callable[..., Any], Callable[..., list[Path]]], ...] = (
    (spectra_data, draw_spectra),
    (memory_data, draw_memories),
)


class MeasuredDrawer:
    """Draws at every `settings.every` steps and at the run's end; `drawn` lists the last files.

    Like the curves, a step's figure is drawn when the next step starts.
    """

    events = (Event.STEP_START, Event.RUN_END)

    def __init__(self, run_dir: Path, settings: FigureSettings) -> None:
        self._run_dir, self._settings = run_dir, settings
        self.drawn: list[Path] = []

    def __call__(self, event: Event, payload: Any) -> None:
        ended = event == Event.RUN_END
        step, every = payload["step"] - (not ended), self._settings.every
        if ended or (every is not None and step > 0 and step % every == 0):
            self.drawn = self._draw(step)

    def _draw(self, step: int) -> list[Path]:
        if not self._settings.formats:
            return []
        record = RunRecord(self._run_dir)
        name = record.run["name"]
        rows = [row for row in record.history() if any(map(_is_measured, row))]
        drawn: list[Path] = []
        for gather, draw in _KINDS:
            if (data := gather(name, rows)) is None:
                continue
            names = token_names(self._run_dir, data.latest.get("tokens", ()))
            data = replace(data, token_names=names)
            drawn += draw(data, self._run_dir / "figures", step=step, settings=self._settings)
        return drawn


def _is_measured(key: str) -> bool:
    return key.startswith((SPECTRAL, MEMORY))


def token_names(run_dir: Path, ids: Iterable[float]) -> dict[int, str]:
    """What ids stand for, by the run's own tokenizer, if it left one. Raises CupelError."""
    if not (run_dir / TOKENIZER).exists():
        return {}
    tokenizer = Tokenizer.from_state(read_json(run_dir / TOKENIZER))
    inside = [int(id) for id in ids if 0 <= id < tokenizer.vocabulary]
    return {id: tokenizer.decode([id]) for id in inside}
