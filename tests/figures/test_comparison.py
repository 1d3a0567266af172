"""Figures of a comparison show what they were given: every seed, the interval, means of all."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.figures.comparison import (
    Curve,
    Difference,
    Differences,
    curves_alt,
    differences_alt,
    mean_curve,
    seed_differences,
    validation_curves,
)
from cupel.figures.style import rendered

WAVE = Difference("wave", {1: -0.03, 2: -0.04}, -0.035, (-0.1, 0.03), "undecided")
NOTHING = Difference("failed $1_x", {}, None, None, "no verdict")
VALUES = st.floats(0, 9) | st.just(math.nan)


def differences(*rows: Difference, **changes: Any) -> Differences:
    given = {"baseline": "standard", "metric": "val_loss", "better": "lower"}
    return Differences(**{**given, "interval": "95 % t interval", "rows": rows, **changes})


def texts(figure: Any) -> list[str]:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in found if artist.get_text()]


def test_every_seed_is_a_dot_and_the_interval_a_bar_of_its_own_length() -> None:
    axes = seed_differences(differences(WAVE), theme="light").axes[0]
    drawn = [sorted(np.atleast_1d(line.get_xdata()).tolist()) for line in axes.get_lines()]
    assert [-0.04, -0.03] in drawn
    assert [-0.1, 0.03] in drawn
    assert [-0.035] in drawn
    assert [0, 0] in drawn
    low, high = axes.get_xlim()
    assert low < -0.1 < 0.03 < high


def test_names_verdicts_margin_and_what_the_bar_is_are_written() -> None:
    shown = texts(seed_differences(differences(WAVE, NOTHING, margin=0.02), theme="dark"))
    for text in ("wave", "failed $1_x", "undecided", "no verdict", "margin ±0.02"):
        assert text in shown
    assert "mean, 95 % t interval" in shown
    assert any("← wanted" in text for text in shown)


@pytest.mark.parametrize(
    "label",
    ["wave", "deltanet-negative, language=parity", "W" * 30, "",
     "a-very-long-name-number-two-of-many, lr=0.001,width=128,weight_decay=0.1,layers=8,chunk=1"],
)  # fmt: skip
def test_a_name_of_any_length_stays_beside_its_row_and_is_written_whole(label: str) -> None:
    """Long ones were cut off at the left edge."""
    names = [f"{label}{n}" for n in range(3)]
    figure = seed_differences(
        differences(*(replace(WAVE, label=name) for name in names)), theme="light"
    )
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_yticklabels()
    boxes = [tick.get_window_extent() for tick in ticks]
    assert min(box.x0 for box in boxes) >= 0
    assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(boxes))
    written = ["".join(tick.get_text().split()) for tick in ticks]
    assert written == ["".join(name.split()) for name in names]


def test_a_setting_of_a_point_is_not_broken_in_two() -> None:
    point = "deltanet-negative, lr=0.001,width=128,weight_decay=0.1"
    axes = seed_differences(differences(replace(WAVE, label=point)), theme="light").axes[0]
    (lines,) = [tick.get_text().split("\n") for tick in axes.get_yticklabels()]
    parts = [part.strip() for line in lines for part in line.split(",") if part]
    assert parts == ["deltanet-negative", "lr=0.001", "width=128", "weight_decay=0.1"]


def test_a_figure_of_nothing_but_failures_can_be_drawn() -> None:
    assert rendered(seed_differences(differences(NOTHING), theme="light"), "svg", theme="light")


@given(st.lists(st.lists(VALUES, max_size=8), max_size=4))
@settings(deadline=None)
def test_a_mean_is_taken_only_where_every_run_has_a_finite_value(runs: list[list[float]]) -> None:
    steps, mean = mean_curve([(range(len(values)), values) for values in runs])
    shortest = min((len(values) for values in runs), default=0)
    expected = [s for s in range(shortest) if all(math.isfinite(v[s]) for v in runs)]
    assert steps.tolist() == expected
    # np.mean adds in another order than Python's sum.
    assert mean.tolist() == pytest.approx([sum(v[s] for v in runs) / len(runs) for s in expected])


@pytest.mark.slow
def test_runs_are_drawn_each_and_their_mean_is_named_with_its_count() -> None:
    curves: dict[str, list[Curve]] = {
        "standard": [([0, 10], [3.0, 2.0]), ([0, 10], [3.2, 2.2])],
        "wave": [([0, 10], [3.0, math.nan])],
    }
    figure = validation_curves(curves, metric="val_loss", unit="nats/token", theme="light")
    whole, late = figure.axes
    assert len(whole.get_lines()) == len(late.get_lines()) == 5
    shown = texts(figure)
    assert "standard (mean of 2 runs)" in shown
    assert "wave (1 run)" in shown
    assert shown.count("val_loss (nats/token)") == 2
    low, high = late.get_ylim()
    assert low < 2.0 < 2.2 < high < 3
    assert "standard, 2 runs: from 3.1000 at step 0 to 2.1000 at step 10" in curves_alt(
        curves, metric="val_loss"
    )


def test_no_evaluation_at_all_is_said_in_the_figure() -> None:
    figure = validation_curves({"a": []}, metric="val_loss", unit="", theme="dark")
    assert "no evaluation recorded" in texts(figure)
    assert rendered(figure, "png", theme="dark").startswith(b"\x89PNG")


def test_equal_data_give_equal_bytes() -> None:
    one, two = (
        rendered(seed_differences(differences(WAVE), theme="light"), "svg", theme="light")
        for _ in range(2)
    )
    assert one == two


def test_the_alternative_text_holds_the_numbers_and_the_verdict() -> None:
    text = differences_alt(differences(WAVE, NOTHING))
    assert "wave: seeds -0.0300, -0.0400; mean -0.0350, interval -0.1000 to +0.0300" in text
    assert "undecided" in text
    assert "seeds none; no verdict" in text
