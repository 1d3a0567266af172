"""A resumed run equals one that was never stopped, bit for bit; and if it did not, we would know.

Real processes, real signals. Everything that leaves a state is on: dropout, accumulation, an
average of the weights, early stopping that counts from the first evaluation on.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cupel.analysis.exactness import compare
from cupel.cli.drill import Drill, Verdict, kill_after, resumed_like, verify_resume
from cupel.cli.main import main
from cupel.config import load
from cupel.record.checkpoints import step_dir
from cupel.record.reader import RunRecord, list_runs
from cupel.workloads.training import train

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
STEPS, STOPS_AT = 32, 28
SMALL = [
    *("data.batch=4", "data.val_batches=2", "data.val_batch=4", "sample.tokens=4"),
    *("model.layers=2", "model.width=32", "model.heads=2", "model.block=16", "model.dropout=0.1"),
    *("train.ema=0.99", "train.accumulate=2", "train.evaluate_every=4", "train.log_every=1"),
    # Only the first evaluation is an improvement by 100, so the seventh is the one too many.
    "train.stopping={patience: 6, min_delta: 100}",
    *("train.threads=1", "train.device=cpu", "checkpoint.every=5", "checkpoint.best=null"),
    "figures.formats=[]",
]
SLOWED = "monitors.fakes:Slow.every=1"  # for runs that are killed from outside, without a gate


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog sat on the cat. " * 100)
    return [f"data.path={folder}/text.txt", f"data.cache={folder}/cache", *SMALL]


@pytest.fixture(scope="module")
def undisturbed(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run that nobody disturbs, in this process."""
    threads = torch.get_num_threads()
    recipe = load("gpt-tiny", [*settings, f"train.steps={STEPS}"])
    run_dir = train(recipe, root=tmp_path_factory.mktemp("undisturbed")).run_dir
    torch.set_num_threads(threads)
    assert run_dir is not None
    return RunRecord(run_dir)


# ---- kills -------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the verdict of a `cupel verify`."""
    with pytest.raises(SystemExit) as left:
        main(["verify", *arguments, "--json"])
    code = left.value.code
    assert isinstance(code, int)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_is_resumed_with_equal_bits(
    precision: str, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*settings, SLOWED, f"train.precision={precision}"]
    options = ["--steps", str(STEPS), "--kill-at", "13"]
    code, verdict = told(capsys, "resume", "gpt-tiny", *given, *options)
    assert (code, verdict["equal"]) == (0, True), verdict["lines"]
    facts = verdict["facts"]
    parts = ["ema", "model", "optimizer", "progress", "schedule", "stopping"]
    assert (facts["steps"], facts["parts"]) == (STOPS_AT, parts)
    # That of step 10 may still be being written when the kill comes.
    assert 5 <= facts["resumed_from"] <= facts["killed_at"] < STOPS_AT


def test_a_kill_in_the_middle_of_a_checkpoint_costs_that_checkpoint_only(
    settings: list[str], undisturbed: RunRecord, tmp_path: Path
) -> None:
    dying = [str(HERE / "dies_writing.py"), "15"]
    killed = start(tmp_path, *settings, script=dying)
    assert killed.wait() == -signal.SIGKILL
    run = the_run(tmp_path)
    assert run.status == "crashed"
    assert run.checkpoints() == [5, 10]
    assert list((run.run_dir / "checkpoints").glob(".*step-000000015*")), "it was not half-written"
    resumed = start(tmp_path, *settings)
    assert resumed.wait() == 0
    assert run.sessions[-1].start_step == 10
    assert compare(undisturbed, run).equal
    assert not list((run.run_dir / "checkpoints").glob(".*step-000000015*")), "it was not swept"


# ---- requests to stop --------------------------------------------------------------------------


def start(root: Path, *settings: str, script: list[str] | None = None) -> subprocess.Popen[bytes]:
    command = script or ["-m", "cupel"]
    recipe = ["gpt-tiny", *settings, f"train.steps={STEPS}", "--root", str(root)]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *command, "run", *recipe, "--resume", "auto"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def start_and_wait_within(step: int, root: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    """Start a run that waits within a step until `gate` in its root is removed."""
    gate, waiting = root / "gate", root / "gate.waiting"
    waiting.unlink(missing_ok=True)
    gate.touch()
    held = [f"monitors.fakes:Gate.step={step}", f"monitors.fakes:Gate.path={gate}"]
    process = start(root, *settings, *held)
    while not waiting.exists():
        assert process.poll() is None, (root / "log").read_text()
        time.sleep(0.01)
    return process


def the_run(root: Path) -> RunRecord:
    (run,) = list_runs(root)
    return run


def test_signals_write_a_checkpoint_after_the_step_and_the_run_goes_on_with_equal_bits(
    settings: list[str], undisturbed: RunRecord, tmp_path: Path
) -> None:
    requests = [(6, signal.SIGTERM), (11, signal.SIGUSR1), (17, signal.SIGINT)]
    for step, number in requests:
        process = start_and_wait_within(step, tmp_path, settings)
        process.send_signal(number)
        (tmp_path / "gate").unlink()
        assert process.wait() == 75, (tmp_path / "log").read_text()
        run = the_run(tmp_path)
        assert (run.status, run.checkpoints()[-1]) == ("interrupted", step)
        assert run.sessions[-1].fields["error"] == f"asked to stop by {number.name}"
    assert start(tmp_path, *settings).wait() == 0
    run = the_run(tmp_path)
    assert [session.start_step for session in run.sessions] == [0, 6, 11, 17]
    assert [session.status for session in run.sessions] == ["interrupted"] * 3 + ["finished"]
    comparison = compare(undisturbed, run)
    assert comparison.equal, comparison
    assert comparison.steps == STOPS_AT


def test_the_second_ctrl_c_aborts_and_the_run_goes_on_from_the_last_checkpoint(
    settings: list[str], undisturbed: RunRecord, tmp_path: Path
) -> None:
    process = start_and_wait_within(13, tmp_path, settings)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # two signals that wait for one handler would be one
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130  # the gate stays shut: the step never ends by itself
    run = the_run(tmp_path)
    assert (run.status, run.checkpoints()[-1]) == ("interrupted", 10)
    assert start(tmp_path, *settings).wait() == 0
    assert run.sessions[-1].start_step == 10
    assert compare(undisturbed, run).equal


# ---- negative controls -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halves(
    settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Drill, RunRecord, int]:
    """A drill in fp16, which has every part there is, up to the kill."""
    folder = tmp_path_factory.mktemp("halves")
    drill = Drill(forgetful("nothing", [*settings, SLOWED]), folder, STEPS)
    record = drill.finish("undisturbed", drill.start("undisturbed"))
    return drill, record, kill_after(drill, after=13)


def forgetful(part: str, settings: list[str]) -> list[str]:
    """The command of a run that forgets a part; `nothing` is forgotten by cupel itself."""
    script = ["-m", "cupel"] if part == "nothing" else [str(HERE / "forgetful.py"), part]
    given = [*settings, f"train.steps={STEPS}", "train.precision=fp16"]
    return [sys.executable, *script, "run", "gpt-tiny", *given]


@pytest.mark.xdist_group("halves")
@pytest.mark.parametrize(
    "part",
    ["nothing", "model", "optimizer", "schedule", "scaler", "ema", "stopping", "progress"],
)
def test_a_part_that_is_not_restored_is_caught(
    part: str, settings: list[str], halves: tuple[Drill, RunRecord, int], tmp_path: Path
) -> None:
    drill, undisturbed, killed_at = halves
    shutil.copytree(drill.folder / "killed", tmp_path / "killed")
    verdict = resumed_like(
        Drill(forgetful(part, settings), tmp_path, STEPS), undisturbed, killed_at=killed_at
    )
    if part == "nothing":
        assert verdict.equal, verdict.lines
        assert "scaler" in verdict.facts["parts"]
    else:
        assert_caught(verdict, part)


def test_a_part_that_is_neither_saved_nor_restored_is_caught_by_the_whole_drill(
    settings: list[str], tmp_path: Path
) -> None:
    drill = Drill(forgetful("optimizer", [*settings, SLOWED]), tmp_path, STEPS)
    verdict = verify_resume(drill, kill_at=13)
    assert_caught(verdict, "optimizer")
    run = drill.record("killed")
    newest = step_dir(run.run_dir, run.checkpoints()[-1])
    assert "optimizer" not in json.loads((newest / "manifest.json").read_text())["parts"]
    # Cupel as it is does not take such a checkpoint for a whole one.
    (run.run_dir / "results.json").unlink()
    shutil.rmtree(run.sessions[-1].dir)
    refused = start(drill.folder / "killed", *settings, "train.precision=fp16")
    assert refused.wait() == 1
    last = (drill.folder / "killed/log").read_text().splitlines()[-1]
    assert "has no 'optimizer', which this run registers" in last


def assert_caught(verdict: Verdict, part: str) -> None:
    """Not equal, and the lines lead to the part or to the first step that went wrong."""
    assert not verdict.equal, f"leaving out {part} went unnoticed: {verdict.lines}"
    assert verdict.lines[-1] == "resume is NOT exact"
    first, differing = verdict.facts["first_difference"], verdict.facts["different_parts"]
    assert part in differing or first is not None, verdict.lines
    if first is not None:
        step = first[0]
        assert any(f"FIRST DIFFERENCE at step {step}" in line for line in verdict.lines)
        assert part == "progress" or step > verdict.facts["resumed_from"]


# ---- monitors ----------------------------------------------------------------------------------


def test_monitors_do_not_disturb_and_one_that_does_is_caught(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["monitors", "gpt-tiny", *settings, "train.precision=bf16", "--steps", "12"]
    code, verdict = told(capsys, *options)
    assert (code, verdict["equal"]) == (0, True), verdict["lines"]
    assert {"norms", "throughput"} <= verdict["facts"]["monitors"].keys()
    code, verdict = told(capsys, *options, "monitors.fakes:Nudge.every=1")
    assert (code, verdict["equal"]) == (1, False)
    assert "model" in verdict["facts"]["different_parts"]
