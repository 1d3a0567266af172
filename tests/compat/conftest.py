"""An empty record root for every test, and no open run afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cupel.api import current, told


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    for name in ("RESUME", "MONITORS", "MODE", "RUN_ID", "SESSION"):
        monkeypatch.delenv(f"CUPEL_{name}", raising=False)
    told._told.clear()  # each test hears what is told once a process
    yield tmp_path / "runs"
    for run in list(current._open_runs()):
        run.finish("interrupted")
