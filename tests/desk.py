"""A desk for tests: a folder with a small text, a tiny recipe and a record, and a terminal."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cupel.record.reader import RunRecord, list_runs

RECIPE = """\
about: A GPT of a few thousand parameters, for tests
workload: gpt
data: {path: text.txt, batch: 4, val_batches: 1, val_batch: 2, cache: cache}
model: {layers: 1, heads: 2, width: 16, block: 16}
train: {steps: 40, evaluate_every: 20, threads: 1}
checkpoint: {every: 10, keep_last: 3}
figures: {formats: []}
sample: {prompt: "a", tokens: 4}
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a text, a recipe and a record, and a terminal in it."""

    folder: Path

    def type(self, *arguments: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run cupel to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cupel", *arguments],
            cwd=self.folder,
            env=self.environment(root),
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *arguments: str, root: Path | None = None) -> subprocess.Popen[str]:
        """Run cupel and go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "cupel", *arguments],
            cwd=self.folder,
            env=self.environment(root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def environment(self, root: Path | None) -> Mapping[str, str]:
        where = str(root or self.runs)
        return {**os.environ, "CUPEL_ROOT": where, "OMP_NUM_THREADS": "1"}

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def only_run(self) -> RunRecord:
        (run,) = list_runs(self.runs)
        return run

    def fingerprint(self) -> dict[str, str]:
        """Every recorded file and the hash of its content."""
        return {
            str(path.relative_to(self.runs)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.runs.rglob("*"))
            if path.is_file()
        }


def new_desk(folder: Path) -> Desk:
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text("it was the best of times, it was the worst of times; " * 200)
    (folder / "tiny.yaml").write_text(RECIPE)
    return Desk(folder)


def wait_for_step(
    root: Path, step: int, process: subprocess.Popen[str], *, session: int = 1
) -> None:
    """Wait until the one run below root has recorded a step in the given session."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for run in list_runs(root):
            rows = run.history(["loss"])
            if rows and rows[-1]["_step"] >= step and has_begun(run, session):
                return
        time.sleep(0.02)
    raise AssertionError(f"step {step} did not come")


def wait_for_checkpoint(root: Path, step: int) -> None:
    """Wait until the one run below root has a checkpoint of this step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(step in run.checkpoints() for run in list_runs(root)):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step} came")


def has_begun(run: RunRecord, session: int) -> bool:
    sessions = run.sessions
    return len(sessions) >= session and sessions[session - 1].start_step is not None


def complaint(done: subprocess.CompletedProcess[str] | tuple[int, str], code: int = 2) -> str:
    """The one line of a refusal."""
    found, stderr = done if isinstance(done, tuple) else (done.returncode, done.stderr)
    assert found == code, stderr
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("cupel: ")]
    assert len(lines) == 1, stderr
    assert stderr.splitlines()[-1] == lines[0], "the complaint is not the last line"
    return lines[0].removeprefix("cupel: ")
