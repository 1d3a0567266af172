"""All studies in short, one with its plan, and a number of its runs cell by cell: `rows`, `plan`,
`cells`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cupel.dashboard.glance import MARKS, Glance, Seen
from cupel.dashboard.replies import Number
from cupel.dashboard.store import Store
from cupel.dashboard.study_states import Forecast, StudyState, all_seen, state_of
from cupel.errors import RecordError, UnknownName
from cupel.record.index import Row
from cupel.record.reader import RunRecord
from cupel.studies.manifest import Manifest
from cupel.studies.narrowing import axes_of
from cupel.studies.state import RunState
from cupel.studies.unequal import dotted

MOST_DEVIATIONS = 200


class StudyRow(msgspec.Struct):
    """A study in the list; `problem` says why one cannot be read."""

    key: str
    project: str
    name: str
    question: str
    about: str
    created: float | None
    metric: str
    arms: list[str]
    cells: int
    runs: int
    counts: dict[str, int]
    steps: int
    of_steps: int
    eta: Forecast | None
    over: bool
    newest: float | None
    alerts: int
    problem: str


def rows(store: Store) -> list[StudyRow]:
    """All studies, what was active last first."""
    found, broken = all_seen(store)
    listed = [_row(glance, seen) for glance, seen in found]
    listed.sort(key=lambda row: (row.newest or row.created or 0.0, row.key), reverse=True)
    for one in broken:
        project, _, name = one.key.partition("/")
        listed.append(
            StudyRow(
                one.key, project, name, "", "", None, "", [], 0, 0, {}, 0, 0, None, False, None, 0,
                one.problem,
            )
        )  # fmt: skip
    return listed


def _row(glance: Glance, seen: Seen) -> StudyRow:
    state, manifest = state_of(glance, seen), seen.manifest
    return StudyRow(
        key=glance.key,
        project=manifest.project,
        name=manifest.name,
        question=manifest.study.question,
        about=manifest.about,
        created=manifest.created,
        metric=manifest.study.primary.metric,
        arms=list(manifest.study.arms),
        cells=len(manifest.cells),
        runs=len(manifest.runs),
        counts=state.counts,
        steps=state.steps,
        of_steps=state.of_steps,
        eta=state.eta,
        over=state.over,
        newest=state.newest,
        alerts=len(state.alerts),
        problem="",
    )


# ---- one study -----------------------------------------------------------------------------------


class Parameter(msgspec.Struct):
    """An axis of the study's points: as points call it, its dotted setting, and its values."""

    name: str
    setting: str
    values: list[Any]


class CellFact(msgspec.Struct):
    """One arm at one point; `place` has a value for each parameter, `runs` are places in `runs`."""

    arm: str
    point: str
    place: list[Any]
    runs: list[int]


class RunFact(msgspec.Struct):
    """One planned run, and how it stands."""

    run: str
    cell: int
    seed: int
    state: str
    step: int
    steps: int
    value: Number | None
    """The primary metric in its summary; of an accepted run, in its results."""
    loss: Number | None
    val_loss: Number | None
    sessions: int
    attempts: int
    seconds: float
    reason: str


class DeviationFact(msgspec.Struct):
    """A run that was derived from a planned one with other settings; it never counts."""

    run: str
    of: str
    status: str


class StudyPlan(msgspec.Struct):
    """What a study is to decide and how, every cell and run of it, and how they stand."""

    key: str
    project: str
    name: str
    about: str
    question: str
    created: float
    parts: int
    """How many files the plan has: one more each time that it was widened."""
    metric: str
    statistic: str
    better: str
    kind: str
    correction: str
    confidence: float
    margin: float | None
    baseline: str
    arms: dict[str, dict[str, Any]]
    """What each arm changes."""
    parameters: list[Parameter]
    seeds: list[int]
    cells: list[CellFact]
    runs: list[RunFact]
    letters: dict[str, str]
    """What each letter of `marks` means."""
    deviations: list[DeviationFact]
    state: StudyState


def plan(store: Store, glance: Glance) -> StudyPlan:
    seen = glance.seen()
    manifest, study = seen.manifest, seen.manifest.study
    known = _rows_of(store, manifest)
    parameters, places = _laid_out(glance, manifest)
    laid = [
        CellFact(cell.arm, cell.point, place, [])
        for cell, place in zip(manifest.cells, places, strict=True)
    ]
    for number, run in enumerate(manifest.runs):
        laid[run.cell].runs.append(number)
    metric = study.primary.metric
    return StudyPlan(
        key=glance.key,
        project=manifest.project,
        name=manifest.name,
        about=manifest.about,
        question=study.question,
        created=manifest.created,
        parts=manifest.parts,
        metric=metric,
        statistic=study.primary.statistic,
        better=study.primary.better,
        kind=study.compare.kind,
        correction=study.compare.correction,
        confidence=study.compare.confidence,
        margin=study.compare.margin,
        baseline=manifest.baseline,
        arms=_arms(manifest),
        parameters=parameters,
        seeds=list(study.seeds),
        cells=laid,
        runs=[_run(state, known.get(state.run.run_id), metric) for state in seen.states],
        letters={mark: state for state, mark in MARKS.items()},
        deviations=_deviations(manifest, known),
        state=state_of(glance, seen),
    )


def _arms(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The arms that have cells, the baseline first."""
    there = {cell.arm for cell in manifest.cells}
    changes = {arm: dict(change) for arm, change in manifest.study.arms.items() if arm in there}
    first = {arm: changes[arm] for arm in (manifest.baseline,) if arm in changes}
    return first | changes | {arm: {} for arm in there - changes.keys()}


def _laid_out(glance: Glance, manifest: Manifest) -> tuple[list[Parameter], list[list[Any]]]:
    """The parameters, and of each cell their values; decoded once a plan."""
    known = glance.memory.get("laid out")
    if known is None or known[0] is not manifest:
        axes = axes_of(manifest)
        places: list[list[Any]] = []
        for cell in manifest.cells:
            config = dict(cell.config.items()) if axes else {}
            places.append([dotted(config, setting) for setting in axes.values()])
        parameters = [
            Parameter(name, setting, _several([place[at] for place in places]))
            for at, (name, setting) in enumerate(axes.items())
        ]
        known = glance.memory["laid out"] = manifest, parameters, places
    return known[1], known[2]


def _several(values: Sequence[Any]) -> list[Any]:
    """Distinct values, numbers by size, else in the order of the plan."""
    found = list({msgspec.json.encode(value): value for value in values}.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        found.sort()
    return found


def _run(state: RunState, row: Row | None, metric: str) -> RunFact:
    value = row["summary"].get(metric) if row else None
    return RunFact(
        run=state.run.run_id,
        cell=state.run.cell,
        seed=state.run.seed,
        state=state.status,
        step=state.step,
        steps=state.steps,
        value=value if _is_number(value) else None,
        loss=state.loss,
        val_loss=state.val_loss,
        sessions=state.sessions,
        attempts=state.attempts,
        seconds=round(state.seconds, 1),
        reason=state.reason or "",
    )


def _deviations(manifest: Manifest, rows: Mapping[str, Row]) -> list[DeviationFact]:
    """Runs of the study that its plan does not hold, and that say of which planned one they are."""
    planned = {run.run_id for run in manifest.runs}
    found: list[DeviationFact] = []
    for name, row in rows.items():
        if name in planned or row["study"] != manifest.name or len(found) >= MOST_DEVIATIONS:
            continue
        with contextlib.suppress(RecordError):
            of = RunRecord(manifest.root / manifest.project / name).run.get("deviation_of")
            if isinstance(of, str):
                found.append(DeviationFact(name, of, row["status"]))
    return found


def _rows_of(store: Store, manifest: Manifest) -> dict[str, Row]:
    """The rows of the study's runs, and of those that say to be of it."""
    return {row["id"]: row for row in store.rows() if row["project"] == manifest.project}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- a number, cell by cell ----------------------------------------------------------------------


class CellValue(msgspec.Struct):
    """A number over the accepted runs of a cell; `other` are those that diverged, or whose number
    is not finite, `missing` those that are not accepted, or have none."""

    n: int
    mean: Number | None
    low: Number | None
    """The least."""
    high: Number | None
    """The greatest."""
    other: int
    missing: int


class CellValues(msgspec.Struct):
    """A metric of the runs' summaries, for each cell in the order of the plan."""

    study: str
    metric: str
    metrics: list[str]
    """All that accepted runs have in their summaries."""
    cells: list[CellValue]


def cells(store: Store, glance: Glance, metric: str | None) -> CellValues:
    seen = glance.seen()
    manifest, rows = seen.manifest, _rows_of(store, seen.manifest)
    names: dict[str, None] = {}
    found: list[list[float]] = [[] for _ in manifest.cells]
    other, missing = [0] * len(found), [0] * len(found)
    metric = metric or manifest.study.primary.metric
    for state in seen.states:
        row, cell = rows.get(state.run.run_id), state.run.cell
        summary = row["summary"] if row and state.status == "finished" else {}
        names.update(dict.fromkeys(name for name, value in summary.items() if _is_number(value)))
        value: Any = summary.get(metric)
        if state.status == "diverged" or (_is_number(value) and not math.isfinite(value)):
            other[cell] += 1
        elif _is_number(value):
            found[cell].append(float(value))
        else:
            missing[cell] += 1
    if names and metric not in names:
        raise UnknownName("metric in the summaries of this study", metric[:200], names)
    told = [_over(*one) for one in zip(found, other, missing, strict=True)]
    return CellValues(glance.key, metric, sorted(names), told)


def _over(values: Sequence[float], other: int, missing: int) -> CellValue:
    if not values:
        return CellValue(0, None, None, None, other, missing)
    mean = math.fsum(values) / len(values)
    return CellValue(len(values), mean, min(values), max(values), other, missing)
