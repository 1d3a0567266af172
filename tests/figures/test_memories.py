"""Figures of memories show what was recorded, name the tokens, and survive any numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cupel.figures.memories import draw_memories, drawn_memories, memories, memory_data
from cupel.figures.settings import FigureSettings

SVG_ONLY = FigureSettings(formats=("svg",), themes=("light",))


def row(step: int = 100, **changes: Any) -> dict[str, Any]:
    measured = {
        "tokens": [97, 32, 10],
        "norm": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        "surprise": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
        "step": [[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]],
    }
    return {"_step": step, **{f"memory/{k}": v for k, v in (measured | changes).items()}}


def test_the_last_measurement_is_shown_and_nothing_else() -> None:
    data = memory_data("run", [{"_step": 1, "loss": 2.0}, row(100, norm=[[9.0] * 3] * 2), row(200)])
    assert data is not None
    assert data.measured_at == 200
    panels = drawn_memories(data)
    assert list(panels) == ["norm", "surprise", "step"]  # no momentum and no decay was recorded
    assert panels["norm"] == {"layers": row()["memory/norm"]}
    assert memory_data("run", [{"_step": 1, "loss": 2.0}]) is None


def test_tokens_are_named_below_the_last_panel() -> None:
    data = memory_data("run", [row()])
    assert data is not None
    data = replace(data, token_names={97: "a", 32: " ", 10: "\n"})
    assert drawn_memories(data)["step"]["names"] == ["a", "␣", "⏎"]
    figure = memories(data, theme="light")
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["a", "␣", "⏎"]


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_gaps_and_counted(tmp_path: Path) -> None:
    data = memory_data("run", [row(norm=[[1.0, math.nan, math.inf], [4.0, 5.0, 6.0]])])
    assert data is not None
    (kept, drawn) = draw_memories(data, tmp_path, step=100, settings=SVG_ONLY)
    assert json.loads(kept.read_text())["panels"]["norm"]["layers"][0][0] == 1.0
    assert drawn.name == "memories_step-000000100.light.svg"
    figure = memories(data, theme="dark")
    assert figure.get_supxlabel() == "not finite and left out: 2 numbers"
    lines = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert [math.isnan(value) for value in lines[0]] == [False, True, True]
