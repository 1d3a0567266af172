"""A study gives the same numbers, bit for bit, whoever places its runs: us, Slurm, Ray.

A real Slurm of one node, and a real Ray in namespaces of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cupel.jobs.placer import submissions
from slurm_desk import a_slurm
from smoke_desk import Study, assert_equal_data, points

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

import ray_desk

RUNS = 6
RECIPE = """\
extends: loss-slope-smoke
study:
  seeds: [0, 1, 2]
  where: ["arm=base or arm=bn_off", "weight_decay=1e-4", "lr=0.1"]
"""
COMMAND = ("study", "run", "smoke.yaml")
ON_SLURM = (*COMMAND, "--backend", "slurm", "--throttle", "2")
MEMORY = "study.resources.memory_mb"  # how much a run is given changes none of its numbers


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study as this machine gives it, exported."""
    study = Study(tmp_path_factory.mktemp("local") / "desk", RECIPE)
    done = study.finished(study.desk.start(*COMMAND, "--warm"))
    assert done.returncode == 0, done.stderr
    study.json("study", "export", "smoke")
    return study


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets, whose paths may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def assert_done(study: Study, done: subprocess.CompletedProcess[str], local: Study) -> None:
    """Every run accepted at once, with the numbers of the local study; and so says the command."""
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished ") == RUNS
    assert "Decided by val_loss" in done.stdout
    found = study.json("study", "verify", "smoke")
    assert (found["clean"], found["counts"]["accepted"]) == (True, RUNS)
    rows = study.json("study", "export", "smoke")["rows"]
    assert (rows["runs"], rows["attempts"]) == (RUNS, RUNS)
    assert set(study.table("attempts.parquet")["outcome"]) == {"finished"}
    assert_equal_data(local, study)


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")
@pytest.mark.timeout(600)
def test_slurm_gives_the_numbers_of_this_machine(local: Study, tmp_path: Path) -> None:
    study = Study(tmp_path / "desk", RECIPE)
    with a_slurm():
        done = study.finished(study.desk.start(*ON_SLURM, "--pack", "3", f"{MEMORY}=1500"))
        assert [len(job["runs"]) for job in submissions(study.folder)] == [3, 3]
        assert_done(study, done, local)


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")
@pytest.mark.timeout(600)
def test_a_run_for_which_slurm_gave_too_little_memory_is_given_more(
    local: Study, tmp_path: Path
) -> None:
    """The kernel kills it for real, in the task that has 200 MB because nothing was asked for."""
    if not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        pytest.skip("no cgroup v1 for memory here: Slurm enforces no limit")
    study = Study(tmp_path / "desk", RECIPE)
    with a_slurm():
        done = study.finished(study.desk.start(*ON_SLURM, "study.seeds=[0]", "--arm", "base"))
    (run,) = study.accepted()
    lacked, *_, last = study.attempts(run)
    assert (lacked.outcome, lacked.resources.get("memory_mb")) == ("host_oom", None), done.stderr
    assert last.outcome == "finished"
    assert last.resources["memory_mb"] > 200
    assert len(submissions(study.folder)) == len(study.attempts(run)), "each in a task of its own"
    study.json("study", "export", "smoke")
    assert points(study, run) == points(local, run)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_ray_gives_the_numbers_of_this_machine(local: Study, tmp_path: Path, short: Path) -> None:
    if why := ray_desk.why_not():
        pytest.skip(why)
    study = Study(tmp_path / "desk", RECIPE)
    typed = (sys.executable, "-m", "cupel", *COMMAND, "--backend", "ray", "--address", "local")
    # The shell stays, as the first process of a namespace has to: it buries orphans.
    inside = ("sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh", *typed)
    process = subprocess.Popen(
        ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child", *inside],
        cwd=study.desk.folder,
        env={**study.desk.environment(None), "HOME": str(short), "TMPDIR": str(short)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = study.finished(process)
    assert [len(job["runs"]) for job in submissions(study.folder)] == [1] * RUNS
    assert_done(study, done, local)
