"""The single panels of `cupel.figures.spectra`: each paints plain lists onto given axes.

What is not finite is a gap. Every axis carries its unit. Type is 10 points and more (9 for the many
token names of the interference map), which a page of 600 pixels shows as large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cupel.figures.sheet import finite, legend, small, stroke
from cupel.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]


def _paint_frequencies(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    at, quantiles = panel["at"], finite(panel["quantiles"])
    if len(at) == 1:  # a band needs two points
        at, quantiles = [at[0] - 0.3, at[0] + 0.3], np.repeat(quantiles, 2, axis=1)
    band: dict[str, Any] = {"color": look.train, "linewidth": 0}
    axes.fill_between(at, quantiles[0], quantiles[4], alpha=0.22, label="5–95 %", **band)
    axes.fill_between(at, quantiles[1], quantiles[3], alpha=0.45, label="25–75 %", **band)
    axes.plot(at, quantiles[2], color=look.text, linewidth=1.6, label="median")
    axes.set(title="base frequencies of all tokens", ylabel="f (cycles)")
    small(axes)
    if panel["over"] == "step":
        over_steps(axes, panel["at"], label=True)
    else:
        _whole(axes, "wave")
    _legend_above(axes)


def _paint_phases(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    share = 100 * finite(panel["share"])
    edges = np.linspace(0, 2, len(share) + 1)
    axes.bar(
        edges[:-1],
        share,
        width=2 / len(share),
        align="edge",
        color=look.train,
        alpha=0.6,
        linewidth=0,
    )
    reference = 100 * panel["reference"]
    label = f"all phases alike ({reference:.1f} %)"
    axes.axhline(reference, color=look.reference, linestyle=":", linewidth=2.4, label=label)
    axes.set(title="phases", xlabel="φ (rad)", ylabel="share (%)", xlim=(0, 2))
    axes.set_ylim(0, 1.35 * max(reference, np.nanmax(share, initial=0.0)))  # room for the legend
    axes.set_xticks([0, 0.5, 1, 1.5, 2], ["0", "π/2", "π", "3π/2", "2π"])
    small(axes)
    legend(axes, loc="upper left")


def _paint_harmonics(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    """Single marks for a few harmonics; lines on two logarithmic axes for many."""
    at, mean = panel["harmonic"], finite(panel["mean"])
    many = len(at) > 12
    if "quantiles" in panel:
        quantiles = finite(panel["quantiles"])
        how: dict[str, Any] = {"color": look.train, "alpha": 0.45, "label": "25–75 %"}
        if many:
            axes.fill_between(at, quantiles[1], quantiles[3], linewidth=0, **how)
        else:
            axes.vlines(at, quantiles[1], quantiles[3], linewidth=7, **how)
    axes.plot(at, mean, "-" if many else "o", color=look.text, markersize=6, label="mean")
    dotted: dict[str, Any] = {"color": look.reference, "linestyle": ":", "linewidth": 2.4}
    axes.plot(at, finite(panel["reference"]), label="if 1/n", **dotted)
    axes.set(title="amplitudes of the harmonics", ylabel="|A|")
    axes.margins(x=0.12)
    small(axes)
    if many and np.all(mean > 0):
        axes.set(xscale="log", yscale="log", xlabel="harmonic n")
    else:
        axes.set_ylim(bottom=0)
        _whole(axes, "harmonic n")
    _legend_above(axes)


def _paint_temperature(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    axes.plot(panel["layer"], finite(panel["values"]), "o", color=look.train, markersize=7)
    axes.set(title="temperature of attention", ylabel="τ")
    axes.margins(x=0.12, y=0.2)
    small(axes)
    _whole(axes, "layer")


def _paint_ratio(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    values = finite(panel["values"])
    marker = "o" if len(values) <= 30 else ""
    axes.plot(panel["steps"], values, color=look.train, linewidth=2, marker=marker, markersize=4)
    axes.set(title="wave ratio: share of the wave embedding", ylabel="r", ylim=(-0.03, 1.03))
    small(axes)
    over_steps(axes, panel["steps"], label=True)


def _paint_packets(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    """Lines above each other on one scale; each one's zero is its gridline."""
    values_NT = finite(panel["values"])
    apart = 2.1 * float(np.nanmax(np.abs(values_NT), initial=0.0)) or 1.0
    zeros = [-apart * place for place in range(len(values_NT))]
    for place, (zero, values) in enumerate(zip(zeros, values_NT, strict=True)):
        marker = "o" if values_NT.shape[1] == 1 else ""
        axes.plot(zero + values, linewidth=1.8, marker=marker, **stroke(place, look))
    axes.set_yticks(zeros, panel["names"], parse_math=False)
    axes.set_ylim(zeros[-1] - 0.6 * apart, 0.6 * apart)
    axes.set(title="wave packets", xlabel="position (tokens)")
    axes.set_ylabel(f"token; lines are {apart:.2g} apart")
    small(axes)
    axes.margins(x=0.02)


def _paint_interference(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    # From one colour through the page's own to the other: what is near zero recedes.
    shades = LinearSegmentedColormap.from_list(
        "interference", [look.validation, look.background, look.train]
    ).with_extremes(bad=look.muted)
    image = axes.imshow(finite(panel["cosine"]), cmap=shades, vmin=-1, vmax=1, aspect="equal")
    names = panel["names"]
    long = max(map(len, names)) > 2
    axes.set_xticks(range(len(names)), names, rotation=90 if long else 0, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(title="interference of packets", xlabel="token", ylabel="token")
    small(axes)
    axes.tick_params(labelsize=9, length=0)
    axes.grid(visible=False)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("cosine", fontsize=11)
    bar.ax.tick_params(labelsize=10)


def _paint_power(axes: Axes, panel: dict[str, Any], look: Theme) -> None:
    for place, line in enumerate(panel["lines"]):
        last = place == len(panel["lines"]) - 1
        how: dict[str, Any] = (
            {"color": look.train, "linewidth": 2.2} if last else {"color": look.muted}
        )
        marker = "o" if len(panel["cycles"]) <= 30 else ""
        label = f"step {line['step']:,}"
        axes.plot(panel["cycles"], finite(line["power"]), label=label, marker=marker, **how)
    axes.set(title="power along the rows of the first matrix, mean over rows")
    axes.set(xlabel="frequency (cycles a dimension)", ylabel="power (weight²)")
    axes.set_ylim(bottom=0)
    legend(axes)


def paint_lines(axes: Axes, panel: dict[str, Any], look: Theme, key: str) -> None:
    titles = {
        "wave_ratio": ("wave ratio: share of the wave embedding", "r"),
        "median_frequency": ("base frequencies, each wave's median of tokens", "f (cycles)"),
        "harmonic_amplitude": ("amplitudes of the harmonics, mean", "|A|"),
        "temperature": ("temperature of attention", "τ"),
    }
    lines = panel["lines"]
    alike = len(lines) > 8  # then single lines need no names
    for place, line in enumerate(lines):
        how = {"color": look.train, "alpha": 0.5} if alike else stroke(place, look)
        label = line["label"] if len(lines) > 1 and not alike else None
        width = 1.0 if alike else 2.0
        axes.plot(line["steps"], finite(line["values"]), linewidth=width, label=label, **how)
    title, unit = titles[key]
    if len(lines) < panel["of"]:
        title = title.replace("the harmonics", f"the first {len(lines)} of {panel['of']} harmonics")
    axes.set(title=title, ylabel=unit)
    small(axes)
    if 1 < len(lines) <= 8:
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        legend(axes, title=panel["line_of_each"], title_fontsize=10, **beside)


def _legend_above(axes: Axes) -> None:
    """In one row along the upper edge, in room made for it."""
    low, high = axes.get_ylim()
    grown = (
        high * (high / low) ** 0.25 if axes.get_yscale() == "log" else high + 0.25 * (high - low)
    )
    axes.set_ylim(low, grown)
    legend(axes, loc="upper left", ncols=3, columnspacing=1.2, borderaxespad=0.1)


def _whole(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def over_steps(axes: Axes, steps: Sequence[int], *, label: bool) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", labelbottom=label)
    if label:
        axes.set_xlabel("step")
    if len(set(steps)) == 1:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)


PAINTERS: dict[str, Callable[[Axes, dict[str, Any], Theme], None]] = {
    "frequencies": _paint_frequencies,
    "phases": _paint_phases,
    "harmonics": _paint_harmonics,
    "temperature": _paint_temperature,
    "wave_ratio": _paint_ratio,
    "packets": _paint_packets,
    "interference": _paint_interference,
    "embedding_power": _paint_power,
}
