"""Runs of one's own, in this process (`init`) and in a process of their own (`script`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cupel
from cupel.api import current
from cupel.record.reader import RunRecord, list_runs

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty record root, and no open run afterwards."""
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    for name in ("RESUME", "MONITORS", "MODE", "RUN_ID", "SESSION"):
        monkeypatch.delenv(f"CUPEL_{name}", raising=False)
    yield tmp_path / "runs"
    if current._current is not None:
        current._current.finish("interrupted")


@pytest.fixture
def init() -> Callable[..., cupel.Run]:
    """`cupel.init` with a project, a name and a config, unless others are given."""

    def start(**changes: Any) -> cupel.Run:
        return cupel.init(**{"project": "p", "name": "n", "config": {"lr": 0.1}, **changes})

    return start


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run Python code as a script; the environment's changes are keyword arguments."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "my_script.py"
        path.write_text(code)
        return subprocess.run(
            [sys.executable, path],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def only_run(root: Path) -> Callable[[], RunRecord]:
    """The one run in the record."""

    def read() -> RunRecord:
        (run,) = list_runs(root)
        return run

    return read
