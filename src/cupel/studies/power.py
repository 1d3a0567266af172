"""Whether a declared family of tests can reject at all: `check_power(study, comparisons)`.

An exact test of n pairs has no p below 2/2ⁿ, and a correction for m tests asks for α/m at its first
step: five seeds and three tests at 0.05 decide nothing, whatever the runs come to. That is known
before the first of them, so it is refused then. Intervals are always accepted, and so is what a
margin decides. Nothing is said of how large an effect must be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cupel.errors import UsageError
from cupel.studies.planned import Manifest
from cupel.studies.settings import StudySettings

MOST_PAIRS = 40  # as `cupel.numerics.signflip`, which needs numpy


@dataclass(frozen=True, slots=True)
class Power:
    """What a comparison that was declared can come to.

    `pairs` are those that each comparison has when all its runs are accepted. `needed` are those
    without which a test cannot reject, 0 where intervals decide, and `able` is how many comparisons
    have them; `smallest_p` is what the largest exact test can give after the correction.
    """

    kind: str
    correction: str
    alpha: float
    comparisons: int
    pairs: tuple[int, ...]
    needed: int
    smallest_p: float | None = None

    @property
    def able(self) -> int:
        """How many comparisons have the pairs that are needed."""
        return sum(pairs >= self.needed for pairs in self.pairs)

    def __str__(self) -> str:
        """One line for people."""
        if not self.comparisons:
            return "nothing is compared: there is one arm"
        most = max(self.pairs, default=0)
        if most < 2:
            return "one run an arm and point: there will be no verdict"
        of = f"of {most} pairs"
        if self.kind == "interval":
            return (
                f"{_counted(self.comparisons, 'comparison')} by t intervals at "
                f"{100 * (1 - self.alpha):g} % {of}; nothing is tested"
            )
        told = f"{_tests(self.kind, self.correction, self.comparisons)} {of}"
        if self.smallest_p is not None:
            told += f", the smallest p is {self.smallest_p:.4g} and α is {self.alpha:.4g}"
        else:
            told += f" at α = {self.alpha:.4g}"
        if self.able < self.comparisons:
            told += f"; {self.comparisons - self.able} of them have fewer than {self.needed} pairs"
            told += " and cannot reject"
        elif most == self.needed:
            told += "; each pair is needed, so a lost run leaves nothing decided"
        return told


def check_power(
    study: StudySettings, comparisons: int, *, pairs: Sequence[int] | None = None
) -> Power:
    """What the study's comparisons can come to; `pairs` are those of each, else all have a pair
    for each seed.

    Raises UsageError for tests none of which can reject, with the number of seeds that can.
    """
    compare = study.compare
    alpha = 1 - compare.confidence
    given = tuple([len(study.seeds)] * comparisons if pairs is None else pairs)
    assert len(given) == comparisons, (given, comparisons)
    family = 1 if compare.correction == "none" else comparisons
    made: dict[str, Any] = {"alpha": alpha, "comparisons": comparisons, "pairs": given}
    if compare.kind == "interval" or not comparisons:
        return Power(compare.kind, compare.correction, needed=0, **made)
    most = max(given)
    tests = _tests(compare.kind, compare.correction, comparisons)
    if compare.kind == "tests":
        if most < 2:
            raise UsageError(
                f"study.compare: {tests} of one pair cannot reject, since one difference tells "
                "nothing of chance; 2 seeds can, type study.seeds=[1, 2], or "
                "study.compare.kind=interval"
            )
        return Power("tests", compare.correction, needed=2, **made)
    needed, smallest = _needed(alpha, family), min(1.0, family * 2 / 2**most)
    if most > MOST_PAIRS or needed > MOST_PAIRS:
        found = f"{most} pairs" if most > MOST_PAIRS else f"α = {alpha:.4g}"
        raise UsageError(
            f"study.compare: {tests} with {found}, and exact tests go to {MOST_PAIRS} pairs; type "
            "study.compare.kind=tests"
        )
    if most < needed:
        step = f"α/{family} = {alpha / family:.4g}" if family > 1 else f"α = {alpha:.4g}"
        raise UsageError(
            f"study.compare: {tests} of {_counted(most, 'pair')} cannot reject, since no p is "
            f"below 2/2^{most} = {2 / 2**most:.4g}, and the first must be at most {step}; "
            f"{needed} seeds can, type study.seeds=[{', '.join(map(str, range(1, needed + 1)))}]"
        )
    return Power("exact", compare.correction, needed=needed, smallest_p=smallest, **made)


def check_plan(manifest: Manifest) -> Power:
    """`check_power` of a study as it was planned, before it is frozen."""
    pairs = pairs_of(manifest)
    return check_power(manifest.study, len(pairs), pairs=pairs)


def pairs_of(manifest: Manifest) -> list[int]:
    """How many pairs each comparison of a study will have, as `compare_points` counts them.

    One for each arm but the baseline at each point; of a study that searches, at all its points to
    be.
    """
    study = manifest.study
    others = [arm for arm in study.arms if arm != manifest.baseline]
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in manifest.runs:
        seeds.setdefault((run.arm, run.point), set()).add(run.seed)
    points = list(dict.fromkeys(run.point for run in manifest.runs))
    nothing: set[int] = set()
    pairs = [
        len(seeds.get((arm, point), nothing) & seeds.get((manifest.baseline, point), nothing))
        for point in points
        for arm in others
    ]
    if study.search:
        every = study.search.trials * _beside_search(study) * len(others)
        pairs += [len(study.seeds)] * max(0, every - len(pairs))
    return pairs


def _beside_search(study: StudySettings) -> int:
    """At how many points each trial of a search runs."""
    count = math.prod(len(values) for values in study.grid.values())
    count *= len(next(iter(study.zip.values()), (0,)))
    count *= len(study.points) or 1
    count *= study.random.draws if study.random else 1
    return count * (study.folds.count if study.folds else 1)


def _needed(alpha: float, family: int) -> int:
    """The fewest pairs of which an exact test can give a p of α over the family."""
    needed = 2
    while family * 2 / 2**needed > alpha:
        needed += 1
    return needed


def _tests(kind: str, correction: str, count: int) -> str:
    name = "exact paired test" if kind == "exact" else "paired t test"
    how = "" if correction == "none" else f" under {correction.capitalize()}"
    return f"{_counted(count, name)}{how}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
