"""What neural memories did with a sequence: norm, surprise and gates of each layer, token by token.

`memory_data` gathers what the monitor `memories` recorded last, `drawn_memories` decides which
numbers are shown, `memories` puts them on paper. A panel is there only for what was recorded.
Numbers that are not finite are gaps, and counted at the foot. In two themes and two formats it
costs about two seconds of one CPU thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cupel.figures.files import SCHEMA, draw_files
from cupel.figures.settings import FigureSettings
from cupel.figures.sheet import Panels, finite, foot, legend, settle, sheet, shown, small, stroke
from cupel.figures.style import THEMES, Theme, ThemeName, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFIX = "memory/"
_TITLES = {
    "norm": ("the memory's weights behind each token", "Frobenius norm"),
    "surprise": ("surprise: the loss's gradient at each token", "Frobenius norm"),
    "decay": ("decay: the share that is forgotten", "α"),
    "momentum": ("momentum: the share of past surprise that is kept", "η"),
    "step": ("step size: how much of a surprise is written", "θ"),
}
_MOST_NAMED = 80  # tokens whose text has room below the axis
_HEIGHT = 1.75  # of a panel, in inches


@dataclass(frozen=True, slots=True, eq=False)
class MemoryData:
    """The last measurement, by the key without its prefix: ids (T,), and (L, T) of the others."""

    name: str
    measured_at: int
    latest: Mapping[str, NDArray[np.float64]]
    token_names: Mapping[int, str] = field(default_factory=dict)


def memory_data(name: str, rows: Iterable[Mapping[str, Any]]) -> MemoryData | None:
    """From the rows of a record, in order of step; None when they hold nothing of memories."""
    found = [row for row in rows if PREFIX + "norm" in row]
    if not found:
        return None
    latest = {
        key.removeprefix(PREFIX): np.asarray(value, dtype=np.float64)
        for key, value in found[-1].items()
        if key.startswith(PREFIX)
    }
    return MemoryData(name, found[-1]["_step"], latest)


def draw_memories(
    data: MemoryData, folder: Path, *, step: int, settings: FigureSettings
) -> list[Path]:
    """Write `memories_step-000000900.…`, JSON first. Raises MissingDependency and OSError."""
    content = {
        "schema": SCHEMA,
        "figure": "memories",
        "name": data.name,
        "step": step,
        "measured_at": data.measured_at,
        "panels": drawn_memories(data),
    }
    return draw_files(
        f"memories_step-{step:09d}",
        folder,
        content=lambda: content,
        figure=lambda theme: memories(data, theme=theme),
        settings=settings,
    )


def drawn_memories(data: MemoryData) -> Panels:
    """The numbers of each panel as plain lists, a line a layer, and what the tokens are."""
    panels: Panels = {
        key: {"layers": data.latest[key].tolist()} for key in _TITLES if key in data.latest
    }
    ids = [int(token) for token in data.latest.get("tokens", ())]
    if panels and ids and data.token_names:
        names = [shown(data.token_names.get(id, ""), id) for id in ids]
        panels[next(reversed(panels))] |= {"tokens": ids, "names": names}
    return panels


def memories(data: MemoryData, *, theme: ThemeName) -> Figure:
    """The panels above each other over one axis of tokens. Raises MissingDependency."""
    panels, look = drawn_memories(data), THEMES[theme]
    with drawing(theme):
        title = f"{data.name}, step {data.measured_at:,}"
        figure = sheet(title, 0.3 + _HEIGHT * max(1, len(panels)))
        top: Axes | None = None
        for place, (key, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(len(panels), 1, place + 1, sharex=top)
            top = top or axes
            _paint(axes, panel["layers"], key, look, named=place == 0)
            last = place == len(panels) - 1
            axes.tick_params(axis="x", labelbottom=last)
            if last:
                _name_tokens(axes, panel.get("names", ()), len(panel["layers"][0]))
        foot(figure, panels, look)
        settle(figure)
    return figure


def _paint(
    axes: Axes, layers: Sequence[Sequence[float]], key: str, look: Theme, *, named: bool
) -> None:
    for place, values in enumerate(layers):
        label = f"layer {place + 1}" if len(layers) > 1 and named else None
        axes.plot(finite(values), linewidth=1.8, label=label, **stroke(place, look))
    title, unit = _TITLES[key]
    axes.set(title=title, ylabel=unit)
    small(axes)
    axes.margins(x=0.01)
    if len(layers) > 1 and named:
        legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _name_tokens(axes: Axes, names: Sequence[str], count: int) -> None:
    if names and count <= _MOST_NAMED and max(map(len, names)) == 1:
        axes.set_xticks(range(count), names, parse_math=False)
        axes.tick_params(axis="x", labelsize=9, length=0)
        axes.set_xlabel("token")
    else:
        axes.set_xlabel("position (tokens)")
