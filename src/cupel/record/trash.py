"""Takes runs away so that they can come back, and gives their room back: `remove`, `restore`, `gc`.

    root/.trash/<project>/<run_id>        the run as it was
    root/.trash/<project>/<run_id>.json   when it was taken

Taking and restoring is a rename; where a project is a link to another disk it is a copy, and the
original goes once the copy is whole. A kill leaves a run at its place, or in the trash, or whole at
both. Nothing here asks whether somebody still wants a run: `why_not` says what speaks against it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cupel.errors import RecordError, UnknownName
from cupel.record import checkpoints, compaction, files, layout
from cupel.record.reader import RunRecord
from cupel.record.usage import bytes_of

DAY_S = 86_400.0
_SUFFIX = ".json"
_AGAIN = "~"  # before eight digits: of an id that was in the trash already


@dataclass(frozen=True, slots=True)
class Taken:
    """A run in the trash; `name` is that of its folder there."""

    path: Path
    project: str
    name: str
    removed: float

    @property
    def run_id(self) -> str:
        """The id that it had."""
        return re.sub(rf"{_AGAIN}[0-9a-f]{{8}}\Z", "", self.name)

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


@dataclass(frozen=True, slots=True)
class Freed:
    """One thing that `gc` deleted, or would delete: where it lay, why, and its bytes."""

    path: Path
    why: str
    bytes: int


def why_not(run_dir: Path) -> str | None:
    """What speaks against taking a run away, in one line; None for nothing."""
    record = RunRecord(run_dir)
    if record.status == "running":
        return "it is running"
    if record.status == "silent":
        return "its process cannot be looked at from here, and may be alive"
    if study := record.run.get("study"):
        return f"it belongs to the study {study}, which would run it again"
    return None


def remove(root: Path, run_dir: Path) -> Path:
    """Take a run into the trash of its root; where it lies there.

    Raises RecordError when it is not a run of this root, is a link, or the disk refuses.
    """
    project, run_id = _place_in(root, run_dir)
    if run_dir.is_symlink():
        raise RecordError(f"{run_dir} is a link to {run_dir.readlink()}; remove the link itself")
    folder = root / layout.TRASHED / project
    name = run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        while (folder / name).exists():
            name = f"{run_id}{_AGAIN}{secrets.token_hex(4)}"
        files.write_json(folder / f"{name}{_SUFFIX}", {"schema": 1, "removed": time.time()})
        _move(run_dir, folder / name)
    except OSError as error:
        raise RecordError(
            f"cannot take {run_dir} into {folder}: {error.strerror or error}"
        ) from error
    compaction.discard(root, project, run_id)
    return folder / name


def trashed(root: Path) -> list[Taken]:
    """All runs in the trash, the newest taken first."""
    found = [
        Taken(path, folder.name, path.name, _removed(path))
        for folder in _folders(root / layout.TRASHED)
        for path in _folders(folder)
    ]
    return sorted(found, key=lambda one: (one.removed, str(one)), reverse=True)


def find_trashed(root: Path, text: str) -> Taken:
    """The run in the trash that an id, the beginning of one, or project/id means.

    Of an id that was taken several times it is the one taken last. Raises UnknownName, and
    RecordError for several ids.
    """
    taken = trashed(root)
    exact = [one for one in taken if text in (one.run_id, f"{one.project}/{one.run_id}")]
    exact = exact or [one for one in taken if text in (one.name, str(one))]
    found = exact or [one for one in taken if text and one.name.startswith(text)]
    meant = {(one.project, one.run_id) for one in found}
    if not found:
        known = list(dict.fromkeys(one.run_id for one in taken))[:12]
        raise UnknownName("run in the trash", text, known, hint=f"looked in {root / '.trash'}")
    if len(meant) > 1:
        listed = ", ".join(sorted("/".join(pair) for pair in meant)[:8])
        raise RecordError(f"'{text}' could be any of {len(meant)} runs: {listed}; type project/id")
    return found[0]


def restore(root: Path, taken: Taken) -> Path:
    """Put a run back to its place; where it is. Raises RecordError when that is taken."""
    target = root / taken.project / taken.run_id
    if target.exists() or target.is_symlink():
        raise RecordError(f"there is a run at {target} again; remove that one first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _move(taken.path, target)
        taken.path.with_name(f"{taken.name}{_SUFFIX}").unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"cannot restore {target}: {error.strerror or error}") from error
    return target


def gc(
    root: Path,
    *,
    older_than_days: float = 7.0,
    dry_run: bool = False,
    tell: Callable[[Freed], object] = lambda freed: None,
) -> list[Freed]:
    """Delete for good: runs taken so many days ago, what dead writers left, caches of runs gone.

    `tell` hears of each before it is deleted. A run in the trash that still runs is left. With
    `dry_run` nothing is changed. Raises RecordError when the disk refuses.
    """
    freed: list[Freed] = []
    doomed: set[Path] = set()

    def take(path: Path, why: str) -> None:
        one = Freed(path, why, bytes_of(path))
        tell(one)
        freed.append(one)
        doomed.add(path)
        if dry_run:
            return
        if path.is_dir() and not path.is_symlink():
            if not path.name.startswith((files.TRASH, files.TEMPORARY)):
                path.with_name(f"{path.name}{_SUFFIX}").unlink(missing_ok=True)
                files.move_to_trash(path)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    try:
        for one in trashed(root):
            days = (time.time() - one.removed) / DAY_S
            if days >= older_than_days and RunRecord(one.path).status != "running":
                take(one.path, f"removed {days:.0f} days ago")
        for folder in _swept_folders(root):
            if not any(parent in doomed for parent in (folder, *folder.parents)):
                for path in _stale(folder):
                    take(path, "left by a process that died")
        for path in _orphans(root):
            take(path, "the cache of a run that is gone")
    except OSError as error:
        raise RecordError(
            f"cannot delete {error.filename or root}: {error.strerror or error}"
        ) from error
    return freed


def _swept_folders(root: Path) -> Iterator[Path]:
    """Every folder in which something temporary may lie."""
    yield root
    yield root / layout.CACHE
    yield root / layout.TRASHED
    for places in (root, root / layout.TRASHED):
        for project in _folders(places):
            yield project
            for run_dir in _folders(project):
                yield run_dir
                yield checkpoints.checkpoints_dir(run_dir)
                for number in layout.session_numbers(run_dir):
                    yield layout.session_dir(run_dir, number)


def _stale(folder: Path) -> list[Path]:
    """What `files.sweep` would remove."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        path
        for path in entries
        if path.name.startswith(files.TRASH)
        or (path.name.startswith(files.TEMPORARY) and files.is_stale(path))
    ]


def _orphans(root: Path) -> Iterator[Path]:
    columns = root / layout.CACHE / compaction.FOLDER
    for project in _folders(columns):
        for path in _folders(project):
            if not (root / project.name / path.name).exists():
                yield path


def _place_in(root: Path, run_dir: Path) -> tuple[str, str]:
    """Project and id of a run of this root."""
    absolute = Path(os.path.abspath(run_dir))  # noqa: PTH100 - a project may be a link
    if absolute.parent.parent.resolve() != root.resolve() or absolute.parent.name.startswith("."):
        raise RecordError(f"{run_dir} is no run in {root}; say where its project lies with --root")
    return absolute.parent.name, absolute.name


def _removed(path: Path) -> float:
    """When a run was taken; when its folder was last renamed, where nothing readable says it."""
    try:
        removed = files.read_json(path.with_name(f"{path.name}{_SUFFIX}")).get("removed")
    except RecordError:
        removed = None
    return float(removed) if isinstance(removed, int | float) else path.lstat().st_ctime


def _move(source: Path, target: Path) -> None:
    """Move a folder, also to another disk. Raises OSError."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        staged = target.with_name(files.temporary_name(target.name))
        try:
            shutil.copytree(source, staged, symlinks=True)
            staged.rename(target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        files.sync_folder(target.parent)
        files.move_to_trash(source)
        return
    files.sync_folder(target.parent)
    files.sync_folder(source.parent)


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, links to folders too, but none whose name begins with a dot."""
    try:
        entries = sorted(parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in entries if path.is_dir() and not path.name.startswith(".")]
