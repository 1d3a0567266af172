"""A whole study as typed, with everything going wrong on the way: its data is that of a quiet one.

Real training processes, forked warm, two at a time. Runs are killed, hang, run out of memory, stop
unasked, raise, diverge (`injecting`); once the command, its guards, its zygote and all that trains
are killed together, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars
import psutil
import pytest

from cupel.cli.study_run import PRELOAD
from cupel.jobs.queue import told_or_seen
from cupel.record import layout
from smoke_desk import STEPS, Study, assert_equal_data, points

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("study")]

EVERY, HUNG_S = 20, 15
RECIPE = f"""\
extends: loss-slope-smoke
study:
  seeds: [0, 1, 2]
  where: ["arm=base or arm=narrow", "weight_decay=1e-4", "lr>0.05"]
  hung_s: {HUNG_S}
"""
COMMAND = ("study", "run", "smoke.yaml", "--warm")
INJECTED = (*COMMAND, "monitors.injecting:Injector.plan=plan.json")
# What the runs meet, in the order of the plan; the rest is left alone.
FAILURES = (
    ["killed"],
    ["cuda_oom"],  # then alone, with the settings as planned
    ["unknown"],
    ["host_oom"],
    ["cuda_oom", "cuda_oom"],  # then in two micro-batches
    ["hung"],
    ["preempted"],
    ["node"],
    ["diverged"],
    ["killed", "unknown", "killed"],
)
SPLIT, DIVERGED = 4, 8  # their places in it
# Nobody of ours asks a run to stop that is preempted here.
OUTCOMES = {failure: failure for failures in FAILURES for failure in failures}
OUTCOMES["preempted"] = "killed"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training processes find `injecting`."""
    there = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(there))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study without any disturbance, exported."""
    study = Study(tmp_path_factory.mktemp("quiet") / "desk", RECIPE)
    done = study.finished(study.desk.start(*COMMAND))
    assert done.returncode == 0, done.stderr
    assert study.json("study", "export", "smoke")["rows"]["runs"] == 12
    return study


@pytest.mark.timeout(600)
def test_a_study_in_which_everything_breaks_ends_with_the_data_of_a_quiet_one(
    quiet: Study, tmp_path: Path
) -> None:
    study = Study(tmp_path / "desk", RECIPE)
    runs = [run["run_id"] for run in study.json("study", "plan", "smoke.yaml")["runs"]]
    assert runs == quiet.table("runs.parquet")["run_id"].to_list()
    failures = dict(zip(runs, FAILURES, strict=False))
    split, diverged = runs[SPLIT], runs[DIVERGED]
    plan = study.desk.folder / "plan.json"
    plan.write_text(json.dumps(failures))

    process = study.desk.start(*INJECTED)
    wait_until(lambda: len(study.accepted()) >= 3, process)
    plan.with_suffix(".gate").touch()  # what has come by now is judged; nothing else comes
    wait_until(lambda: len(study.marks()) == study.judged(runs), process)
    kill_all(process)
    plan.with_suffix(".gate").unlink()
    before = study.accepted()
    assert 3 <= len(before) < len(runs) - 1
    done = study.finished(study.desk.start(*INJECTED))
    assert done.returncode == 0, done.stderr

    # Every failure came, was recognised, and was followed by what the policy says.
    assert Counter(study.marks()) == {run: len(those) for run, those in failures.items()}
    for run in runs:
        attempts = study.attempts(run)
        met = [one.outcome for one in attempts if one.outcome not in ("finished", "lost")]
        assert met == [OUTCOMES[one] for one in failures.get(run, ())], (run, attempts)

    # No accepted run was repeated, and nothing is missing.
    after = study.accepted()
    assert {run: after[run] for run in before} == before
    assert after.keys() == {*runs} - {diverged}
    told = study.json("study", "status", "smoke")
    assert told["counts"] == {"finished": len(runs) - 1, "diverged": 1}
    assert {run["run_id"]: run["status"] for run in told["runs"]}[diverged] == "diverged"
    found = study.json("study", "verify", "smoke")
    assert (found["complete"], found["clean"], found["problems"]) == (True, True, [])
    assert found["counts"] == {
        "accepted": len(runs) - 1, "diverged": 1, "failed": 0, "missing": 0
    }  # fmt: skip
    assert {one["run_id"] for one in found["changed"]} == {split}
    assert found["changed"][-1]["changes"] == {"train.accumulate": 2}

    rows = study.json("study", "export", "smoke")["rows"]
    assert rows["attempts"] == sum(len(layout.session_numbers(study.run_dir(r))) for r in runs)
    changed = study.table("runs.parquet").filter(polars.col("changes").is_not_null())
    assert changed["run_id"].to_list() == [split]
    assert_equal_data(quiet, study, besides={split, diverged})
    # What was accepted before anything was changed is equal there, too.
    numbers = layout.session_numbers(study.run_dir(split))
    seen = [told_or_seen(study.run_dir(split), one) for one in numbers]
    alone = next(one for one in seen if one.changes).first_step
    assert EVERY <= alone < STEPS
    for run, steps in ((split, alone), (diverged, 44)):
        assert points(study, run, upto=steps) == points(quiet, run, upto=steps) != []


@pytest.mark.timeout(400)
def test_a_machine_on_which_two_runs_met_its_own_fault_begins_none_until_it_is_asked_again(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path / "desk", f"{RECIPE}  workers: 1\n")
    three = ("study.seeds=[0]", "study.where=[arm=base, weight_decay=1e-4]")
    runs = [run["run_id"] for run in study.json("study", "plan", "smoke.yaml", *three)["runs"]]
    plan = study.desk.folder / "plan.json"
    plan.write_text(json.dumps({run: ["node"] for run in runs}))
    stopped = study.finished(study.desk.start(*INJECTED, *three))
    assert stopped.returncode == 1, stopped.stderr
    assert f"quarantined {socket.gethostname()}: it failed 2 runs" in stopped.stderr
    assert [one.outcome for run in runs for one in study.attempts(run)] == ["node"] * 2
    assert study.accepted() == {}

    plan.write_text("{}")  # mended
    done = study.finished(study.desk.start(*INJECTED, *three))
    assert done.returncode == 0, done.stderr
    assert study.accepted().keys() == {*runs}


def test_what_is_forked_has_imported_what_training_needs() -> None:
    """Else each run of seconds imports it: an optimizer brings a thousand modules."""
    code = f"""
import importlib, sys
for name in {PRELOAD!r}:
    importlib.import_module(name)
before = {{name for name in sys.modules if name.startswith("torch")}}
import torch
for made in (torch.optim.SGD, torch.optim.AdamW):
    made([torch.zeros(1, requires_grad=True)], lr=0.1)
print(sorted(name for name in set(sys.modules) - before if name.startswith("torch")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def wait_until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def kill_all(process: subprocess.Popen[str]) -> None:
    """The command, its zygote, its guards, and what trains: all at once."""
    command = psutil.Process(process.pid)
    victims = [command, *command.children(recursive=True)]
    assert len(victims) >= 4, "somebody was training"
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.communicate()
    psutil.wait_procs(victims, timeout=10)
