"""Figures on disk, each with the numbers that it shows beside it as JSON.

The JSON holds exactly what was drawn, so a figure can be checked or drawn again without the
run; values that are not finite are the strings "NaN", "Infinity" and "-Infinity", which JSON has
no numbers for. The record holds every point; a long line in a figure holds fewer (see `curves`).
A file appears whole or not at all. One drawing in two themes and two formats costs about a second.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.figures.curves import CurveData, drawn_lines, training_curves
from cupel.figures.settings import FigureSettings
from cupel.figures.style import ThemeName, rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = 1


def draw_training_curves(
    data: CurveData, folder: Path, *, step: int, settings: FigureSettings
) -> list[Path]:
    """Draw the curves up to `step` into the folder, made if need be; the files, JSON first.

    Writes `training-curves_step-000001000.json` and `….light.svg` and so on; with no formats in
    the settings it writes nothing. Raises MissingDependency without matplotlib, and OSError.
    """
    return draw_files(
        f"training-curves_step-{step:09d}",
        folder,
        content=lambda: _content(data, step),
        figure=lambda theme: training_curves(data, theme=theme),
        settings=settings,
    )


def draw_files(
    stem: str,
    folder: Path,
    *,
    content: Callable[[], Mapping[str, Any]],
    figure: Callable[[ThemeName], Figure],
    settings: FigureSettings,
) -> list[Path]:
    """Write `stem.json` with `content`, and the figure of each theme in each format beside it.

    Values in the content that are not finite become the three strings. The files come JSON first;
    with no formats in the settings there are none. Raises MissingDependency and OSError.
    """
    if not settings.formats:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    # All is drawn before anything is written: a drawing that fails leaves no lone data file.
    files = {f"{stem}.json": _as_json(content())}
    for theme in settings.themes:
        drawn = figure(theme)
        for form in settings.formats:
            files[f"{stem}.{theme}.{form}"] = rendered(drawn, form, theme=theme)
    for name, whole in files.items():
        _write_whole(folder / name, whole)
    _sync_folder(folder)
    return [folder / name for name in files]


def _content(data: CurveData, step: int) -> dict[str, Any]:
    lines = {
        key: {
            "label": line.label,
            "points": line.points,
            "not_finite": line.not_finite,
            "steps": line.steps.tolist(),
            "values": line.values.tolist(),
        }
        for key, line in drawn_lines(data).items()
    }
    return {
        "schema": SCHEMA,
        "figure": "training-curves",
        "name": data.name,
        "step": step,
        "unit": f"nats/{data.unit}",
        "references": data.references,
        "resumed_at": data.resumed_at,
        "lines": lines,
    }


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(_encoded(content), allow_nan=False, ensure_ascii=False) + "\n").encode()


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return _NAMES[str(value)]
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _write_whole(path: Path, content: bytes) -> None:
    """Temporary name, fsync, rename: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the renames themselves survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
