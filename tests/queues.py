"""What tests of queued runs share: a run that could not begin."""

from __future__ import annotations

from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.leases import end_unbegun
from cupel.record import layout
from cupel.record.claims import claim_session
from cupel.studies.manifest import Manifest, PlannedRun


def refuse(manifest: Manifest, run: PlannedRun, why: str) -> None:
    """Leave behind what a worker does whose run was refused before it began."""
    run_dir = manifest.run_dir(run)
    number = max(layout.session_numbers(run_dir), default=0) + 1
    claim_session(run_dir, number, {"worker": "w"})
    end_unbegun(run_dir, number, status="failed", error=why, started=1.0)
    write_attempt(run_dir, Attempt(number, "configuration", why, signature=why, ended=2.0, code=2))
