"""What is shown at the end of a run fits, and tells truly what was saved and what went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cupel.cli.run import _end
from cupel.cli.shown import Shown
from cupel.cli.summary import print_summary
from cupel.cli.tables import printable
from cupel.config import load
from cupel.events import Event
from cupel.record.session import Session
from cupel.workloads.training import Trained


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return finished(tmp_path, config={})


def finished(root: Path, *, config: dict[str, Any]) -> Trained:
    session = Session.start(root=root, project="p", name="n", config=config, identity="i")
    for step in range(1, 5):
        session.log({"loss": 1.0 / step}, step=step)
    results: dict[str, Any] = {
        "step": 4,
        "final": {"val_loss": 0.5},
        "best": {"val_loss": 0.5, "step": 4},
        "last_session": {"wall_s": 1.0, "cpu_s": 1.0},
        "monitors": {},
        "samples": [{"prompt": "a", "text": "b\x1b[2Jc\nd"}],
    }
    session.finish("finished", results=results)
    return Trained("finished", 4, run_dir=session.run_dir, results=results)


@pytest.mark.parametrize("columns", [1, 20, 47, 48, 300])
def test_the_curve_is_left_out_where_it_does_not_fit(
    trained: Trained,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_summary(trained, command="r.yaml")
    shown = capsys.readouterr().out
    assert ("train" in shown) == (columns >= 48)
    assert "val_loss, lowest" in shown


def test_a_sample_cannot_command_the_terminal(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(trained, command="r.yaml")
    assert "  │ ab\\x1b[2Jc\n  │ d\n" in capsys.readouterr().out


def what_next(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The commands that are suggested, without the run's id and how cupel is typed."""
    lines = capsys.readouterr().out.partition("\nNext\n")[2].splitlines()
    return [line.partition("cupel ")[2] for line in lines]


def test_what_to_type_next_is_the_recipe_that_was_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = finished(tmp_path, config={"seed": 1, "data": {"path": None}})
    print_summary(trained, command="wave-tiny train.steps=60")
    sample, _, again = what_next(capsys)
    assert sample.endswith("--prompt 'class '"), "what the source of Python begins with"
    assert again == "run wave-tiny train.steps=60 data.path=YOUR.txt"


@pytest.mark.parametrize("command", ["mine.yaml 'name=a b'", "mine.yaml seed=7 'name=a b'"])
def test_a_recipe_with_data_of_its_own_is_suggested_with_another_seed(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = finished(tmp_path, config={"seed": 7, "data": {"path": "mine.txt"}})
    print_summary(trained, command=command)
    sample, _, again = what_next(capsys)
    assert sample.endswith("--tokens 500")
    assert again == "run mine.yaml 'name=a b' seed=8"


@given(st.text())
def test_printable_text_has_no_controls_and_changes_nothing_else(text: str) -> None:
    controls = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
    assert not controls & set(printable(text))
    if not controls & set(text):
        assert printable(text) == text


@pytest.mark.parametrize(
    "step, told",
    [(0, "before the first step; nothing to save yet"), (7, "after step 7; it is saved in ")],
)
def test_an_interrupted_run_says_whether_anything_was_saved(
    step: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = Trained("interrupted", step, signal="SIGINT", run_dir=Path("runs/p/r"))
    with pytest.raises(typer.Exit) as end:
        _end(trained, "r.yaml", as_json=False)
    assert end.value.exit_code == 75
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"stopped by SIGINT {told}")
    assert second.endswith("run r.yaml --resume auto")


class Lines:
    """A progress display that keeps what it is given."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def line(self, text: str) -> None:
        self.shown.append(text)

    def start(self, name: str, steps: int, step: int) -> None:
        pass


def test_a_failure_is_shown_only_when_training_goes_on_after_it() -> None:
    lines = Lines()
    display = Shown(lines, load("gpt-tiny"))  # type: ignore[arg-type]
    display(Event.RUN_START, {"step": 0})
    display(Event.FAILURE, "the disk is full")
    assert lines.shown == []
    display(Event.STEP_START, {"step": 1})
    display(Event.STEP_START, {"step": 2})
    assert lines.shown == ["failed: the disk is full"]


def test_only_losses_are_told_in_nats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = finished(tmp_path, config={"seed": 1, "data": {"path": None}})
    results = {**trained.results, "final": {"val_loss": 0.5, "val_acc": 0.9944}}
    print_summary(replace(trained, results=results), command="r.yaml")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "val_loss, at the end 0.5000 nats (0.7213 bits)" in lines
    assert "val_acc, at the end 0.9944" in lines
