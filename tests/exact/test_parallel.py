"""Two processes under torchrun train what one does, and resume exactly too.

Gloo on a CPU. What torchrun makes of exit codes is told by the tests of interruption: torchrun
itself exits with 1 when a rank leaves with 75, so a scheduler that wants to know asks the record.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from cupel.analysis.exactness import compare
from cupel.checkpoint import folder
from cupel.config import load
from cupel.record.checkpoints import step_dir
from cupel.record.reader import RunRecord, list_runs
from cupel.workloads.training import train

pytestmark = pytest.mark.slow

STEPS = 20
SMALL = [
    *("data.batch=8", "data.val_batches=2", "data.val_batch=4", "sample.tokens=4"),
    *("model.layers=2", "model.width=32", "model.heads=2", "model.block=16"),
    *(f"train.steps={STEPS}", "train.evaluate_every=5", "train.log_every=1", "train.threads=1"),
    *("train.device=cpu", "checkpoint.every=6", "figures.formats=[]"),
]
NOISY = ["model.dropout=0.1", "train.accumulate=2", "train.ema=0.9"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("data")
    (place / "text.txt").write_text("the cat sat on the mat, and the dog sat on the cat. " * 100)
    return [f"data.path={place}/text.txt", f"data.cache={place}/cache", *SMALL]


def start(root: Path, *settings: str) -> subprocess.Popen[bytes]:
    """Two ranks, in a session of their own."""
    root.mkdir(exist_ok=True)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = ["-m", "cupel", "run", "gpt-tiny", *settings, "--root", str(root), "--resume", "auto"]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *torchrun, *run],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def the_run(root: Path) -> RunRecord:
    (run,) = list_runs(root)
    return run


def trained_by_two(root: Path, *settings: str) -> RunRecord:
    assert start(root, *settings).wait() == 0, (root / "log").read_text()
    return the_run(root)


def weights(run: RunRecord, step: int = STEPS) -> dict[str, Tensor]:
    state: dict[str, Tensor] = folder.load_part(step_dir(run.run_dir, step), "model")
    return state


@pytest.fixture(scope="module")
def alone(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The same training by one process: this one."""
    threads = torch.get_num_threads()
    run_dir = train(load("gpt-tiny", settings), root=tmp_path_factory.mktemp("alone")).run_dir
    torch.set_num_threads(threads)
    assert run_dir is not None
    return RunRecord(run_dir)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_what_one_does_and_rank_0_writes_it(
    accumulate: int, settings: list[str], alone: RunRecord, tmp_path: Path
) -> None:
    """Equal to 1e-6 a parameter after 20 steps: means of halves add up in another order."""
    two = trained_by_two(tmp_path, *settings, f"train.accumulate={accumulate}")
    here, there = weights(alone), weights(two)
    assert here.keys() == there.keys()
    largest = max(float((here[name] - there[name]).abs().max()) for name in here)
    assert largest < 1e-6, f"largest difference of a parameter: {largest}"
    losses = [[row["loss"] for row in run.history(["loss"])] for run in (alone, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert_only_rank_0_wrote(two, (tmp_path / "log").read_text())


def assert_only_rank_0_wrote(run: RunRecord, log: str) -> None:
    (session,) = run.sessions
    assert not [path.name for path in session.dir.iterdir() if re.search(r"\.r[1-9]", path.name)]
    assert [row["_step"] for row in run.history(["loss"])] == list(range(1, STEPS + 1))
    lines = (session.dir / "metrics.r0.000.jsonl").read_text().splitlines()
    assert len(lines) == STEPS + STEPS // 5, "a line a step and a line an evaluation, once each"
    assert log.count("writing to") == 1


# ---- stopped and gone on with ------------------------------------------------------------------


def start_and_wait_within(step: int, root: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    """Start two ranks; rank 0, which has the monitors, waits in a step until `gate` is removed."""
    root.mkdir(exist_ok=True)
    gate, waiting = root / "gate", root / "gate.waiting"
    waiting.unlink(missing_ok=True)
    gate.touch()
    held = [f"monitors.fakes:Gate.step={step}", f"monitors.fakes:Gate.path={gate}"]
    process = start(root, *settings, *held)
    while not waiting.exists():
        assert process.poll() is None, (root / "log").read_text()
        time.sleep(0.01)
    return process


def ranks(torchrun: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The two training processes, rank 0 first."""
    found = {
        child.environ()["RANK"]: child
        for child in psutil.Process(torchrun.pid).children()
        if "RANK" in child.environ()
    }
    return [found[rank] for rank in sorted(found)]


def wait_for_the_end_of(processes: list[psutil.Process]) -> None:
    """A killed process lives until the kernel has taken its memory down, and is nobody's child now.

    Whoever adopts it may never reap it, so a zombie counts as ended.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)


def test_stopped_and_killed_runs_go_on_with_equal_bits(settings: list[str], tmp_path: Path) -> None:
    """Rank 1 alone is asked to stop; later all is killed; later torchrun is asked to stop."""
    noisy, root = [*settings, *NOISY], tmp_path / "disturbed"
    undisturbed = trained_by_two(tmp_path / "undisturbed", *noisy)

    torchrun = start_and_wait_within(4, root, noisy)
    ranks(torchrun)[1].send_signal(signal.SIGTERM)
    (root / "gate").unlink()
    assert torchrun.wait() == 1  # torchrun's own; it shows the ranks' 75 in its report
    assert re.search(r"exitcode *: 75", (root / "log").read_text())
    run = the_run(root)
    assert (run.status, run.checkpoints()) == ("interrupted", [4])
    assert run.sessions[0].fields["error"] == "asked to stop by a signal to another rank"

    torchrun = start_and_wait_within(9, root, noisy)
    while run.checkpoints()[-1] < 6:  # it is written in the background, also while the gate is shut
        time.sleep(0.01)
    killed = ranks(torchrun)
    for process in (*killed, psutil.Process(torchrun.pid)):
        process.kill()
    assert torchrun.wait() == -signal.SIGKILL
    wait_for_the_end_of(killed)
    (root / "gate").unlink()
    assert (run.status, run.checkpoints()[-1]) == ("crashed", 6)

    torchrun = start_and_wait_within(14, root, noisy)
    torchrun.send_signal(signal.SIGTERM)  # as a scheduler does; torchrun passes it on
    time.sleep(1)
    (root / "gate").unlink()
    assert torchrun.wait() == 1
    assert (run.status, run.checkpoints()[-1]) == ("interrupted", 14)
    assert run.sessions[-1].fields["error"] == "asked to stop by SIGTERM"

    assert start(root, *noisy).wait() == 0, (root / "log").read_text()
    assert [session.start_step for session in run.sessions] == [0, 4, 6, 14]
    comparison = compare(undisturbed, run)
    assert comparison.equal, comparison
    assert comparison.steps == STEPS
