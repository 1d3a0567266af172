"""A study's manifest: the frozen list of its runs, in `runs/<project>/studies/<study>/`.

It is written once, before the first run, and says everything that decides: the question, every
cell's settings, every run's id, and how arms will be compared. A study that is widened gets further
files beside it, see `cupel.studies.stored`. A run's folder lies beside those of all other runs of
the project. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cupel.errors import RecordError, UnknownName
from cupel.names import STUDIES
from cupel.studies import stored
from cupel.studies.planned import Cell, Manifest, PlannedRun
from cupel.studies.stored import MANIFEST, SCHEMA
from cupel.studies.widening import changes, extend, refuse

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "Cell",
    "Manifest",
    "PlannedRun",
    "find_study",
    "freeze",
    "load_manifest",
    "study_dir",
    "study_dirs",
]


def study_dir(root: Path, project: str, name: str) -> Path:
    """Where a study lies."""
    return root / project / STUDIES / name


def freeze(manifest: Manifest, *, widen: bool = False) -> Manifest:
    """Write the manifest, once; the frozen one. Planning the same study again adds nothing, nor
    does a plan that the study was begun with and has been widened since.

    With `widen` a study that is frozen grows by what the plan has besides, in a file of its own.
    Raises UsageError that lists what differs when another plan was frozen under this name,
    RecordError when nothing can be written.
    """
    is_new = not stored.part_path(manifest.folder, 1).exists()  # or all of it is encoded in vain
    if is_new and _created(manifest, part=1, begun=None):
        return manifest
    while True:
        frozen = load_manifest(manifest.folder)
        if not widen:
            _refuse_another(frozen, manifest)
            return frozen
        wide = extend(frozen, manifest)
        if wide is frozen:
            return frozen
        if _created(wide, part=frozen.parts + 1, begun=frozen):
            return load_manifest(manifest.folder)


def load_manifest(folder: Path, *, parts: int | None = None) -> Manifest:
    """The frozen study in a folder, with all its parts or the first few.

    Raises RecordError when it is absent, damaged or too new.
    """
    first = part = stored.read(stored.part_path(folder, 1))
    cells, runs = list(part.cells), list(part.runs)
    count = stored.part_count(folder) if parts is None else parts
    for number in range(2, count + 1):
        path = stored.part_path(folder, number)
        part = stored.read(path, before=part.hash, cells=cells)
        cells += part.cells
        runs += part.runs
    try:
        study = stored.settings_of(part.study)
    except ValueError as error:
        raise stored.damaged(stored.part_path(folder, count), error) from error
    return Manifest(
        folder=folder,
        name=first.name,
        project=first.project,
        about=first.about,
        study=study,
        cells=tuple(cells),
        runs=tuple(runs),
        created=first.created,
        parts=count,
        frozen_hash=part.hash,
    )


def _created(manifest: Manifest, *, part: int, begun: Manifest | None) -> bool:
    """Whether this call created the part, with what the manifest has beyond what was begun."""
    cells, runs, before = (0, 0, "") if begun is None else _sizes(begun)
    try:
        manifest.folder.mkdir(parents=True, exist_ok=True)
        return stored.create(
            manifest,
            part=part,
            cells=manifest.cells[cells:],
            runs=manifest.runs[runs:],
            before=before,
        )
    except OSError as error:
        raise RecordError(
            f"cannot write the study to {manifest.folder}: {error.strerror or error}; choose "
            "another place with --root or CUPEL_ROOT"
        ) from error


def _sizes(frozen: Manifest) -> tuple[int, int, str]:
    return len(frozen.cells), len(frozen.runs), frozen.hash


def _refuse_another(frozen: Manifest, planned: Manifest) -> None:
    """Raises UsageError unless the plan is the frozen one, or was before it was widened."""
    found = changes(frozen, planned)
    for parts in range(1, frozen.parts):
        if found and not changes(load_manifest(frozen.folder, parts=parts), planned):
            return
    refuse(frozen, found)


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
