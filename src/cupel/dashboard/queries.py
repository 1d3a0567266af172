"""What a page may ask to be kept informed of, checked at the border: `parse`."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cupel.errors import UsageError

MOST_RUNS = 200
_Key = Annotated[str, Meta(max_length=400)]


class ChartQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="chart"
):
    """One metric of some runs on one axis, in at most `px` stretches."""

    runs: Annotated[list[_Key], Meta(min_length=1, max_length=MOST_RUNS)]
    """Keys of runs, "<project>/<run id>"."""
    metric: _Key
    x: Annotated[str, Meta(max_length=400)] = "step"
    """"step", "relative" (seconds since the run began), "time" (Unix seconds), or a metric."""
    log_x: bool = False
    low: float | None = None
    high: float | None = None
    """The part of the axis that is shown; None is an end that follows the data."""
    px: Annotated[int, Meta(ge=16, le=4000)] = 800
    smooth: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Factor of the exponential average; 0 is none."""
    tails: bool = False
    """Whether what a resumed run left behind is shown, too."""
    group: Annotated[str, Meta(max_length=400)] | None = None
    """A column of the table of runs: the runs of each of its values become one curve, the mean
    over runs with its 95 % interval."""


class RunQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="run"
):
    """How one run stands: status, pace, newest numbers."""

    run: _Key


class MetricsQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="metrics"
):
    """What some runs log."""

    runs: Annotated[list[_Key], Meta(min_length=1, max_length=MOST_RUNS)]


class RunsQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="runs"
):
    """Whether the table of runs has changed, and how many runs are in which state."""


class StudyQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="study"
):
    """How a study stands."""

    study: _Key
    """"<project>/<study>"."""


class QueueQuery(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="queue"
):
    """Every study that has work left, its workers and alerts."""


Query = ChartQuery | RunQuery | MetricsQuery | RunsQuery | StudyQuery | QueueQuery


def parse(query: Any) -> Query:
    """A query out of JSON. Raises UsageError."""
    try:
        found: Query = msgspec.convert(query, type=Query)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError(f"this is no query: {' '.join(str(error)[:200].split())}") from error
    if isinstance(found, ChartQuery):
        ends = [end for end in (found.low, found.high) if end is not None]
        if not all(map(math.isfinite, ends)) or (len(ends) == 2 and ends[0] >= ends[1]):
            raise UsageError(f"low={found.low} and high={found.high} are no range")
    return found
