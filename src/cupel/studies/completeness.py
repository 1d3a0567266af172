"""Whether a study's data is all there and sound: `check(manifest)` holds records against the plan.

Every planned run is accepted, has diverged, or has failed with a reason; anything else is missing.
Accepted runs must have the metrics that the study needs, as often, as finite and within the range
that `study.quality` says. Nothing is changed. A run costs a few small files and its metrics once
(about 2 µs a line; of large runs their columns).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cupel.errors import RecordError
from cupel.jobs.attempts import CLASSES, changes_in, read_attempt
from cupel.jobs.queue import SETTLED
from cupel.jobs.queue import Standing as Queued
from cupel.jobs.reasons import failure_of, in_a_line
from cupel.record import layout
from cupel.record.reader import RunRecord
from cupel.studies.manifest import Manifest, PlannedRun
from cupel.studies.settings import QualitySettings
from cupel.studies.tasks import queue_of

if TYPE_CHECKING:
    from cupel.record.curve import Series

State = Literal["accepted", "diverged", "failed", "missing"]
STATES: tuple[State, ...] = ("accepted", "diverged", "failed", "missing")

Kind = Literal[
    "missing",
    "damaged",  # its record cannot be read
    "other settings",  # its identity is not the planned one
    "lost session",  # its results are of a session that is not there
    "duplicate",  # two accepted runs of one identity
    "absent metric",
    "not finite",
    "out of range",
    "gap",  # more steps between two values than allowed
    "mixed code",
]

_DIVERGED = re.compile(r"\bis (nan|-?inf)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one planned run stands. `status` is the word of the queue (`planned`, `running`,
    `waiting`, …) or `damaged`, `failure` a class of `cupel.jobs.attempts` where it failed, `reason`
    a line. A run that will be tried again has not failed yet: it is missing."""

    run: PlannedRun
    state: State
    status: str
    failure: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in a line; `run_id` is empty where it concerns several runs."""

    kind: Kind
    run_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Code:
    """Accepted runs that ran on one state of the code; `patch` is the SHA-256 of what differed."""

    commit: str | None
    dirty: bool
    patch: str | None
    runs: int

    def __str__(self) -> str:
        changed = f" with changes {self.patch[:7]}" if self.patch else " with changes"
        return f"{(self.commit or 'no commit')[:7]}{changed if self.dirty else ''}"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A run that was derived from a planned one with other settings; it never counts."""

    run_id: str
    of: str
    accepted: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """An accepted run of which a session ran with other settings than planned, such as twice the
    micro-batches after an error of memory; it counts."""

    run_id: str
    session: int
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completeness:
    """What a study has of what it planned, and what is wrong with it."""

    manifest: Manifest
    runs: tuple[Standing, ...]
    problems: tuple[Problem, ...]
    deviations: tuple[Deviation, ...]
    changed: tuple[Changed, ...]
    code: tuple[Code, ...]

    @property
    def complete(self) -> bool:
        """Whether no run is missing."""
        return all(run.state != "missing" for run in self.runs)

    @property
    def clean(self) -> bool:
        """Whether no run is missing and nothing is wrong."""
        return not self.problems

    def counts(self, arm: str | None = None) -> dict[State, int]:
        """How many runs of an arm (None: of all) are in each state."""
        states = [run.state for run in self.runs if arm in (None, run.run.arm)]
        return {state: states.count(state) for state in STATES}


def check(
    manifest: Manifest, *, tell: Callable[[str], object] = lambda run_id: None
) -> Completeness:
    """Compare the plan with the records; `tell` hears of each run before it is read."""
    runs: list[Standing] = []
    problems: list[Problem] = []
    changed: list[Changed] = []
    code: dict[tuple[str | None, bool, str | None], int] = {}
    standings = Standings(manifest)
    try:
        for run in manifest.runs:
            tell(run.run_id)
            record = RunRecord(manifest.run_dir(run))
            found = standings.of(run, record)
            runs.append(found)
            if found.state == "missing":
                kind: Kind = "damaged" if found.status == "damaged" else "missing"
                told = f"{found.status}: {found.reason}" if found.reason else found.status
                problems.append(Problem(kind, run.run_id, told))
            elif found.state == "accepted":
                results = record.results or {}
                problems += _of_record(run, record, results)
                problems += _of_metrics(manifest, run, record, results)
                changed += _changed(record)
                ran_on = _code_of(record, results)
                code[ran_on] = code.get(ran_on, 0) + 1
    finally:
        standings.close()
    duplicates, deviations = _further(manifest, runs)
    versions = tuple(Code(*ran_on, count) for ran_on, count in code.items())
    if len(versions) > 1 and manifest.study.code_changed != "keep":
        listed = ", ".join(f"{one} ({one.runs})" for one in versions)
        problems.append(Problem("mixed code", "", f"accepted runs are of {listed}"))
    return Completeness(
        manifest,
        tuple(runs),
        (*problems, *duplicates),
        tuple(deviations),
        tuple(changed),
        versions,
    )


class Standings:
    """How the planned runs of a study stand, by the queue that its workers go by, and by the
    records; `close` it."""

    def __init__(self, manifest: Manifest) -> None:
        self._queue = queue_of(manifest, worker=f"verify-{os.getpid()}")
        self._tasks = {task.name: task for task in self._queue.tasks}

    def of(self, run: PlannedRun, record: RunRecord) -> Standing:
        """How one of them stands now."""
        has_record = (record.run_dir / layout.RUN).exists()
        if has_record and record.problem:
            return Standing(run, "missing", "damaged", reason=record.problem)
        if of := record.run.get("deviation_of"):
            return Standing(run, "missing", "deviation", reason=f"it is a deviation of {of}")
        queued = self._queue.standing(self._tasks[run.run_id])
        if queued.state == "accepted":
            return _accepted(run, record)
        if queued.state in SETTLED:
            return _ended(run, queued)
        told = failure_of(record.run_dir) if has_record else ""
        # Before there were attempts, only its words told a run that had diverged from others.
        judged = has_record and read_attempt(record.run_dir, queued.session) is not None
        if (
            queued.state != "running"
            and not judged
            and record.status == "failed"
            and _DIVERGED.search(told)
        ):
            return Standing(run, "diverged", "diverged", "diverged", told)
        status = "planned" if queued.state == "queued" and not queued.session else queued.state
        reason = "" if status in ("planned", "running") else in_a_line(queued.reason)
        return Standing(run, "missing", status, reason=reason)

    def close(self) -> None:
        """Take away what only looking needed."""
        self._queue.close()


def _accepted(run: PlannedRun, record: RunRecord) -> Standing:
    try:
        _ = record.results
    except RecordError as error:
        return Standing(run, "missing", "damaged", reason=str(error))
    if record.problem:
        return Standing(run, "missing", "damaged", reason=record.problem)
    return Standing(run, "accepted", "accepted")


def _ended(run: PlannedRun, queued: Queued) -> Standing:
    """A run without results that is not tried again."""
    outcome = queued.attempts[-1].outcome if queued.attempts else "unknown"
    outcome = "cancelled" if queued.state == "cancelled" else outcome
    failure = outcome if outcome in CLASSES else "unknown"
    state: State = "diverged" if queued.state == "diverged" else "failed"
    return Standing(run, state, queued.state, failure, in_a_line(queued.reason) or failure)


# ---- an accepted run ---------------------------------------------------------------------------


def _of_record(run: PlannedRun, record: RunRecord, results: Mapping[str, Any]) -> Iterator[Problem]:
    """What its documents say against each other."""
    if record.identity != run.identity:
        told = f"its identity is {str(record.identity)[:12]}, planned was {run.identity[:12]}"
        yield Problem("other settings", run.run_id, told)
    session = results.get("accepted_session")
    if session is not None and session not in layout.session_numbers(record.run_dir):
        told = f"its results are of session {session!r}, which is not there"
        yield Problem("lost session", run.run_id, told)


def _of_metrics(
    manifest: Manifest, run: PlannedRun, record: RunRecord, results: Mapping[str, Any]
) -> Iterator[Problem]:
    """What its metrics lack of what the study asks for."""
    wanted = required(manifest)
    # One question for all keys, so that the lines are read once.
    seen = record.buckets(list(wanted), points=1)
    final = results.get("final")
    final = final if isinstance(final, Mapping) else {}
    primary = manifest.study.primary
    for metric, quality in wanted.items():
        given = final.get(metric)
        given = float(given) if isinstance(given, int | float) else None
        logged = metric in seen and any(bool(n) for n in (*seen[metric].count, *seen[metric].nan))
        of_results = metric == primary.metric and primary.statistic == "last"
        if (given is None and not logged) or (of_results and given is None):
            if quality.required:
                told = f"{metric} is not in its results" if logged else f"{metric} is not there"
                yield Problem("absent metric", run.run_id, told)
            if not logged:
                continue
        series = record.series(metric)
        yield from _of_values(run, metric, quality, series, given)
        if quality.every is not None and (gap := _gap(series, quality.every, results)):
            yield Problem("gap", run.run_id, f"{metric}: {gap}")


def required(manifest: Manifest) -> dict[str, QualitySettings]:
    """What is asked of each metric: of the primary one that it is there and finite, and what
    `study.quality` says."""
    quality = dict(manifest.study.quality)
    own = quality.pop(manifest.study.primary.metric, QualitySettings())
    # That which decides is needed, whatever else is said of it.
    return {manifest.study.primary.metric: own.model_copy(update={"required": True}), **quality}


def _of_values(
    run: PlannedRun, metric: str, quality: QualitySettings, series: Series, given: float | None
) -> Iterator[Problem]:
    """Values that are not finite, or out of range; `given` is that of the results."""
    import numpy as np

    steps, values = series.x, series.y
    finite = np.isfinite(values)
    if quality.finite:
        wrong = int(np.count_nonzero(~finite))
        if wrong:
            first = int(np.argmin(finite))
            told = f"{metric} is {values[first]:g} at step {steps[first]}"
            more = f", and {wrong - 1:,} times more" if wrong > 1 else ""
            yield Problem("not finite", run.run_id, told + more)
        elif given is not None and not math.isfinite(given):
            yield Problem("not finite", run.run_id, f"{metric} is {given:g} in its results")
        steps, values = steps[finite], values[finite]
    low = -math.inf if quality.low is None else quality.low
    high = math.inf if quality.high is None else quality.high
    outside = (values < low) | (values > high)
    allowed = f"allowed is {low:g} to {high:g}"
    if outside.any():
        first, count = int(np.argmax(outside)), int(np.count_nonzero(outside))
        more = f", and {count - 1:,} times more" if count > 1 else ""
        told = f"{metric} is {values[first]:g} at step {steps[first]}{more}; {allowed}"
        yield Problem("out of range", run.run_id, told)
    elif given is not None and math.isfinite(given) and not low <= given <= high:
        yield Problem(
            "out of range", run.run_id, f"{metric} is {given:g} in its results; {allowed}"
        )


def _gap(series: Series, every: int, results: Mapping[str, Any]) -> str | None:
    """The first place with more steps between values than allowed; from the start to the end."""
    import numpy as np

    end = results.get("step")
    places = np.concatenate([[0], series.x, [end] if isinstance(end, int) else []]).astype(np.int64)
    wide = np.flatnonzero(np.diff(places) > every)
    if not len(wide):
        return None
    first = int(wide[0])
    more = f", and {len(wide) - 1:,} further gaps" if len(wide) > 1 else ""
    told = f"nothing between steps {places[first]} and {places[first + 1]}"
    return f"{told}{more}; allowed is every {every:,}"


def _changed(record: RunRecord) -> Iterator[Changed]:
    """The sessions of a run that ran with other settings than planned."""
    for number in layout.session_numbers(record.run_dir):
        if changes := changes_in(record.run_dir, number, read_attempt(record.run_dir, number)):
            yield Changed(record.run_id, number, changes)


def _code_of(record: RunRecord, results: Mapping[str, Any]) -> tuple[str | None, bool, str | None]:
    """Commit, whether tracked files differed, and the hash of how, of the accepted session."""
    facts = environment_of(record, results.get("accepted_session"))
    git = facts.get("git")
    git = git if isinstance(git, Mapping) else {}
    patch = facts.get("dirty_patch_sha256")
    return git.get("commit"), bool(git.get("dirty")), patch if isinstance(patch, str) else None


def environment_of(record: RunRecord, session: Any) -> Mapping[str, Any]:
    """What a session ran on, else what the newest did; empty where nothing can be read."""
    sessions = record.sessions
    chosen = [one for one in sessions if one.number == session] or sessions[-1:]
    try:
        return chosen[0].environment if chosen else {}
    except RecordError:
        return {}


# ---- runs besides the planned ones -------------------------------------------------------------


def of_the_study(manifest: Manifest) -> Iterator[RunRecord]:
    """Runs of the study that its plan does not hold, by name: deviations, and strays."""
    planned = {run.run_id for run in manifest.runs}
    for folder in sorted(layout.run_dirs(manifest.root, manifest.project)):
        if folder.name not in planned and (folder / layout.RUN).exists():
            record = RunRecord(folder)
            if record.run.get("study") == manifest.name:
                yield record


def _further(manifest: Manifest, runs: list[Standing]) -> tuple[list[Problem], list[Deviation]]:
    """Accepted runs of one identity, and the deviations."""
    accepted = {one.run.identity: one.run.run_id for one in runs if one.state == "accepted"}
    planned = {run.identity for run in manifest.runs}
    duplicates: list[Problem] = []
    deviations: list[Deviation] = []
    for record in of_the_study(manifest):
        finished = record.status == "finished"
        if of := record.run.get("deviation_of"):
            deviations.append(Deviation(record.run_id, str(of), finished))
        elif finished and record.identity in planned:
            other = accepted.setdefault(record.identity, record.run_id)
            if other != record.run_id:
                told = f"{other} is accepted with the same settings and seed"
                duplicates.append(Problem("duplicate", record.run_id, told))
    return duplicates, deviations
