"""The task that settings describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cupel.config import Settings
from cupel.data.tasks.formal import Formal, RunningParity
from cupel.data.tasks.mad import (
    Compression,
    FuzzyRecall,
    Memorization,
    Recall,
    SelectiveCopying,
)
from cupel.data.tasks.mqar import Mqar
from cupel.data.tasks.needle import Needle
from cupel.data.tasks.settings import (
    CompressionSettings,
    FormalSettings,
    FuzzyRecallSettings,
    MemorizationSettings,
    MqarSettings,
    NeedleSettings,
    NoisyRecallSettings,
    ParitySettings,
    RecallSettings,
    SelectiveCopyingSettings,
    TaskSettings,
)
from cupel.data.tasks.task import Task

_TASKS: dict[type[Settings], Callable[..., Any]] = {
    MqarSettings: Mqar,
    FormalSettings: Formal,
    ParitySettings: RunningParity,
    NeedleSettings: Needle,
    RecallSettings: Recall,
    NoisyRecallSettings: Recall,
    FuzzyRecallSettings: FuzzyRecall,
    SelectiveCopyingSettings: SelectiveCopying,
    MemorizationSettings: Memorization,
    CompressionSettings: Compression,
}


def build(settings: TaskSettings, *, seed: int) -> Task:
    """A task of its settings; `seed` is the run's, and evaluation sets do not know it."""
    task: Task = _TASKS[type(settings)](settings, seed=seed)
    return task
