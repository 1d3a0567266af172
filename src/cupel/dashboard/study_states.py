"""How studies and the queue stand, as pages are told once a second: `standing`, `queue`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cupel.dashboard.failing import Failures, failures
from cupel.dashboard.glance import ACTIVE, Glance, Seen, desk_of
from cupel.dashboard.replies import Number
from cupel.dashboard.store import Store
from cupel.errors import CupelError, UnknownName

MOST_ACTIVE = 200  # runs that are told one by one
MOST_NAMED = 20


class Forecast(msgspec.Struct):
    """When the last run will be done, in Unix seconds: the median, and the 10–90 % interval."""

    at: float
    low: float
    high: float


class AlertFact(msgspec.Struct):
    """Something to look at."""

    study: str
    key: str
    severity: str
    text: str
    t: float


class WorkerFact(msgspec.Struct):
    """Who works on a study: "alive", "silent" or "dead", and which runs it trains."""

    study: str
    worker: str
    state: str
    host: str
    pid: int
    slots: int
    running: list[str]


class ActiveRun(msgspec.Struct):
    """A run that somebody trains, or that is silent."""

    run: str
    study: str
    arm: str
    point: str
    seed: int
    state: str
    step: int
    steps: int
    loss: Number | None
    val_loss: Number | None
    sessions: int
    stepped: float | None
    """When its last step was logged, in Unix seconds."""


class StudyState(msgspec.Struct):
    """How a study stands."""

    key: str
    question: str
    counts: dict[str, int]
    total: int
    marks: str
    """A letter for each run in the order of the plan; see `letters` of the plan."""
    steps: int
    of_steps: int
    runs_per_hour: float
    steps_per_s: float
    eta: Forecast | None
    unknown: str
    """Why there is no forecast; empty where there is one, and where all is over."""
    over: bool
    slots: int
    alerts: list[AlertFact]
    workers: list[WorkerFact]
    active: list[ActiveRun]
    newest: float | None
    """The last sign of life of any run, in Unix seconds."""
    plan: str
    """Equal as long as the study was not widened."""
    ended: str
    """Equal as long as no run has ended."""


def standing(store: Store, key: str) -> StudyState:
    """How a study stands, for pages that show it. Raises UnknownName and RecordError."""
    glance = desk_of(store).glance(key)
    return state_of(glance, glance.seen())


def state_of(glance: Glance, seen: Seen) -> StudyState:
    forecast, working = seen.forecast, any(seen.counts.get(state) for state in ACTIVE)
    rate = forecast.throughput
    return StudyState(
        key=glance.key,
        question=seen.manifest.study.question,
        counts=dict(seen.counts),
        total=len(seen.states),
        marks=seen.marks,
        steps=sum(state.step for state in seen.states),
        of_steps=sum(state.steps for state in seen.states),
        # Told in three digits, so that nothing is sent anew while nothing happens.
        runs_per_hour=_short(rate.runs_per_hour) if working else 0.0,
        steps_per_s=_short(rate.steps_per_s) if working else 0.0,
        eta=_forecast(seen),
        unknown="" if seen.over else forecast.unknown,
        over=seen.over,
        slots=forecast.slots,
        alerts=_alerts(seen),
        workers=_workers(seen),
        active=_active(seen)[:MOST_ACTIVE],
        newest=max((state.signed for state in seen.states if state.signed), default=None),
        plan=seen.manifest.hash[:16],
        ended=seen.ended,
    )


def _forecast(seen: Seen) -> Forecast | None:
    eta = seen.forecast.eta
    if eta is None or seen.over:
        return None
    return Forecast(round(eta.at), round(eta.low), round(eta.high))


def _alerts(seen: Seen) -> list[AlertFact]:
    return [AlertFact(seen.key, a.key, a.severity, a.text, a.t) for a in seen.alerts]


def _workers(seen: Seen) -> list[WorkerFact]:
    known = WorkerFact.__struct_fields__
    rows = [{name: row[name] for name in known if name in row} for row in seen.forecast.workers]
    return [msgspec.convert({"study": seen.key, **row}, WorkerFact) for row in rows]


def _active(seen: Seen) -> list[ActiveRun]:
    return [
        ActiveRun(
            state.run.run_id,
            seen.key,
            state.run.arm,
            state.run.point,
            state.run.seed,
            state.status,
            state.step,
            state.steps,
            state.loss,
            state.val_loss,
            state.sessions,
            state.stepped,
        )
        for state in seen.states
        if state.status in ACTIVE
    ]


def _short(value: float) -> float:
    return float(f"{value:.3g}")


# ---- the queue -----------------------------------------------------------------------------------


class QueuedStudy(msgspec.Struct):
    """A study with open work, or one that cannot be read: `problem` says why."""

    key: str
    question: str
    counts: dict[str, int]
    total: int
    open: int
    steps: int
    of_steps: int
    eta: Forecast | None
    unknown: str
    problem: str


class Hold(msgspec.Struct):
    """Runs of a study that are held for one reason; `by_breaker`: since others failed alike."""

    study: str
    why: str
    count: int
    by_breaker: bool
    runs: list[str]
    """The first twenty."""


class Quarantine(msgspec.Struct):
    """A place where no run begins for an hour; without a device it is the whole host."""

    study: str
    host: str
    device: str
    why: str


class QueueState(msgspec.Struct):
    """Every study that has work left, who works, and what failed anywhere."""

    studies: list[QueuedStudy]
    settled: int
    """How many studies have no open work."""
    workers: list[WorkerFact]
    active: list[ActiveRun]
    active_total: int
    alerts: list[AlertFact]
    failures: list[Failures]
    holds: list[Hold]
    quarantined: list[Quarantine]


def queue(store: Store) -> QueueState:
    """What is open in all studies of the root."""
    found, broken = all_seen(store)
    opened = [(glance, seen) for glance, seen in found if seen.open]
    active = [one for _, seen in found for one in _active(seen)]
    return QueueState(
        studies=[*map(_queued, opened), *broken],
        settled=len(found) - len(opened),
        workers=[one for _, seen in found for one in _workers(seen)],
        active=active[:MOST_ACTIVE],
        active_total=len(active),
        alerts=[one for _, seen in opened for one in _alerts(seen)],
        failures=failures(found),
        holds=[one for glance, seen in opened for one in _holds(glance, seen)],
        quarantined=[
            Quarantine(glance.key, host, device, why)
            for glance, _ in opened
            for (host, device), why in glance.quarantined().items()
        ],
    )


def all_seen(store: Store) -> tuple[list[tuple[Glance, Seen]], list[QueuedStudy]]:
    """Every study that can be read, and those that cannot, each with why."""
    desk = desk_of(store)
    found: list[tuple[Glance, Seen]] = []
    broken: list[QueuedStudy] = []
    for key in desk.all():
        try:
            glance = desk.glance(key)
            found.append((glance, glance.seen()))
        except UnknownName:  # deleted meanwhile
            continue
        except CupelError as error:
            told = " ".join(str(error).split())
            broken.append(QueuedStudy(key, "", {}, 0, 0, 0, 0, None, "", told))
    return found, broken


def _queued(one: tuple[Glance, Seen]) -> QueuedStudy:
    state = state_of(*one)
    return QueuedStudy(
        state.key,
        state.question,
        state.counts,
        state.total,
        one[1].open,
        state.steps,
        state.of_steps,
        state.eta,
        state.unknown,
        "",
    )


def _holds(glance: Glance, seen: Seen) -> Iterator[Hold]:
    found: dict[tuple[str, bool], Hold] = {}
    for state in seen.states:
        if state.status == "held":
            word = glance.word(state.run.run_id)
            key = (state.reason or "held", word.by_breaker)
            one = found.setdefault(key, Hold(glance.key, key[0], 0, key[1], []))
            one.count += 1
            if len(one.runs) < MOST_NAMED:
                one.runs.append(state.run.run_id)
    yield from found.values()
