"""What a report takes from the folders of runs."""

from __future__ import annotations

from pathlib import Path

from cupel.report.drawn import copy_measured
from cupel.studies.outcome import outcome
from planted import Arm, around, plant


def test_spectra_drawn_in_one_theme_stand_on_both_pages(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0)), "b": Arm(around(1.8))})
    run = next(run for run in manifest.runs if run.arm == "b")
    folder = manifest.run_dir(run) / "figures"
    folder.mkdir(exist_ok=True)
    (folder / "spectra_step-000000004.light.svg").write_text("<svg/>")
    (figure,) = copy_measured(outcome(manifest), tmp_path / "report", "spectra")
    for name in (figure.light, figure.dark):
        assert (tmp_path / "report" / name).read_text() == "<svg/>"
