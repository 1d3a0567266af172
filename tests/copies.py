"""One frozen study in several roots, with runs that are accepted here and go on there."""

from __future__ import annotations

from pathlib import Path

from cupel.record.session import Session
from cupel.studies.manifest import Cell, Manifest, PlannedRun, freeze, study_dir
from cupel.studies.settings import StudySettings
from planted import Arm, arm_config, write_run

SEEDS = (1, 2)


def study(
    root: Path, *, points: tuple[str, ...] = ("",), seeds: tuple[int, ...] = SEEDS
) -> Manifest:
    """The same frozen study in any root; no run has begun."""
    cells = tuple(Cell(arm, point, {}, arm_config()) for arm in ("a", "b") for point in points)
    runs = tuple(
        PlannedRun(
            f"s-{cell.arm}{f'-{points.index(cell.point)}' if cell.point else ''}-s{seed}",
            cell.arm, cell.point, seed, f"{cell.arm}{cell.point}{seed}", number,
        )
        for number, cell in enumerate(cells)
        for seed in SEEDS
    )  # fmt: skip
    settings = StudySettings(question="?", arms={"a": {}, "b": {}}, seeds=SEEDS)
    folder = study_dir(root, "p", "s")
    return freeze(Manifest(folder, "s", "p", "", settings, cells, runs, 1.7e9))


def accepted(manifest: Manifest, number: int = 0, value: float = 1.0) -> Path:
    run = manifest.runs[number]
    write_run(manifest, run, Arm({run.seed: value}))
    return manifest.run_dir(run)


def interrupted(manifest: Manifest, number: int = 0) -> Path:
    run = manifest.runs[number]
    write_run(manifest, run, Arm({}, interrupted=[run.seed]))
    return manifest.run_dir(run)


def go_on(run_dir: Path, *, value: float | None = None) -> None:
    """One more session of a run; with a value it is accepted."""
    session = Session.resume(run_dir)
    session.begin_at(10)
    session.log({"loss": 3.0, "val_loss": value or 3.5}, step=20)
    if value is None:
        session.finish("interrupted")
    else:
        session.finish("finished", results={"step": 20, "final": {"val_loss": value}})


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
