"""A stdout or stderr that is full, closed or gone ends in one line and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


def shell(
    line: str, folder: Path, *, unbuffered: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Type a line in which `cupel` is this program, at a shell that tells of every failing part."""
    function = f'cupel() {{ "{sys.executable}" -m cupel "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", "set -o pipefail\n" + function + line],
        cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": unbuffered, **more},
        capture_output=True, text=True,
    )  # fmt: skip


@needs_full
@UNBUFFERED
@pytest.mark.parametrize("command", ["--version", "runs", "recipe list"])
def test_a_full_stdout_is_one_line(tmp_path: Path, command: str, unbuffered: str) -> None:
    done = shell(f"cupel {command} > /dev/full", tmp_path, unbuffered=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "cupel: cannot write to stdout: No space left on device\n"


def test_a_closed_stdout_is_one_line(tmp_path: Path) -> None:
    done = shell("cupel --version >&-", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "cupel: cannot write to stdout: Bad file descriptor\n"


@needs_full
def test_a_failure_is_told_once_when_stdout_is_full_as_well(tmp_path: Path) -> None:
    done = shell("cupel recipe check gpt-tiny nope > /dev/full", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no recipe is called 'nope'" in done.stderr


@needs_full
@UNBUFFERED
def test_a_full_or_closed_stderr_does_not_change_the_exit_code(
    tmp_path: Path, unbuffered: str
) -> None:
    for where in ("/dev/full", "&-"):
        assert (
            shell(f"cupel runs show x 2>{where}", tmp_path, unbuffered=unbuffered).returncode == 2
        )


@UNBUFFERED
def test_a_reader_that_has_gone_is_quiet(tmp_path: Path, unbuffered: str) -> None:
    line = "(sleep 0.1; cupel recipe schema gpt) | true"
    done = shell(line, tmp_path, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_numbers_of_closed_streams_are_not_given_to_files(tmp_path: Path) -> None:
    """Or what is told on stderr would go into a record."""
    (tmp_path / "mine.py").write_text(
        "with open('record', 'w') as file:\n    print(file.fileno(), file=file)\n"
    )
    (tmp_path / "r.yaml").write_text("workload: mine:X\n")
    assert shell("cupel recipe check r.yaml <&- >&- 2>&-", tmp_path).returncode == 2
    assert int((tmp_path / "record").read_text()) > 2


def test_letters_that_stdout_cannot_encode_are_written_out(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "mine.yaml").write_text("about: spät\nworkload: gpt\n", encoding="utf-8")
    done = shell("cupel recipe list", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "sp\\xe4t" in done.stdout
