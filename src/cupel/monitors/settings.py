"""Settings of the built-in monitors. Importable without torch."""

from __future__ import annotations

from pydantic import Field

from cupel.config import Settings


class NormsSettings(Settings):
    """Norms of gradients (before clipping) and weights, by layer."""

    every: int = Field(50, ge=1, description="steps between measurements")
    total: bool = Field(
        False,
        description="also grad_norm/total, for a loop that does not log it (cupel's own does)",
    )


class ThroughputSettings(Settings):
    """Steps and tokens a second, in wall and in CPU seconds."""

    every: int = Field(10, ge=1, description="steps between measurements")
    units: tuple[str, ...] = Field(
        ("steps", "tokens", "images"), description="what is counted, where the loop tells it"
    )
