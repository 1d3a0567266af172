"""The 216 runs of loss-slope-smoke twice: left alone, and with everything going wrong.

    python disturbed.py [FOLDER]        prints JSON; ten minutes on two cores

tests and tests/exact have to be on PYTHONPATH, as `run.py disturbed` sees to.

In the second sweep a third of the runs meet failures (`tests/exact/injecting.py`): killed, without
memory of the device or the host, hung, asked to stop, raising, on a bad host, diverging. Twice the
command and all that it has started are killed at once, and the cache is deleted. Then both are
verified and exported, and every number is compared bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from cupel.jobs.attempts import Attempt
from cupel.jobs.queue import told_or_seen
from cupel.record import layout
from smoke_desk import Study, assert_equal_data, points

RECIPE = "extends: loss-slope-smoke\nstudy: {hung_s: 15}\n"
COMMAND = ("study", "run", "smoke.yaml", "--warm")
FAILURES = (
    ["killed"], ["cuda_oom"], ["unknown"], ["host_oom"], ["preempted"], ["hung"],
    ["killed", "unknown", "killed"], ["cuda_oom", "cuda_oom"], ["diverged"],
)  # fmt: skip
EVERY = 3  # runs, one meets failures
KILLED_AT = (60, 130)  # accepted runs
STEP = 44  # the last one before the failures


def main(folder: Path) -> dict[str, Any]:
    """What was done, what was found, and how long it took."""
    folder.mkdir(parents=True, exist_ok=True)
    quiet, disturbed = (Study(folder / name, RECIPE) for name in ("quiet", "disturbed"))
    runs = [run["run_id"] for run in quiet.json("study", "plan", "smoke.yaml")["runs"]]
    plan = dict(zip(runs[::EVERY], itertools.cycle(FAILURES), strict=False))
    plan[runs[1]] = ["node"]  # one: a second would be the host's
    (disturbed.desk.folder / "plan.json").write_text(json.dumps(plan))
    _say(f"{len(runs)} runs, left alone")
    quiet_s = _swept(quiet, COMMAND)
    _say(f"{quiet_s:.0f} s; and again, with {sum(map(len, plan.values()))} failures")
    injected = (*COMMAND, "monitors.injecting:Injector.plan=plan.json")
    kills: list[int] = []
    disturbed_s = _swept(disturbed, injected, kills)
    met = Counter(one.outcome for run in runs for one in _sessions(disturbed, run))
    found = disturbed.json("study", "verify", "smoke")
    for study in (quiet, disturbed):
        study.json("study", "export", "smoke")
    changed = {one["run_id"] for one in found["changed"]}
    diverged = {run for run, those in plan.items() if "diverged" in those}
    assert_equal_data(quiet, disturbed, besides=changed | diverged)
    equal = sum(len(points(disturbed, run)) for run in runs if run not in changed | diverged)
    for run in changed | diverged:
        steps = min([STEP, *(one.first_step for one in _sessions(disturbed, run) if one.changes)])
        before = points(quiet, run, upto=steps)
        assert points(disturbed, run, upto=steps) == before, run
        equal += len(before)
    return {
        "runs": len(runs),
        "failures_injected": dict(Counter(itertools.chain.from_iterable(plan.values()))),
        "failures_met": len(disturbed.marks()),
        "outcomes": dict(met),
        "processes_killed_with_the_command": kills,
        "counts": found["counts"],
        "clean": found["clean"],
        "problems": len(found["problems"]),
        "changed": len(changed),
        "numbers_equal": equal,
        "quiet_s": quiet_s,
        "disturbed_s": disturbed_s,
    }


def _sessions(study: Study, run: str) -> list[Attempt]:
    """How each session of a run ended."""
    run_dir = study.run_dir(run)
    return [told_or_seen(run_dir, number) for number in layout.session_numbers(run_dir)]


def _swept(study: Study, command: Sequence[str], kills: list[int] | None = None) -> float:
    """Run it to its end; with `kills`, kill all of it at times, and type the same again."""
    began = time.perf_counter()
    accepted: dict[str, int] = {}
    for limit in (*(KILLED_AT if kills is not None else ()), None):
        with (study.desk.folder / "told.log").open("a") as told:
            process = subprocess.Popen(
                [sys.executable, "-m", "cupel", *command],
                cwd=study.desk.folder,
                env=study.desk.environment(None),
                stdout=told,
                stderr=told,
                stdin=subprocess.DEVNULL,
            )
            while process.poll() is None and (limit is None or len(study.accepted()) < limit):
                time.sleep(0.2)
        if limit is None:
            break
        assert kills is not None
        assert process.returncode is None, (study.desk.folder / "told.log").read_text()[-2000:]
        kills.append(sum(1 for _ in _killed(process)))
        shutil.rmtree(study.desk.runs / ".cache", ignore_errors=True)
        assert accepted.items() <= study.accepted().items(), "an accepted run was repeated"
        accepted = study.accepted()
    assert process.returncode == 0, (study.desk.folder / "told.log").read_text()[-2000:]
    assert accepted.items() <= study.accepted().items(), "an accepted run was repeated"
    return time.perf_counter() - began


def _killed(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """The command, its zygote, its guards, and what trains: all at once."""
    command = psutil.Process(process.pid)
    victims = [command, *command.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            yield victim
    process.wait()
    psutil.wait_procs(victims, timeout=10)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(main(Path(sys.argv[1])), indent=2))
    else:
        with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
            print(json.dumps(main(Path(place)), indent=2))
