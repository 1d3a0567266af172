"""What is shown fits a terminal of any width, and elsewhere it is whole."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.cli.tables import middle, packed
from cupel.record.session import Session

RUNS = [f"20260101-00000{n}-some-name-of-a-run-nogit-000{n}" for n in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("narrow") / "runs"
    for number, run_id in enumerate(RUNS):
        session = Session.start(
            root=root, project="p", name="a", config={"lr": 0.1 * number}, identity=run_id,
            run_id=run_id, notes="of the first night " * 9,
        )  # fmt: skip
        for step in range(3):
            many = {f"metric/{place}": place / 7 for place in range(9)}
            session.log({"loss": 2.5 - step, **many}, step=step)
        session.finish("finished", results={"step": 2, "final": {"loss": 0.5}})
    return root


def on_terminal(root: Path, width: int, *arguments: str) -> list[str]:
    """The lines that a command prints to a terminal so wide."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cupel", "runs", *arguments, "--root", str(root)],
        stdout=theirs, stderr=subprocess.PIPE, cwd=root.parent,
        env={**os.environ, "COLUMNS": str(width), "PYTHONIOENCODING": "utf-8"},
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(ours)
        assert process.stderr is not None
        assert (process.wait(), process.stderr.read()) == (0, b"")
    return said.decode().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.slow
def test_status_and_loss_of_every_run_are_seen_on_a_terminal_of_any_width(
    root: Path, width: int
) -> None:
    lines = on_terminal(root, width, "ls")
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert (text.count("finished"), text.count("0.5000")) == (3, 3)
    for run_id in RUNS:
        assert any(line.startswith(run_id[:16]) and run_id[-4:] in line for line in lines)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    "command",
    [("compare", *RUNS), ("du",), ("tail", RUNS[0]), ("diff", *RUNS[:2]), ("show", RUNS[0])],
    ids=lambda command: command[0],
)
@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal(
    root: Path, width: int, command: tuple[str, ...]
) -> None:
    lines = on_terminal(root, width, *command)
    # A path has no place at which it could be broken so that it can still be copied.
    assert max(len(line) for line in lines if str(root) not in line) <= width


@pytest.mark.slow
def test_what_does_not_fit_is_a_block_for_each_metric(root: Path) -> None:
    lines = on_terminal(root, 80, "compare", *RUNS)
    place = lines.index("loss, last")
    assert lines[place + 1 : place + 4] == [f"  {run_id}  0.5000 @ 2" for run_id in RUNS]


@pytest.mark.slow
def test_elsewhere_than_on_a_terminal_nothing_is_cut(root: Path) -> None:
    for command in (["ls"], ["compare", *RUNS]):
        done = subprocess.run(
            [sys.executable, "-m", "cupel", "runs", *command, "--root", str(root)],
            capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "40"},
        )  # fmt: skip
        assert all(run_id in done.stdout for run_id in RUNS)
        assert ("of the first night " * 9).strip() in done.stdout or command[0] == "compare"
        assert "…" not in done.stdout


@given(st.lists(st.text("ab ", min_size=1, max_size=60)), st.integers(20, 60))
def test_packed_lines_are_no_wider_and_lose_no_letter(parts: list[str], most: int) -> None:
    lines = packed(parts, most, indent="  ")
    assert all(len(line) <= most for line in lines)
    assert "".join("".join(lines).split()) == "".join("".join(parts).split())


@given(st.text(max_size=60), st.integers(1, 60))
def test_a_text_without_its_middle_is_as_long_as_it_may_be(text: str, most: int) -> None:
    assert len(middle(text, most)) == min(len(text), most)
