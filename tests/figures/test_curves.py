import math

import matplotlib.pyplot
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.figures.curves import (
    MOST_POINTS,
    CurveData,
    _log_ticks,
    drawn_lines,
    running_median,
    thin,
    training_curves,
)
from cupel.figures.style import rendered

ANY_FLOAT = st.floats(width=32)


def curve(count=300, **changes):
    random = np.random.default_rng(0)
    steps = np.arange(1, count + 1)
    fields = {
        "name": "gpt-tiny",
        "steps": steps,
        "loss": 1.6 + 3.9 * np.exp(-steps / 90) + random.normal(0, 0.05, count),
        "val_steps": steps[49::50],
        "val_loss": 1.7 + 3.9 * np.exp(-steps[49::50] / 90),
        "lr": np.linspace(1e-3, 1e-4, count),
        "grad_norm": np.exp(random.normal(0, 0.3, count)),
        "references": {"unigram entropy": 3.31, "bigram entropy": 2.45},
    }
    return CurveData(**(fields | changes))


def texts(figure):
    """Every piece of text that the figure shows."""
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in found if artist.get_text()]


@given(st.lists(ANY_FLOAT, max_size=400), st.integers(8, 60))
@settings(deadline=None)
def test_thinning_keeps_the_extremes_the_ends_and_a_value_that_is_not_finite(values, limit):
    values = np.array(values)
    kept = thin(values, limit=limit)
    assert len(kept) <= limit or len(values) <= limit
    assert np.all(np.diff(kept) > 0)
    if not len(values):
        return
    assert {kept[0], kept[-1]} == {0, len(values) - 1}
    finite = values[np.isfinite(values)]
    if len(finite):
        assert finite.min() in values[kept]
        assert finite.max() in values[kept]
    if len(finite) < len(values):
        assert not np.isfinite(values[kept]).all()


@given(st.integers(5_000, 50_000), st.data())
@settings(max_examples=20, deadline=None)
@pytest.mark.slow
def test_a_single_spike_survives_anywhere_in_a_long_run(count, data):
    place = data.draw(st.integers(0, count - 1))
    loss = np.ones(count)
    loss[place] = 7.0
    line = drawn_lines(CurveData("spike", np.arange(count), loss))["loss"]
    assert len(line.values) <= MOST_POINTS
    assert line.steps[line.values == 7.0].tolist() == [place]
    assert line.points == count


@given(st.lists(ANY_FLOAT, min_size=1, max_size=60), st.integers(0, 10).map(lambda k: 2 * k + 1))
@settings(deadline=None)
def test_the_running_median_is_the_median_of_the_finite_neighbours(values, window):
    values = np.array(values)
    centres, medians = running_median(values, window=window)
    assert centres.tolist() == list(range(len(values)))
    for centre, median in zip(centres, medians, strict=True):
        half = min(window // 2, centre)
        near = [v for v in values[centre - half : centre + half + 1] if math.isfinite(v)]
        assert median == np.median(near) if near else np.isnan(median)


def test_one_enormous_value_does_not_move_the_smoothed_line():
    loss = np.ones(1000)
    loss[500] = 1e30
    assert np.all(drawn_lines(CurveData("x", np.arange(1000), loss))["loss_smooth"].values == 1)


@pytest.mark.slow
def test_the_legend_states_how_the_line_was_smoothed():
    assert "train, median of 7 points" in texts(training_curves(curve(300), theme="light"))
    assert not any("median" in text for text in texts(training_curves(curve(49), theme="light")))


def test_title_axes_references_and_resumes_are_named():
    data = curve(name="run $1_x", unit="byte", resumed_at=[100, 200])
    shown = texts(training_curves(data, theme="dark"))
    for text in (
        "run $1_x",
        "step",
        "loss (nats/byte)",
        "bits/byte",
        "unigram entropy 3.31",
        "bigram entropy 2.45",
        "session resumed (2×)",
        "learning rate",
        "gradient norm (log)",
    ):
        assert text in shown


def test_the_right_hand_axis_is_the_left_one_in_bits():
    figure = training_curves(curve(), theme="light")
    figure.draw_without_rendering()
    left = figure.axes[0]
    (right,) = left.child_axes
    assert np.array(right.get_ylim()) * math.log(2) == pytest.approx(left.get_ylim())


def test_panels_are_there_only_for_what_was_recorded():
    assert len(training_curves(curve(), theme="light").axes) == 3
    assert len(training_curves(curve(lr=None), theme="light").axes) == 2
    assert len(training_curves(curve(lr=None, grad_norm=None), theme="light").axes) == 1


def test_a_value_that_is_not_finite_is_a_tick_at_the_edge_and_a_gap_in_the_line():
    loss = curve().loss
    loss[[10, 11, 200]] = [math.nan, math.inf, -math.inf]
    figure = training_curves(curve(loss=loss), theme="light")
    axes = figure.axes[0]
    assert "not finite: 3 points" in texts(figure)
    ticks = [line for line in axes.get_lines() if line.get_marker() == "|"]
    assert [x for line in ticks for x in line.get_xdata()] == [11, 12, 201]
    assert {y for line in ticks for y in line.get_ydata()} == {1.0}
    raw = next(line for line in axes.get_lines() if line.get_label() == "train")
    assert np.isnan(np.asarray(raw.get_ydata())[[10, 11, 200]]).all()
    assert axes.get_ylim()[0] > 1, "nothing may be drawn near zero"


def test_an_explosion_does_not_flatten_the_curve_and_is_marked():
    loss = curve(1500).loss
    loss[700] = 1e10
    figure = training_curves(curve(1500, loss=loss), theme="light")
    axes = figure.axes[0]
    assert "above the axis, up to 1e+10" in texts(figure)
    assert axes.get_ylim()[1] < 8
    (marks,) = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert list(marks.get_xdata()) == [701]


def test_an_ordinary_run_is_shown_whole():
    data = curve(1500)
    axes = training_curves(data, theme="light").axes[0]
    low, high = axes.get_ylim()
    assert low < data.loss.min() < data.loss.max() < high


def test_a_finite_value_alone_between_gaps_is_a_dot():
    data = CurveData("x", np.arange(3), np.array([math.nan, 2.0, math.nan]))
    axes = training_curves(data, theme="light").axes[0]
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [list(dot.get_ydata()) for dot in dots] == [[2.0]]


def test_a_gradient_norm_of_zero_is_shown_on_a_linear_axis():
    norm = curve().grad_norm
    norm[5] = 0.0
    axes = training_curves(curve(grad_norm=norm), theme="light").axes[-1]
    assert axes.get_yscale() == "linear"
    assert axes.get_title(loc="left") == "gradient norm"


@given(st.floats(1e-12, 1e12), st.floats(1.2, 1e9))
def test_log_ticks_are_few_and_inside(low, factor):
    ticks = _log_ticks(low, low * factor)
    assert len(ticks) <= 3
    assert all(low <= tick <= low * factor for tick in ticks)
    assert ticks or factor < 2.6, "1, 2 and 5 are never more than 2.5 apart"


@given(st.lists(ANY_FLOAT, max_size=4), st.lists(ANY_FLOAT, max_size=3))
@settings(max_examples=8, deadline=None)
@pytest.mark.slow
def test_any_few_values_can_be_drawn(loss, val):
    data = CurveData(
        "x",
        np.arange(len(loss)),
        np.array(loss),
        val_steps=np.arange(len(val)),
        val_loss=np.array(val),
        lr=np.array(loss),
        grad_norm=np.array(loss),
    )
    assert rendered(training_curves(data, theme="dark"), "svg", theme="dark")


def test_no_step_says_so():
    nothing = np.empty(0)
    assert "no steps recorded" in texts(
        training_curves(CurveData("x", nothing, nothing), theme="light")
    )


def test_no_pyplot_figure_is_left_behind():
    training_curves(curve(), theme="light")
    assert matplotlib.pyplot.get_fignums() == []


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(AssertionError):
        CurveData("x", np.arange(3), np.arange(2))
