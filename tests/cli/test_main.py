"""The command begins well: Ctrl-C at any moment is one line, the folder here hides no module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CTRL_C = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def cupel(*arguments: str, here: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cupel", *arguments],
        cwd=here, env={**os.environ, **more}, capture_output=True, text=True,
    )  # fmt: skip


def test_ctrl_c_while_the_commands_are_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "typer.py").write_text(CTRL_C)
    done = cupel("--help", here=tmp_path, PYTHONPATH=str(tmp_path / "first"))
    assert (done.returncode, done.stderr) == (130, "cupel: aborted\n")


def test_ctrl_c_in_what_python_calls_back_while_importing_ends_it_too(tmp_path: Path) -> None:
    """Of what is raised there Python prints a traceback, and goes on."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "typer.py").write_text(
        "import os, signal\n"
        "class Gone:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "Gone()\n"
        "raise SystemExit('it went on')\n"
    )
    done = cupel("--help", here=tmp_path, PYTHONPATH=str(tmp_path / "first"))
    assert (done.returncode, done.stderr) == (130, "cupel: aborted\n")


@pytest.mark.slow
def test_a_ctrl_c_that_is_ignored_from_outside_stays_so(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(CTRL_C)
    (tmp_path / "r.yaml").write_text("workload: interrupted:X\n")
    line = f"trap '' INT; {sys.executable} -m cupel recipe check r.yaml"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "aborted" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_while_something_is_prepared_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(CTRL_C)
    (tmp_path / "r.yaml").write_text("workload: interrupted:X\n")
    done = cupel("recipe", "check", "r.yaml", here=tmp_path)
    assert (done.returncode, done.stderr) == (130, "cupel: aborted\n")


@pytest.mark.parametrize("how", [["-m", "cupel"], [str(Path(sys.executable).parent / "cupel")]])
@pytest.mark.slow
def test_a_module_here_is_found_and_hides_none_of_those_installed(
    tmp_path: Path, how: list[str]
) -> None:
    for name in ("queue", "typer", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "mine.py").write_text(
        "import queue\nfrom cupel.config import Settings\n"
        "class X:\n    class Settings(Settings):\n        pass\n"
    )
    (tmp_path / "r.yaml").write_text("workload: mine:X\n")
    program = [sys.executable, *how] if how[0] == "-m" else how
    done = subprocess.run(
        [*program, "recipe", "check", "r.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r.yaml: fine")
