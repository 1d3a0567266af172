"""A family of tests that cannot reject is refused before it is begun, with what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.analysis.comparison import compare
from cupel.errors import UsageError
from cupel.numerics.signflip import MOST_PAIRS
from cupel.studies import power
from cupel.studies.outcome import plan_of
from cupel.studies.power import check_plan, check_power, pairs_of
from cupel.studies.settings import StudySettings
from plans import Plans
from planted import Arm, plant

ARMS = "arms: {plain: {}, a: {dropout: 0.1}, b: {dropout: 0.2}, c: {dropout: 0.3}}"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def study(seeds: int, **compare: Any) -> StudySettings:
    arms: dict[str, dict[str, Any]] = {"plain": {}, "drop": {}}
    return StudySettings(question="?", arms=arms, seeds=tuple(range(seeds)), compare=compare)


def test_five_seeds_and_three_exact_tests_under_holm_are_refused_and_seven_seeds_can(
    plan: Plans,
) -> None:
    compare = "compare: {kind: exact, correction: holm}\n"
    with pytest.raises(UsageError) as refused:
        check_plan(plan(compare + "seeds: [1, 2, 3, 4, 5]\n", arms=ARMS))
    assert str(refused.value) == (
        "study.compare: 3 exact paired tests under Holm of 5 pairs cannot reject, since no p is "
        "below 2/2^5 = 0.0625, and the first must be at most α/3 = 0.01667; 7 seeds can, type "
        "study.seeds=[1, 2, 3, 4, 5, 6, 7]"
    )
    found = check_plan(plan(compare + "seeds: [1, 2, 3, 4, 5, 6, 7]\n", arms=ARMS))
    assert (found.comparisons, found.needed, found.able) == (3, 7, 3)
    assert found.smallest_p == 3 * 2 / 2**7
    assert str(found).endswith("; each pair is needed, so a lost run leaves nothing decided")


@given(
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from(["none", "holm", "bonferroni"]),
    st.sampled_from([0.75, 0.9, 0.95, 0.99]),
)
@settings(deadline=None)
@pytest.mark.slow
def test_what_is_refused_is_what_the_clearest_result_could_not_decide(
    seeds: int,
    others: int,
    correction: str,
    confidence: float,
) -> None:
    # All seeds agree on every arm, and no two differ alike: a smaller p there is not.
    values = {seed: 1.0 + seed for seed in range(seeds)}
    arms = {f"arm{n}": Arm({seed: 2.0 * v for seed, v in values.items()}) for n in range(others)}
    declared = {"kind": "exact", "correction": correction, "confidence": confidence}
    declared_study = StudySettings(
        question="?", arms={"base": {}, **{n: {} for n in arms}}, seeds=tuple(values),
        compare=declared,
    )  # fmt: skip
    manifest = _Declared(declared_study)
    cards = compare(
        {"base": values, **{name: arm.values for name, arm in arms.items()}},
        plan_of(manifest),  # type: ignore[arg-type]
    )
    decided = [card.verdict == "worse" for card in cards]
    try:
        check_power(declared_study, others)
    except UsageError:
        assert not any(decided)
    else:
        assert all(decided)


class _Declared:
    """As much of a manifest as a comparison's plan is made from."""

    def __init__(self, study: StudySettings) -> None:
        self.study, self.baseline = study, "base"


@pytest.mark.parametrize("kind", ["tests", "exact"])
def test_one_seed_with_tests_is_refused_and_with_intervals_it_is_said(kind: str) -> None:
    with pytest.raises(UsageError, match="cannot reject") as refused:
        check_power(study(1, kind=kind), 1)
    assert "\n" not in str(refused.value)
    told = str(check_power(study(1), 1))
    assert told == "one run an arm and point: there will be no verdict"


def test_two_seeds_are_enough_for_t_tests_and_intervals_are_always_accepted() -> None:
    found = check_power(study(2, kind="tests", correction="holm", confidence=0.999), 50)
    assert found.able == 50
    assert check_power(study(1, margin=0.1), 7).needed == 0


def test_a_family_of_one_arm_has_nothing_to_reject_and_is_accepted() -> None:
    assert str(check_power(study(1, kind="exact"), 0)) == "nothing is compared: there is one arm"


def test_no_number_of_seeds_that_can_be_counted_is_said_instead_of_a_list() -> None:
    for one in (
        study(5, kind="exact", confidence=1 - 1e-15),
        study(MOST_PAIRS + 1, kind="exact"),
    ):
        with pytest.raises(UsageError, match="exact tests go to 40 pairs; type study"):
            check_power(one, 1)
    assert power.MOST_PAIRS == MOST_PAIRS


def test_comparisons_are_counted_as_they_will_be_made(plan: Plans, tmp_path: Path) -> None:
    grid = "seeds: [1, 2, 3]\ngrid: {train.optimizer.lr: [0.1, 0.2]}\n"
    assert pairs_of(plan(grid, arms=ARMS)) == [3] * 6
    fewer = plan(grid + "where: ['not (arm=c and seed>1) or lr=0.2']\n", arms=ARMS)
    assert sorted(pairs_of(fewer)) == [1, 3, 3, 3, 3, 3]
    manifest = plant(tmp_path / "planted", {"base": Arm({1: 1.0}), "other": Arm({1: 2.0})})
    assert pairs_of(manifest) == [3]


def test_a_comparison_with_too_few_pairs_among_others_is_named(plan: Plans) -> None:
    made = plan(
        "seeds: [1, 2, 3, 4, 5, 6]\ncompare: {kind: exact}\nwhere: ['arm!=c or seed<4']\n",
        arms=ARMS,
    )
    found = check_plan(made)
    assert (found.needed, found.able) == (6, 2)
    assert str(found).endswith("; 1 of them have fewer than 6 pairs and cannot reject")


def test_a_search_counts_the_trials_that_are_to_come(plan: Plans) -> None:
    made = plan(
        "seeds: [1, 2]\ngrid: {batch: [4, 8]}\nfolds: {count: 3, setting: train.schedule.warmup, "
        "total: null}\nsearch: {trials: 5, space: {train.optimizer.lr: {low: 1.0e-3, high: 0.1}}}\n"
        "where: ['seed>0']\n"
    )
    assert not made.runs
    assert pairs_of(made) == [2] * (5 * 2 * 3)


@pytest.mark.parametrize(
    ("family", "confidence", "needed"), [(1, 0.9, 5), (1, 0.95, 6), (3, 0.95, 7), (20, 0.99, 12)]
)
def test_the_seeds_that_are_named_are_the_fewest_that_can(
    family: int, confidence: float, needed: int
) -> None:
    declared = {"kind": "exact", "correction": "holm", "confidence": confidence}
    with pytest.raises(UsageError, match=f"; {needed} seeds can, "):
        check_power(study(needed - 1, **declared), family)
    assert check_power(study(needed, **declared), family).needed == needed
