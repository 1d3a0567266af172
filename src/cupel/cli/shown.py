"""Joins a run's events to the progress display: `Shown`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.cli.progress import Progress
from cupel.config import Recipe
from cupel.events import Event
from cupel.train.settings import TrainSettings
from cupel.workloads.training import Display


class Shown(Display):
    """Shows a run on a `Progress`."""

    def __init__(self, progress: Progress, recipe: Recipe) -> None:
        self._progress, self._name = progress, recipe.name
        self._steps = recipe.section("train", TrainSettings).steps
        self._began = False
        self._failure: object = None  # told when training goes on after it, else by whoever ends it
        self._rate: float | None = None
        self._reference: tuple[str, float] | None = None

    def say(self, text: str) -> None:
        if self._began:
            self._progress.line(text)
        else:
            self._progress.preparing(text)

    def ready(self, run_dir: Path, references: Mapping[str, float]) -> None:
        self._progress.line(f"writing to {run_dir}")
        if references:
            listed = ", ".join(f"{name} {value:.4f}" for name, value in references.items())
            self._progress.line(f"entropy of the corpus in nats a token: {listed}")
            name, value = min(references.items(), key=lambda item: item[1])
            self._reference = (f"{name} entropy", value)

    def __call__(self, event: Event, payload: Any) -> None:
        if self._failure is not None:
            self._progress.line(f"failed: {self._failure}")
            self._failure = None
        match event:
            case Event.RUN_START:
                self._began = True
                self._progress.start(self._name, self._steps, payload["step"])
            case Event.STEP_END:
                self._rate = payload.get("perf/tokens_per_s", self._rate)
                self._progress.update(
                    payload["step"], loss=payload["loss"], tokens_per_s=self._rate
                )
            case Event.EVAL_END:
                self._progress.evaluated(
                    payload["step"], payload["val_loss"], payload["best_before"], self._reference
                )
            case Event.FAILURE:
                self._failure = payload
