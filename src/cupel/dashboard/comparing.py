"""A study's arms held against its baseline, as `cupel study compare` does: `comparison(glance)`.

Records of runs that finished are read once. Without scipy everything is told but the differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from cupel.analysis.comparison import Card, compare_points
from cupel.analysis.seeds import quantile
from cupel.dashboard.glance import Glance, Seen
from cupel.dashboard.replies import Number
from cupel.errors import MissingDependency
from cupel.studies.manifest import Manifest
from cupel.studies.outcome import Outcome, plan_of, values_of
from cupel.studies.runs import RunOutcome, read_runs
from cupel.studies.unequal import inequalities


class ArmValue(msgspec.Struct):
    """The primary metric of one arm at one point, over the seeds that have a finite value."""

    arm: str
    point: str
    n: int
    planned: int
    mean: Number | None
    sd: Number | None
    low: Number | None
    """The t interval of the mean at the study's confidence; None below two seeds."""
    high: Number | None
    values: dict[int, Number]
    """By seed, also what is not finite."""
    missing: list[int]
    diverged: list[int]


class Difference(msgspec.Struct):
    """One arm against the baseline at one point: a `Card` of cupel.analysis.comparison."""

    arm: str
    point: str
    n: int
    differences: dict[int, Number]
    mean: Number | None
    low: Number | None
    high: Number | None
    confidence: float
    simultaneous: bool
    comparisons: int
    sd: Number | None
    correlation: Number | None
    p: Number | None
    p_adjusted: Number | None
    detectable: Number | None
    missing_arm: list[int]
    missing_baseline: list[int]
    diverged_arm: list[int]
    diverged_baseline: list[int]
    verdict: Literal["better", "worse", "equivalent", "undecided"] | None
    reason: str


class Unequal(msgspec.Struct):
    """What an arm does not have in common with the baseline."""

    arm: str
    name: str
    baseline: str
    value: str


class WithoutValue(msgspec.Struct):
    """A run that is not in the comparison, and why."""

    run: str
    arm: str
    point: str
    seed: int
    status: str
    reason: str


class ArmsComparison(msgspec.Struct):
    """What comparing a study's arms is worth now."""

    study: str
    question: str
    metric: str
    statistic: str
    better: str
    kind: str
    correction: str
    confidence: float
    margin: float | None
    baseline: str
    seeds: list[int]
    planned: int
    finished: int
    points: list[str]
    arms: list[ArmValue]
    differences: list[Difference]
    unequal: list[Unequal]
    without: list[WithoutValue]
    problem: str
    """Why there are no differences, and what to type; empty where there are."""


def comparison(glance: Glance) -> ArmsComparison:
    """The comparison of a study as it stands; computed anew when a run has ended."""
    seen = glance.seen()
    with glance.lock:
        known = glance.memory.get("comparison")
        # What runs have no value for is told with their states.
        name = f"{seen.ended} {seen.marks}"
        if known is None or known[0] != name:
            known = glance.memory["comparison"] = name, _computed(glance, seen)
        found: ArmsComparison = known[1]
        return found


def outcome(glance: Glance, seen: Seen) -> tuple[Outcome, str]:
    """As `cupel.studies.outcome.outcome`, with records of finished runs read once; and why there
    are no cards."""
    manifest = seen.manifest
    read: dict[str, RunOutcome] = glance.memory.setdefault("outcomes", {})
    finished = {state.run.run_id for state in seen.states if state.status == "finished"}
    done = {name for name, one in read.items() if one.finished} & finished
    left = [run for run in manifest.runs if run.run_id not in done]
    for one in read_runs(replace(manifest, runs=tuple(left))):
        read[one.run.run_id] = replace(one, evaluations=())  # which no comparison asks for
    runs = tuple(read[run.run_id] for run in manifest.runs)
    problem = ""
    try:
        cards: Sequence[Card] = compare_points(values_of(manifest, runs), plan_of(manifest))
    except MissingDependency as missing:
        cards, problem = (), str(missing)
    unequal = tuple(inequalities(manifest, runs))
    return Outcome(manifest, runs, tuple(cards), unequal), problem


def _computed(glance: Glance, seen: Seen) -> ArmsComparison:
    found, problem = outcome(glance, seen)
    study = found.manifest.study
    return ArmsComparison(
        study=glance.key,
        question=study.question,
        metric=study.primary.metric,
        statistic=study.primary.statistic,
        better=study.primary.better,
        kind=study.compare.kind,
        correction=study.compare.correction,
        confidence=study.compare.confidence,
        margin=study.compare.margin,
        baseline=found.baseline,
        seeds=list(study.seeds),
        planned=len(found.runs),
        finished=found.finished,
        points=list(found.points),
        arms=list(_arms(found)),
        differences=[_difference(card) for card in found.cards],
        unequal=[Unequal(one.arm, one.name, *one.values) for one in found.unequal],
        without=list(_without(found.runs)),
        problem=problem,
    )


def _arms(found: Outcome) -> Iterable[ArmValue]:
    planned = {(run.run.arm, run.run.point) for run in found.runs}
    for point in found.points:
        for arm in found.arms:
            if (arm, point) in planned:
                yield _arm(found.manifest, arm, point, found.of(arm, point))


def _arm(manifest: Manifest, arm: str, point: str, runs: Sequence[RunOutcome]) -> ArmValue:
    values = {run.run.seed: run.value for run in runs if run.value is not None}
    finite = [value for value in values.values() if math.isfinite(value)]
    mean, sd, half = _spread(finite, confidence=manifest.study.compare.confidence)
    return ArmValue(
        arm=arm,
        point=point,
        n=len(finite),
        planned=len(runs),
        mean=mean,
        sd=sd,
        low=None if mean is None or half is None else mean - half,
        high=None if mean is None or half is None else mean + half,
        values=dict(values),
        missing=[run.run.seed for run in runs if run.value is None],
        diverged=[seed for seed, value in values.items() if not math.isfinite(value)],
    )


def _spread(
    values: Sequence[float], *, confidence: float
) -> tuple[float | None, float | None, float | None]:
    """Mean, standard deviation and half the t interval of the mean."""
    n = len(values)
    if n == 0:
        return None, None, None
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, sd, quantile(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n)


def _difference(card: Card) -> Difference:
    low, high = card.interval or (None, None)
    return Difference(
        arm=card.arm,
        point=card.point,
        n=card.n,
        differences=dict(card.differences),
        mean=card.mean,
        low=low,
        high=high,
        confidence=card.confidence,
        simultaneous=card.simultaneous,
        comparisons=card.comparisons,
        sd=card.sd,
        correlation=card.correlation,
        p=card.p,
        p_adjusted=card.p_adjusted,
        detectable=card.detectable,
        missing_arm=list(card.missing_arm),
        missing_baseline=list(card.missing_baseline),
        diverged_arm=list(card.diverged_arm),
        diverged_baseline=list(card.diverged_baseline),
        verdict=card.verdict,
        reason=card.reason,
    )


def _without(runs: Sequence[RunOutcome]) -> Iterable[WithoutValue]:
    for one in runs:
        if not one.finished or one.reason:
            run = one.run
            yield WithoutValue(
                run.run_id, run.arm, run.point, run.seed, one.status, one.reason or ""
            )
