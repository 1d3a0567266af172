"""A card says what its numbers allow and nothing more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cupel.analysis.comparison import Card, Plan, compare, compare_points

BASE = {1: 2.00, 2: 2.10, 3: 2.05, 4: 2.02}
VALUE = st.floats(-50, 50, allow_nan=False) | st.sampled_from([math.nan, math.inf, -math.inf])
RUNS = st.dictionaries(st.integers(1, 6), VALUE, max_size=6)


def plan(**changes: Any) -> Plan:
    given = {"baseline": "base", "arms": ("base", "wave"), "seeds": (1, 2, 3, 4)}
    return Plan(**{**given, **changes})


def card(wave: dict[int, float], base: dict[int, float] = BASE, **changes: Any) -> Card:
    (made,) = compare({"base": base, "wave": wave}, plan(**changes))
    return made


def shifted(by: float, noise: float = 0.01) -> dict[int, float]:
    signs = {1: 1, 2: -1, 3: 1, 4: -1}
    return {seed: value + by + noise * signs[seed] for seed, value in BASE.items()}


def test_a_clear_difference_gets_its_verdict_by_which_values_are_better() -> None:
    assert card(shifted(-0.2)).verdict == "better"
    assert card(shifted(+0.2)).verdict == "worse"
    assert card(shifted(-0.2), better="higher").verdict == "worse"
    assert card(shifted(+0.2), better="higher").verdict == "better"


def test_an_interval_that_includes_zero_is_undecided_and_never_called_equal() -> None:
    made = card(shifted(0.001, noise=0.05))
    assert made.verdict == "undecided"
    assert made.interval is not None
    assert made.interval[0] < 0 < made.interval[1]
    assert made.reason == "the interval includes 0"


def test_equivalent_needs_a_declared_margin_and_then_comes_before_better() -> None:
    small = shifted(-0.03, noise=0.001)
    assert card(small).verdict == "better"
    assert card(small, margin=0.05).verdict == "equivalent"
    assert card(small, margin=0.03).verdict == "better"


def test_one_run_an_arm_gets_a_difference_but_no_verdict() -> None:
    made = card({1: 1.5}, {1: 2.0}, seeds=(1,), margin=1.0)
    assert (made.verdict, made.interval, made.p) == (None, None, None)
    assert made.mean == -0.5
    assert made.reason == "one run an arm: nothing tells chance from effect"
    assert card({1: 1.5}).reason == "one pair of runs: nothing tells chance from effect"
    assert card({}).mean is None


def test_seeds_that_are_missing_or_diverged_are_named_on_their_side_and_not_paired() -> None:
    wave = {1: 1.8, 2: math.nan, 3: 1.85, 4: 1.83}
    base = {1: 2.0, 2: 2.1, 4: 2.03}
    made = card(wave, base)
    assert sorted(made.differences) == [1, 4]
    assert (made.missing_arm, made.missing_baseline) == ((), (3,))
    assert (made.diverged_arm, made.diverged_baseline) == ((2,), ())
    assert not made.complete
    assert card(shifted(0.1)).complete


def test_equal_differences_in_all_seeds_are_equivalent_by_a_margin_and_else_undecided() -> None:
    for by in (0.0, -0.25):
        made = card(shifted(by, noise=0))
        assert made.verdict == "undecided"
        assert (made.p, made.detectable) == (None, None)
        assert made.reason.startswith("all seeds differ by the same amount")
        assert card(shifted(by, noise=0), margin=0.3).verdict == "equivalent"


@pytest.mark.slow
def test_with_tests_the_adjusted_p_decides_and_the_interval_stays_as_it_was() -> None:
    values = {"base": BASE, "wave": shifted(-0.02), "other": shifted(0.0, 0.05)}
    how = {"arms": ("base", "wave", "other"), "kind": "tests"}
    alone = compare(values, plan(**how))[0]
    holm = compare(values, plan(**how, correction="holm"))[0]
    assert alone.p is not None
    assert 0.025 < alone.p < 0.05
    assert (alone.p_adjusted, alone.verdict) == (alone.p, "better")
    assert holm.p_adjusted == pytest.approx(2 * alone.p)
    assert holm.verdict == "undecided"
    assert holm.interval == alone.interval
    assert not holm.simultaneous


def test_an_exact_test_decides_by_the_signs_and_leaves_the_interval_as_it_was() -> None:
    seeds = (1, 2, 3, 4, 5, 6)
    base = dict.fromkeys(seeds, 1.0)
    wave = {seed: 1.0 - 0.1 * seed for seed in seeds}
    made = card(wave, base, seeds=seeds, kind="exact")
    assert (made.p, made.verdict) == (2 / 2**6, "better")
    assert made.interval == card(wave, base, seeds=seeds).interval
    assert made.reason == "p is at most 0.05"
    outlier = {**wave, 6: 50.0}  # one seed against five: no size of it can decide
    assert card(outlier, base, seeds=seeds, kind="exact").verdict == "undecided"


@pytest.mark.slow
def test_an_exact_p_of_alpha_itself_rejects_and_corrections_hold_for_exact_tests() -> None:
    seeds = (1, 2, 3, 4, 5)
    base = dict.fromkeys(seeds, 1.0)
    wave = {seed: 1.0 + 0.1 * seed for seed in seeds}
    how = {"seeds": seeds, "kind": "exact", "confidence": 1 - 2 / 2**5}
    assert card(wave, base, **how).verdict == "worse"
    both = {"base": base, "wave": wave, "other": wave}
    for correction in ("holm", "bonferroni"):
        made = compare(both, plan(**how, arms=("base", "wave", "other"), correction=correction))[0]
        assert made.p_adjusted == 2 * 2 / 2**5
        assert made.verdict == "undecided"
        assert made.reason == f"p after {correction.capitalize()}'s correction is above 0.0625"
        assert made.simultaneous == (correction == "bonferroni")


def test_equal_differences_in_all_seeds_have_no_exact_p_either() -> None:
    made = card(shifted(-0.25, noise=0), kind="exact")
    assert (made.p, made.verdict) == (None, "undecided")
    assert card(shifted(-0.25, noise=0), kind="exact", margin=0.3).verdict == "equivalent"


def test_bonferroni_widens_the_interval_so_that_it_agrees_with_the_adjusted_p() -> None:
    values = {"base": BASE, "wave": shifted(-0.02), "other": shifted(0.0, 0.05)}
    how = {"arms": ("base", "wave", "other"), "kind": "tests"}
    plain = compare(values, plan(**how))[0]
    made = compare(values, plan(**how, correction="bonferroni"))[0]
    assert made.simultaneous
    assert made.confidence == pytest.approx(0.975)
    assert made.interval is not None
    assert plain.interval is not None
    assert made.interval[0] < plain.interval[0] < plain.interval[1] < 0 < made.interval[1]
    assert made.verdict == "undecided"


@pytest.mark.slow
def test_a_family_does_not_shrink_when_runs_fail() -> None:
    arms = ("base", "wave", "failed")
    values = {"base": BASE, "wave": shifted(-0.02), "failed": {}}
    made = compare(values, plan(arms=arms, kind="tests", correction="holm"))[0]
    assert made.p is not None
    assert made.p_adjusted == pytest.approx(2 * made.p)
    assert made.comparisons == 2


def test_every_point_of_a_grid_has_its_cards_in_one_family() -> None:
    points = {
        "lr=0.1": {"base": BASE, "wave": shifted(-0.2)},
        "lr=1": {"base": BASE, "wave": shifted(0.2)},
    }
    cards = compare_points(points, plan(kind="tests", correction="bonferroni"))
    assert [(c.point, c.verdict) for c in cards] == [("lr=0.1", "better"), ("lr=1", "worse")]
    assert {c.comparisons for c in cards} == {2}


@given(RUNS, RUNS, st.none() | st.floats(0.01, 10), st.sampled_from(["interval", "tests"]))
@settings(deadline=None)
def test_whatever_the_values_a_verdict_follows_from_the_numbers_of_its_card(
    wave: dict[int, float], base: dict[int, float], margin: float | None, kind: str
) -> None:
    made = card(wave, base, seeds=(1, 2, 3, 4, 5, 6), margin=margin, kind=kind)
    finite = {s for s in wave if s in base and math.isfinite(wave[s]) and math.isfinite(base[s])}
    assert set(made.differences) == finite
    named = set(made.missing_arm) | set(made.diverged_arm)
    named |= set(made.missing_baseline) | set(made.diverged_baseline)
    assert named | finite == {1, 2, 3, 4, 5, 6}
    assert made.reason
    if made.n < 2:
        assert made.verdict is None
        return
    assert made.interval is not None
    assert made.narrow is not None
    low, high = made.interval
    match made.verdict:
        case "better":
            assert high < 0
        case "worse":
            assert low > 0
        case "equivalent":
            assert margin is not None
            assert -margin < made.narrow[0] <= made.narrow[1] < margin
        case _:
            assert made.sd == 0 or low <= 0 <= high


@given(st.dictionaries(st.integers(1, 6), st.floats(-5, 5), min_size=2), st.floats(-2, 2))
@settings(deadline=None)
@pytest.mark.slow
def test_swapping_arm_and_baseline_swaps_the_verdict(base: dict[int, float], shift: float) -> None:
    random = np.random.default_rng(3)
    wave = {seed: value + shift + random.normal(0, 0.3) for seed, value in base.items()}
    assume(abs(shift) > 0)
    there = card(wave, base, seeds=tuple(range(1, 7)))
    back = card(base, wave, seeds=tuple(range(1, 7)))
    mirrored = {"better": "worse", "worse": "better"}
    assert back.verdict == mirrored.get(str(there.verdict), there.verdict)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
@pytest.mark.slow
def test_equivalence_is_corrected_like_the_tests_beside_it(correction: str) -> None:
    values = {"base": BASE, "wave": shifted(0.0, 0.02), "other": shifted(0.3, 0.05)}
    how = {"arms": ("base", "wave", "other"), "kind": "tests"}
    alone = compare(values, plan(**how))[0]
    assert alone.narrow is not None
    margin = 1.01 * max(map(abs, alone.narrow))  # just wide enough for the interval at 1 − 2α
    assert compare(values, plan(**how, margin=margin))[0].verdict == "equivalent"
    made = compare(values, plan(**how, margin=margin, correction=correction))[0]
    assert made.narrow is not None
    assert made.narrow[1] - made.narrow[0] > alone.narrow[1] - alone.narrow[0]
    assert made.verdict != "equivalent"
