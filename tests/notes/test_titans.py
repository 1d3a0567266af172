"""The notes of Titans that come with cupel are sound, whole, and planned without a circle."""

from __future__ import annotations

from pathlib import Path

from cupel.notes.graph import graph_of
from cupel.notes.load import load
from cupel.notes.model import Paper

NOTES = Path(__file__).parents[2] / "notes"


def titans() -> Paper:
    notes = load([NOTES])
    assert notes.faults == (), [*map(str, notes.faults)]
    return next(paper for paper in notes.papers if paper.id == "titans.v1")


def test_every_equation_of_the_paper_is_there() -> None:
    paper = titans()
    assert [e.number for e in paper.equations] == [str(n) for n in range(1, 36)]
    context = {int(e.number) for e in paper.equations if not e.is_main}
    assert context == {1, 2, 3, 4, 5, 6, 7, 20, 32, 33, 34, 35}
    assert all(e.form and e.latex for e in paper.equations)


def test_what_is_printed_wrongly_is_known_by_its_shapes() -> None:
    (equation,) = (e for e in titans().equations if e.printed)
    assert equation.number == "17"


def test_modules_need_each_other_in_one_direction() -> None:
    paper = titans()
    assert graph_of([paper], "modules").cycles() == []
    assert all(m.path.startswith("src/cupel/models/memory/") for m in paper.modules)
