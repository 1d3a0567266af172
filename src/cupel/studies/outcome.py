"""What became of a study's runs, read from their records, and what comparing them is worth.

`read_runs` reads every run, `outcome` compares the finished ones as the manifest declares, and
`inequalities` lists what was not equal between arms, since only what is equal is controlled.
Nothing is filled in: a field that a record lacks is None. Reading parses every line of metrics
(about 2 µs each).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cupel.analysis.comparison import Card, Plan, compare_points
from cupel.errors import RecordError
from cupel.jobs.supervisor import failure_of
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.studies.manifest import Manifest, PlannedRun

PLANNED = "planned"  # a run whose folder is not there yet
_DIVERGED = re.compile(r"\bis (nan|-?inf)\b", re.IGNORECASE)
_CLOCK_TOLERANCE = 0.05  # CPU seconds of equal runs differ by some per cent on any machine


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """One planned run as its record tells it.

    `last` is the primary metric of the final evaluation and `best` the best over all evaluations;
    `value` is the one of the two that was declared to decide, and None unless the run finished.
    A run that ended because a loss was not finite is `diverged`, and its value is NaN.
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
    unit: str = "tokens"
    units: float | None = None
    units_per_s: float | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    flops: float | None = None
    bytes_per_token: float | None = None
    data: str | None = None
    validation: str | None = None
    evaluations: Sequence[tuple[int, float]] = ()

    @property
    def finished(self) -> bool:
        """Whether its results were accepted."""
        return self.status == "finished"


@dataclass(frozen=True, slots=True)
class Inequality:
    """Something that two arms did not have in common: its name, and each arm's value as text."""

    name: str
    arm: str
    values: tuple[str, str]  # of the baseline, of the arm


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
        return baseline_of(self.manifest)

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


def baseline_of(manifest: Manifest) -> str:
    """The declared baseline, else the first arm."""
    return manifest.study.compare.baseline or next(iter(manifest.study.arms))


def plan_of(manifest: Manifest) -> Plan:
    """What was declared about the comparison."""
    study = manifest.study
    return Plan(
        baseline=baseline_of(manifest),
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


def read_runs(manifest: Manifest) -> tuple[RunOutcome, ...]:
    """Every planned run, in the manifest's order."""
    return tuple(_read(manifest, run) for run in manifest.runs)


def _read(manifest: Manifest, run: PlannedRun) -> RunOutcome:
    folder = manifest.run_dir(run)
    if not folder.exists():
        return RunOutcome(run, folder, PLANNED, reason="not started")
    record = RunRecord(folder)
    primary = manifest.study.primary
    rows = record.history([primary.metric])
    evaluations = [(row["_step"], float(row[primary.metric])) for row in rows]
    status, results, reason = _state(record)
    diverged = status != "finished" and bool(_DIVERGED.search(reason or ""))
    step, best = _best(evaluations, better=primary.better)
    last = _number(_mapping(results.get("final")).get(primary.metric))
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
        ema=_number(_mapping(results.get("final")).get(f"{primary.metric}_ema")),
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
    otherwise = {"crashed": "it was killed or its machine stopped", "running": "it is training"}
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
    """Units, seconds and FLOPs of all sessions; of the last one where a run had one only."""
    totals, last = _mapping(results.get("totals")), _mapping(results.get("last_session"))
    rates = [key.removesuffix("_per_s") for key in last if key.endswith("_per_s")]
    unit = totals.get("unit") or next((u for u in rates if not u.endswith("_per_cpu")), "tokens")
    units = _number(totals.get("units", totals.get(unit)))
    whole = last.get("steps") == results.get("step")  # the last session was the only one
    wall = _number(totals.get("wall_s", last.get("wall_s") if whole else None))
    return {
        "unit": unit,
        "units": units,
        "units_per_s": units / wall if units and wall else _number(last.get(f"{unit}_per_s")),
        "wall_s": wall,
        "cpu_s": _number(totals.get("cpu_s", last.get("cpu_s") if whole else None)),
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


class Seconds(float):
    """A time, which is compared with a tolerance and shown to a tenth."""


_CPU = "CPU seconds"
# What should be equal between arms for a difference to be theirs alone: name → dotted setting.
_CONTROLLED = {
    "steps": "train.steps",
    "batch": "data.batch",
    "micro-batches a step": "train.accumulate",
    "context": "model.block",
    "learning rate": "train.optimizer.lr",
    "schedule": "train.schedule",
    "weight decay": "train.optimizer.weight_decay",
    "betas": "train.optimizer.betas",
    "gradient clipping": "train.clip",
    "optimizer": "train.optimizer.kind",
    "objective": "objective.kind",
    "dropout": "model.dropout",
    "early stopping": "train.stopping",
    "precision": "train.precision",
    "device": "train.device",
    "threads": "train.threads",
}


def inequalities(manifest: Manifest, runs: Sequence[RunOutcome]) -> list[Inequality]:
    """What differs between each arm and the baseline, at any point of the grid, with values.

    Compared are settings, data, the order of data (which is a function of seed, batch and
    context), the validation set, parameters, and CPU seconds when they differ by more than 5 %.
    """
    baseline = baseline_of(manifest)
    facts = {arm: _facts(manifest, runs, arm) for arm in manifest.study.arms}
    found = []
    for arm, theirs in facts.items():
        for name, value in theirs.items():
            base = facts[baseline].get(name)
            if arm != baseline and not _same(name, base, value):
                found.append(Inequality(name, arm, (_told(base), _told(value))))
    return found


def _facts(manifest: Manifest, runs: Sequence[RunOutcome], arm: str) -> dict[str, Any]:
    """An arm's value of everything that should be equal; a list where the grid has several."""
    configs = [cell.config for cell in manifest.cells if cell.arm == arm]
    facts = {
        name: _several(dotted(config, path) for config in configs)
        for name, path in _CONTROLLED.items()
    }
    own = [run for run in runs if run.run.arm == arm]
    facts["data (SHA-256)"] = _several(run.data for run in own if run.data)
    facts["validation set"] = _several(run.validation for run in own if run.validation)
    order = [facts["batch"], facts["context"], facts["data (SHA-256)"]]
    facts["order of data"] = f"by seed, {_told(order[0])} sequences of {_told(order[1])}"
    facts["parameters"] = _several(run.parameters for run in own if run.parameters is not None)
    facts["steps taken"] = _several(
        sorted({run.steps for run in own if run.finished and run.steps})
    )
    seconds = mean_of(run.cpu_s for run in own)
    facts[_CPU] = None if seconds is None else Seconds(seconds)
    return facts


def dotted(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of a nested mapping; None where there is none."""
    found: Any = config
    for part in path.split("."):
        found = _mapping(found).get(part)
    return found


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that were recorded; None when none was."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _several(values: Iterable[Any]) -> Any:
    """The one value of all, a list of the distinct ones in order, or None for none."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else (distinct or None)


def _same(name: str, one: Any, two: Any) -> bool:
    if name == _CPU:
        if one is None or two is None:
            return True  # nothing recorded on a side is no inequality, and the table says so
        return math.isclose(one, two, rel_tol=_CLOCK_TOLERANCE, abs_tol=0.1)
    # A run that has not started has no data yet: unknown is not unequal.
    if name not in _CONTROLLED and None in (one, two):
        return True
    return bool(one == two)


def _told(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return " | ".join(_told(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_told(one)}" for key, one in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Seconds):
        return f"{value:,.1f}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text
