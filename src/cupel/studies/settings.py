"""The section `study` of a recipe: a question, its arms, seeds and grid, and how it is decided.

Everything that decides is declared here, before the first run. Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cupel.config import Settings


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

    kind: Literal["interval", "tests"] = Field(
        "interval",
        description="interval: a t interval for each arm on its own; tests: paired t tests as one "
        "family, with a correction",
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
        description="for kind: tests, what keeps the whole family's error at α = 1 − confidence",
    )

    @model_validator(mode="after")
    def _a_correction_is_for_tests(self) -> Self:
        if self.kind == "interval" and self.correction != "none":
            raise ValueError(
                f"correction is {self.correction}, but kind is interval; set kind: tests, or "
                "remove it"
            )
        return self


class StudySettings(Settings):
    """A study: arms × grid × seeds."""

    question: str = Field(min_length=1, description="what the study is to decide, in a sentence")
    arms: dict[str, dict[str, Any]] = Field(
        description="named variants; each holds what it changes in the recipe"
    )
    seeds: tuple[int, ...] = Field((1, 2, 3), description="seeds of every cell")
    grid: dict[str, tuple[Any, ...]] = Field(
        {}, description="dotted settings and their values; every arm runs at every point"
    )
    primary: PrimarySettings = Field(PrimarySettings(), description="what decides")
    compare: CompareSettings = Field(CompareSettings(), description="how it decides")
    workers: int = Field(2, ge=1, description="runs at a time")
    threads: int = Field(1, ge=1, description="CPU threads of each run")

    # Not `min_length`, which also counts what was refused: one wrong seed would be told twice.
    @field_validator("arms")
    @classmethod
    def _there_are_arms(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not arms:
            raise ValueError("there are none; write one or more, as {plain: {}}")
        return arms

    @field_validator("seeds")
    @classmethod
    def _there_are_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("there are none; give one or more, as [1, 2, 3]")
        return seeds
