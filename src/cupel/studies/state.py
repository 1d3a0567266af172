"""How every run of a study stands, from the records alone: `study_state(manifest)`.

Only why a run was refused, which leaves no record, is read from its log. Cheap enough to be drawn
twice a second: a run costs three small files and the end of its newest metrics (about half a
millisecond).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupel.errors import RecordError, did_you_mean
from cupel.jobs.local import tail
from cupel.jobs.progress import progress
from cupel.jobs.reasons import failure_of, refusal_in
from cupel.jobs.supervisor import status_of
from cupel.record import layout
from cupel.record.reader import RunRecord, SessionInfo, Status
from cupel.studies.manifest import Manifest, PlannedRun

LOGS = "logs"


@dataclass(frozen=True, slots=True)
class RunState:
    """One run of a study. `finished` means that its results were accepted, `refused` that it could
    not begin, so that it has no record.

    `loss` is the last one logged, `val_loss` that of the last evaluation; `reason` says in a line
    why the last session failed or none could begin, or what is damaged; `seconds` are those of all
    sessions.
    """

    run: PlannedRun
    status: Status | Literal["planned", "refused"]
    step: int
    steps: int
    loss: float | None = None
    val_loss: float | None = None
    sessions: int = 0
    seconds: float = 0.0
    reason: str | None = None


def study_state(manifest: Manifest) -> list[RunState]:
    """The state of every planned run, in the order of the plan."""
    return [run_state(manifest, run) for run in manifest.runs]


def run_state(manifest: Manifest, run: PlannedRun) -> RunState:
    """The state of one run."""
    run_dir = manifest.run_dir(run)
    steps = manifest.config_of(run)["train"]["steps"]
    if (status := status_of(run_dir)) == "planned":
        refusal = refusal_of(manifest, run)
        return RunState(run, "refused" if refusal else "planned", 0, steps, reason=refusal)
    record = RunRecord(run_dir)
    sessions, now = record.sessions, progress(run_dir)
    val_loss, reason = now.val_loss, None
    step = now.step
    if status == "finished":
        try:
            results = record.results or {}
            step, val_loss = results["step"], results["final"].get("val_loss", val_loss)
        except (RecordError, KeyError, AttributeError) as error:
            status, reason = "damaged", str(error)
    elif status in ("failed", "damaged"):
        reason = record.problem or failure_of(run_dir) or None
    seconds = sum(_seconds(session) for session in sessions)
    return RunState(run, status, step, steps, now.loss, val_loss, len(sessions), seconds, reason)


def counts(states: Iterable[RunState]) -> dict[str, int]:
    """How many runs stand how; only what there is."""
    found: dict[str, int] = {}
    for state in states:
        found[state.status] = found.get(state.status, 0) + 1
    return found


def unknown_metric(manifest: Manifest) -> str | None:
    """What is wrong when runs are accepted and none of them has the study's primary metric."""
    metric, known = manifest.study.primary.metric, set[str]()
    accepted = False
    for run in manifest.runs:
        if (found := metrics_of(manifest, run)) is not None:
            if metric in found:
                return None
            known, accepted = known | found, True
    if not accepted:
        return None
    return (
        f"study.primary.metric: '{metric}' is in no results{did_you_mean(metric, known)} "
        f"(there are: {', '.join(sorted(known)) or 'none'}); delete {manifest.folder} and type "
        "cupel study run RECIPE study.primary.metric=NAME; accepted runs are not trained again"
    )


def metrics_of(manifest: Manifest, run: PlannedRun) -> set[str] | None:
    """What an accepted run could be decided by, or None of a run that is not accepted.

    The last value must be in the results; the best one is looked for in all that was logged.
    """
    primary, record = manifest.study.primary, RunRecord(manifest.run_dir(run))
    try:
        final = set(results["final"]) if (results := record.results) is not None else None
    except (RecordError, KeyError, TypeError):
        return None
    if final is None or primary.metric in final or primary.statistic == "last":
        return final
    return final | ({primary.metric} if record.history([primary.metric]) else set())


def log_of(manifest: Manifest, run: PlannedRun) -> Path:
    """Where what a run's processes print is kept."""
    return manifest.folder / LOGS / f"{run.run_id}.log"


def refusal_of(manifest: Manifest, run: PlannedRun) -> str | None:
    """Why a run without a record could not begin, from its log; None when nothing was refused."""
    return refusal_in(tail(log_of(manifest, run), lines=1))


def _seconds(session: SessionInfo) -> float:
    """How long a session ran; of one that was killed, until its last sign of life."""
    if session.started is None:
        return 0.0
    end = session.ended
    if end is None:
        end = time.time() if session.status == "running" else _last_sign(session)
    return max(0.0, end - session.started)


def _last_sign(session: SessionInfo) -> float:
    names = (layout.heartbeat_name(), layout.SESSION)
    files = [*(session.dir / name for name in names), *layout.segments(session.dir, "metrics")[-1:]]
    return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
