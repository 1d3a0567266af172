"""The drawer draws what the record holds, when it is due, and nothing where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cupel.data.tokenizer import ByteTokenizer
from cupel.errors import DataError
from cupel.events import Event
from cupel.figures.settings import FigureSettings
from cupel.record.session import Session
from cupel.workloads.measured import MeasuredDrawer

SETTINGS = FigureSettings(every=20, formats=("svg",), themes=("light",))


@pytest.fixture
def session(tmp_path: Path) -> Any:
    session = Session.start(root=tmp_path, project="p", name="waves", config={}, identity="i")
    yield session
    session.finish("finished")


def measure(session: Session, step: int) -> None:
    quantiles = [[0.1 * k, 1 + 0.1 * k] for k in range(5)]
    measured = {
        "spectral/wave_ratio": step / 100,
        "spectral/frequency_quantiles": quantiles,
        "spectral/tokens": [32, 101, 7],
        "spectral/interference": [[1.0, 0.2, 0.0], [0.2, 1.0, 0.1], [0.0, 0.1, 1.0]],
    }
    session.log({"loss": 2.0, **measured}, step=step)


def names(run_dir: Path) -> list[str]:
    folder = run_dir / "figures"
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


@pytest.mark.slow
def test_draws_at_its_interval_when_the_next_step_starts_and_at_the_end(session: Session) -> None:
    drawer = MeasuredDrawer(session.run_dir, SETTINGS)
    for step in range(1, 33):
        drawer(Event.STEP_START, {"step": step})
        if step % 10 == 0:
            measure(session, step)
    due = ["spectra-evolution_step-000000020", "spectra_step-000000020"]
    assert names(session.run_dir) == [
        f"{stem}.{end}" for stem in due for end in ("json", "light.svg")
    ]
    drawer(Event.RUN_END, {"step": 32})
    content = json.loads((session.run_dir / "figures" / "spectra_step-000000032.json").read_text())
    assert (content["name"], content["measured_at"]) == ("waves", 30)
    assert content["panels"]["wave_ratio"] == {"steps": [10, 20, 30], "values": [0.1, 0.2, 0.3]}
    assert [file.name for file in drawer.drawn] == [
        f"{kind}_step-000000032.{end}"
        for kind in ("spectra", "spectra-evolution")
        for end in ("json", "light.svg")
    ]


def test_nothing_is_drawn_where_nothing_spectral_was_recorded(session: Session) -> None:
    session.log({"loss": 2.0}, step=20)
    drawer = MeasuredDrawer(session.run_dir, SETTINGS)
    drawer(Event.STEP_START, {"step": 21})
    drawer(Event.RUN_END, {"step": 21})
    assert names(session.run_dir) == []
    assert drawer.drawn == []


def test_no_formats_draw_nothing(session: Session) -> None:
    measure(session, 10)
    MeasuredDrawer(session.run_dir, FigureSettings(formats=()))(Event.RUN_END, {"step": 10})
    assert names(session.run_dir) == []


def tokens_drawn(session: Session) -> list[str]:
    drawer = MeasuredDrawer(session.run_dir, SETTINGS)
    drawer(Event.RUN_END, {"step": 10})
    shown: list[str] = json.loads(drawer.drawn[0].read_text())["panels"]["interference"]["names"]
    return shown


@pytest.mark.slow
def test_tokens_are_named_by_the_runs_tokenizer_and_else_by_their_ids(session: Session) -> None:
    measure(session, 10)
    assert tokens_drawn(session) == ["#32", "#101", "#7"]
    session.write_run_json("tokenizer.json", ByteTokenizer().state())
    assert tokens_drawn(session) == ["␣", "e", "#7"]


def test_a_tokenizer_that_cannot_be_read_is_told(session: Session) -> None:
    measure(session, 10)
    session.write_run_json("tokenizer.json", {"kind": "runes"})
    with pytest.raises(DataError, match="runes"):
        tokens_drawn(session)


@pytest.mark.slow
def test_memories_are_drawn_with_the_names_of_their_tokens(session: Session) -> None:
    measured = {"tokens": [97, 98], "norm": [[1.0, 2.0]], "surprise": [[0.5, 0.25]]}
    session.log({f"memory/{name}": value for name, value in measured.items()}, step=10)
    (session.run_dir / "tokenizer.json").write_text(json.dumps(ByteTokenizer().state()))
    drawer = MeasuredDrawer(session.run_dir, SETTINGS)
    drawer(Event.RUN_END, {"step": 12})
    assert [file.name for file in drawer.drawn] == [
        "memories_step-000000012.json", "memories_step-000000012.light.svg",
    ]  # fmt: skip
    panels = json.loads(drawer.drawn[0].read_text())["panels"]
    assert panels["surprise"] == {
        "layers": [[0.5, 0.25]], "tokens": [97, 98], "names": ["a", "b"],
    }  # fmt: skip
