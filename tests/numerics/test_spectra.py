"""The diagnostics on signals whose answer is known by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings
from cupel.numerics.spectra import bounded, fringes, harmonic_peaks

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def tones(count, *parts, rate=1.0):
    """Σ amplitude · sin(2π·frequency·t + phase), t in samples / rate."""
    t = np.arange(count) / rate
    return sum(a * np.sin(2 * np.pi * f * t + phase) for a, f, phase in parts)


@given(st.floats(5, 60), st.lists(st.floats(0.2, 1.0), min_size=3, max_size=3), st.floats(0.5, 1e3))
@settings(deadline=None)
def test_peaks_are_found_at_the_harmonics_of_any_frequency_and_rate(bins, amplitudes, rate):
    f = bins * rate / 512
    parts = [(a, (h + 1) * f, h) for h, a in enumerate(amplitudes)]
    peaks = harmonic_peaks(tones(512, *parts, rate=rate), f, rate)
    assert peaks.present.all()
    assert peaks.frequencies == pytest.approx([f, 2 * f, 3 * f])


def test_heights_stand_in_the_ratio_of_the_amplitudes():
    noise = np.random.default_rng(0).normal(0, 0.01, 1024)
    signal = tones(1024, (1.0, 20 / 1024, 0), (0.5, 40 / 1024, 0), (0.25, 60 / 1024, 0)) + noise
    heights = harmonic_peaks(signal, 20 / 1024, 1.0).heights
    # Noise of 0.01 gives each bin about 0.01·√(3n/8) ≈ 0.2 beside the smallest peak's n/16 = 64.
    assert heights / heights[0] == pytest.approx([1, 0.5, 0.25], abs=0.01)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_harmonic_that_is_not_there_is_not_found(missing):
    parts = [(1.0, h * 25 / 512, 0.3) for h in (1, 2, 3) if h != missing]
    present = harmonic_peaks(tones(512, *parts), 25 / 512, 1.0).present
    assert present.tolist() == [h != missing for h in (1, 2, 3)]


def test_the_slope_of_a_stronger_neighbour_is_no_peak():
    # Off a bin, Hann's slope at two bins' distance is a hundred times the median and more.
    f = 24 / 512
    assert not harmonic_peaks(tones(512, (1.0, 26.5 / 512, 0)), f, 1.0).present[0]


def test_a_harmonic_above_half_the_rate_is_not_measured():
    peaks = harmonic_peaks(tones(512, (1.0, 0.2, 0)), 0.2, 1.0)
    assert peaks.present.tolist() == [True, False, False]
    assert np.isnan(peaks.heights).tolist() == [False, False, True]


@given(st.floats(-1e300, 1e300), st.integers(64, 200))
def test_a_constant_has_no_peaks_and_no_fringes(level, count):
    assert not harmonic_peaks(np.full(count, level), 0.1, 1.0).present.any()
    found = fringes(np.full(count, level))
    assert (math.isnan(found.spacing), found.contrast) == (True, 0.0)


def test_white_noise_has_neither_peaks_nor_clear_fringes():
    random = np.random.default_rng(0)
    for _ in range(50):
        noise = random.normal(size=512)
        # A bin exceeds ten medians once in 10^30 times: its square is exponentially distributed.
        assert not harmonic_peaks(noise, 20 / 512, 1.0).present.any()
        assert fringes(noise).contrast < 0.3  # the largest of 256 r's at 1/√256 each


@given(st.floats(8.0, 40.0), st.floats(0, 2 * math.pi), st.floats(1e-3, 1e3), st.floats(-5, 5))
@settings(deadline=None)
def test_the_fringes_of_a_tone_are_its_period_apart_and_clear(period, phase, scale, mean):
    signal = scale * (mean + tones(640, (1.0, 1 / period, phase)))
    found = fringes(signal)
    # The mean of a part of a period remains, and a parabola is not a cosine. With eight samples a
    # period the lags miss an extreme by half a sample at most: cos(π/8) = 0.92.
    assert found.spacing == pytest.approx(period, rel=0.02)
    assert found.contrast > 0.9
    assert found.autocorrelation[0] == 1


def test_fringes_of_harmonics_are_the_fundamentals():
    signal = tones(800, (1.0, 1 / 40, 0), (0.8, 2 / 40, 1), (0.6, 3 / 40, 2))
    assert fringes(signal).spacing == pytest.approx(40, rel=0.01)


def test_the_autocorrelation_is_the_plain_sum():
    x = np.random.default_rng(1).normal(size=31)
    y = x - x.mean()
    plain = [np.mean(y[: len(y) - k] * y[k:]) / np.mean(y * y) for k in range(16)]
    assert fringes(x).autocorrelation == pytest.approx(np.clip(plain, -1, 1), abs=1e-12)


def test_a_ramp_has_no_fringes():
    assert math.isnan(fringes(np.arange(50.0)).spacing)


@given(st.lists(FINITE, min_size=4, max_size=80))
def test_contrast_is_a_share_and_a_spacing_lies_within_the_lags(values):
    found = fringes(values)
    assert 0 <= found.contrast <= 1
    assert math.isnan(found.spacing) or 0 < found.spacing < len(values) / 2 + 1


@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1, max_size=9))
def test_a_trajectory_is_bounded_by_exactly_its_growth(states):
    norms = np.linalg.norm(states, axis=1)
    if norms[0] > 0:
        growth = norms.max() / norms[0]
        assert bounded(states, growth * 1.001)
        assert not bounded(states, growth * 0.999)
    else:
        assert bounded(states, 1e9) == (not norms.any())


@given(st.floats(1e-3, 1e300), st.floats(0, 2 * math.pi))
def test_a_rotation_is_bounded_and_a_spiral_is_not(radius, angle):
    turns = np.exp(1j * angle * np.arange(200))
    growth = np.exp(0.05 * np.arange(200))[:, None]
    circle = radius * np.stack([turns.real, turns.imag], axis=1)
    assert bounded(circle, 1.01)
    with np.errstate(over="ignore"):
        assert not bounded(circle * growth, 100)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_not_finite_is_not_bounded(bad):
    assert not bounded([1.0, bad, 1.0], 1e300)


def test_a_signal_too_short_for_its_frequency_is_the_callers_mistake():
    with pytest.raises(AssertionError):
        harmonic_peaks(np.zeros(32), 3 / 32, 1.0)


def test_a_wave_packet_of_harmonics_has_their_peaks_its_fringes_and_bounds():
    torch.manual_seed(0)
    sizes = {"layers": 1, "heads": 2, "width": 6, "vocabulary": 5, "block": 512}
    model = WaveGPT(WaveModelSettings(embedding="physics", attention="physics", **sizes))
    packet = model.wave_packets(torch.tensor([0]), torch.arange(512))[0].numpy()
    f = 1 / (2 * math.pi)  # the first rank turns by one radian a position
    peaks = harmonic_peaks(packet, f, 1.0)
    assert peaks.present.all()
    # Six samples a period: a parabola through three of them is off by 2 % at most.
    assert fringes(packet).spacing == pytest.approx(1 / f, rel=0.02)
    assert bounded(packet, (1 + 1 / 2 + 1 / 3) / abs(packet[0]))
