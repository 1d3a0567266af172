"""Figures of spectra show what was recorded, name it, and survive any numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import matplotlib.pyplot
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.figures.settings import FigureSettings
from cupel.figures.spectra import (
    MOST_POINTS,
    draw_spectra,
    drawn_evolution,
    drawn_spectra,
    evolution,
    spectra,
    spectra_data,
)

SVG_ONLY = FigureSettings(formats=("svg",), themes=("light",))
NAMES = {32: " ", 101: "e", 200: "é"}


def row(step=100, *, waves=4, harmonics=3, **changes):
    random = np.random.default_rng(step)
    tokens = [32, 101, 200, 5]
    amplitude = random.uniform(0.1, 0.2, (5, harmonics))
    recorded = {
        "wave_ratio": 0.5 + step / 2000,
        "frequency_quantiles": np.sort(random.uniform(0, 5, (5, waves)), axis=0).tolist(),
        "phase_histogram": [1 / 36] * 36,
        "harmonic_amplitude": amplitude[2].tolist(),
        "harmonic_quantiles": np.sort(amplitude, axis=0).tolist(),
        "tokens": tokens,
        "packets": random.normal(size=(2, 16)).tolist(),
        "interference": np.clip(random.normal(size=(4, 4)), -1, 1).tolist(),
        "temperature": [5.5, 5.7],
    } | changes
    found = {f"spectral/{key}": value for key, value in recorded.items() if value is not None}
    return {"_step": step, "_t": 0.0, "loss": 2.0, **found}


def data(count=3, **changes):
    found = spectra_data("wave-a", [row(100 * (k + 1), **changes) for k in range(count)])
    return replace(found, token_names=NAMES)


def texts(figure):
    shown = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in shown if artist.get_text()]


def test_nothing_spectral_is_no_data():
    assert spectra_data("a", []) is None
    assert spectra_data("a", [{"_step": 1, "loss": 2.0}]) is None


def test_the_last_measurement_is_drawn_exactly_as_recorded():
    panels, last = drawn_spectra(data(3)), row(300)
    assert panels["frequencies"]["quantiles"] == last["spectral/frequency_quantiles"]
    assert panels["harmonics"]["mean"] == last["spectral/harmonic_amplitude"]
    assert panels["packets"]["values"] == last["spectral/packets"]
    assert panels["interference"]["cosine"] == last["spectral/interference"]
    assert panels["phases"]["share"] == last["spectral/phase_histogram"]
    assert panels["wave_ratio"] == {"steps": [100, 200, 300], "values": [0.55, 0.6, 0.65]}


@pytest.mark.slow
def test_every_panel_is_named_with_units_and_references():
    shown = texts(spectra(data(), theme="light"))
    for text in (
        "wave-a, step 300",
        *("base frequencies of all tokens", "f (cycles)", "5–95 %", "median"),
        *("phases", "φ (rad)", "share (%)", "all phases alike (2.8 %)"),
        *("amplitudes of the harmonics", "|A|", "if 1/n", "25–75 %"),
        *("wave ratio: share of the wave embedding", "r", "step"),
        *("wave packets", "position (tokens)"),
        *("interference of packets", "cosine"),
        *("temperature of attention", "τ", "layer"),
    ):
        assert text in shown
    evolved = texts(evolution(data(), theme="dark"))
    assert "base frequencies, each wave's median of tokens" in evolved
    assert "amplitudes of the harmonics, mean" in evolved


@pytest.mark.slow
def test_tokens_are_shown_by_their_text_and_else_by_their_id():
    assert drawn_spectra(data())["interference"]["names"] == ["␣", "e", "#200", "#5"]
    named = replace(data(), token_names={32: "\n", 101: "together", 200: "$x$", 5: "\x00"})
    assert drawn_spectra(named)["interference"]["names"] == ["⏎", "toget…", "$x$", "#5"]
    assert "$x$" in texts(spectra(named, theme="light"))


@pytest.mark.slow
def test_the_interference_map_is_centred_at_zero():
    figure = spectra(data(), theme="dark")
    (image,) = [image for axes in figure.axes for image in axes.images]
    assert image.get_clim() == (-1, 1)
    assert np.asarray(image.get_array()).tolist() == row(300)["spectral/interference"]
    middle = image.get_cmap()(0.5)
    assert max(middle[:3]) < 0.2, "zero is the colour of the page"


@pytest.mark.parametrize(
    "absent, panel",
    [
        ("wave_ratio", "wave_ratio"),
        ("frequency_quantiles", "frequencies"),
        ("phase_histogram", "phases"),
        ("harmonic_amplitude", "harmonics"),
        ("packets", "packets"),
        ("interference", "interference"),
        ("temperature", "temperature"),
    ],
)
def test_what_was_not_recorded_is_not_drawn(absent, panel):
    here, whole = drawn_spectra(data(**{absent: None})), drawn_spectra(data())
    assert here.keys() == whole.keys() - {panel}


@pytest.mark.slow
def test_a_figure_has_a_panel_for_each_thing_recorded_and_no_other():
    assert len(spectra(data(), theme="light").axes) == 8  # seven, and the bar of colours
    only = data(packets=None, interference=None, temperature=None)
    assert len(spectra(only, theme="light").axes) == 4
    assert len(evolution(only, theme="light").axes) == 3


def test_one_wave_or_all_pooled_is_drawn_over_training():
    panel = drawn_spectra(data(3, waves=1))["frequencies"]
    assert (panel["over"], panel["at"]) == ("step", [100, 200, 300])
    recorded = [row(100 * k, waves=1)["spectral/frequency_quantiles"][2][0] for k in (1, 2, 3)]
    assert panel["quantiles"][2] == recorded


@pytest.mark.slow
def test_evolution_wants_two_measurements_and_follows_each_wave_and_harmonic():
    assert drawn_evolution(data(1)) == {}
    panels = drawn_evolution(data(2))
    assert panels["median_frequency"]["lines"][1] == {
        "label": "2",
        "steps": [100, 200],
        "values": [row(step)["spectral/frequency_quantiles"][2][1] for step in (100, 200)],
    }
    assert len(panels["harmonic_amplitude"]["lines"]) == 3
    many = data(2, harmonics=40)
    assert "amplitudes of the first 8 of 40 harmonics, mean" in texts(
        evolution(many, theme="light")
    )


def test_measurements_of_another_shape_are_not_mixed_in():
    found = spectra_data("a", [row(100, waves=7), row(200), row(300)])
    assert found.series["frequency_quantiles"][0].tolist() == [200, 300]
    assert found.series["wave_ratio"][0].tolist() == [100, 200, 300]


@pytest.mark.slow
def test_a_long_run_is_thinned_and_keeps_a_spike():
    rows = [row(step, wave_ratio=0.9 if step == 777 else 0.5) for step in range(1, 3000)]
    found = spectra_data("a", rows)
    panels = drawn_evolution(found)
    for panel in panels.values():
        assert sum(len(line["steps"]) for line in panel["lines"]) <= MOST_POINTS
    (ratio,) = panels["wave_ratio"]["lines"]
    assert 0.9 in ratio["values"]


def test_a_model_without_waves_gets_one_panel_of_its_first_and_last_spectrum():
    rows = [
        {
            "_step": step,
            "spectral/embedding_frequency": [0.0, 0.25, 0.5],
            "spectral/embedding_power": [step, 2.0, 1.0],
        }
        for step in (10, 20, 30)
    ]
    found = spectra_data("gpt-a", rows)
    panel = drawn_spectra(found)["embedding_power"]
    assert [(line["step"], line["power"][0]) for line in panel["lines"]] == [(10, 10), (30, 30)]
    figure = spectra(found, theme="light")
    assert len(figure.axes) == 1
    assert {"frequency (cycles a dimension)", "power (weight²)", "step 10"} <= set(texts(figure))
    assert drawn_evolution(found) == {}


@pytest.mark.slow
def test_files_are_named_by_step_and_the_json_holds_what_was_drawn(tmp_path):
    files = draw_spectra(data(3), tmp_path, step=305, settings=SVG_ONLY)
    assert [file.name for file in files] == [
        "spectra_step-000000305.json",
        "spectra_step-000000305.light.svg",
        "spectra-evolution_step-000000305.json",
        "spectra-evolution_step-000000305.light.svg",
    ]
    content = json.loads(files[0].read_text())
    assert content["panels"] == json.loads(json.dumps(drawn_spectra(data(3))))
    assert (content["step"], content["measured_at"], content["name"]) == (305, 300, "wave-a")
    evolved = json.loads(files[2].read_text())
    assert evolved["panels"].keys() == drawn_evolution(data(3)).keys()


@pytest.mark.slow
def test_equal_data_give_equal_bytes(tmp_path):
    small = data(temperature=None, harmonic_amplitude=None)
    first = draw_spectra(small, tmp_path / "a", step=300, settings=SVG_ONLY)
    second = draw_spectra(small, tmp_path / "b", step=300, settings=SVG_ONLY)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_counted_and_written_as_words(tmp_path):
    bad = data(2, wave_ratio=math.nan, temperature=[math.inf, 5.0], packets=None, interference=None)
    assert "not finite and left out: 3 numbers" in texts(spectra(bad, theme="light"))
    files = draw_spectra(bad, tmp_path, step=200, settings=SVG_ONLY)
    content = json.loads(files[0].read_text())
    assert content["panels"]["temperature"]["values"] == ["Infinity", 5.0]
    assert content["panels"]["wave_ratio"]["values"] == ["NaN", "NaN"]


NUMBER = st.floats(width=32)


@pytest.mark.slow
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 14]),
    st.lists(NUMBER, min_size=14, max_size=14),
    st.sampled_from(["light", "dark"]),
)
@settings(max_examples=12, deadline=None)
def test_any_numbers_can_be_drawn(count, width, numbers, theme):
    values = numbers[:width]
    found = data(
        count,
        wave_ratio=numbers[0],
        frequency_quantiles=[values] * 5,
        phase_histogram=numbers,
        harmonic_amplitude=values,
        harmonic_quantiles=[values] * 5,
        tokens=list(range(width)),
        packets=[values] * width,
        interference=[values] * width,
        temperature=values,
    )
    spectra(found, theme=theme)
    evolution(found, theme=theme)


@pytest.mark.slow
def test_nothing_overlaps_in_the_figures_of_a_full_measurement():
    """Titles, labels and legends lie apart, and all lie on the page."""
    for figure in (spectra(data(), theme="light"), evolution(data(), theme="light")):
        page = figure.bbox
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        for place, box in enumerate(boxes):
            assert box.x0 >= page.x0 - 1, box
            assert box.x1 <= page.x1 + 1, box
            assert box.y0 >= page.y0 - 1, box
            for other in boxes[place + 1 :]:
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                up = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert across <= 1 or up <= 1, (box, other)


@pytest.mark.slow
def test_no_pyplot_figure_is_left_behind():
    spectra(data(), theme="light")
    assert matplotlib.pyplot.get_fignums() == []
