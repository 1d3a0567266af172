"""Two small papers for tests of notes, and what reads them."""

from __future__ import annotations

from pathlib import Path

from cupel.notes.faults import Fault
from cupel.notes.load import Notes, together
from cupel.notes.model import Paper
from cupel.notes.reader import read

FOLDER = Path(__file__).parent / "notes" / "papers"
RIDGE = (FOLDER / "ridge.context.md").read_text(encoding="utf-8")
LASSO = (FOLDER / "lasso.context.md").read_text(encoding="utf-8")


def notes_of(*texts: str) -> Notes:
    """Notes of one or two texts, which faults call ridge.context.md and lasso.context.md."""
    names = ("ridge.context.md", "lasso.context.md")
    return together([read(text, name) for text, name in zip(texts, names, strict=False)])


def papers() -> tuple[Paper, ...]:
    """Both papers, lasso first."""
    notes = notes_of(RIDGE, LASSO)
    assert not notes.faults, notes.faults
    return notes.papers


def faults_of(text: str) -> list[Fault]:
    """What is wrong with one paper by itself."""
    return list(notes_of(text).faults)


def changed(old: str, new: str, text: str = RIDGE) -> str:
    """A text with one place changed, which must be there once."""
    assert text.count(old) == 1, (text.count(old), old)
    return text.replace(old, new)


def written(folder: Path, **texts: str) -> Path:
    """A folder of notes, `<name>.context.md` each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.context.md").write_text(text, encoding="utf-8")
    return folder
