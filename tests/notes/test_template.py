"""A template lints clean apart from what is to be done in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.errors import UsageError
from cupel.notes.template import template, write_template
from papers import faults_of


@pytest.mark.parametrize(
    "title", [None, "Titans: Learning", "#1 of [many]", 'It\'s "so"', "[brackets]", "a\nb"]
)
def test_only_what_is_to_do_is_wrong_with_a_template(title: str | None) -> None:
    text = template("new-paper", title=title)
    faults = faults_of(text)
    assert {fault.rule for fault in faults} == {"todo"}
    assert len(faults) > 10


def test_every_todo_of_a_template_is_told() -> None:
    text = template("new-paper")
    told = {fault.at.line for fault in faults_of(text)}
    lines = {n for n, line in enumerate(text.split("\n"), 1) if "TODO" in line}
    # Titles and fields are told at their entry's heading.
    assert {n for n in lines if text.split("\n")[n - 1].startswith("|")} <= told
    assert len(told) >= 20


def test_a_filled_template_is_sound() -> None:
    text = template("new-paper", arxiv="2501.00663", title="A title")
    text = text.replace("year: TODO", "year: 2025").replace("extracted_at: TODO",
                                                            "extracted_at: 2026-11-22")  # fmt: skip
    assert faults_of(text.replace("TODO", "done")) == []


@pytest.mark.parametrize(
    "given", [{"name": "Big"}, {"name": "a/b"}, {"name": "x", "version": "V 1"},
              {"name": "x", "arxiv": "nonsense"}]
)  # fmt: skip
def test_names_that_no_notes_could_have_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected"):
        template(**given)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = write_template(tmp_path, "one", arxiv=None, title=None, version="v1")
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_template(tmp_path, "one", arxiv=None, title=None, version="v1")
    assert path.read_text() == "mine"
