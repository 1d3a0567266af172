"""A stdout or stderr that is full, closed or gone ends in one line and the right exit code."""

from __future__ import annotations

import json
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
@pytest.mark.slow
def test_a_full_stdout_is_one_line(tmp_path: Path, command: str, unbuffered: str) -> None:
    done = shell(f"cupel {command} > /dev/full", tmp_path, unbuffered=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "cupel: cannot write to stdout: No space left on device\n"


@pytest.mark.slow
def test_a_closed_stdout_is_one_line(tmp_path: Path) -> None:
    done = shell("cupel --version >&-", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "cupel: cannot write to stdout: Bad file descriptor\n"


@needs_full
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        ("ls --json", ""),
        ("du", ""),
        ("grep needle", ""),
        ("grep needle", "1"),
        ("verify --all", ""),
    ],
)
@pytest.mark.slow
def test_a_result_larger_than_a_buffer_that_stdout_refuses_is_one_line(
    tmp_path: Path, command: str, unbuffered: str
) -> None:
    """Of such a one nothing is left in the buffer by which it could be known whose the error is."""
    run = tmp_path / "runs" / "p" / "20260101-000000-a-nogit-0000"
    session = run / "sessions" / "0001"
    session.mkdir(parents=True)
    facts = {"schema": 1, "identity": "i", "created": 1.0, "about": "needle" + "x" * 100_000}
    (run / "run.json").write_text(json.dumps(facts))
    (session / "session.json").write_text('{"schema": 1, "status": "finished"}')
    (session / "training.log").write_text(f"{'needle' * 60}\n" * 500)
    for where, why in (("/dev/full", "No space left on device"), ("&-", "Bad file descriptor")):
        done = shell(f"cupel runs {command} > {where}".replace("> &-", ">&-"), tmp_path,
                     unbuffered=unbuffered)  # fmt: skip
        assert (done.returncode, done.stderr) == (1, f"cupel: cannot write to stdout: {why}\n")
    gone = shell(f"(sleep 0.3; cupel runs {command}) | true", tmp_path, unbuffered=unbuffered)
    assert (gone.returncode, gone.stderr) == (141, "")


@UNBUFFERED
@pytest.mark.slow
def test_who_holds_a_stream_from_before_can_still_write_to_it(
    tmp_path: Path, unbuffered: str
) -> None:
    code = (
        "import sys\nheld = sys.stdout\nfrom cupel.cli.app import obey\n"
        "obey(['--version'])\nprint('held', file=held, flush=True)\nprint('new')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["held", "new"]


@needs_full
@pytest.mark.slow
def test_a_failure_is_told_once_when_stdout_is_full_as_well(tmp_path: Path) -> None:
    done = shell("cupel recipe check gpt-tiny nope > /dev/full", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no recipe is called 'nope'" in done.stderr


@needs_full
@UNBUFFERED
@pytest.mark.slow
def test_a_full_or_closed_stderr_does_not_change_the_exit_code(
    tmp_path: Path, unbuffered: str
) -> None:
    for where in ("/dev/full", "&-"):
        assert (
            shell(f"cupel runs show x 2>{where}", tmp_path, unbuffered=unbuffered).returncode == 2
        )


@UNBUFFERED
@pytest.mark.slow
def test_a_reader_that_has_gone_is_quiet(tmp_path: Path, unbuffered: str) -> None:
    line = "(sleep 0.1; cupel recipe schema gpt) | true"
    done = shell(line, tmp_path, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_the_numbers_of_closed_streams_are_not_given_to_files(tmp_path: Path) -> None:
    """Or what is told on stderr would go into a record."""
    (tmp_path / "mine.py").write_text(
        "with open('record', 'w') as file:\n    print(file.fileno(), file=file)\n"
    )
    (tmp_path / "r.yaml").write_text("workload: mine:X\n")
    assert shell("cupel recipe check r.yaml <&- >&- 2>&-", tmp_path).returncode == 2
    assert int((tmp_path / "record").read_text()) > 2


@pytest.mark.slow
def test_letters_that_stdout_cannot_encode_are_written_out(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "mine.yaml").write_text("about: spät\nworkload: gpt\n", encoding="utf-8")
    done = shell("cupel recipe list", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "sp\\xe4t" in done.stdout
