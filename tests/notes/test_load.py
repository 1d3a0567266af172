"""Which files paths mean; what cannot be read is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.errors import UsageError
from cupel.notes.load import files_of, load
from papers import LASSO, RIDGE, written


def test_a_folder_means_its_notes_and_nothing_else(tmp_path: Path) -> None:
    folder = written(tmp_path, ridge=RIDGE, lasso=LASSO)
    (folder / "README.md").write_text("no notes")
    assert [path.name for path in files_of([folder])] == ["lasso.context.md", "ridge.context.md"]
    assert len(files_of([folder, folder / "ridge.context.md"])) == 2


def test_without_paths_it_is_the_folder_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no folder notes/ here"):
        load([])
    written(tmp_path / "notes", ridge=RIDGE)
    assert [paper.id for paper in load([]).papers] == ["ridge.v1"]
    assert load([]).papers[0].at.path == "notes/ridge.context.md"


def test_what_is_not_there_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        load([tmp_path / "none.md"])
    with pytest.raises(UsageError, match=r"holds no \*\.context\.md"):
        load([tmp_path])
    (tmp_path / "bad.context.md").write_bytes(b"ok\xff")
    with pytest.raises(UsageError, match="is no UTF-8, from byte 2 on"):
        load([tmp_path])


def test_papers_come_by_id_whatever_the_order_of_paths(tmp_path: Path) -> None:
    folder = written(tmp_path, ridge=RIDGE, lasso=LASSO)
    one = [folder / "ridge.context.md", folder / "lasso.context.md"]
    assert load(one) == load(one[::-1]) == load([folder])
