"""Does a signal behave like a wave? Peaks at the harmonics, fringes, bounded trajectories.

Each diagnostic is a plain measurement of one array with one threshold that the caller may change;
none of them is a statistical test, and a signal that passes may still be something else. All work
in float64. A value that is not finite is the caller's to find beforehand, except in `bounded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class HarmonicPeaks:
    """Heights at f, 2f, 3f …; NaN for a harmonic at or above half the sampling rate."""

    frequencies: Numbers
    heights: Numbers  # relative to the median magnitude of the spectrum
    present: NDArray[np.bool_]


def harmonic_peaks(
    signal: ArrayLike, frequency: float, rate: float, *, harmonics: int = 3, level: float = 10.0
) -> HarmonicPeaks:
    """Whether the spectrum of a signal has peaks at `frequency` and its multiples.

    With the mean removed and a Hann window w, S_k = |Σ_t w_t·x_t·exp(−2πi·k·t/n)|. The height at
    h·f is max S_k over the bins within one of n·h·f/rate, divided by the median of all S_k. A peak
    is present where the height is at least `level`, and S_k there exceeds S at three bins to
    either side, so that the slope of a stronger neighbour does not count.

    `frequency` and `rate` share a unit (cycles a sample, when `rate` is 1). The fundamental must
    lie four bins above zero: shorter signals do not tell the harmonics apart.
    """
    x = np.asarray(signal, dtype=np.float64)
    assert x.ndim == 1, x.shape
    assert np.isfinite(x).all(), "the signal holds values that are not finite"
    assert frequency * len(x) >= 4 * rate, (frequency, rate, len(x))
    assert harmonics >= 1, harmonics
    spectrum = np.abs(np.fft.rfft((x - x.mean()) * _hann(len(x))))
    # A pure tone has a median of rounding errors, and a constant signal nothing else.
    floor = max(float(np.median(spectrum)), 4 * _EPS * float(np.abs(x).sum()))
    frequencies = frequency * np.arange(1, harmonics + 1, dtype=np.float64)
    heights = np.full(harmonics, np.nan)
    present = np.zeros(harmonics, dtype=np.bool_)
    for place, multiple in enumerate(frequencies):
        if 2 * multiple >= rate:
            continue
        height, slopes = _peak(spectrum, round(len(x) * multiple / rate))
        heights[place] = height / floor if floor else 0.0
        present[place] = heights[place] >= level and height > slopes
    return HarmonicPeaks(frequencies, heights, present)


def _hann(count: int) -> Numbers:
    """Periodic: a tone on a bin leaks into the two bins beside it and no further."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)


def _peak(spectrum: Numbers, centre: int) -> tuple[float, float]:
    """The largest magnitude within a bin of `centre`, and the larger of those three bins off."""
    top = float(spectrum[max(0, centre - 1) : centre + 2].max())
    sides = [spectrum[k] for k in (centre - 3, centre + 3) if 0 <= k < len(spectrum)]
    return top, float(max(sides))


@dataclass(frozen=True, slots=True, eq=False)
class Fringes:
    """`spacing` is in samples, NaN without fringes; `contrast` lies in 0 … 1."""

    autocorrelation: Numbers  # of lags 0 … n/2
    spacing: float
    contrast: float


def fringes(signal: ArrayLike) -> Fringes:
    """The fringes in a signal's autocorrelation: how far apart, and how clear.

    With the mean removed, r_k = [Σ_t x_t·x_{t+k} / (n−k)] / [Σ_t x_t² / n], for k up to n/2 (beyond
    it too few products are averaged), clipped to −1 … 1. The spacing is the lag of the first local
    maximum after r's first zero crossing that reaches nine tenths of the highest one, refined by a
    parabola; a period of fewer than eight samples may come out as a multiple. The contrast is
    Michelson's (I_max − I_min)/(I_max + I_min) of I = 1 + r, with I_max at that fringe and I_min
    the lowest before it: 1 for a pure tone, 0 for a constant; white noise of n samples has about
    3/√n.
    """
    x = np.asarray(signal, dtype=np.float64)
    assert x.ndim == 1, x.shape
    assert len(x) >= 4, x.shape
    assert np.isfinite(x).all(), "the signal holds values that are not finite"
    r = _autocorrelation(x)
    below = np.flatnonzero(r < 0)
    if not len(below):
        return Fringes(r, math.nan, 0.0)
    inner = np.arange(max(1, below[0]), len(r) - 1)
    peaks = inner[(r[inner] >= r[inner - 1]) & (r[inner] > r[inner + 1])]
    if not len(peaks) or r[peaks].max() <= 0:
        return Fringes(r, math.nan, 0.0)
    lag = int(peaks[r[peaks] >= 0.9 * r[peaks].max()][0])
    low, high = float(r[:lag].min()), float(r[lag])
    return Fringes(r, lag + _vertex(r[lag - 1 : lag + 2]), (high - low) / (2 + high + low))


def _autocorrelation(x: Numbers) -> Numbers:
    centred = x - x.mean()
    count = len(x)
    if np.abs(centred).max() <= 4 * _EPS * np.abs(x).max():  # constant but for rounding
        return np.zeros(count // 2 + 1)
    centred /= np.abs(centred).max()
    # Padded to twice the length, the circular sums of the FFT are the sums that we want.
    power = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    sums = np.fft.irfft(power, 2 * count)[: count // 2 + 1]
    means = sums / (count - np.arange(len(sums)))
    clipped: Numbers = np.clip(means / means[0], -1.0, 1.0)
    return clipped


def _vertex(three: Numbers) -> float:
    """Where the parabola through three neighbours has its top, from the middle one."""
    left, middle, right = (float(value) for value in three)
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if bend else 0.0


def bounded(trajectory: ArrayLike, factor: float = 10.0) -> bool:
    """Whether no state of a trajectory grows beyond `factor` times the first.

    For states x_0 … x_T of any shape, one along the first axis: all are finite, and
    max_t ‖x_t‖₂ ≤ factor·‖x_0‖₂. From a first state of zero, only zeros are bounded.
    """
    states = np.asarray(trajectory, dtype=np.float64)
    assert states.ndim >= 1, states.shape
    assert len(states) >= 1, states.shape
    assert factor > 0, factor
    largest = float(np.abs(states).max(initial=0.0))
    if not math.isfinite(largest):
        return False
    # Scaled first, since the square of a large finite number is not finite.
    scaled = states.reshape(len(states), -1) / (largest or 1.0)
    norms = np.linalg.norm(scaled, axis=1)
    return bool(norms.max() <= factor * norms[0])
