"""The example runs, and what it claims is proven by the commands that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cupel.record.reader import list_runs

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"

pytestmark = pytest.mark.slow


def run(*command: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "CUPEL_ROOT": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def verify(*arguments: str | Path, root: Path) -> tuple[int, dict[str, Any]]:
    done = run("-m", "cupel", "verify", *arguments, "--json", root=root)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def changed(tmp_path: Path, *replacements: tuple[str, str]) -> Path:
    """The example with pieces of its text replaced."""
    text = EXAMPLE.read_text()
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "variant.py"
    path.write_text(text)
    return path


def test_the_example_runs_and_leaves_a_record(tmp_path: Path) -> None:
    done = run(EXAMPLE, root=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = list_runs(tmp_path)
    assert record.status == "finished"
    assert len(record.history(["loss"])) == 200
    assert str(record.run_dir) in done.stdout


def test_its_resuming_is_exact(tmp_path: Path) -> None:
    code, verdict = verify("resume", EXAMPLE, "--kill-at", "199", root=tmp_path)
    assert code == 0, verdict
    assert verdict["facts"]["parts"] == ["model", "optimizer", "random", "schedule"]
    assert verdict["facts"]["resumed_from"] >= 100  # that of 150 may not be on the disk yet


def test_without_a_thread_the_last_checkpoint_before_a_kill_is_there(tmp_path: Path) -> None:
    waits = ('resume="auto")', 'resume="auto", settings={"checkpoint": {"background": False}})')
    script = changed(tmp_path, waits)
    code, verdict = verify("resume", script, "--kill-at", "120", root=tmp_path)
    assert code == 0, verdict
    assert verdict["facts"]["resumed_from"] >= 100


def test_its_monitors_do_not_disturb(tmp_path: Path) -> None:
    code, verdict = verify("monitors", EXAMPLE, root=tmp_path)
    assert code == 0, verdict
    assert verdict["facts"]["monitors"]["norms"]["calls"] == 20


def test_an_optimizer_that_was_not_registered_is_caught(tmp_path: Path) -> None:
    script = changed(tmp_path, ("model=model, optimizer=optimizer,", "model=model,"))
    code, verdict = verify("resume", script, "--kill-at", "120", root=tmp_path)
    assert (code, verdict["equal"]) == (1, False)
    # A fresh optimizer has the first step's learning rate, and no momentum.
    first = verdict["facts"]["resumed_from"] + 1
    assert verdict["facts"]["first_difference"][:2] == [first, "lr"]
    assert "model" in verdict["facts"]["different_parts"]


def test_a_monitor_that_disturbs_is_caught(tmp_path: Path) -> None:
    disturbs = (
        "class Disturbs:\n"
        "    on, every = 'step_end', 10\n"
        "    def keys(self, model): return ['noise']\n"
        "    def __call__(self, view): return {'noise': torch.rand(())}\n\n"
        "with cupel.init("
    )
    script = changed(
        tmp_path,
        ("with cupel.init(", disturbs),
        ('"throughput": {}}', '"throughput": {}, "disturbs": Disturbs()}'),
    )
    code, verdict = verify("monitors", script, root=tmp_path)
    assert (code, verdict["equal"]) == (1, False)
    assert verdict["facts"]["first_difference"][:2] == [11, "loss"]
