"""What became of each run of a study, read from its record.

Nothing is filled in: a field that a record lacks is None. Reading parses every line of metrics
(about 2 µs each).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from cupel.errors import RecordError
from cupel.jobs.reasons import failure_of
from cupel.record import layout
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.studies.manifest import Manifest, PlannedRun
from cupel.studies.state import Look

PLANNED = "planned"  # a run whose folder is not there yet
REFUSED = "refused"  # a run that could not begin
_DIVERGED = re.compile(r"\bis (nan|-?inf)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One planned run as its record tells it.

    `last` is the primary metric of the final evaluation and `best` the best over all evaluations;
    `value` is the one of the two that was declared to decide, and None unless the run finished.
    A run that ended because a loss was not finite is `diverged`, and its value is NaN. `final` is
    all numbers of the final evaluation.
    """

    run: PlannedRun
    run_dir: Path
    status: str
    reason: str | None = None
    value: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int | None = None
    ema: float | None = None
    diverged: bool = False
    steps: int | None = None
    sessions: int = 0
    parameters: int | None = None
    unit: str = "units"
    units: float | None = None
    units_per_s: float | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    flops: float | None = None
    bytes_per_token: float | None = None
    data: str | None = None
    validation: str | None = None
    evaluations: Sequence[tuple[int, float]] = ()
    final: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether its results were accepted."""
        return self.status == "finished"


def read_runs(manifest: Manifest) -> tuple[RunOutcome, ...]:
    """Every planned run, in the manifest's order."""
    look = Look(manifest)
    try:
        return tuple(_read(manifest, run, look) for run in manifest.runs)
    finally:
        look.close()


def _read(manifest: Manifest, run: PlannedRun, look: Look) -> RunOutcome:
    folder = manifest.run_dir(run)
    if not (folder / layout.RUN).exists():
        state = look.state(run) if folder.exists() else None
        refused = state is not None and state.status == REFUSED
        why = state.reason if state is not None and state.reason else "not started"
        return RunOutcome(run, folder, REFUSED if refused else PLANNED, reason=why)
    record = RunRecord(folder)
    primary = manifest.study.primary
    rows = record.history([primary.metric])
    evaluations = [(row["_step"], float(row[primary.metric])) for row in rows]
    status, results, reason = _state(record)
    diverged = status != "finished" and bool(_DIVERGED.search(reason or ""))
    step, best = _best(evaluations, better=primary.better)
    final = _mapping(results.get("final"))
    numbers = {key: found for key in final if (found := _number(final[key])) is not None}
    last = numbers.get(primary.metric)
    value = {"last": last, "best": best}[primary.statistic]
    if status == "finished" and value is None:
        reason = f"its results hold no '{primary.metric}'"
    # Of a run that went on past a loss that was not finite, the best value is none of its end.
    if diverged or (last is not None and not math.isfinite(last)):
        value = math.nan
    elif status != "finished":
        value = None
    return RunOutcome(
        run,
        folder,
        status,
        reason=reason,
        value=value,
        last=last,
        best=best,
        best_step=step,
        ema=numbers.get(f"{primary.metric}_ema"),
        final=numbers,
        diverged=diverged or (value is not None and not math.isfinite(value)),
        steps=_whole(results.get("step")) or (evaluations[-1][0] if evaluations else None),
        sessions=len(record.sessions),
        evaluations=evaluations,
        **_costs(results),
        **_described(record),
    )


def _state(record: RunRecord) -> tuple[str, Mapping[str, Any], str | None]:
    """Status, results (empty without), and why a run did not finish, in a line."""
    status: str = record.status
    try:
        results = record.results or {}
    except RecordError as damage:
        return "damaged", {}, str(damage)
    if status == "finished":
        return status, results, None
    otherwise = {
        "crashed": "it was killed or its machine stopped",
        "running": "it is training",
        "silent": "it trains elsewhere, or was killed there: no sign for a minute",
    }
    return status, {}, record.problem or failure_of(record.run_dir) or otherwise.get(status)


def _best(
    evaluations: Sequence[tuple[int, float]], *, better: str
) -> tuple[int | None, float | None]:
    """Step and value of the best finite evaluation, the earliest of equal ones."""
    finite = [(step, value) for step, value in evaluations if math.isfinite(value)]
    if not finite:
        return None, None
    pick = min if better == "lower" else max
    return pick(finite, key=lambda pair: pair[1])


def _costs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Units, seconds and FLOPs of all sessions, as cupel's loop writes them; a loop of a user's own
    writes none, and then all are None."""
    totals, last = _mapping(results.get("totals")), _mapping(results.get("last_session"))
    rated = (name.removesuffix("_per_cpu_s") for name in last if name.endswith("_per_cpu_s"))
    unit = next(rated, "units")
    units, wall = _number(totals.get(unit)), _number(totals.get("wall_s"))
    return {
        "unit": unit,
        "units": units,
        "units_per_s": units / wall if units and wall else None,
        "wall_s": wall,
        "cpu_s": _number(totals.get("cpu_s")),
        "flops": _number(totals.get("flops")),
    }


def _described(record: RunRecord) -> dict[str, Any]:
    """Parameters, data and validation set, as far as they were recorded."""
    data = _mapping(record.run.get("data"))
    return {
        "parameters": _model(record.run_dir).get("parameters"),
        "bytes_per_token": _number(_mapping(data.get("bytes_per_token")).get("val")),
        "data": data.get("sha256"),
        "validation": data.get("validation"),
    }


def _model(run_dir: Path) -> Mapping[str, Any]:
    try:
        return read_json(run_dir / "model.json")
    except RecordError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def in_nats(run: RunOutcome, metric: str) -> bool:
    """Whether a metric is a cross-entropy in nats a token: then perplexity and bits mean something.

    It is when the run's data are tokens of text and the metric is a loss.
    """
    return run.bytes_per_token is not None and metric.split("/")[-1].removesuffix("_ema") in (
        "loss",
        "val_loss",
    )


def perplexity(nats: float) -> float:
    """e to the loss: of a mean loss it is the geometric mean of perplexities."""
    return math.exp(nats) if nats < 700 else math.inf


def bits_per_byte(nats: float, bytes_per_token: float) -> float:
    """nats a token / (ln 2 · bytes a token), which does not depend on the tokenizer."""
    return nats / math.log(2) / bytes_per_token


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that were recorded; None when none was."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
