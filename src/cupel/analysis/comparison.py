"""Arms of a study against their baseline, seed by seed: a `Card` each, with one of four verdicts.

The rules, in this order, all declared before the first run:

1. fewer than two pairs: no verdict, since nothing tells chance from effect;
2. the interval at 1 − 2α lies inside ±margin: `equivalent`; a declared margin says that such
   differences do not matter, so it comes before the next rule (two one-sided tests at α);
3. all differences are equal up to rounding: `undecided`, since no spread tells chance from effect;
4. the t interval (for `kind: tests` and `exact` the adjusted p) excludes 0: `better` or `worse`;
5. else `undecided`, which never means that there is no difference.

A seed is paired when both arms have a finite value for it. Runs that diverged are named, never
dropped without a word: what the other seeds say then holds for runs that did not diverge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cupel.errors import UsageError
from cupel.numerics.intervals import (
    Pairs,
    adjusted,
    detectable_difference,
    equivalence_interval,
    t_interval,
    t_test,
)
from cupel.numerics.signflip import MOST_PAIRS, sign_flip_test

Verdict = Literal["better", "worse", "equivalent", "undecided"]
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """How arms are compared; see `cupel.studies.settings.CompareSettings`."""

    baseline: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    better: Literal["lower", "higher"] = "lower"
    kind: Literal["interval", "tests", "exact"] = "interval"
    confidence: float = 0.95
    margin: float | None = None
    correction: Literal["none", "holm", "bonferroni"] = "none"

    def __post_init__(self) -> None:
        assert self.baseline in self.arms, (self.baseline, self.arms)

    @property
    def alpha(self) -> float:
        """1 − confidence."""
        return 1 - self.confidence

    @property
    def tested(self) -> bool:
        """Whether p values decide, as one family; else intervals do."""
        return self.kind != "interval"


@dataclass(frozen=True, slots=True)
class Card:
    """One arm against the baseline, at one point of the grid. Differences are arm − baseline.

    `interval` is the t interval at `confidence`, None below two pairs. `simultaneous` says that
    `confidence` was raised (1 − α/m) so that all m intervals hold together. `narrow` is the
    interval at 1 − 2α (α/m when tests are corrected) that is held against the margin.
    `detectable` is the true difference that n such pairs would show with probability 0.8.
    """

    arm: str
    baseline: str
    point: str
    differences: Mapping[int, float]
    missing_arm: tuple[int, ...]
    missing_baseline: tuple[int, ...]
    diverged_arm: tuple[int, ...]
    diverged_baseline: tuple[int, ...]
    confidence: float
    comparisons: int
    simultaneous: bool = False
    mean: float | None = None
    interval: tuple[float, float] | None = None
    narrow: tuple[float, float] | None = None
    sd: float | None = None
    correlation: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def n(self) -> int:
        """How many pairs there are."""
        return len(self.differences)

    @property
    def complete(self) -> bool:
        """Whether every planned seed is paired."""
        return not (
            self.missing_arm or self.missing_baseline or self.diverged_arm or self.diverged_baseline
        )


def compare(values: Mapping[str, Mapping[int, float]], plan: Plan) -> list[Card]:
    """A card for each arm but the baseline, from {arm: {seed: value}} with absent runs left out.

    A value that is not finite is that of a run that diverged. Raises MissingDependency.
    """
    return compare_points({"": values}, plan)


def compare_points(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], plan: Plan
) -> list[Card]:
    """`compare` at each point of a grid, {point: {arm: {seed: value}}}; all are one family.

    A correction counts every comparison that was planned, so that a family does not shrink when
    runs fail: one without a p enters it as 1.
    """
    others = [arm for arm in plan.arms if arm != plan.baseline]
    family = len(values) * len(others)
    cards = [
        _measured(point, arm, values[point], plan, family) for point in values for arm in others
    ]
    if plan.tested:
        p_values = [1.0 if card.p is None else card.p for card in cards]
        corrected = adjusted(p_values, method=plan.correction)
        cards = [
            card if card.p is None else replace(card, p_adjusted=p)
            for card, p in zip(cards, corrected, strict=True)
        ]
    return [_judged(card, plan) for card in cards]


def _measured(
    point: str, arm: str, values: Mapping[str, Mapping[int, float]], plan: Plan, family: int
) -> Card:
    """The card with its numbers, before any verdict."""
    one, two = values.get(arm, {}), values.get(plan.baseline, {})
    paired = [s for s in plan.seeds if _finite(one.get(s)) and _finite(two.get(s))]
    simultaneous = plan.tested and plan.correction == "bonferroni" and family > 1
    confidence = 1 - plan.alpha / family if simultaneous else plan.confidence
    card = Card(
        arm=arm,
        baseline=plan.baseline,
        point=point,
        differences={seed: one[seed] - two[seed] for seed in paired},
        missing_arm=tuple(s for s in plan.seeds if s not in one),
        missing_baseline=tuple(s for s in plan.seeds if s not in two),
        diverged_arm=tuple(s for s in plan.seeds if s in one and not _finite(one[s])),
        diverged_baseline=tuple(s for s in plan.seeds if s in two and not _finite(two[s])),
        confidence=confidence,
        comparisons=family,
        simultaneous=simultaneous,
    )
    if len(paired) < 2:
        return replace(card, mean=card.differences[paired[0]] if paired else None)
    pairs = Pairs.of([one[seed] for seed in paired], [two[seed] for seed in paired])
    return replace(
        card,
        mean=pairs.mean,
        interval=t_interval(pairs, confidence=confidence),
        narrow=equivalence_interval(pairs, confidence=1 - _equivalence_alpha(plan, family)),
        sd=pairs.sd,
        correlation=pairs.correlation,
        p=_p_of(pairs, list(card.differences.values()), plan),
        detectable=detectable_difference(pairs, alpha=1 - confidence, power=POWER)
        if pairs.sd
        else None,
    )


def _p_of(pairs: Pairs, differences: Sequence[float], plan: Plan) -> float | None:
    """The p of the declared test; None without spread, by the third rule."""
    if plan.kind != "exact" or pairs.sd == 0:
        return t_test(pairs)
    if len(differences) > MOST_PAIRS:
        raise UsageError(
            f"study.compare.kind is exact, and there are {len(differences)} pairs; it counts all "
            f"assignments of up to {MOST_PAIRS}, so give no more seeds, or type "
            "study.compare.kind=tests"
        )
    return sign_flip_test(differences)


def _equivalence_alpha(plan: Plan, family: int) -> float:
    """α of the two one-sided tests: shared out among all comparisons when tests are corrected."""
    return plan.alpha if plan.correction == "none" else plan.alpha / family


def _judged(card: Card, plan: Plan) -> Card:
    """The card with its verdict, by the rules at the top of this file."""
    if card.interval is None or card.narrow is None or card.mean is None:
        return replace(card, reason=_why_none(card, plan))
    if plan.margin is not None and -plan.margin < card.narrow[0] <= card.narrow[1] < plan.margin:
        level = round(100 * (1 - 2 * _equivalence_alpha(plan, card.comparisons)), 4)
        reason = f"the {level:g} % interval lies inside the declared margin"
        return replace(card, verdict="equivalent", reason=reason)
    if card.sd == 0:
        reason = "all seeds differ by the same amount: no spread tells chance from effect"
        return replace(card, verdict="undecided", reason=reason)
    excludes, reason = _excludes_zero(card, plan)
    if not excludes:
        return replace(card, verdict="undecided", reason=reason)
    lower = card.mean < 0
    return replace(
        card, verdict="better" if lower == (plan.better == "lower") else "worse", reason=reason
    )


def _excludes_zero(card: Card, plan: Plan) -> tuple[bool, str]:
    assert card.interval is not None
    if plan.kind == "interval":
        low, high = card.interval
        excludes = low > 0 or high < 0
        return excludes, f"the interval {'excludes' if excludes else 'includes'} 0"
    assert card.p_adjusted is not None
    how = "" if plan.correction == "none" else f" after {plan.correction.capitalize()}'s correction"
    if plan.kind == "exact":  # p takes few values, and one of them may be α itself
        within = card.p_adjusted <= plan.alpha
        return within, f"p{how} is {'at most' if within else 'above'} {plan.alpha:.4g}"
    below = card.p_adjusted < plan.alpha
    return below, f"p{how} is {'below' if below else 'not below'} {plan.alpha:.4g}"


def _why_none(card: Card, plan: Plan) -> str:
    if len(plan.seeds) == 1:
        return "one run an arm: nothing tells chance from effect"
    if card.n == 1:
        return "one pair of runs: nothing tells chance from effect"
    return "no seed has a value on both sides"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
