"""What a study of 100,000 runs costs whoever works on it: claims, status, memory, loading.

python large.py FOLDER RUNS        prints JSON
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ARMS = 10
CLAIMS = 300
ACCEPTED = 500  # runs with whole records, beside those that have not begun

# A worker as it begins, in a process of its own: the manifest, its queue, one claim.
WORKER = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from cupel.studies.manifest import load_manifest
from cupel.studies.tasks import queue_of
import cupel.jobs.local, cupel.jobs.worker, cupel.jobs.warm
manifest = load_manifest(Path(sys.argv[1]))
queue = queue_of(manifest)
loaded = time.perf_counter() - began
claimed = queue.claim()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
now = int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
told = {"load_s": loaded, "rss_mb": now, "peak_mb": peak, "torch": "torch" in sys.modules}
print(json.dumps(told))
"""


def planned(root: Path, runs: int) -> Any:
    """A study of ten arms and as many seeds as that takes; its manifest is frozen."""
    from cupel.studies.manifest import freeze
    from cupel.studies.spec import plan_study

    arms = ", ".join(f"a{n}: {{dropout: 0.{n}}}" for n in range(ARMS))
    recipe = root / "large.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    seeds = list(range(runs // ARMS))
    recipe.write_text(
        "workload: fakes:Regression\n"
        "train: {steps: 40, optimizer: {kind: adamw, lr: 1e-3}}\n"
        "study:\n  question: How much does a long plan cost?\n"
        f"  seeds: {seeds}\n  arms: {{{arms}}}\n".replace("\\\n", "\n")
    )
    return freeze(plan_study(recipe, [], root=root))


def accept(manifest: Any, many: int) -> None:
    """Give some runs whole records, as a worker leaves them behind."""
    from cupel.jobs.attempts import Attempt, write_attempt
    from cupel.record import environment
    from cupel.record.claims import claim_session
    from cupel.record.session import Session

    environment.keep()  # what git and the packages tell is the same a thousand times
    for run in manifest.runs[-many:]:
        run_dir = manifest.run_dir(run)
        claim = claim_session(run_dir, 1, {"worker": "w", "lease_s": 60})
        session = Session.start(
            root=manifest.root,
            project=manifest.project,
            name=run.run_id,
            run_id=run.run_id,
            config={},
            identity=run.identity,
            claim=claim,
        )
        session.begin_at(0)
        session.log({"loss": 1.0, "val_loss": 1.0}, step=40)
        session.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})
        write_attempt(run_dir, Attempt(1, "finished", begun=True, last_step=40, ended=time.time()))


def measure(root: Path, runs: int) -> dict[str, Any]:
    """Seconds, milliseconds and megabytes."""
    from cupel.studies.state import study_state
    from cupel.studies.tasks import queue_of

    began = time.perf_counter()
    manifest = planned(root, runs)
    plan_s = time.perf_counter() - began
    status_new = _timed(lambda: study_state(manifest))
    accept(manifest, ACCEPTED)
    status_first = _timed(lambda: study_state(manifest))
    status_again = min(_timed(lambda: study_state(manifest)) for _ in range(2))
    queue = queue_of(manifest)
    took = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        claimed = queue.claim()
        took.append(time.perf_counter() - began)
        assert claimed is not None
    told = subprocess.run(
        [sys.executable, "-c", WORKER, str(manifest.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "runs": len(manifest.runs),
        "accepted": ACCEPTED,
        "plan_s": plan_s,
        "status_new_s": status_new,
        "status_first_s": status_first,
        "status_s": status_again,
        "claim_median_ms": 1e3 * statistics.median(took),
        "claim_p99_ms": 1e3 * sorted(took)[int(0.99 * len(took))],
        "worker": json.loads(told.stdout.splitlines()[-1]),
    }


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
