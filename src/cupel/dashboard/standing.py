"""How one run stands, in facts that are kept apart: does its process live, is anything logged?

`of_run` is asked about once a second for each run that a page shows. It looks at the newest 20,000
points of one metric; what needs more is asked for by itself (`insight`). That a process lives says
nothing of its training: a run is silent, too, when it has logged nothing for as long as it never
did before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from cupel.dashboard.replies import Number
from cupel.dashboard.store import OpenRun, Store
from cupel.record import layout
from cupel.record.heartbeat import STALE_S
from cupel.record.reader import SessionInfo, newest_lines
from cupel.record.series import STEP

if TYPE_CHECKING:
    from cupel.record.curve import Curve

STRETCHES = 512  # in which the least value is looked for first
NEWEST = 20_000  # points that pace, trend and anomalies look at
HEADLINES = ("loss", "train/loss", "train_loss", "val_loss")
ENTROPIES = ("unigram", "bigram")  # of a corpus, as a workload names them
HELD = ("loss", "val_loss")  # what is held against them
MOST_REFERENCES = 8
SILENT_TIMES = 5  # the longest usual gap between two lines, at least a minute


class PaceFacts(msgspec.Struct):
    """Steps a second without pauses, and over all; seconds and number of the pauses."""

    velocity: Number
    overall: Number
    paused_s: Number
    pauses: int


class EtaFacts(msgspec.Struct):
    """Seconds that are left: the middle, and the ends of a 90 % interval."""

    low: Number
    middle: Number
    high: Number


class TrendFacts(msgspec.Struct):
    """falling, flat, rising, noisy or not finite; over which steps and how many points."""

    label: str
    low: Number
    high: Number
    points: int


class SessionFacts(msgspec.Struct):
    """One session: how it ended, and the steps that it went on from."""

    number: int
    status: str
    started: float | None
    ended: float | None
    start_step: int | None
    host: str | None
    lost: int


class RunState(msgspec.Struct):
    """What a page shows of a run at its head."""

    run: str
    project: str
    id: str
    name: str | None
    status: str
    """running, silent, finished, failed, interrupted, crashed, damaged"""
    why: str | None
    """What is behind the status, in words."""
    alive: bool
    """Whether its process lives."""
    session: int
    sessions: list[SessionFacts]
    created: float
    step: int | None
    steps: int | None
    """How many it will take, where that is known."""
    last_line: float | None
    """When a number was logged last, in Unix seconds."""
    heartbeat: float | None
    """When its process showed itself last, in Unix seconds."""
    headline: str | None
    """The metric that current, average, pace and trend are of."""
    current: Number | None
    average: Number | None
    best: Number | None
    best_step: int | None
    pace: PaceFacts | None
    throughput: Number | None
    """Of perf/tokens_per_s or perf/samples_per_s, where logged; else steps a second."""
    throughput_unit: str
    eta: EtaFacts | None
    trend: TrendFacts | None
    anomalies: int
    damaged_lines: int
    tags: list[str]
    notes: str | None
    study: str | None
    arm: str | None
    metrics: int


def of_run(store: Store, key: str) -> RunState:
    """How a run stands now. Raises UnknownName."""
    project, _, run_id = key.partition("/")
    with store.reading(key) as run:
        record = run.record
        told = record.run  # read again by the store when it has changed
        sessions = record.sessions
        names = names_of(store, key, run)
        headline = headline_of(names)
        points = _Newest.of(run, headline) if headline else None
        total = told.get("steps") if isinstance(told.get("steps"), int) else None
        last = _last_line(sessions)
        status, why = _status(run, sessions, last, points)
        facts = _facts(run, points, names, total, running=status == "running")
        damaged = record.damaged_lines
    newest = sessions[-1] if sessions else None
    step = last[0] if last else None
    return RunState(
        run=key, project=project, id=run_id, name=told.get("name"), status=status, why=why,
        alive=newest is not None and newest.status == "running",
        session=newest.number if newest else 0,
        sessions=[_session_facts(info) for info in sessions[-50:]],
        created=record.created, step=step, steps=total, last_line=last[1] if last else None,
        heartbeat=_heartbeat(newest), headline=headline, damaged_lines=damaged,
        tags=[tag for tag in told.get("tags") or [] if isinstance(tag, str)],
        notes=told.get("notes") or None, study=told.get("study"), arm=told.get("arm"),
        metrics=len(names), **facts,
    )  # fmt: skip


def names_of(store: Store, key: str, run: OpenRun) -> list[str]:
    """The names of a run's metrics, and those that only the table of runs knows of."""
    names = dict.fromkeys(run.names())
    row = store.known_row(key)
    if row is not None and row["status"] != "running" and not run.names_are_all():
        numbers = row["summary"].items()
        set_by_hand = {e for event in run.record.events() if event["_event"] == "summary"
                       for e in event.get("set", {})}  # fmt: skip
        names |= {
            name: None for name, value in numbers
            if isinstance(value, int | float) and name not in set_by_hand
        }  # fmt: skip
    return list(names)


def headline_of(names: list[str]) -> str | None:
    """The metric that stands for a run: its loss, else the first that it logged."""
    for name in HEADLINES:
        if name in names:
            return name
    return names[0] if names else None


@dataclass(slots=True)
class _Newest:
    """The newest points of the headline metric, and all of its curve."""

    name: str
    curve: Curve
    steps: Any
    times: Any
    values: Any

    @classmethod
    def of(cls, run: OpenRun, name: str) -> _Newest:
        _, logged = run.logged(name)
        curve = logged.curve(name, STEP)
        return cls(name, curve, *curve.newest(NEWEST))


def _facts(
    run: OpenRun, newest: _Newest | None, names: list[str], total: int | None, *, running: bool
) -> dict[str, Any]:
    from cupel.analysis.anomalies import anomalies
    from cupel.analysis.convergence import convergence
    from cupel.analysis.pace import eta, pace
    from cupel.analysis.trend import trend

    found: dict[str, Any] = dict.fromkeys(
        ("current", "average", "best", "best_step", "pace", "throughput", "eta", "trend")
    )
    found |= {"throughput_unit": "steps/s", "anomalies": 0}
    if newest is None or not len(newest.values):
        return found
    if (speed := pace(newest.steps, newest.times)) is not None:
        found["pace"] = PaceFacts(speed.velocity, speed.overall, speed.paused_s, speed.pauses)
        found["throughput"] = speed.velocity
    if running and (left := eta(newest.steps, newest.times, total)) is not None:
        since = max(0.0, time.time() - float(newest.times[-1]))
        ends = (left.low, left.middle, left.high)
        found["eta"] = EtaFacts(*(max(0.0, end - since) for end in ends))
    if (course := trend(newest.steps, newest.values)) is not None:
        found["trend"] = TrendFacts(course.label, course.low, course.high, course.points)
    if (come := convergence(newest.steps, newest.values)) is not None:
        found |= {"current": come.last, "average": come.current}
    found["best"], found["best_step"] = _best(newest.curve)
    found["anomalies"] = anomalies(newest.steps, newest.values).total
    for name, unit in (("perf/tokens_per_s", "tokens/s"), ("perf/samples_per_s", "samples/s")):
        if name in names:
            _, _, values = run.logged(name)[1].curve(name, STEP).newest(1)
            if len(values):
                found |= {"throughput": float(values[-1]), "throughput_unit": unit}
                break
    return found


def _best(curve: Curve) -> tuple[float | None, int | None]:
    """The least value of all of a curve and its first step, without reading all of it."""
    import numpy as np

    extent = curve.extent()
    if extent is None:
        return None, None
    edges = np.linspace(extent[0], extent[1] + 1, STRETCHES + 1)
    buckets = curve.buckets(edges)
    if not np.isfinite(buckets.min).any():
        return None, None
    place = int(np.nanargmin(np.where(np.isfinite(buckets.min), buckets.min, np.nan)))
    points = curve.series((float(edges[place]), float(edges[place + 1])))
    values = np.where(np.isfinite(points.y), points.y, np.inf)
    row = int(values.argmin())
    return float(values[row]), int(points.x[row])


def _last_line(sessions: list[SessionInfo]) -> tuple[int, float | None] | None:
    """Step and time of the last line of the newest session that has one."""
    for info in reversed(sessions):
        for line in newest_lines(info):
            step, at = line.get("_step"), line.get("_t")
            if isinstance(step, int):
                return step, float(at) if isinstance(at, int | float) else None
    return None


def _heartbeat(info: SessionInfo | None) -> float | None:
    if info is None:
        return None
    try:
        return (info.dir / layout.heartbeat_name()).stat().st_mtime
    except OSError:
        return None


def _status(
    run: OpenRun, sessions: list[SessionInfo], last: tuple[int, float | None] | None,
    points: _Newest | None,
) -> tuple[str, str | None]:  # fmt: skip
    """The status and what is behind it. A run that shows no sign for long is not running."""
    record = run.record
    if record.problem:
        return "damaged", record.problem
    status = record.status
    newest = sessions[-1] if sessions else None
    if newest is None:
        return status, None
    if status in ("failed", "interrupted", "crashed"):
        error = newest.fields.get("error")
        words = {"crashed": "its process ended without a word: killed, or the machine went down"}
        return status, str(error) if error else words.get(status)
    if status != "running":
        return status, None
    now = time.time()
    beat = _heartbeat(newest)
    # What is told from the future was told by a clock that was set back since: it proves nothing.
    if beat is not None and abs(now - beat) > STALE_S:
        return "silent", f"its process has not shown itself for {_span(abs(now - beat))}"
    if last and last[1] is not None and points is not None:
        usual = _usual_gap(points)
        since = abs(now - max(last[1], newest.started or 0.0))
        if since > max(STALE_S, SILENT_TIMES * usual):
            return (
                "silent",
                f"nothing logged for {_span(since)}; usually a line every {_span(usual)}",
            )
    return status, None


def _usual_gap(newest: _Newest) -> float:
    """The median of the last gaps between two points, in seconds."""
    import numpy as np

    gaps = np.diff(newest.times[-1000:])
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    return float(np.median(gaps)) if len(gaps) else 0.0


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _session_facts(info: SessionInfo) -> SessionFacts:
    lost = info.fields.get("lost")
    return SessionFacts(
        info.number, info.status, info.started, info.ended, info.start_step, info.host,
        lost if isinstance(lost, int) else 0,
    )  # fmt: skip


class Reference(msgspec.Struct):
    """A value to hold a metric against."""

    metric: str
    value: Number
    label: str


class MetricsState(msgspec.Struct):
    """The names of all metrics of some runs, in the order in which they came, and references."""

    metrics: list[str]
    references: list[Reference]


def metrics(store: Store, keys: list[str]) -> MetricsState:
    """What some runs log. Raises UnknownName."""
    names: dict[str, None] = {}
    for key in keys:
        with store.reading(key) as run:
            names |= dict.fromkeys(names_of(store, key, run))
    return MetricsState(list(names), references(store, keys))


def read_ahead(store: Store, keys: list[str]) -> None:
    """Read the numbers of the chart that a page of some runs shows first, where that is known.

    Raises UnknownName.
    """
    names = metrics(store, keys).metrics
    first = names if len(names) == 1 else [name for name in names if name == "loss"]
    for key in keys if first else ():
        with store.reading(key) as run:
            run.logged(first[0], STEP)


def references(store: Store, keys: Iterable[str]) -> list[Reference]:
    """What some runs' losses can be held against; nothing where that would be too many lines.

    Raises UnknownName.
    """
    found: dict[tuple[str, float, str], Reference] = {}
    for key in keys:
        with store.reading(key) as run:
            told = run.references()
        for name, value in told.items():
            label = f"{name} entropy" if name in ENTROPIES else name
            for metric in HELD:
                found[metric, value, label] = Reference(metric, value, label)
    return list(found.values()) if len(found) <= MOST_REFERENCES else []
