"""`cupel report` writes a study's report, finished or not, and tells where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cupel.cli.report import report
from cupel.errors import RecordError, UnknownName
from planted import Arm, around, plant

ARMS = {"standard": Arm(around(2.0)), "wave": Arm(around(1.8))}


@pytest.mark.slow
def test_the_report_lies_in_the_studys_folder_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = plant(tmp_path, ARMS)
    report("planted", root=str(tmp_path))
    folder = manifest.folder / "report"
    assert str(folder / "report.html") in capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.md", "report.html", "numbers.json", "figures"}


@pytest.mark.slow
def test_json_lists_every_file_and_each_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, ARMS)
    capsys.readouterr()
    report("planted", root=str(tmp_path), output=tmp_path / "paper", json=True)
    files = json.loads(capsys.readouterr().out)["files"]
    assert len(files) == 7
    assert all(Path(name).is_file() for name in files)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    plant(tmp_path, ARMS)
    for name in ("one", "two"):
        report("planted", root=str(tmp_path), output=tmp_path / name)
    for path in (tmp_path / "one").rglob("*.*"):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes(), path.name


@pytest.mark.slow
def test_spectra_that_runs_drew_are_taken_over_the_last_ones_only(tmp_path: Path) -> None:
    manifest = plant(tmp_path, ARMS)
    figures = manifest.run_dir(manifest.runs[-1]) / "figures"
    wave = manifest.run_dir(next(run for run in manifest.runs if run.arm == "wave")) / "figures"
    assert figures != wave
    wave.mkdir()
    for stem in ("spectra", "spectra-evolution"):
        for step in (9, 10):
            for theme in ("light", "dark"):
                (wave / f"{stem}_step-{step:09d}.{theme}.svg").write_text(f"<svg id='{step}'/>")
    report("planted", root=str(tmp_path), output=tmp_path / "out")
    copied = sorted((tmp_path / "out" / "figures").glob("wave-spectra*"))
    assert len(copied) == 4
    assert {path.read_text() for path in copied} == {"<svg id='10'/>"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "### Spectra" in text
    assert "step 10" in text


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    plant(tmp_path, ARMS)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="--output"):
        report("planted", root=str(tmp_path), output=tmp_path / "file")


@pytest.mark.slow
def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    plant(tmp_path, ARMS)
    code = (
        "import sys; from cupel.cli.report import report; "
        f"report('planted', root={str(tmp_path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        report("nothing", root=str(tmp_path))
