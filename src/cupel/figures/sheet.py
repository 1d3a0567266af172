"""Pages of several small panels: how they begin, are labelled, and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cupel.figures.style import INCHES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panels = dict[str, dict[str, Any]]


def sheet(title: str, height: float) -> Figure:
    """A page with a title, and room for panels of this height in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(INCHES[0], 0.8 + height), layout=layout)
    size = min(15.0, 15.0 * 55 / len(title))  # a long name is set smaller, not cut
    figure.suptitle(title, x=0.015, ha="left", fontsize=size, weight="bold", parse_math=False)
    return figure


def settle(figure: Figure) -> None:
    """Lay out once, not again for every format: that is half of what a figure costs."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def foot(figure: Figure, panels: Panels, look: Theme) -> None:
    """How many numbers were left out, or that there are none at all."""
    bad = sum(_not_finite(panel) for panel in panels.values())
    if bad:
        told = f"not finite and left out: {bad:,} number" + ("s" if bad > 1 else "")
        figure.supxlabel(told, x=0.015, ha="left", fontsize=11, color=look.bad)
    if not panels:
        figure.text(0.5, 0.5, "nothing to draw was recorded", ha="center")


def finite(values: Any) -> NDArray[np.float64]:
    """What is not finite is a gap."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def stroke(place: int, look: Theme) -> dict[str, Any]:
    """Colour and style of one of up to eight lines."""
    colours = (look.train, look.validation, look.reference, look.bad)
    return {"color": colours[place % 4], "linestyle": ("-", (0, (4, 1.5)))[place // 4 % 2]}


def shown(text: str, token: int) -> str:
    """A token's text where it is printable ASCII, which every font has; else its id."""
    text = text.replace(" ", "␣").replace("\n", "⏎")
    printable = text.replace("␣", "").replace("⏎", "")
    if not text or not printable.isascii() or not all(map(str.isprintable, printable)):
        return f"#{token}"
    return text if len(text) <= 6 else f"{text[:5]}…"


def small(axes: Axes) -> None:
    """Type for one panel of several."""
    axes.title.set_fontsize(12)
    axes.xaxis.label.set_fontsize(11)
    axes.yaxis.label.set_fontsize(11)
    axes.tick_params(labelsize=10)


def legend(axes: Axes, **place: Any) -> None:
    """In the size of small panels."""
    look: dict[str, Any] = {"fontsize": 10, "handlelength": 1.5, "labelspacing": 0.3}
    axes.legend(**look, **place)


def _not_finite(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_not_finite, value.values()))
    if isinstance(value, list):
        return sum(map(_not_finite, value))
    return int(isinstance(value, float) and not np.isfinite(value))
