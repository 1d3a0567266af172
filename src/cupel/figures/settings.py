"""When figures are drawn, and as what."""

from __future__ import annotations

from pydantic import Field

from cupel.config import Settings
from cupel.figures.style import Format, ThemeName


class FigureSettings(Settings):
    """The section `figures` of a recipe."""

    every: int | None = Field(
        None, ge=1, description="steps between drawings; null draws only at the end of the run"
    )
    formats: tuple[Format, ...] = Field(
        ("svg", "png"), description="file formats of each figure: svg, png; none draws no figures"
    )
    themes: tuple[ThemeName, ...] = Field(
        ("light", "dark"), min_length=1, description="themes of each figure: light, dark"
    )
