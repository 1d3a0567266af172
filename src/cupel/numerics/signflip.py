"""An exact test of paired differences: `sign_flip_test`, over all 2ⁿ assignments of signs.

It assumes that a difference is as likely as its negative when nothing differs, and no distribution
(Fisher 1935). The smallest p that n pairs can give is 2/2ⁿ.
Numbers in, numbers out; no scipy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_PAIRS = 40  # 2²⁰ sums of each half: 16 MB and a tenth of a second
_ROUNDING = 8 * float(np.finfo(np.float64).eps)


def sign_flip_test(differences: Sequence[float]) -> float:
    """The two-sided p: the part of all assignments whose sum is as far from 0 as the one found.

    Sums that differ by rounding count as equal, which never makes p smaller. Sums of one half of
    the pairs are looked up among those of the other half: 2^(n/2) steps, not 2ⁿ.
    """
    values = np.abs(np.asarray(differences, dtype=float))
    n = len(values)
    assert 1 <= n <= MOST_PAIRS, n
    assert np.isfinite(values).all(), differences
    if not (scale := float(values.max())):
        return 1.0
    values = values / scale
    found = abs(float(np.asarray(differences, dtype=float).sum())) / scale
    # What is equal by arithmetic differs by what n additions round.
    bound = found - _ROUNDING * n * float(values.sum())
    if bound <= 0:
        return 1.0
    one, two = _sums(values[: n // 2]), np.sort(_sums(values[n // 2 :]))
    above = len(two) * len(one) - int(np.searchsorted(two, bound - one, side="left").sum())
    # The sums are symmetric around 0, and 0 itself is below the bound.
    return float(2 * above / 2**n)


def _sums(values: np.ndarray) -> np.ndarray:
    """The sum of the values under every assignment of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums
