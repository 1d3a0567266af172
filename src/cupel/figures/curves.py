"""Training curves of one run: loss, learning rate and gradient norm against the step.

`drawn_lines` decides which numbers are shown, `training_curves` puts them on paper. A line of more
than 4,000 points is thinned to the smallest and largest of each bucket, so no spike is lost; the
smoothed line is a median of the points themselves, not of the thinned ones. A value that is not
finite breaks the line and is marked at the upper edge; it is never drawn as a number. Nothing is
fitted or made up between points. Building a figure costs about 0.1 s, rendering it the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cupel.figures.style import INCHES, THEMES, Theme, ThemeName, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Numbers = NDArray[Any]

MOST_POINTS = 4_000
MOST_MEDIANS = 1_000
SMOOTH_FROM = 50  # fewer points are read as they are


def _none() -> Numbers:
    return np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class CurveData:
    """What a training curve shows: one-dimensional arrays, in the order of the record.

    `loss`, `lr` and `grad_norm` have one value for each of `steps`, `val_loss` one for each of
    `val_steps`; an `lr` or `grad_norm` of None gets no panel. Losses are in nats for each `unit`.
    `references` are levels to compare with, in the same unit, as {"bigram entropy": 2.45};
    `resumed_at` holds the first step of every session after the first.
    """

    name: str
    steps: Numbers
    loss: Numbers
    val_steps: Numbers = field(default_factory=_none)
    val_loss: Numbers = field(default_factory=_none)
    lr: Numbers | None = None
    grad_norm: Numbers | None = None
    references: Mapping[str, float] = field(default_factory=dict)
    resumed_at: Sequence[int] = ()
    unit: str = "token"

    def __post_init__(self) -> None:
        assert len(self.val_steps) == len(self.val_loss), (self.val_steps, self.val_loss)
        for values in (self.loss, self.lr, self.grad_norm):
            assert values is None or len(values) == len(self.steps), (len(values), len(self.steps))
        assert all(math.isfinite(level) for level in self.references.values()), self.references


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line as it is drawn; `points` and `not_finite` count the data before thinning."""

    label: str
    steps: Numbers
    values: Numbers
    points: int
    not_finite: int


def drawn_lines(data: CurveData) -> dict[str, Line]:
    """The lines of the figure by key: loss, loss_smooth, val_loss, lr and grad_norm, if any."""
    lines = {"loss": _line("train", data.steps, data.loss)}
    if len(data.loss) >= SMOOTH_FROM:
        window = 2 * (len(data.loss) // 100) + 1  # about 2 % of the run, an odd number
        centres, medians = running_median(data.loss, window=window)
        label = f"train, median of {window:,} points"
        lines["loss_smooth"] = Line(label, data.steps[centres], medians, len(data.loss), 0)
    if len(data.val_loss):
        lines["val_loss"] = _line("validation", data.val_steps, data.val_loss)
    if data.lr is not None:
        lines["lr"] = _line("learning rate", data.steps, data.lr)
    if data.grad_norm is not None:
        lines["grad_norm"] = _line("gradient norm", data.steps, data.grad_norm)
    return lines


def thin(values: Numbers, *, limit: int) -> NDArray[np.intp]:
    """Indices, in order, of at most `limit` values that keep what the eye would see of all.

    Kept are the first and the last, and of each bucket the smallest and the largest finite value
    and the first that is not finite.
    """
    assert limit >= 8, limit
    count = len(values)
    if count <= limit:
        return np.arange(count)
    size = math.ceil(count / ((limit - 2) // 3))
    buckets = math.ceil(count / size)
    # The last bucket is filled up with copies of the last value.
    index = np.minimum(np.arange(buckets * size), count - 1).reshape(buckets, size)
    table = np.asarray(values, dtype=float)[index]
    finite = np.isfinite(table)
    kept = [
        np.where(finite, table, np.inf).argmin(axis=1),
        np.where(finite, table, -np.inf).argmax(axis=1),
        (~finite).argmax(axis=1),
    ]
    rows = np.arange(buckets)
    picked = np.concatenate([index[rows, column] for column in kept])
    return np.unique(np.append(picked, [0, count - 1]))


def running_median(values: Numbers, *, window: int) -> tuple[NDArray[np.intp], Numbers]:
    """Medians of the finite values around up to 1,000 places: (indices of the places, medians).

    The window is centred. At the start it shrinks from both sides, since a steep curve would
    otherwise be shown too low; at the end it is cut, since a last point on its own is noise.
    NaN where no value in the window is finite.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    centres = np.unique(np.linspace(0, count - 1, min(count, MOST_MEDIANS)).astype(np.intp))
    medians = np.full(len(centres), np.nan)
    for place, centre in enumerate(centres):
        half = min(window // 2, centre)
        near = values[centre - half : centre + half + 1]
        near = near[np.isfinite(near)]
        if len(near):
            medians[place] = np.median(near)
    return centres, medians


def training_curves(data: CurveData, *, theme: ThemeName) -> Figure:
    """The figure of one run: losses above, learning rate and gradient norm below if they are there.

    Raises MissingDependency when matplotlib is not installed.
    """
    lines, look = drawn_lines(data), THEMES[theme]
    small = [key for key in ("lr", "grad_norm") if key in lines]
    with drawing(theme):
        from matplotlib.figure import Figure

        figure = Figure()
        grid = figure.add_gridspec(
            1 + len(small), 1, height_ratios=[4.6] + [1.0] * len(small), hspace=0.36
        )
        top = figure.add_subplot(grid[0])
        panels = [top] + [figure.add_subplot(grid[1 + i], sharex=top) for i in range(len(small))]
        _draw_losses(top, lines, data, look)
        for axes, key in zip(panels[1:], small, strict=True):
            _draw_small(axes, lines[key], look, log=key == "grad_norm")
        for axes in panels:
            _mark_resumes(axes, data.resumed_at, look)
        _finish_steps(panels, lines)
        rows = _write_legend(figure, top, lines, data, look)
        _write_title(figure, data.name)
        width, height = INCHES
        figure.subplots_adjust(
            left=0.9 / width,
            right=1 - 0.9 / width,
            bottom=0.7 / height,
            top=1 - (0.72 + 0.23 * rows) / height,
        )
        _write_references(top, data.references, look)
    return figure


def _line(label: str, steps: Numbers, values: Numbers) -> Line:
    kept = thin(values, limit=MOST_POINTS)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    return Line(label, np.asarray(steps)[kept], np.asarray(values)[kept], len(values), bad)


def _draw_losses(axes: Axes, lines: dict[str, Line], data: CurveData, look: Theme) -> None:
    smooth = lines.get("loss_smooth")
    faint: dict[str, Any] = {"alpha": 0.45, "linewidth": 0.8} if smooth else {"linewidth": 1.6}
    _plot(axes, lines["loss"], look, color=look.train, **faint)
    if smooth:
        _plot(axes, smooth, look, color=look.train, linewidth=2.0)
    if "val_loss" in lines:
        dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "marker": "o", "markersize": 5}
        _plot(axes, lines["val_loss"], look, color=look.validation, linewidth=1.6, **dashed)
    for level in data.references.values():
        axes.axhline(level, color=look.reference, linestyle=":", linewidth=1.6)
    _cut_above(axes, lines, data, look)
    axes.set_ylabel(f"loss (nats/{data.unit})")
    bits = axes.secondary_yaxis("right", functions=(_to_bits, _to_nats))
    bits.set_ylabel(f"bits/{data.unit}")
    bits.spines["right"].set_visible(False)


def _cut_above(axes: Axes, lines: dict[str, Line], data: CurveData, look: Theme) -> None:
    """End the axis below a loss that would flatten all the others, and mark where that was.

    Cut is what lies two ranges above the range of the middle 98 % of the points, so the fall at
    the start of an ordinary run stays whole.
    """
    loss = lines["loss"]
    finite = loss.values[np.isfinite(loss.values)]
    if len(finite) < SMOOTH_FROM:
        return
    low, high = np.percentile(finite, [1, 99])
    bound = high + 2 * (high - low)
    above = np.isfinite(loss.values) & (loss.values > bound)
    if not above.any():
        return
    levels = np.concatenate([finite, data.val_loss, list(data.references.values())])
    levels = levels[np.isfinite(levels) & (levels <= bound)]
    margin = 0.05 * (levels.max() - levels.min())
    axes.set_ylim(levels.min() - margin, levels.max() + margin)
    marks: dict[str, Any] = {"marker": "^", "linestyle": "none", "markersize": 7}
    axes.plot(
        loss.steps[above],
        np.ones(np.count_nonzero(above)),
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        color=look.train,
        label=f"above the axis, up to {loss.values[above].max():.3g}",
        **marks,
    )


def _write_references(axes: Axes, references: Mapping[str, float], look: Theme) -> None:
    """Name each level on its own line; of close ones the lower are named below theirs."""
    to_axes = axes.transData + axes.transAxes.inverted()
    above, crowd = math.inf, 0
    for name, level in sorted(references.items(), key=lambda item: -item[1]):
        height = to_axes.transform((0, level))[1]
        crowd = crowd + 1 if above - height < 0.09 else 0
        above = height
        axes.annotate(
            f"{name} {level:.2f}",
            (0.99 - 0.36 * max(0, crowd - 1), level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, -4 if crowd else 4),
            textcoords="offset points",
            ha="right",
            va="top" if crowd else "bottom",
            color=look.reference,
            fontsize=11,
            parse_math=False,
            bbox={"facecolor": look.background, "edgecolor": "none", "alpha": 0.7, "pad": 0},
        )


def _draw_small(axes: Axes, line: Line, look: Theme, *, log: bool) -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

    _plot(axes, line, look, color=look.train, linewidth=1.2)
    finite = line.values[np.isfinite(line.values)]
    log = log and len(finite) > 0 and bool(np.all(finite > 0))  # a zero has no place on a log axis
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(_log_ticks(*axes.get_ylim())))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    axes.set_title(line.label + (" (log)" if log else ""), pad=4)
    axes.tick_params(axis="y", labelsize=11)


def _log_ticks(low: float, high: float) -> list[float]:
    """At most three of 1, 2, 5 and their decades in a range; a small panel holds no more."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if math.log10(tick).is_integer()]
    return ticks[:: math.ceil(len(ticks) / 3) or 1]


def _plot(axes: Axes, line: Line, look: Theme, **how: Any) -> None:
    """The line; a dot for a value alone between gaps; a tick at the upper edge where not finite."""
    finite = np.isfinite(line.values)
    values = np.where(finite, line.values, np.nan)
    axes.plot(line.steps, values, label=line.label, **how)
    padded = np.concatenate([[False], finite, [False]])
    alone = finite & ~padded[:-2] & ~padded[2:]
    axes.plot(line.steps[alone], values[alone], "o", color=how["color"], markersize=4)
    edge = axes.get_xaxis_transform()
    bad = line.steps[~finite]
    axes.plot(bad, np.ones(len(bad)), transform=edge, clip_on=False, **_tick(look))


def _tick(look: Theme) -> dict[str, Any]:
    how = {"marker": "|", "markersize": 9, "markeredgewidth": 1.4, "linestyle": "none"}
    return {**how, "color": look.bad}


def _mark_resumes(axes: Axes, steps: Sequence[int], look: Theme) -> None:
    for step in steps:
        axes.axvline(step, color=look.muted, linestyle="-.", linewidth=1.2)


def _finish_steps(panels: list[Axes], lines: dict[str, Line]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    steps = np.concatenate([line.steps for line in lines.values()])
    if not len(steps):
        panels[0].text(0.5, 0.5, "no steps recorded", transform=panels[0].transAxes, ha="center")
        panels[0].set(xlim=(0, 1), ylim=(0, 1))
    elif steps.min() == steps.max():
        panels[0].set_xlim(steps[0] - 1, steps[0] + 1)
    for axes in panels[:-1]:
        axes.tick_params(axis="x", labelbottom=False)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panels[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _write_title(figure: Figure, name: str) -> None:
    size = min(15.0, 15.0 * 55 / max(1, len(name)))  # a long name is set smaller, not cut
    x, y = 0.12 / INCHES[0], 1 - 0.12 / INCHES[1]
    figure.text(x, y, name, fontsize=size, va="top", weight="bold", parse_math=False)


def _write_legend(
    figure: Figure, axes: Axes, lines: dict[str, Line], data: CurveData, look: Theme
) -> int:
    """Above the panels, where it covers no point; returns how many rows it takes."""
    from matplotlib.lines import Line2D

    handles: list[Line2D] = [
        handle for handle in axes.get_lines() if not str(handle.get_label()).startswith("_")
    ]
    if data.resumed_at:
        count = len(data.resumed_at)
        label = "session resumed" + (f" ({count}×)" if count > 1 else "")
        handles.append(Line2D([], [], color=look.muted, linestyle="-.", label=label))
    bad = sum(line.not_finite for line in lines.values())
    if bad:
        label = f"not finite: {bad:,} point" + ("s" if bad > 1 else "")
        handles.append(Line2D([], [], **_tick(look), label=label))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.4 / INCHES[1]),
        ncols=3,
        fontsize=11,
        columnspacing=1.4,
        handlelength=1.8,
    )
    return math.ceil(len(handles) / 3)


def _to_bits(nats: ArrayLike) -> ArrayLike:
    return np.asarray(nats) / math.log(2)


def _to_nats(bits: ArrayLike) -> ArrayLike:
    return np.asarray(bits) * math.log(2)
