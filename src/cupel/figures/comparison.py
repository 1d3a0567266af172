"""Arms of a study against their baseline: each seed's difference, and validation curves.

Arrays in, figures out. Every seed is drawn; a mean is drawn only where all of its seeds have a
value, so that it never jumps because a run ended. A bar is the interval that its label names, over
seeds. Nothing is smoothed or fitted. `differences_alt` and `curves_alt` say the same in words.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cupel.figures.style import THEMES, Theme, ThemeName, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0
# Okabe and Ito's, darker on white and lighter on black where they were too pale as lines.
COLOURS: dict[ThemeName, tuple[str, ...]] = {
    "light": ("#0072B2", "#D55E00", "#00734F", "#A8447F", "#8A6D00", "#3B5B92", "#1b1f24"),
    "dark": ("#56B4E9", "#E69F00", "#2FC79A", "#CC79A7", "#F0E442", "#9DB7E8", "#e6e8eb"),
}
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_LABEL_CHARACTERS, _LABEL_LINES = 28, 6  # of a row's name
_ROW_INCHES, _LINE_INCHES = 0.62, 0.21

Curve = tuple[Sequence[int], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of the figure: an arm's differences from the baseline, one for each paired seed."""

    label: str
    differences: Mapping[int, float]
    mean: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Differences:
    """All rows; `interval` says what a bar is, as "95 % t interval over seeds"."""

    baseline: str
    metric: str
    better: str  # "lower" or "higher"
    interval: str
    rows: Sequence[Difference]
    margin: float | None = None


def seed_differences(data: Differences, *, theme: ThemeName) -> Figure:
    """Dots for seeds, a bar and a tick for interval and mean, zero, and the margin as a band.

    Raises MissingDependency when matplotlib is not installed.
    """
    assert data.rows, "nothing to compare"
    look = THEMES[theme]
    lines = max(_wrapped(row.label).count("\n") + 1 for row in data.rows)
    height = 1.75 + max(_ROW_INCHES, _LINE_INCHES * lines + 0.1) * len(data.rows)
    with drawing(theme):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_subplot()
        if data.margin is not None:
            axes.axvspan(-data.margin, data.margin, color=look.reference, alpha=0.16, linewidth=0)
        axes.axvline(0, color=look.muted, linewidth=1.4)
        for place, row in enumerate(data.rows):
            _draw_row(axes, place, row, COLOURS[theme][0], look)
        _finish_rows(axes, data)
        figure.text(
            0.12 / WIDTH,
            1 - 0.14 / height,
            f"{data.metric}: difference from {data.baseline}, seed by seed",
            fontsize=14,
            weight="bold",
            va="top",
            parse_math=False,
        )
        _write_key(figure, data, COLOURS[theme][0], look, top=1 - 0.48 / height)
        widest = max(tick.get_window_extent().width for tick in axes.get_yticklabels())
        figure.subplots_adjust(
            left=0.3 / WIDTH + widest / figure.bbox.width,
            right=1 - 1.35 / WIDTH,
            bottom=0.72 / height,
            top=1 - 0.86 / height,
        )
    return figure


def differences_alt(data: Differences) -> str:
    """The figure in words."""
    rows = []
    for row in data.rows:
        seeds = ", ".join(f"{value:+.4f}" for value in row.differences.values()) or "none"
        text = f"{row.label}: seeds {seeds}"
        if row.mean is not None and row.interval is not None:
            low, high = row.interval
            text += f"; mean {row.mean:+.4f}, interval {low:+.4f} to {high:+.4f}"
        rows.append(f"{text}; {row.verdict}")
    margin = "" if data.margin is None else f" Margin ±{data.margin:g}."
    return (
        f"Differences of {data.metric} from {data.baseline} ({data.better} values are wanted), "
        f"with the {data.interval}. {'. '.join(rows)}.{margin}"
    )


def validation_curves(
    curves: Mapping[str, Sequence[Curve]], *, metric: str, unit: str, theme: ThemeName
) -> Figure:
    """A thin line for each run, a thick one for the mean of an arm's runs; below, the second half.

    `curves` holds (steps, values) of each run, by arm. Raises MissingDependency.
    """
    look, height = THEMES[theme], 7.0
    columns = 1 if max(map(len, curves), default=0) > 24 else 2
    rows = math.ceil(len(curves) / columns)
    with drawing(theme):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, height))
        whole, late = figure.subplots(2, 1, height_ratios=(1.25, 1))
        for axes in (whole, late):
            _draw_curves(axes, curves, COLOURS[theme])
            axes.set_ylabel(f"{metric} ({unit})" if unit else metric)
            axes.tick_params(colors=look.muted, labelcolor=look.text)
        late.set_title("the second half, enlarged", pad=6)
        late.set_xlabel("step")
        _look_at_the_second_half(late, curves)
        handles, labels = whole.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.0, 1 - 0.42 / height),
            ncols=columns,
            fontsize=12,
            handlelength=2.6,
        )
        title = f"{metric}: every run (thin) and the mean over seeds (thick)"
        at = (0.12 / WIDTH, 1 - 0.12 / height)
        figure.text(*at, title, fontsize=14, weight="bold", va="top", parse_math=False)
        figure.subplots_adjust(
            left=0.95 / WIDTH,
            right=1 - 0.2 / WIDTH,
            bottom=0.68 / height,
            top=1 - (0.6 + 0.26 * rows) / height,
            hspace=0.3,
        )
    return figure


def curves_alt(curves: Mapping[str, Sequence[Curve]], *, metric: str) -> str:
    """The figure in words: where each arm's mean begins and ends."""
    parts = []
    for arm, runs in curves.items():
        steps, mean = mean_curve(runs)
        if len(steps):
            parts.append(
                f"{arm}, {len(runs)} runs: from {mean[0]:.4f} at step {steps[0]:,} "
                f"to {mean[-1]:.4f} at step {steps[-1]:,}"
            )
    told = "; ".join(parts) or "no step at which all runs have a value"
    return f"{metric} against the step, mean over seeds. {told}."


def mean_curve(runs: Sequence[Curve]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps at which every run has a finite value, and the mean there."""
    tables = [
        {step: value for step, value in zip(*run, strict=True) if math.isfinite(value)}
        for run in runs
    ]
    common = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    means = [float(np.mean([table[step] for table in tables])) for step in common]
    return np.array(common, dtype=np.int64), np.array(means, dtype=np.float64)


def _draw_row(axes: Axes, place: int, row: Difference, colour: str, look: Theme) -> None:
    if row.interval is not None and row.mean is not None:
        low, high = row.interval
        axes.plot([low, high], [place, place], color=look.text, linewidth=2.2, zorder=2)
        for end in (low, high):
            axes.plot([end, end], [place - 0.13, place + 0.13], color=look.text, linewidth=2.2)
        axes.plot(row.mean, place, marker="D", color=look.text, markersize=7, zorder=3)
    values = list(row.differences.values())
    # Moved off the line a little, so that dots do not hide the interval.
    heights = [place + 0.24] * len(values)
    axes.plot(values, heights, "o", color=colour, markersize=8, alpha=0.85, zorder=4)
    axes.annotate(
        row.verdict,
        (1.02, place),
        xycoords=axes.get_yaxis_transform(),
        va="center",
        fontsize=12,
        annotation_clip=False,
    )


def _wrapped(label: str) -> str:
    """In lines; a point's settings, which no space parts, are parted behind their commas."""
    lines = textwrap.wrap(
        re.sub(r",(?=\S)", ", ", label),
        _LABEL_CHARACTERS,
        max_lines=_LABEL_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _finish_rows(axes: Axes, data: Differences) -> None:
    from matplotlib.ticker import MaxNLocator

    labels = [_wrapped(row.label) for row in data.rows]
    axes.set_yticks(range(len(data.rows)), labels, parse_math=False)
    axes.set_ylim(len(data.rows) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    arrow = "← wanted" if data.better == "lower" else "wanted →"
    axes.set_xlabel(f"{data.metric} − {data.metric} of {data.baseline}   ({arrow})")
    shown = [v for row in data.rows for v in (*row.differences.values(), *(row.interval or ()))]
    if not shown:
        axes.set_xlim(-1, 1)
        return
    if data.margin is not None:
        shown += [-data.margin, data.margin]
    low, high = min(0.0, *shown), max(0.0, *shown)
    room = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)


def _write_key(figure: Figure, data: Differences, colour: str, look: Theme, *, top: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    none: dict[str, Any] = {"linestyle": "none"}
    handles: list[Any] = [
        Line2D([], [], color=colour, marker="o", markersize=8, label="a seed", **none),
        Line2D([], [], color=look.text, marker="D", markersize=6, label=f"mean, {data.interval}"),
    ]
    if data.margin is not None:
        label = f"margin ±{data.margin:g}"
        handles.append(Patch(color=look.reference, alpha=0.3, linewidth=0, label=label))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, top),
        ncols=len(handles),
        fontsize=12,
        columnspacing=1.4,
        handletextpad=0.5,
        borderaxespad=0,
        borderpad=0.2,
    )


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[Curve]], colours: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for place, (arm, runs) in enumerate(curves.items()):
        how = {"color": colours[place % len(colours)], "linestyle": _STYLES[place % len(_STYLES)]}
        for steps, values in runs:
            axes.plot(steps, _gaps(values), color=how["color"], linewidth=0.9, alpha=0.55)
        steps_S, mean_S = mean_curve(runs)
        count = f"mean of {len(runs)} runs" if len(runs) > 1 else f"{len(runs)} run"
        axes.plot(steps_S, mean_S, label=f"{arm} ({count})", linewidth=2.4, **how)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if not any(_finite_points(curves)):
        axes.text(0.5, 0.5, "no evaluation recorded", transform=axes.transAxes, ha="center")
        axes.set(xlim=(0, 1), ylim=(0, 1))


def _look_at_the_second_half(axes: Axes, curves: Mapping[str, Sequence[Curve]]) -> None:
    """Axes around the points of the second half of the steps."""
    points = list(_finite_points(curves))
    if not points:
        return
    middle = max(step for step, _ in points) / 2
    late = [(step, value) for step, value in points if step >= middle]
    low, high = min(value for _, value in late), max(value for _, value in late)
    room = 0.06 * (high - low) or 0.01 * max(abs(high), 1e-9)
    axes.set_ylim(low - room, high + room)
    last = max(step for step, _ in late)
    axes.set_xlim(middle - 0.02 * last, 1.02 * last + (last == 0))


def _finite_points(curves: Mapping[str, Sequence[Curve]]) -> Iterator[tuple[int, float]]:
    for runs in curves.values():
        for run in runs:
            yield from ((s, v) for s, v in zip(*run, strict=True) if math.isfinite(v))


def _gaps(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)
