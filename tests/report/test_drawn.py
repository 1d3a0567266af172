"""What a report takes from the folders of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.report.drawn import copy_measured
from cupel.studies.outcome import outcome
from planted import Arm, around, plant


@pytest.mark.parametrize(("kind", "other"), [("spectra", "memories"), ("memories", "spectra")])
@pytest.mark.slow
def test_what_runs_drew_in_one_theme_stands_on_both_pages(
    kind: str, other: str, tmp_path: Path
) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0)), "b": Arm(around(1.8))})
    run = next(run for run in manifest.runs if run.arm == "b")
    folder = manifest.run_dir(run) / "figures"
    folder.mkdir(exist_ok=True)
    (folder / f"{kind}_step-000000004.light.svg").write_text("<svg/>")
    (figure,) = copy_measured(outcome(manifest), tmp_path / "report", kind)
    assert copy_measured(outcome(manifest), tmp_path / "report", other) == []
    for name in (figure.light, figure.dark):
        assert (tmp_path / "report" / name).read_text() == "<svg/>"
