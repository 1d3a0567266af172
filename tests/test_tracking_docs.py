"""docs/tracking.md says what happens: its examples print what stands under them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import cupel
from cupel.api.arguments import _IGNORED, Recording
from cupel.record.reader import list_runs

PAGE = Path(__file__).parents[1] / "docs" / "tracking.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w/.-]+\.py)\n")

pytestmark = pytest.mark.slow


def test_every_example_prints_what_stands_under_it(tmp_path: Path) -> None:
    for name in ("pytorch_lightning", "transformers", "accelerate"):
        pytest.importorskip(name)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CUPEL_R")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    compared = 0
    for number, (kind, text) in enumerate(blocks):
        if file := FILE.match(text):
            (tmp_path / file[1]).write_text(text)
            continue
        if kind not in ("python", "bash"):
            continue
        command = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=240
        )
        told = f"block {number + 1}:\n{text}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, told
        under = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        if under[0] == "text":
            assert done.stdout == under[1], told
            compared += 1
    assert compared >= 12
    runs = list_runs(tmp_path / "runs")
    assert len(runs) > 12
    resumed = next(run for run in runs if run.run["name"] == "resumable")
    assert [session.status for session in resumed.sessions] == ["failed", "finished"]
    assert [row["_step"] for row in resumed.history(["loss"])] == list(range(1, 21))
    assert not [run.run_id for run in runs if run.status not in ("finished", "failed")]


def test_the_options_on_the_page_are_those_of_the_code() -> None:
    """Each setting and argument has its row, and no row names another."""
    page = PAGE.read_text(encoding="utf-8")
    settings = page[page.index("| setting | default |") : page.index("| variable |")]
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", settings, re.MULTILINE))
    shown = {name: repr(value).replace("'", '"') for name, value in asdict(Recording()).items()}
    assert rows == shown
    options = page[page.index("| argument of `init` |") : page.index("| setting | default |")]
    named = set(re.findall(r"`(\w+)`", re.sub(r"\|[^|]*\|$", "", options, flags=re.MULTILINE)))
    parameters = inspect.signature(cupel.init).parameters
    taken = {name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    assert taken <= named | {"config"}, taken - named
    ignored = page[page.index("accepted, and told once") :].splitlines()[0]
    assert set(re.findall(r"`(\w+)`", ignored)) <= set(_IGNORED)
