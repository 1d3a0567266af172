"""Spectra of one run: what its embedding's waves look like now, and how they came there.

`spectra_data` gathers what a monitor recorded as `spectral/…`, `drawn_spectra` and
`drawn_evolution` decide which numbers are shown, `spectra` and `evolution` put them on paper. A
panel is there only for what was recorded; the two dotted references (equal phases, 1/n) are named
as such. Numbers that are not finite are left out, and counted at the foot. Both figures in two
themes and two formats cost about four seconds of one CPU thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cupel.figures.curves import thin
from cupel.figures.files import SCHEMA, draw_files
from cupel.figures.settings import FigureSettings
from cupel.figures.sheet import Panels, foot, settle, sheet, shown
from cupel.figures.spectra_panels import PAINTERS, over_steps, paint_lines
from cupel.figures.style import THEMES, ThemeName, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float64]

PREFIX = "spectral/"
FOLLOWED = (  # over training; of the others the last measurement counts
    "wave_ratio",
    "frequency_quantiles",
    "harmonic_amplitude",
    "temperature",
    "embedding_power",
)
MOST_POINTS = 4_000  # of all lines of a panel together
MOST_HARMONICS = 8  # as lines over training: four colours, solid and dashed
_SMALL, _LARGE = 2.25, 3.9  # heights of a row of panels in inches


@dataclass(frozen=True, slots=True, eq=False)
class SpectraData:
    """The last measurement (`latest`, by the key without its prefix), and each series until then.

    A series is (steps (n,), values (n, …)); only values of the shape of the last one are in it.
    `token_names` says what ids stand for, where it is known.
    """

    name: str
    measured_at: int
    latest: Mapping[str, Numbers]
    series: Mapping[str, tuple[NDArray[np.int64], Numbers]]
    token_names: Mapping[int, str] = field(default_factory=dict)


def spectra_data(name: str, rows: Iterable[Mapping[str, Any]]) -> SpectraData | None:
    """From the rows of a record, in order of step; None when they hold nothing spectral."""
    found = [row for row in rows if any(key.startswith(PREFIX) for key in row)]
    if not found:
        return None
    latest = {
        key.removeprefix(PREFIX): np.asarray(value, dtype=np.float64)
        for key, value in found[-1].items()
        if key.startswith(PREFIX)
    }
    series = {key: _series(found, key, latest[key].shape) for key in FOLLOWED if key in latest}
    return SpectraData(name, found[-1]["_step"], latest, series)


def _series(
    rows: Sequence[Mapping[str, Any]], key: str, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], Numbers]:
    pairs = [(row["_step"], row[PREFIX + key]) for row in rows if PREFIX + key in row]
    same = [(step, value) for step, value in pairs if np.shape(value) == shape]
    steps, values = [step for step, _ in same], [value for _, value in same]
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def draw_spectra(
    data: SpectraData, folder: Path, *, step: int, settings: FigureSettings
) -> list[Path]:
    """Write `spectra_step-000000900.…`, and from two measurements on `spectra-evolution_step-….…`.

    JSON first, as `cupel.figures.files` says. Raises MissingDependency and OSError.
    """

    def draw(kind: str, panels: Panels, figure: Callable[..., Figure]) -> list[Path]:
        if not panels:
            return []
        content = {
            "schema": SCHEMA,
            "figure": kind,
            "name": data.name,
            "step": step,
            "measured_at": data.measured_at,
            "panels": panels,
        }
        return draw_files(
            f"{kind}_step-{step:09d}",
            folder,
            content=lambda: content,
            figure=lambda theme: figure(data, theme=theme),
            settings=settings,
        )

    return [
        *draw("spectra", drawn_spectra(data), spectra),
        *draw("spectra-evolution", drawn_evolution(data), evolution),
    ]


def drawn_spectra(data: SpectraData) -> Panels:
    """The numbers of each panel of the last measurement, as plain lists."""
    makers: dict[str, Callable[[SpectraData], dict[str, Any] | None]] = {
        "frequencies": _frequencies,
        "phases": _phases,
        "harmonics": _harmonics,
        "temperature": _temperature,
        "wave_ratio": _wave_ratio,
        "packets": _packets,
        "interference": _interference,
        "embedding_power": _embedding_power,
    }
    made = {key: maker(data) for key, maker in makers.items()}
    return {key: panel for key, panel in made.items() if panel is not None}


def drawn_evolution(data: SpectraData) -> Panels:
    """The numbers of each panel over training; nothing before there are two measurements."""
    panels: Panels = {}
    if lines := _lines(data, "wave_ratio", lambda values: values[:, None], of="run"):
        panels["wave_ratio"] = lines
    if lines := _lines(data, "frequency_quantiles", lambda values: values[:, 2], of="wave"):
        panels["median_frequency"] = lines
    if lines := _lines(data, "harmonic_amplitude", lambda v: v[:, :MOST_HARMONICS], of="harmonic"):
        panels["harmonic_amplitude"] = lines
    if lines := _lines(data, "temperature", lambda values: values, of="layer"):
        panels["temperature"] = lines
    return panels


def _lines(
    data: SpectraData, key: str, pick: Callable[[Numbers], Numbers], *, of: str
) -> dict[str, Any] | None:
    steps, values = data.series.get(key, (np.empty(0, np.int64), np.empty(0)))
    if len(steps) < 2:
        return None
    columns = pick(values).T
    limit = max(64, MOST_POINTS // len(columns))
    lines = []
    for place, column in enumerate(columns):
        kept = thin(column, limit=limit)
        shown = {"steps": steps[kept].tolist(), "values": column[kept].tolist()}
        lines.append({"label": str(place + 1), **shown})
    total = values.shape[-1] if values.ndim > 1 else 1
    return {"line_of_each": of, "of": total, "points": len(steps), "lines": lines}


def _frequencies(data: SpectraData) -> dict[str, Any] | None:
    """By wave; where there is one wave, or all are pooled, over training."""
    quantiles_5W = data.latest.get("frequency_quantiles")
    if quantiles_5W is None:
        return None
    if quantiles_5W.shape[1] > 1:
        waves = list(range(1, quantiles_5W.shape[1] + 1))
        return {"over": "wave", "at": waves, "quantiles": quantiles_5W.tolist()}
    steps, values_n51 = data.series["frequency_quantiles"]
    kept = thin(values_n51[:, 2, 0], limit=MOST_POINTS // 5)
    quantiles_5n = values_n51[kept, :, 0].T
    return {"over": "step", "at": steps[kept].tolist(), "quantiles": quantiles_5n.tolist()}


def _phases(data: SpectraData) -> dict[str, Any] | None:
    share = data.latest.get("phase_histogram")
    return None if share is None else {"share": share.tolist(), "reference": 1 / len(share)}


def _harmonics(data: SpectraData) -> dict[str, Any] | None:
    mean_H = data.latest.get("harmonic_amplitude")
    if mean_H is None:
        return None
    order_H = np.arange(1, len(mean_H) + 1)
    panel = {
        "harmonic": order_H.tolist(),
        "mean": mean_H.tolist(),
        "reference": (mean_H[0] / order_H).tolist(),
    }
    quantiles_5H = data.latest.get("harmonic_quantiles")
    return panel if quantiles_5H is None else panel | {"quantiles": quantiles_5H.tolist()}


def _temperature(data: SpectraData) -> dict[str, Any] | None:
    values = data.latest.get("temperature")
    if values is None or not len(values):
        return None
    return {"layer": list(range(1, len(values) + 1)), "values": values.tolist()}


def _wave_ratio(data: SpectraData) -> dict[str, Any] | None:
    if "wave_ratio" not in data.series:
        return None
    steps, values = data.series["wave_ratio"]
    kept = thin(values, limit=MOST_POINTS)
    return {"steps": steps[kept].tolist(), "values": values[kept].tolist()}


def _packets(data: SpectraData) -> dict[str, Any] | None:
    values_NT = data.latest.get("packets")
    if values_NT is None or not values_NT.size:
        return None
    return _names(data, len(values_NT)) | {"values": values_NT.tolist()}


def _interference(data: SpectraData) -> dict[str, Any] | None:
    cosine_NN = data.latest.get("interference")
    if cosine_NN is None or len(cosine_NN) < 2:
        return None
    return _names(data, len(cosine_NN)) | {"cosine": cosine_NN.tolist()}


def _names(data: SpectraData, count: int) -> dict[str, Any]:
    ids = [int(token) for token in data.latest.get("tokens", np.arange(count))[:count]]
    return {"tokens": ids, "names": [shown(data.token_names.get(id, ""), id) for id in ids]}


def _embedding_power(data: SpectraData) -> dict[str, Any] | None:
    if "embedding_power" not in data.series or "embedding_frequency" not in data.latest:
        return None
    steps, values = data.series["embedding_power"]
    ends = sorted({0, len(steps) - 1})
    lines = [{"step": int(steps[end]), "power": values[end].tolist()} for end in ends]
    return {"cycles": data.latest["embedding_frequency"].tolist(), "lines": lines}


def spectra(data: SpectraData, *, theme: ThemeName) -> Figure:
    """The panels of the last measurement. Raises MissingDependency without matplotlib."""
    panels, look = drawn_spectra(data), THEMES[theme]
    small = [key for key in panels if key not in ("packets", "interference")]
    large = [key for key in ("packets", "interference") if key in panels]
    rows = [small[i : i + 2] for i in range(0, len(small), 2)] + ([large] if large else [])
    heights = [_LARGE if row is large else _SMALL for row in rows]
    if list(panels) == ["embedding_power"]:
        heights = [_LARGE]
    with drawing(theme):
        figure = sheet(_title(data), sum(heights))
        grid = figure.add_gridspec(len(rows) or 1, 1, height_ratios=heights or [1])
        for place, row in enumerate(rows):
            inner = grid[place].subgridspec(1, len(row), width_ratios=[1, 1.15][: len(row)])
            for column, key in enumerate(row):
                PAINTERS[key](figure.add_subplot(inner[column]), panels[key], look)
        foot(figure, panels, look)
        settle(figure)
    return figure


def evolution(data: SpectraData, *, theme: ThemeName) -> Figure:
    """Against the step: wave ratio, median frequencies, harmonics, temperatures, if recorded."""
    panels, look = drawn_evolution(data), THEMES[theme]
    with drawing(theme):
        figure = sheet(_title(data), _SMALL * max(1, len(panels)))
        top: Axes | None = None
        for place, (key, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(len(panels), 1, place + 1, sharex=top)
            top = top or axes
            paint_lines(axes, panel, look, key)
            last = place == len(panels) - 1
            over_steps(axes, panel["lines"][0]["steps"], label=last)
        foot(figure, panels, look)
        settle(figure)
    return figure


def _title(data: SpectraData) -> str:
    return f"{data.name}, step {data.measured_at:,}"
