"""A training process whose metrics are a pure function of its seed and step, for fault tests.

    python -m counting RUN_DIR STEPS SECONDS

It adopts the session that `CUPEL_LEASE` names and goes on after the last step that the run has
logged, so each attempt that logs one makes progress. The seed is the number at the end of the run's
name. SIGTERM asks it to stop: interrupted at the next step, exit code 75.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from cupel.jobs.progress import progress
from cupel.record.claims import VARIABLE, Claim
from cupel.record.session import Session


def value(seed: int, step: int) -> float:
    """What seed and step give: between 0 and 1, all 53 bits of it."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def seed_of(run_id: str) -> int:
    """The number at the end of a run's name."""
    return int(run_id.rpartition("-")[2])


def opened(run_dir: Path, claim: Claim) -> Session:
    """The session that was claimed for this process."""
    if (run_dir / "run.json").exists():
        return Session.resume(run_dir, claim=claim)
    return Session.start(
        root=run_dir.parents[1],
        project=run_dir.parent.name,
        name=run_dir.name,
        run_id=run_dir.name,
        config={"seed": seed_of(run_dir.name)},
        identity=f"counting {run_dir.name}",
        claim=claim,
    )


def main(run_dir: Path, steps: int, seconds: float) -> int:
    """Be one session; the exit code."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    session = opened(run_dir, Claim.from_text(run_dir, os.environ.pop(VARIABLE)))
    seed, step = seed_of(run_dir.name), progress(run_dir).step
    session.begin_at(step)
    while step < steps:
        time.sleep(seconds / steps)
        if asked:
            session.finish("interrupted")
            return 75
        step += 1
        session.log({"loss": value(seed, step)}, step=step)
    session.finish("finished", results={"step": step, "final": {"loss": value(seed, step)}})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
