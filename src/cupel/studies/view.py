"""A view of a study's runs by arm, point and seed: `lay_out`, as relative links or as copies.

    <folder>/<arm>/<point>/s<seed>    without a grid <folder>/<arm>/s<seed>
    <folder>/view.json                marks the folder as a view, and says of which study

The runs stay where they are; a view may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from cupel.errors import RecordError
from cupel.names import refusal
from cupel.record import files, layout
from cupel.record.reader import RunRecord
from cupel.studies.collect import copy_tree, holds_a_run
from cupel.studies.manifest import Manifest, PlannedRun

VIEW = "view.json"

_LONGEST = 120  # bytes of a folder's name
_ALIVE = ("running", "silent")


def lay_out(
    manifest: Manifest,
    folder: Path,
    *,
    copy: bool = False,
    tell: Callable[[str], object] = lambda doing: None,
) -> list[Path]:
    """A view of the study's runs, `<arm>/<point>/s<seed>`: relative links, or copies; their places.

    Runs without a record are left out, and running ones where they are copied. Made again, it is
    brought up to date. Raises RecordError for a folder that is something else, and when the disk
    refuses.
    """
    folder = folder.absolute()
    _refuse_other(manifest, folder)
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marks = {"schema": 1, "study": manifest.name, "project": manifest.project}
        files.write_json(folder / VIEW, {**marks, "copies": copy})
        for run in manifest.runs:
            run_dir = manifest.run_dir(run)
            record = RunRecord(run_dir)
            if not holds_a_run(run_dir) or (copy and record.status in _ALIVE):
                continue
            tell(run.run_id)
            place = folder / view_of(run)
            place.parent.mkdir(parents=True, exist_ok=True)
            (_copy_to if copy else _link_to)(run_dir, place)
            made.append(place)
    except OSError as error:
        raise RecordError(
            f"cannot lay out runs in {folder}: {error.strerror or error}; choose another folder "
            "with --layout"
        ) from error
    return made


def view_of(run: PlannedRun) -> Path:
    """Where a run lies in a view: `<arm>/<point>/s<seed>`, without a grid `<arm>/s<seed>`."""
    parts = [_named(run.arm), *([_named(run.point)] if run.point else []), f"s{run.seed}"]
    return Path(*parts)


def _named(text: str) -> str:
    """A text as the name of a folder; what cannot be in one is written as in a URL."""
    name = quote(text, safe="=,+ @:~^()[]{}'!") if refusal(text) or "%" in text else text
    name = re.sub(r"^\.", "%2E", name)
    if len(name.encode()) > _LONGEST:
        name = f"{layout.slug(text)}-{sha256(text.encode()).hexdigest()[:8]}"
    return name


def _refuse_other(manifest: Manifest, folder: Path) -> None:
    resolved, root = folder.resolve(), manifest.root.resolve()
    if resolved.is_relative_to(root) and not resolved.is_relative_to(manifest.folder.resolve()):
        raise RecordError(
            f"{folder} lies among the runs of {root}, and would be taken for some; choose a folder "
            "outside"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        try:
            found = files.read_json(folder / VIEW)
        except RecordError:
            found = {}
        if (found.get("project"), found.get("study")) != (manifest.project, manifest.name):
            raise RecordError(
                f"{folder} is not empty and no view of study {manifest.name}; choose another folder"
            )


def _link_to(run_dir: Path, place: Path) -> None:
    leads = Path(os.path.relpath(run_dir.resolve(), place.parent.resolve()))
    if place.is_symlink():
        if place.readlink() == leads:
            return
        place.unlink()
    elif place.exists():  # a copy, of a view that had some
        files.move_to_trash(place)
    place.symlink_to(leads, target_is_directory=True)


def _copy_to(run_dir: Path, place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        if _listed(run_dir) == _listed(place):
            return
        files.move_to_trash(place)
    files.sweep(place.parent)
    staged = place.parent / files.temporary_name(place.name)
    try:
        copy_tree(run_dir, staged)
        staged.rename(place)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    files.sync_folder(place.parent)


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file, as `copy_tree` keeps them."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                stat = path.stat()
                place = path.relative_to(folder).as_posix()
                found[place] = (stat.st_size, stat.st_mtime_ns)
    return found
