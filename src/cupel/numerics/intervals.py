"""What a few paired differences tell: t interval, paired t test, equivalence, what n can see.

All of it assumes that differences are about normal; with skewed ones and five pairs a 95 % interval
covers about 87 %. A percentile bootstrap would cover 83 % even of normal ones (75 % with three
pairs), which is why there is none here. Needs scipy; numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from cupel.errors import MissingDependency

# Differences that vary by less than this part of the values themselves vary by rounding only.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Differences of pairs: how many, their mean and standard deviation (n − 1 in the divisor).

    `sd` is exactly 0 when the differences vary by no more than floating point rounds.
    `correlation` is Pearson's between the two sides, None where a side does not vary or n < 3:
    two points always lie on a line.
    """

    n: int
    mean: float
    sd: float
    correlation: float | None

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Pairs:
        """Of first − second, pair by pair; at least two pairs, all finite."""
        assert len(first) == len(second) >= 2, (len(first), len(second))
        one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        assert np.isfinite(one).all(), one
        assert np.isfinite(two).all(), two
        differences = one - two
        scale = float(max(np.abs(one).max(), np.abs(two).max()))
        varies = float(np.ptp(differences)) > _ROUNDING * scale
        return cls(
            n=len(one),
            mean=float(differences.mean()),
            sd=float(differences.std(ddof=1)) if varies else 0.0,
            correlation=_correlation(one, two, scale),
        )

    @property
    def standard_error(self) -> float:
        """sd / √n."""
        return self.sd / math.sqrt(self.n)


def t_interval(pairs: Pairs, *, confidence: float) -> tuple[float, float]:
    """mean ± t(1 − (1 − confidence)/2; n − 1) · sd/√n; of width 0 when sd is 0."""
    assert 0 < confidence < 1, confidence
    quantile = float(_stats().t.ppf(0.5 + confidence / 2, pairs.n - 1))
    half = quantile * pairs.standard_error
    return pairs.mean - half, pairs.mean + half


def t_test(pairs: Pairs) -> float | None:
    """p of the two-sided paired t test, t = mean / (sd/√n) with n − 1 degrees of freedom.

    None when sd is 0: t is not defined, and no spread tells chance from effect.
    """
    if pairs.sd == 0:
        return None
    t = abs(pairs.mean) / pairs.standard_error
    return float(2 * _stats().t.sf(t, pairs.n - 1))


def equivalence_interval(pairs: Pairs, *, confidence: float) -> tuple[float, float]:
    """The t interval at 1 − 2α with α = 1 − confidence.

    It lies inside ±margin exactly when two one-sided t tests at α reject both a difference below
    −margin and one above +margin (TOST; Schuirmann 1987).
    """
    return t_interval(pairs, confidence=1 - 2 * (1 - confidence))


def detectable_difference(pairs: Pairs, *, alpha: float, power: float = 0.8) -> float:
    """The true difference that a paired t test at α would find with probability `power`.

    δ·sd/√n with δ such that P(T > t(1 − α/2; n − 1)) = power, T noncentral t with n − 1 degrees
    of freedom and noncentrality δ (the other tail's share is below 1e-4 of it). It takes the sd
    of these few pairs for the true one, so with three pairs it is a rough guide.
    """
    from scipy.optimize import brentq

    assert 0 < alpha < power < 1, (alpha, power)
    stats, freedom = _stats(), pairs.n - 1
    critical = float(stats.t.ppf(1 - alpha / 2, freedom))
    # T = (Z + δ)/√(V/ν), so P(T > c) = E[Φ(δ − c·√(V/ν))]: an integral over the quantiles of V.
    # scipy's own noncentral t gives NaN far out in its tails.
    nodes, weights = _nodes()
    cuts = critical * np.sqrt(stats.chi2.ppf((nodes + 1) / 2, freedom) / freedom)

    def missing(delta: float) -> float:
        return float(weights @ stats.norm.cdf(delta - cuts)) / 2 - power

    delta = float(brentq(missing, 0.0, 10 * critical + 10, xtol=1e-9))
    return delta * pairs.standard_error


@cache
def _nodes() -> tuple[Any, Any]:
    """Of an integral over (−1, 1) by Gauss–Legendre: finding them takes 15 ms."""
    return np.polynomial.legendre.leggauss(120)


def adjusted(p_values: Sequence[float], *, method: str) -> list[float]:
    """p values adjusted for being one family: `none`, `holm` or `bonferroni`, by statsmodels."""
    if method == "none" or not p_values:
        return list(p_values)
    try:
        from statsmodels.stats.multitest import multipletests
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            "statsmodels", extra="analysis", purpose=f"the correction '{method}'"
        ) from missing
    return [float(p) for p in multipletests(list(p_values), method=method)[1]]


def _correlation(one: Any, two: Any, scale: float) -> float | None:
    if len(one) < 3 or min(np.ptp(one), np.ptp(two)) <= _ROUNDING * scale:
        return None
    # Divided by their ranges first: squares of very small or large numbers leave float64.
    one, two = ((side - side.mean()) / np.ptp(side) for side in (one, two))
    return float(np.clip(np.corrcoef(one, two)[0, 1], -1, 1))


def _stats() -> ModuleType:
    try:
        from scipy import stats
    except ModuleNotFoundError as missing:
        raise MissingDependency("scipy", extra="analysis", purpose="a t interval") from missing
    found: ModuleType = stats
    return found
