"""`cupel run`, `runs` and `sample` as typed: what they print, write and return."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from desk import Desk, complaint, new_desk, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk with one finished run; the tests only read it."""
    desk = new_desk(tmp_path_factory.mktemp("run") / "desk")
    done = desk.type("run", "tiny.yaml", "figures.formats=[png]", "train.steps=60")
    assert done.returncode == 0, done.stderr
    (desk.folder / "stdout").write_text(done.stdout)
    (desk.folder / "stderr").write_text(done.stderr)
    return desk


def test_a_run_ends_with_curve_numbers_sample_paths_and_what_to_type(desk: Desk) -> None:
    shown = (desk.folder / "stdout").read_text()
    run = desk.only_run().run_id
    assert "bigram" in shown
    assert "val_loss, lowest" in shown
    assert "What it writes now:" in shown
    assert f"python -m cupel sample {run}" in shown
    paths = [
        line.split()[-1] for line in shown.splitlines() if line.startswith(("Record", "Figure"))
    ]
    assert len(paths) == 2
    assert all((desk.folder / path).exists() for path in paths)


def test_progress_goes_to_stderr_and_names_the_reference(desk: Desk) -> None:
    told = (desk.folder / "stderr").read_text()
    assert "loading PyTorch" in told.splitlines()[0]
    assert "above bigram entropy" in told or "below bigram entropy" in told


def test_the_record_is_complete(desk: Desk) -> None:
    record = desk.only_run()
    assert record.status == "finished"
    assert [row["_step"] for row in record.history(["loss"])] == list(range(1, 61))
    assert sorted(p.name for p in record.run_dir.iterdir() if p.is_file()) == [
        "config.json", "model.json", "results.json", "run.json", "tokenizer.json",
    ]  # fmt: skip
    environment = record.sessions[0].environment
    assert environment["torch"]
    assert environment["data"]["sha256"] == record.run["data"]["sha256"]
    assert "step 60: val_loss" in (record.sessions[0].dir / "training.log").read_text()


def test_runs_ls_and_show_tell_it_to_people_and_machines(desk: Desk) -> None:
    run = desk.only_run().run_id
    assert run in desk.type("runs", "ls").stdout
    (row,) = json.loads(desk.type("runs", "ls", "--json").stdout)
    assert (row["run"], row["status"], row["step"]) == (run, "finished", 60)
    shown = desk.type("runs", "show", run[:20]).stdout
    assert "finished" in shown
    facts = json.loads(desk.type("runs", "show", run, "--json").stdout)
    assert facts["steps"] == 60


def test_sampling_is_repeatable_and_begins_with_the_prompt(desk: Desk) -> None:
    run = desk.only_run().run_id
    command = ("sample", run, "--prompt", "it was", "--tokens", "20", "--top-k", "5")
    first, second = desk.type(*command), desk.type(*command)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("it was")
    assert first.stdout == second.stdout
    assert desk.type(*command, "--seed", "2").stdout != first.stdout


def test_sampling_without_torch_says_what_to_install(desk: Desk) -> None:
    code = (
        "import sys; sys.modules['torch'] = None  # as if it were not installed\n"
        f"from cupel.cli.main import main; main(['sample', {desk.only_run().run_id!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=desk.folder, env=desk.environment(None), capture_output=True, text=True,
    )  # fmt: skip
    line = "cupel: sampling needs the package 'torch', which is not installed; "
    assert done.stderr == f"{line}type: pip install 'cupel[train]'\n"
    assert done.returncode == 2


def test_a_wrong_step_to_sample_from_lists_the_checkpoints(desk: Desk) -> None:
    done = desk.type("sample", desk.only_run().run_id, "--step", "7")
    assert done.returncode == 2
    assert "has no checkpoint of step 7 (there are: " in done.stderr


def test_json_results_are_the_recorded_ones(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    done = desk.type("run", "tiny.yaml", "train.steps=5", "--json")
    printed = json.loads(done.stdout)
    assert printed["final"] == (desk.only_run().results or {})["final"]


def test_a_finished_run_whose_stdout_is_full_is_finished_and_says_where(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cupel", "run", "tiny.yaml", "train.steps=5"],
            cwd=desk.folder, env=desk.environment(None), stdin=subprocess.DEVNULL,
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    run = desk.only_run()
    assert run.status == "finished"
    assert complaint(done, code=1) == (
        f"cannot write to stdout: No space left on device; the run is finished, in {run.run_dir}"
    )


def test_a_full_stderr_stops_nothing(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cupel", "run", "tiny.yaml", "train.steps=5", "--json"],
            cwd=desk.folder, env=desk.environment(None), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=full, text=True,
        )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["step"] == 5


def test_a_dry_run_drives_every_branch_and_leaves_no_run(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    done = desk.type("run", "tiny.yaml", "figures.formats=[svg]", "--dry-run")
    assert done.returncode == 0, done.stderr
    counts = dict(
        reversed(item.split())
        for item in done.stdout.strip().removeprefix("dry run passed: ").split(", ")
    )
    assert int(counts["checkpoints"]) >= 2
    assert int(counts["figures"]) >= 2
    assert counts["samples"] == "1"
    assert counts["problems"] == "0"
    assert not desk.runs.exists()


def test_a_terminal_asks_whether_to_go_on(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    command = ("run", "tiny.yaml", "train.steps=100000")
    process = desk.start(*command)
    wait_for_step(desk.runs, 5, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert "is unfinished (interrupted). Go on with it? [Y/n]" in at_a_terminal(desk, *command)
    assert desk.only_run().status == "interrupted"
    assert len(desk.only_run().sessions) == 2


def at_a_terminal(desk: Desk, *arguments: str) -> str:
    """Type a command at a pseudo-terminal, answer yes, press Ctrl-C a while after it trains."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cupel", *arguments],
        cwd=desk.folder, env={**desk.environment(None), "TERM": "xterm"},
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown, answered, stopped, deadline = "", False, False, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            shown += os.read(controller, 4096).decode(errors="replace")
        except OSError:  # the terminal's other end is closed: the process has ended
            break
        if not answered and "[Y/n]" in shown:
            os.write(controller, b"y\n")
            answered = True
        if "resumed after step" in shown and not stopped:
            process.send_signal(signal.SIGINT)
            stopped = True
    os.close(controller)
    assert process.wait(timeout=30) == 75
    return " ".join(shown.split())
