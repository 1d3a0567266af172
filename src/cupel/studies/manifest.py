"""A study's manifest: the frozen list of its runs, in `runs/<project>/studies/<study>/`.

It is written once, before the first run, and says everything that decides: the question, every
cell's settings, every run's id, and how arms will be compared. A run's folder lies beside those of
all other runs of the project. Unknown keys are ignored when a manifest is read. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cupel.config import Settings, differences, from_config
from cupel.errors import RecordError, UnknownName, UsageError
from cupel.names import STUDIES
from cupel.record import files
from cupel.studies.settings import StudySettings

MANIFEST = "manifest.json"
SCHEMA = 1

# What may differ from the frozen study: it decides nothing.
_FREE = {"workers": True, "arms": True, "grid": True}  # arms and grid are in every cell's settings
_LISTED = 6  # differences in a message


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one point of the grid: the settings that all its seeds share."""

    arm: str
    point: str  # "" when the study has no grid, else as "lr=0.001,width=128"
    changes: Mapping[str, Any]  # what the arm and the point set, by dotted name
    config: Mapping[str, Any]  # everything, resolved; `seed` in it is the first seed


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study: a cell with a seed."""

    run_id: str  # <study>-<arm>-<point>-s<seed>-<hash8>
    arm: str
    point: str
    seed: int
    identity: str  # of the run's resolved recipe
    cell: int  # index into `Manifest.cells`


@dataclass(frozen=True, slots=True)
class Manifest:
    """A study as it was frozen."""

    folder: Path  # runs/<project>/studies/<name>
    name: str
    project: str
    about: str
    study: StudySettings
    cells: tuple[Cell, ...]
    runs: tuple[PlannedRun, ...]
    created: float

    @property
    def root(self) -> Path:
        """The record root that project and study lie in."""
        return self.folder.parents[2]

    @property
    def baseline(self) -> str:
        """The arm that others are held against: the declared one, else the first."""
        return self.study.compare.baseline or next(iter(self.study.arms))

    def run_dir(self, run: PlannedRun) -> Path:
        """The folder of a run, whether it is there or not."""
        return self.root / self.project / run.run_id

    def run(self, run_id: str) -> PlannedRun:
        """The planned run of an id. Raises UnknownName."""
        for run in self.runs:
            if run.run_id == run_id:
                return run
        raise UnknownName(f"run of study {self.name}", run_id, [run.run_id for run in self.runs])

    def config_of(self, run: PlannedRun) -> dict[str, Any]:
        """The resolved configuration of a run."""
        return {**self.cells[run.cell].config, "seed": run.seed}


def study_dir(root: Path, project: str, name: str) -> Path:
    """Where a study lies."""
    return root / project / STUDIES / name


def freeze(manifest: Manifest) -> Manifest:
    """Write the manifest, once; the frozen one. Planning the same study again adds nothing.

    Raises UsageError that lists what differs when another plan was frozen under this name,
    RecordError when nothing can be written.
    """
    try:
        manifest.folder.mkdir(parents=True, exist_ok=True)
        if files.create_json_exclusively(manifest.folder / MANIFEST, _as_json(manifest)):
            return manifest
    except OSError as error:
        raise RecordError(
            f"cannot write the study to {manifest.folder}: {error.strerror or error}; choose "
            "another place with --root or CUPEL_ROOT"
        ) from error
    frozen = load_manifest(manifest.folder)
    if changed := list(dict.fromkeys(_changes(frozen, manifest))):
        listed = "; ".join(changed[:_LISTED]) + ("; …" if len(changed) > _LISTED else "")
        raise UsageError(
            f"study {manifest.name} was begun with other settings ({listed}); give this one "
            f"another name (name=NAME), or delete {manifest.folder}"
        )
    return frozen


def load_manifest(folder: Path) -> Manifest:
    """The frozen study in a folder. Raises RecordError when it is absent, damaged or too new."""
    path = folder / MANIFEST
    found = files.read_json(path)
    if isinstance(found.get("schema"), int) and found["schema"] > SCHEMA:
        raise RecordError(f"{path} was written by a newer cupel; update cupel to read it")
    try:
        manifest = Manifest(
            folder=folder,
            name=found["name"],
            project=found["project"],
            about=found["about"],
            study=StudySettings.model_validate(_known(StudySettings, found["study"])),
            cells=tuple(Cell(**_known(Cell, cell)) for cell in found["cells"]),
            runs=tuple(PlannedRun(**_known(PlannedRun, run)) for run in found["runs"]),
            created=found["created"],
        )
        for run in manifest.runs:
            _check(manifest, run)
        return manifest
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise RecordError(
            f"{path} is damaged ({type(error).__name__}: {told}); restore it from a copy, or "
            "delete it and plan the study again"
        ) from error


def _check(manifest: Manifest, run: PlannedRun) -> None:
    """Raises ValueError for a run that belongs to no cell."""
    if not (isinstance(run.cell, int) and 0 <= run.cell < len(manifest.cells)):
        raise ValueError(f"run {run.run_id} has cell {run.cell} of {len(manifest.cells)}")
    if run.arm not in manifest.study.arms or not isinstance(run.seed, int):
        raise ValueError(f"run {run.run_id} has arm {run.arm!r} and seed {run.seed!r}")


def find_study(root: Path, text: str) -> Path:
    """The folder of the study meant by a name, by project/name or by a folder.

    Raises UnknownName when nothing answers, RecordError when several projects have one.
    """
    for folder in (Path(text), root / text):
        if text and _is_study(folder):
            return folder
    found = list(study_dirs(root))
    project, _, name = text.rpartition("/")
    matching = [
        folder for folder in found if folder.name == name and project in ("", _project(folder))
    ]
    if not matching:
        hint = f"looked in {root}; begin one with: cupel study run RECIPE"
        raise UnknownName("study", text, {folder.name for folder in found}, hint=hint)
    if len(matching) > 1:
        listed = ", ".join(sorted(f"{_project(folder)}/{folder.name}" for folder in matching))
        raise RecordError(f"'{text}' is a study of {len(matching)} projects; type one of: {listed}")
    return matching[0]


def study_dirs(root: Path) -> Iterator[Path]:
    """The folder of every study below a record root, in no order."""
    try:
        yield from (path.parent for path in root.glob(f"*/{STUDIES}/*/{MANIFEST}"))
    except OSError:  # deleted meanwhile, or not to be read
        return


def _project(folder: Path) -> str:
    return folder.parents[1].name


def _is_study(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except (OSError, ValueError):  # text that cannot be a path
        return False


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "project": manifest.project,
        "about": manifest.about,
        "created": manifest.created,
        "study": manifest.study.model_dump(mode="json"),
        "cells": [asdict(cell) for cell in manifest.cells],
        "runs": [asdict(run) for run in manifest.runs],
    }


def _known(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What this cupel knows of a mapping that a newer one may have written."""
    if not issubclass(kind, Settings):
        return {one.name: given[one.name] for one in fields(kind)}
    known: dict[str, Any] = {}
    for name, one in kind.model_fields.items():
        if name in given:
            inner: Any = one.annotation
            nested = isinstance(inner, type) and issubclass(inner, Settings)
            known[name] = _known(inner, given[name]) if nested else given[name]
    return known


def _changes(frozen: Manifest, planned: Manifest) -> Iterator[str]:
    """What differs, as `arm wave: train.steps: 100 -> 200`; without the arm where all share it."""
    yield from differences(*(one.study.model_dump(exclude=_FREE) for one in (frozen, planned)))
    old, new = ({(c.arm, c.point): c.config for c in one.cells} for one in (frozen, planned))
    for arm, point in sorted(old.keys() ^ new.keys()):
        change = "absent -> planned" if (arm, point) in new else "planned -> absent"
        yield f"{_cell_name(arm, point)}: {change}"
    both = [key for key in old if key in new]
    changed = {key: differences(_today(old[key]), _numbers(new[key])) for key in both}
    for key, lines in changed.items():
        for line in lines:
            shared = all(line in others for others in changed.values())
            yield line if shared else f"{_cell_name(*key)}: {line}"


def _cell_name(arm: str, point: str) -> str:
    return f"arm {arm} at {point}" if point else f"arm {arm}"


def _today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen settings with what this cupel adds to them, so that an update changes no study."""
    try:
        return _numbers(from_config(config, where=MANIFEST).resolved())
    except UsageError:
        return _numbers(config)


def _numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the seed, which is the study's, and without words about them."""
    return {name: value for name, value in config.items() if name not in ("seed", "about", "name")}
