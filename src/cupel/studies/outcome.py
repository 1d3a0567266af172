"""What comparing a study's arms is worth: finished runs compared as the manifest declares.

`unequal` lists what was not equal between arms, since only what is equal is controlled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cupel.analysis.comparison import Card, Plan, compare_points
from cupel.studies.manifest import Manifest
from cupel.studies.runs import RunOutcome, read_runs
from cupel.studies.unequal import Inequality, inequalities


@dataclass(frozen=True, slots=True)
class Outcome:
    """A study with its runs, its cards and what was not equal."""

    manifest: Manifest
    runs: tuple[RunOutcome, ...]
    cards: tuple[Card, ...]
    unequal: tuple[Inequality, ...]

    @property
    def baseline(self) -> str:
        """The arm that others are held against."""
        return self.manifest.baseline

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, the baseline first."""
        others = [arm for arm in self.manifest.study.arms if arm != self.baseline]
        return (self.baseline, *others)

    @property
    def points(self) -> tuple[str, ...]:
        """All points of the grid; one empty name without a grid."""
        return tuple(dict.fromkeys(run.point for run in self.manifest.runs))

    @property
    def finished(self) -> int:
        """How many runs are accepted."""
        return sum(run.finished for run in self.runs)

    def of(self, arm: str, point: str | None = None) -> list[RunOutcome]:
        """The runs of an arm, at one point or at all."""
        return [r for r in self.runs if r.run.arm == arm and point in (None, r.run.point)]


def outcome(manifest: Manifest) -> Outcome:
    """Read every run and compare. Raises MissingDependency without scipy."""
    runs = read_runs(manifest)
    cards = compare_points(values_of(manifest, runs), plan_of(manifest))
    return Outcome(manifest, runs, tuple(cards), tuple(inequalities(manifest, runs)))


def plan_of(manifest: Manifest) -> Plan:
    """What was declared about the comparison."""
    study = manifest.study
    return Plan(
        baseline=manifest.baseline,
        arms=tuple(study.arms),
        seeds=tuple(study.seeds),
        better=study.primary.better,
        kind=study.compare.kind,
        confidence=study.compare.confidence,
        margin=study.compare.margin,
        correction=study.compare.correction,
    )


def values_of(
    manifest: Manifest, runs: Iterable[RunOutcome]
) -> dict[str, dict[str, dict[int, float]]]:
    """{point: {arm: {seed: value}}} of what finished or diverged."""
    arms = list(manifest.study.arms)
    values: dict[str, dict[str, dict[int, float]]] = {
        run.point: {arm: {} for arm in arms} for run in manifest.runs
    }
    for run in runs:
        if run.value is not None:
            values[run.run.point][run.run.arm][run.run.seed] = run.value
    return values
