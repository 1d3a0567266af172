"""The one look of every figure: colours, type, grid, and how a figure becomes bytes.

Colours are Okabe and Ito's eight (jfly.uni-koeln.de/color, 2008), which people with any colour
vision tell apart; lines differ in style as well, for print. Type is large enough for a page
shown at a phone's width. The user's own matplotlib settings are set aside while we draw and put
back afterwards, so equal data give equal SVG bytes with one version of matplotlib. They are
matplotlib's globals meanwhile: two threads must not draw at once. No pyplot, no window, no backend.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cupel.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ThemeName = Literal["light", "dark"]
Format = Literal["svg", "png"]

INCHES = (8.0, 6.0)
DPI = 150  # 1200 × 900 pixels: sharp on a page, 100 kB


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one theme, by what they are for."""

    background: str
    text: str
    muted: str  # axes, marks of a resume
    grid: str
    train: str
    validation: str
    reference: str
    bad: str  # values that are not finite


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        background="#ffffff",
        text="#1b1f24",
        muted="#6b7280",
        grid="#e5e7eb",
        train="#0072B2",
        validation="#D55E00",
        reference="#00734F",  # Okabe-Ito's green, darker: as text on white it was too pale
        bad="#A8447F",  # their reddish purple, darker for the same reason
    ),
    "dark": Theme(
        background="#14171c",
        text="#e6e8eb",
        muted="#8b93a0",
        grid="#2a2f37",
        train="#56B4E9",
        validation="#E69F00",
        reference="#2FC79A",  # their green, lighter
        bad="#CC79A7",
    ),
}


@contextmanager
def drawing(theme: ThemeName) -> Iterator[None]:
    """Matplotlib in our style, for building a figure as well as for saving it.

    Raises MissingDependency when matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            "matplotlib", extra="analysis", purpose="drawing figures"
        ) from missing
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(THEMES[theme]))
        yield


def rendered(figure: Figure, form: Format, *, theme: ThemeName) -> bytes:
    """The figure as the bytes of an SVG or PNG file, without a date."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    with drawing(theme):
        figure.savefig(buffer, format=form, metadata=metadata)
    return buffer.getvalue()


def _settings(theme: Theme) -> dict[Any, Any]:
    return {
        "figure.facecolor": theme.background,
        "figure.figsize": INCHES,
        "figure.dpi": DPI,
        "savefig.facecolor": theme.background,
        "savefig.dpi": DPI,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.text,
        "ytick.labelcolor": theme.text,
        "text.color": theme.text,
        "font.family": "DejaVu Sans",  # comes with matplotlib, so it is there everywhere
        "font.size": 13,
        "legend.frameon": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "cupel",  # else the ids in an SVG are random
    }
