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


class SpectralSettings(Settings):
    """Spectra of a wave model, by its `spectral_state()`; of another model, its embedding's."""

    every: int = Field(100, ge=1, description="steps between measurements")
    tokens: tuple[int, ...] = Field(
        (32, 101, 116, 97),
        min_length=1,
        max_length=8,
        description="ids whose wave packets are measured; of bytes: space, e, t, a",
    )


class MemoriesSettings(Settings):
    """What neural memories do with a sequence of the batch, by the model's `memory_trace()`."""

    every: int = Field(250, ge=1, description="steps between measurements")
    tokens: int = Field(64, ge=2, le=256, description="how many tokens of the sequence are read")
