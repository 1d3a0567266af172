"""A view by arm leads to the runs, is brought up to date, and takes no folder of anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from copies import accepted, bytes_of, go_on, interrupted, study
from cupel.errors import RecordError
from cupel.studies.manifest import PlannedRun
from cupel.studies.view import lay_out, view_of


@pytest.mark.slow
def test_a_view_has_relative_links_by_arm_point_and_seed(tmp_path: Path) -> None:
    manifest = study(tmp_path / "runs", points=("lr=0.1", "lr=0.2"))
    for number in (0, 1, 6):
        accepted(manifest, number)
    made = lay_out(manifest, tmp_path / "view")
    assert [path.relative_to(tmp_path / "view").as_posix() for path in made] == [
        "a/lr=0.1/s1", "a/lr=0.1/s2", "b/lr=0.2/s1",
    ]  # fmt: skip
    for path, number in zip(made, (0, 1, 6), strict=True):
        assert not path.readlink().is_absolute()
        assert path.resolve() == manifest.run_dir(manifest.runs[number]).resolve()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("runs", "view"):
        (tmp_path / name).rename(moved / name)
    assert (moved / "view/a/lr=0.1/s1/results.json").exists()


@pytest.mark.slow
def test_a_view_is_brought_up_to_date_and_may_become_copies(tmp_path: Path) -> None:
    manifest = study(tmp_path / "runs")
    run_dir = accepted(manifest, 0)
    folder = tmp_path / "view"
    lay_out(manifest, folder)
    other = interrupted(manifest, 2)
    made = lay_out(manifest, folder)
    assert [path.relative_to(folder).as_posix() for path in made] == ["a/s1", "b/s1"]
    lay_out(manifest, folder, copy=True)
    assert not (folder / "a/s1").is_symlink()
    assert bytes_of(folder / "a/s1") == bytes_of(run_dir)
    before = (folder / "a/s1").stat().st_ino
    go_on(other)
    lay_out(manifest, folder, copy=True)
    assert bytes_of(folder / "b/s1") == bytes_of(other)
    assert (folder / "a/s1").stat().st_ino == before
    lay_out(manifest, folder)
    assert (folder / "a/s1").is_symlink()
    assert run_dir.is_dir()


def test_a_view_is_not_put_into_a_folder_of_something_else(tmp_path: Path) -> None:
    manifest = study(tmp_path / "runs")
    accepted(manifest)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(RecordError, match="not empty and no view of study s"):
        lay_out(manifest, mine)
    for inside in ("view", "p/view"):
        with pytest.raises(RecordError, match="would be taken for some"):
            lay_out(manifest, manifest.root / inside)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "point, name",
    [
        ("lr=0.1,width=64", "lr=0.1,width=64"),
        ("path=data/a.txt", "path=data%2Fa.txt"),
        (".hidden", "%2Ehidden"),
        ("rate=50%", "rate=50%25"),
        ("β=1", "β=1"),
    ],
)
def test_a_point_becomes_one_folder_whatever_it_is_called(point: str, name: str) -> None:
    run = PlannedRun("id", "a", point, 3, "x", 0)
    assert view_of(run) == Path("a", name, "s3")
    long = view_of(PlannedRun("id", "a", "x" * 300, 3, "x", 0)).parts[1]
    assert len(long.encode()) <= 120
