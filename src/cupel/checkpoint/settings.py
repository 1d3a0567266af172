"""What a recipe says about checkpoints. Importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cupel.config import Settings


class CheckpointSettings(Settings):
    """When checkpoints are written, and which of them stay on disk."""

    every: int = Field(250, ge=1, description="Steps between checkpoints.")
    keep_last: int = Field(2, ge=1, description="How many of the newest checkpoints stay.")
    keep_every: int | None = Field(
        None, ge=1, description="Checkpoints at multiples of this many steps stay for good."
    )
    best: str | None = Field(
        "val_loss",
        min_length=1,
        description="The metric whose best checkpoint stays as well; null for none.",
    )
    keep_best: int = Field(1, ge=1, description="How many of the best by that metric stay.")
    goal: Literal["min", "max"] = Field(
        "min", description="Whether a smaller or a larger value of that metric is better."
    )
    background: bool = Field(
        True,
        description="Write while training goes on, from a copy in memory as large as a checkpoint.",
    )
    when_busy: Literal["wait", "skip"] = Field(
        "wait",
        description="What a checkpoint does that comes due while the one before is being written.",
    )
