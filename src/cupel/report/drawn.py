"""The figures of a report: seed differences, validation curves, and what runs drew themselves."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.figures.comparison import (
    Curve,
    Difference,
    Differences,
    curves_alt,
    differences_alt,
    seed_differences,
    validation_curves,
)
from cupel.figures.files import draw_files
from cupel.figures.settings import FigureSettings
from cupel.report.blocks import Figure, plain
from cupel.studies.outcome import Outcome
from cupel.studies.runs import in_nats

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from cupel.figures.style import ThemeName

FIGURES = "figures"
_SETTINGS = FigureSettings(formats=("svg",))
_DRAWN = re.compile(r"([a-z-]+)_step-(\d+)\.light\.svg")


def draw_differences(found: Outcome, folder: Path) -> list[Figure]:
    """The figure of all comparisons; none when there are none."""
    if not found.cards:
        return []
    study = found.manifest.study
    metric = f"{study.primary.metric} ({study.primary.statistic})"
    levels = {f"{100 * card.confidence:.4g}" for card in found.cards}
    rows = [
        Difference(
            f"{card.arm}, {card.point}" if card.point else card.arm,
            card.differences,
            card.mean,
            card.interval,
            card.verdict or "no verdict",
        )
        for card in found.cards
    ]
    interval = f"{levels.pop()} % t interval over seeds"
    data = Differences(
        found.baseline, metric, study.primary.better, interval, rows, study.compare.margin
    )
    content = {
        "figure": "seed-differences",
        "rows": [
            {
                "label": row.label,
                "differences": {str(seed): value for seed, value in row.differences.items()},
                "mean": row.mean,
                "interval": row.interval,
                "verdict": row.verdict,
            }
            for row in rows
        ],
    }
    stem = "seed-differences"
    _draw(folder, stem, content, lambda theme: seed_differences(data, theme=theme))
    caption = (
        f"Each seed's difference in {plain(metric)} from {plain(found.baseline)}; a bar is the "
        f"{interval}; a shaded band is the declared margin."
    )
    return [_figure(stem, differences_alt(data), caption)]


def draw_curves(found: Outcome, point: str, folder: Path) -> Figure:
    """Validation curves of all arms at one point."""
    metric = found.manifest.study.primary.metric
    curves: dict[str, list[Curve]] = {
        arm: [
            ([step for step, _ in run.evaluations], [value for _, value in run.evaluations])
            for run in found.of(arm, point)
            if run.finished and run.evaluations
        ]
        for arm in found.arms
    }
    unit = "nats/token" if any(in_nats(run, metric) for run in found.runs) else ""
    number = "" if len(found.points) == 1 else f"-{1 + found.points.index(point)}"
    stem = f"validation-curves{number}"
    content = {"figure": "validation-curves", "metric": metric, "point": point, "curves": curves}
    _draw(
        folder,
        stem,
        content,
        lambda theme: validation_curves(curves, metric=metric, unit=unit, theme=theme),
    )
    at = f" at {plain(point)}" if point else ""
    caption = (
        f"`{metric}` of every finished run{at} (thin) and its mean over seeds (thick), drawn where "
        "all seeds of an arm have a value."
    )
    return _figure(stem, curves_alt(curves, metric=metric), caption)


def copy_measured(found: Outcome, folder: Path, kind: str) -> list[Figure]:
    """The last of a kind that the first finished run of each arm drew, where any did.

    Kinds are `spectra` and `memories`: what monitors measured, as `cupel.workloads.measured` draws.
    """
    figures = []
    for arm in found.arms:
        run = next((run for run in found.of(arm) if run.finished), None)
        newest = _newest(run.run_dir / FIGURES, kind) if run else {}
        for stem, (step, light) in newest.items():
            if run is None:
                continue
            dark = light.with_name(light.name.replace(".light.", ".dark."))
            name = f"{arm}-{stem}"
            (folder / FIGURES).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(light, folder / FIGURES / f"{name}.light.svg")
            # A run that drew one theme is shown in that one on both pages.
            shutil.copyfile(dark if dark.exists() else light, folder / FIGURES / f"{name}.dark.svg")
            told = f"{plain(arm)}, seed {run.run.seed}, step {step:,}"
            what = stem.replace("-", ": ", 1)
            caption = f"{what.capitalize()} of {told}, as the run drew them."
            alt = f"{what} of arm {arm}, seed {run.run.seed}, at step {step}"
            figures.append(_figure(name, alt, caption))
    return figures


def _newest(folder: Path, kind: str) -> dict[str, tuple[int, Path]]:
    newest: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob(f"{kind}*.light.svg")) if folder.is_dir() else ():
        match = _DRAWN.fullmatch(path.name)
        if match and int(match[2]) >= newest.get(match[1], (-1, path))[0]:
            newest[match[1]] = (int(match[2]), path)
    return newest


def _draw(
    folder: Path, stem: str, content: Mapping[str, Any], figure: Callable[[ThemeName], Drawing]
) -> None:
    draw_files(stem, folder / FIGURES, content=lambda: content, figure=figure, settings=_SETTINGS)


def _figure(stem: str, alt: str, caption: str) -> Figure:
    light, dark = (f"{FIGURES}/{stem}.{theme}.svg" for theme in ("light", "dark"))
    return Figure(light, dark, alt, caption)
