"""The section `study` of a recipe: a question, its arms, points, seeds, and how it is decided.

Everything that decides is declared here, before the first run. Imports no torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cupel.config import Settings


def unix_seconds(text: str) -> float:
    """The Unix seconds of a time such as 2026-12-01T08:00, in UTC unless it names another zone.

    Raises ValueError that says what is expected.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is no time; write it as 2026-12-01T08:00 (UTC)") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _readable(text: str | None) -> str | None:
    if text is not None:
        unix_seconds(text)
    return text


class PrimarySettings(Settings):
    """The one number of a run that the question is decided by."""

    metric: str = Field("val_loss", min_length=1, description="a metric of evaluations")
    statistic: Literal["last", "best"] = Field(
        "last",
        description="last: of the final evaluation; best: the best over all evaluations, which "
        "flatters every arm; the two are never mixed",
    )
    better: Literal["lower", "higher"] = Field("lower", description="which values are better")


class CompareSettings(Settings):
    """How arms are compared with the baseline: intervals, or a family of tests."""

    kind: Literal["interval", "tests", "exact"] = Field(
        "interval",
        description="interval: a t interval for each arm on its own; tests: paired t tests as one "
        "family, with a correction; exact: sign-flip tests in their place, which assume no "
        "distribution",
    )
    baseline: str | None = Field(
        None, description="the arm that others are held against; null for the first"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="of the intervals; 1 − α of the tests"
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="differences smaller than this do not matter (in the metric's unit); null: "
        "no verdict 'equivalent'",
    )
    correction: Literal["none", "holm", "bonferroni"] = Field(
        "none",
        description="for kind: tests and exact, what keeps the whole family's error at α = 1 − "
        "confidence",
    )

    @model_validator(mode="after")
    def _a_correction_is_for_tests(self) -> Self:
        if self.kind == "interval" and self.correction != "none":
            raise ValueError(
                f"correction is {self.correction}, but kind is interval; set kind: tests or "
                "exact, or remove it"
            )
        return self


class RandomSettings(Settings):
    """Points drawn at random, once, when the study is planned: the same ones each time."""

    draws: int = Field(ge=1, description="how many points")
    seed: int = Field(0, ge=0, description="of the draws; the runs' own seeds are study.seeds")
    space: dict[str, Any] = Field(
        description="dotted settings, each {low, high}, {low, high, log: true}, {low, high, "
        "int: true} or a list to choose from"
    )


class AblationSettings(Settings):
    """Arms made of a baseline: each component taken out (or replaced) on its own."""

    baseline: dict[str, Any] = Field({}, description="what the baseline arm changes in the recipe")
    components: dict[str, dict[str, Any]] = Field(
        description="by name, what takes the component out of the baseline, or replaces it"
    )
    name: str = Field("baseline", description="the baseline arm's name")
    pairs: bool = Field(False, description="also every two components together")


class FoldSettings(Settings):
    """Cross-validation: every cell once for each fold, which is an axis like those of the grid."""

    count: int = Field(ge=2, description="how many folds")
    setting: str = Field("data.fold", description="the dotted setting that takes 0, 1, …")
    total: str | None = Field(
        "data.folds", description="the dotted setting that takes the count; null for none"
    )


class SearchSettings(Settings):
    """Cells asked of Optuna, a few at a time, by what the earlier ones came to."""

    trials: int = Field(ge=1, description="how many cells in all")
    space: dict[str, Any] = Field(description="as in study.random.space")
    sampler: Literal["tpe", "random", "cmaes", "qmc", "gp"] = Field(
        "tpe", description="Optuna's sampler"
    )
    seed: int = Field(0, ge=0, description="of the sampler")
    at_once: int = Field(4, ge=1, description="cells that are asked for together")


class PriorityRule(Settings):
    """What is added to the priority of the runs that a filter finds."""

    where: str = Field(description="a filter over arm, point, seed and dotted settings")
    add: int = Field(description="added to study.priority; may be negative")


class ResourceSettings(Settings):
    """What one run is given."""

    cpus: float = Field(1, gt=0, description="CPU cores")
    gpus: float = Field(0, ge=0, description="GPUs; 0.25 lets four runs share one")
    memory_mb: int | None = Field(None, ge=1, description="memory; null: not limited by us")
    gpu_memory_mb: int | None = Field(None, ge=1, description="as measured by cupel jobs probe")
    time_min: float | None = Field(None, gt=0, description="time limit of one attempt; null: none")


class QualitySettings(Settings):
    """What a metric must be for a run to count as good data."""

    low: float | None = Field(None, description="smallest sensible value; null: any")
    high: float | None = Field(None, description="largest sensible value; null: any")
    finite: bool = Field(True, description="whether NaN and infinities are mistakes")
    every: int | None = Field(None, ge=1, description="steps between values, at most; null: any")
    required: bool = Field(True, description="whether a finished run must have it")


class AlertSettings(Settings):
    """When somebody should look. Each alert is raised once, and cleared when it is over."""

    failure_rate: float = Field(0.1, gt=0, le=1, description="part of the ended runs that failed")
    after: int = Field(10, ge=1, description="runs that must have ended before that rate counts")
    no_progress_min: float = Field(10, gt=0, description="minutes without a step of a running run")
    silent_s: float = Field(60, gt=0, description="seconds without a sign of life")
    starved_min: float = Field(
        10, gt=0, description="minutes with free workers and nothing claimed"
    )
    disk_free: float = Field(0.1, ge=0, lt=1, description="part of the disk that must be free")
    deadline: str | None = Field(
        None, description="when it must be done, as 2026-12-01T08:00 (UTC); null: never"
    )
    webhook: str | None = Field(None, description="a URL that gets each alert as JSON, by POST")
    command: str | None = Field(
        None, description="a command that gets each alert as JSON on its stdin"
    )

    @field_validator("deadline")
    @classmethod
    def _is_a_time(cls, deadline: str | None) -> str | None:
        return _readable(deadline)


class StudySettings(Settings):
    """A study: arms × points × folds × seeds."""

    question: str = Field(min_length=1, description="what the study is to decide, in a sentence")
    arms: dict[str, dict[str, Any]] = Field(
        {}, description="named variants; each holds what it changes in the recipe"
    )
    ablation: AblationSettings | None = Field(
        None, description="arms made of a baseline and its components, beside those of study.arms"
    )
    seeds: tuple[int, ...] = Field((1, 2, 3), description="seeds of every cell")
    grid: dict[str, tuple[Any, ...]] = Field(
        {}, description="dotted settings and their values; every arm runs at every point"
    )
    zip: dict[str, tuple[Any, ...]] = Field(
        {}, description="dotted settings that vary together: the first values, the second ones, …"
    )
    points: tuple[dict[str, Any], ...] = Field(
        (), description="points written out one by one, each of dotted settings"
    )
    random: RandomSettings | None = Field(None, description="points drawn at random")
    folds: FoldSettings | None = Field(None, description="cross-validation")
    search: SearchSettings | None = Field(None, description="cells asked of Optuna")
    where: tuple[str, ...] = Field(
        (), description="filters over arm, seed and dotted settings; a cell runs where all hold"
    )
    primary: PrimarySettings = Field(PrimarySettings(), description="what decides")
    compare: CompareSettings = Field(CompareSettings(), description="how it decides")
    workers: int = Field(2, ge=1, description="runs at a time")
    threads: int = Field(1, ge=1, description="CPU threads of each run")
    priority: int = Field(100, description="of every run; higher runs first")
    priorities: tuple[PriorityRule, ...] = Field((), description="what changes it")
    tags: tuple[str, ...] = Field((), description="tags of every run of the study")
    tag_by: tuple[str, ...] = Field(
        (), description="dotted settings (or arm) whose value each run is tagged with"
    )
    resources: ResourceSettings = Field(ResourceSettings(), description="what one run is given")
    not_before: str | None = Field(
        None, description="when the first run may begin, as 2026-12-01T08:00 (UTC); null: now"
    )
    lease_s: float = Field(60, gt=0, description="seconds without a sign after which a run is free")
    hung_s: float = Field(
        600, gt=0, description="seconds without a step after which a running run is ended"
    )
    code_changed: Literal["keep", "rerun", "stop"] = Field(
        "keep", description="what to do with accepted runs of other code: keep, rerun or stop"
    )
    quality: dict[str, QualitySettings] = Field(
        {}, description="by metric, what is good data; cupel study verify checks it"
    )
    alerts: AlertSettings = Field(AlertSettings(), description="when somebody should look")

    @model_validator(mode="after")
    def _there_are_arms(self) -> Self:
        if not self.arms and self.ablation is None:
            raise ValueError("there are no arms; write one or more, as arms: {plain: {}}")
        return self

    @field_validator("not_before")
    @classmethod
    def _is_a_time(cls, not_before: str | None) -> str | None:
        return _readable(not_before)

    # Not `min_length`, which also counts what was refused: one wrong seed would be told twice.
    @field_validator("seeds")
    @classmethod
    def _there_are_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("there are none; give one or more, as [1, 2, 3]")
        return seeds
