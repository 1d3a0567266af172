"""The files of a frozen study: `manifest.json`, and a part for each time that it was widened.

`manifest.json` is never rewritten. Widening adds `manifest.002.json`, `manifest.003.json`, …, each
created exclusively, with the cells and runs that it adds. A cell and a run stand on a line each.
Every file ends with a hash of what decides, over that of the file before it. Unknown keys are
ignored. 100,000 runs of 10,000 cells are 30 MB and are read in about half a second.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from cupel.config import Settings
from cupel.errors import RecordError
from cupel.record import files
from cupel.studies.planned import Cell, Manifest, PlannedRun, StoredConfig, compact
from cupel.studies.settings import StudySettings

MANIFEST = "manifest.json"
SCHEMA = 1

_PART = re.compile(r"manifest\.(\d{3,})\.json")
# What the hash is over. A fixed list, since a later cupel must read what this one has written.
_DECIDES = ("question", "seeds", "primary", "compare")


class _StoredCell(msgspec.Struct, gc=False):
    arm: str
    point: str
    changes: dict[str, Any]
    config: msgspec.Raw


class _StoredPlan(msgspec.Struct):
    study: dict[str, Any]
    cells: list[_StoredCell]
    runs: list[PlannedRun]
    created: float
    name: str
    project: str
    about: str
    hash: str = ""
    schema: int = SCHEMA


class _Schema(msgspec.Struct):
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Part:
    """One file, read: what it adds, the study's settings as written in it, and its hash."""

    name: str
    project: str
    about: str
    created: float
    study: Mapping[str, Any]
    cells: tuple[Cell, ...]
    runs: tuple[PlannedRun, ...]
    hash: str


def part_path(folder: Path, part: int) -> Path:
    """The file of a part, counted from 1."""
    return folder / (MANIFEST if part == 1 else f"manifest.{part:03d}.json")


def part_count(folder: Path) -> int:
    """How many files a frozen study has. Raises RecordError when one between them is missing."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise RecordError(f"cannot read {folder}: {error.strerror}") from error
    found = {int(match[1]) for name in names if (match := _PART.fullmatch(name))} | {1}
    for part in range(1, max(found) + 1):
        if part not in found:
            missing = part_path(folder, part)
            raise RecordError(f"{missing} is missing, but a later part is there; restore it")
    return max(found)


def hash_of(
    study: Mapping[str, Any],
    cells: Iterable[Cell],
    runs: Iterable[PlannedRun],
    *,
    before: str = "",
) -> str:
    """SHA-256 (hex) of what decides: question, seeds, primary metric and comparison, every cell's
    settings, every run's id, seed and identity. `before` is the hash of the parts before it."""
    decides = compact({name: study.get(name) for name in _DECIDES})
    made = hashlib.sha256(b"manifest 1\n%b\n%b\n" % (before.encode(), decides))
    for cell in cells:
        made.update(b"%b\n%b\n" % (compact([cell.arm, cell.point]), cell.stored))
    lines = (f"{run.run_id} {run.seed} {run.cell} {run.identity}\n" for run in runs)
    while block := "".join(itertools.islice(lines, 1000)):
        made.update(block.encode())
    return made.hexdigest()


# ---- written -----------------------------------------------------------------------------------


def create(
    manifest: Manifest, *, part: int, cells: Sequence[Cell], runs: Sequence[PlannedRun], before: str
) -> bool:
    """Create a part, whole, unless it exists; whether it was this call. Raises OSError."""
    study = manifest.study.model_dump(mode="json")
    head = {
        "schema": SCHEMA,
        "name": manifest.name,
        "project": manifest.project,
        "about": manifest.about,
        "created": manifest.created,
        "study": study,
    }
    pieces = [msgspec.json.format(msgspec.json.encode(head), indent=2)[:-2]]
    pieces += _listed("cells", (_cell_line(cell) for cell in cells))
    pieces += _listed("runs", map(_run_line, runs))
    pieces.append(b',\n  "hash": "%b"\n}\n' % hash_of(study, cells, runs, before=before).encode())
    return _created(part_path(manifest.folder, part), b"".join(pieces))


def _listed(name: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """A field of a list, each item on a line; in pieces, since they may be 100,000."""
    yield b',\n  "%b": [' % name.encode()
    comma = b""
    for line in lines:
        yield b"%b\n    %b" % (comma, line)
        comma = b","
    yield b"\n  ]"


def _cell_line(cell: Cell) -> bytes:
    changes = dict(cell.changes)
    return msgspec.json.encode(_StoredCell(cell.arm, cell.point, changes, msgspec.Raw(cell.stored)))


def _run_line(run: PlannedRun) -> bytes:
    """A run without what is as usual, which most of 100,000 lines would only repeat."""
    fields: dict[str, Any] = {
        "run_id": run.run_id,
        "arm": run.arm,
        "point": run.point,
        "seed": run.seed,
        "identity": run.identity,
        "cell": run.cell,
    }
    for name in ("priority", "tags", "fold"):
        if (value := getattr(run, name)) != getattr(_USUAL, name):
            fields[name] = value
    return msgspec.json.encode(fields)


_USUAL = PlannedRun("", "", "", 0, "", 0)


def _created(path: Path, content: bytes) -> bool:
    temporary = path.with_name(files.temporary_name(path.name))
    try:
        files.write_bytes(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        return _created_without_links(path, content)
    finally:
        temporary.unlink(missing_ok=True)
    files.sync_folder(path.parent)
    return True


def _created_without_links(path: Path, content: bytes) -> bool:
    # As in `cupel.record.files`: still once, but a kill in these milliseconds damages the file.
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    files.sync_folder(path.parent)
    return True


# ---- read --------------------------------------------------------------------------------------


def read(path: Path, *, before: str = "", cells: Sequence[Cell] = ()) -> Part:
    """One file of a study, checked; `before` is the hash of the part before it, and `cells` are
    those of all parts before it.

    Raises RecordError when it is absent, damaged or of a newer cupel.
    """
    content = _content(path)
    try:
        found = msgspec.json.decode(content, type=_StoredPlan)
        if found.schema > SCHEMA:
            raise RecordError(f"{path} was written by a newer cupel; update cupel to read it")
        own, hashed = _cells(found, before)
        _check(found.runs, [*cells, *own], set(found.study["arms"]))
    except (msgspec.DecodeError, RecursionError, LookupError, ValueError, TypeError) as error:
        if _schema_of(content) > SCHEMA:
            raise RecordError(
                f"{path} was written by a newer cupel; update cupel to read it"
            ) from error
        raise damaged(path, error) from error
    return Part(
        name=found.name,
        project=found.project,
        about=found.about,
        created=found.created,
        study=found.study,
        cells=own,
        runs=tuple(found.runs),
        hash=hashed,
    )


def damaged(path: Path, error: Exception) -> RecordError:
    """The error that names a manifest which cannot be what was written."""
    told = " ".join(str(error).split())
    return RecordError(
        f"{path} is damaged ({type(error).__name__}: {told}); restore it from a copy, or "
        "delete it and plan the study again"
    )


def _content(path: Path) -> bytes:
    try:
        with files.open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def _cells(found: _StoredPlan, before: str) -> tuple[tuple[Cell, ...], str]:
    """The cells and the hash, which what was read must have. Raises ValueError when it has not.

    A file from before there was a hash, or one that somebody has laid out anew, holds settings
    that are not compact: they are made so.
    """
    cells = tuple(map(_cell, found.cells))
    hashed = hash_of(found.study, cells, found.runs, before=before)
    if found.hash == hashed:
        return cells, hashed
    plain = [StoredConfig(compact(dict(cell.config.items()))) for cell in cells]
    cells = tuple(replace(cell, config=one) for cell, one in zip(cells, plain, strict=True))
    hashed = hash_of(found.study, cells, found.runs, before=before)
    if found.hash in ("", hashed):
        return cells, hashed
    raise ValueError("its plan is not the one that its hash was made of")


def _cell(found: _StoredCell) -> Cell:
    stored = bytes(found.config)  # a copy, or every cell would keep the whole file in memory
    if not stored.startswith(b"{"):
        raise ValueError(f"the settings of cell {found.arm} at {found.point!r} are no mapping")
    return Cell(found.arm, found.point, found.changes, StoredConfig(stored))


def _check(runs: Sequence[PlannedRun], cells: Sequence[Cell], arms: set[str]) -> None:
    """Raises ValueError for a run that belongs to no cell.

    Gives each run the texts of its cell, so that those of 100,000 runs are in memory once.
    """
    share, count = msgspec.structs.force_setattr, len(cells)
    for run in runs:
        if not 0 <= run.cell < count:
            raise ValueError(f"run {run.run_id} has cell {run.cell} of {count}")
        cell = cells[run.cell]
        if run.arm != cell.arm or run.point != cell.point:
            raise ValueError(f"run {run.run_id} is not of the arm and point of its cell")
        share(run, "arm", cell.arm)
        share(run, "point", cell.point)
    for cell in cells:
        if cell.arm not in arms:
            raise ValueError(f"there is a cell of arm {cell.arm!r}, which the study has not")


def _schema_of(content: bytes) -> int:
    try:
        return msgspec.json.decode(content, type=_Schema).schema
    except (msgspec.DecodeError, RecursionError):
        return SCHEMA


def settings_of(study: Mapping[str, Any]) -> StudySettings:
    """The settings of a study as this cupel knows them. Raises ValueError."""
    return StudySettings.model_validate(known(StudySettings, study))


def known(annotation: Any, given: Any) -> Any:
    """What this cupel knows of settings that a newer one may have written."""
    if _is_settings(annotation) and isinstance(given, Mapping):
        fields = {name: one for name, one in annotation.model_fields.items() if name in given}
        return {name: known(one.annotation, given[name]) for name, one in fields.items()}
    inner = [one for one in get_args(annotation) if one not in (type(None), str, ...)]
    if len(inner) != 1 or not _is_settings(inner[0]):
        return given
    if isinstance(given, list):
        return [known(inner[0], one) for one in given]
    if get_origin(annotation) is dict and isinstance(given, Mapping):
        return {name: known(inner[0], one) for name, one in given.items()}
    return known(inner[0], given)


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)
