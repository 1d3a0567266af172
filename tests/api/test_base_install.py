"""`pip install .` without extras tracks runs and reads them; training says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACKS = """
import cupel
with cupel.init("p", "base", {"lr": 0.1}) as run:
    for step in range(1, 4):
        run.log({"loss": 1 / step})
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("base install")]


class Installed:
    """A virtual environment that holds cupel and what its base install brings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"

    def install(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", self.folder / "venv"], check=True)
        # No editable install: the wheel is what people get.
        command = ["-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
        done = self.run("python", *map(str, command))
        if "No matching distribution found" in done.stderr or "Connection" in done.stderr:
            pytest.skip(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.folder,
            env={**os.environ, "CUPEL_ROOT": str(self.folder / "runs")},
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    made = Installed(tmp_path_factory.mktemp("base"))
    made.install()
    return made


@pytest.mark.parametrize("package", ["torch", "safetensors", "matplotlib", "tokenizers"])
def test_the_extras_really_are_absent(installed: Installed, package: str) -> None:
    done = installed.run("python", "-c", f"import {package}")
    assert f"No module named '{package}'" in done.stderr


def test_a_script_is_tracked_and_its_run_listed(installed: Installed) -> None:
    done = installed.run("python", "-c", TRACKS)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(installed.run("cupel", "runs", "ls", "--json").stdout)
    assert [(row["project"], row["status"], row["step"]) for row in rows] == [("p", "finished", 2)]
    shown = installed.run("cupel", "runs", "show", rows[0]["run"], "--json")
    assert json.loads(shown.stdout)["last"]["loss"] == 1 / 3


def test_the_wheel_carries_the_recipes(installed: Installed) -> None:
    listed = installed.run("cupel", "recipe", "check", "gpt-tiny")
    assert (listed.returncode, listed.stderr) == (0, "")
    (package,) = (installed.folder / "venv").glob("lib/python*/site-packages/cupel")
    packed = {path.relative_to(package / "recipes") for path in package.glob("recipes/**/*.yaml")}
    assert packed == {path.relative_to(ROOT / "recipes") for path in ROOT.glob("recipes/**/*.yaml")}


def test_help_works(installed: Installed) -> None:
    done = installed.run("cupel", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "verify" in done.stdout


@pytest.mark.parametrize(
    "command,purpose",
    [(["run", "gpt-tiny"], "training"), (["verify", "resume", "gpt-tiny"], "training")],
)
def test_training_says_in_one_line_what_to_install(
    installed: Installed, command: list[str], purpose: str
) -> None:
    done = installed.run("cupel", *command)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("cupel: ")]
    assert line.endswith(
        f"{purpose} needs the package 'torch', which is not installed; "
        "type: pip install 'cupel[train]'"
    )
    assert done.returncode == (2 if command[0] == "run" else 1)
    assert "Traceback" not in done.stderr


def test_checkpoints_say_what_to_install(installed: Installed) -> None:
    code = "import cupel\nrun = cupel.init('q')\nrun.register(model=object())"
    last = installed.run("python", "-c", code).stderr.splitlines()[-1]
    assert "saving checkpoints needs the package 'torch'" in last
    assert last.endswith("type: pip install 'cupel[train]'")
