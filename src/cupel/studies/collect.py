"""Gathers a study's runs from other places into its own root: `collect`.

Other places are record roots or folders of the project: scratch disks, mounted hosts, what rsync
brought. Of two copies of a run the accepted one counts; of two that are not, the one that goes on
where the other ends. Where both go their own way nothing is done, and that is told. A run is read
and checked line by line and hash by hash before it is taken, copied under a temporary name,
compared with its source, and appears whole or not at all. An accepted run is never overwritten;
what is replaced goes to the trash of the root.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError, UsageError
from cupel.record import files, layout, trash
from cupel.record.reader import RunRecord
from cupel.record.verifying import check_run
from cupel.studies.manifest import Manifest

Action = Literal[
    "taken",  # it was not here, or what was here is replaced by one that counts
    "same",  # what is there adds nothing
    "kept",  # what is here counts
    "running",  # there or here: left alone until it has ended
    "conflict",  # both count, or neither goes on from the other
    "damaged",  # there
    "other",  # there is a run of this id with other settings
]
WRONG: tuple[Action, ...] = ("conflict", "damaged", "other")

_BLOCK = 1 << 20
_KEPT = re.compile("artifacts/[^/]+/[^/]+/files/")  # where names are those of people's own files


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one copy of a run."""

    run_id: str
    source: Path
    action: Action
    detail: str = ""


@dataclass(slots=True)
class _Copy:
    """One copy of a run: its record, and its accepted results (None without)."""

    dir: Path
    record: RunRecord
    results: Mapping[str, Any] | None

    @classmethod
    def read(cls, run_dir: Path) -> _Copy:
        """Raises RecordError for results that cannot be read."""
        record = RunRecord(run_dir)
        return cls(run_dir, record, record.results)

    @property
    def alive(self) -> bool:
        """Whether a process may be writing into it, or has just claimed it; an accepted run has
        ended."""
        sessions = self.record.sessions
        return self.results is None and bool(sessions) and sessions[-1].status == "running"


def collect(
    manifest: Manifest,
    sources: Sequence[Path],
    *,
    dry_run: bool = False,
    tell: Callable[[str], object] = lambda doing: None,
) -> list[Collected]:
    """Take the study's runs from other places; what became of every copy that was found.

    With `dry_run` nothing is written, and the answer is the same. `tell` hears of each run. Raises
    UsageError for a place that is not there or is the study's own, RecordError when the disk
    refuses.
    """
    places = [_place(manifest, source) for source in sources]
    found: list[Collected] = []
    try:
        for run in manifest.runs:
            copies = [place / run.run_id for place in places]
            found += _run(manifest, run.run_id, run.identity, copies, dry_run, tell)
        for run_id, copies in _deviations(manifest, places).items():
            found += _run(manifest, run_id, None, copies, dry_run, tell)
    except OSError as error:
        raise RecordError(
            f"cannot collect into {manifest.root}: {error.strerror or error} "
            f"({error.filename or manifest.root})"
        ) from error
    return found


def _place(manifest: Manifest, source: Path) -> Path:
    """The folder of the project in a place that was named. Raises UsageError."""
    if not source.is_dir():
        raise UsageError(f"{source} is no folder; give a record root, or a project's folder in one")
    own = manifest.root / manifest.project
    inside = source / manifest.project
    place = inside if inside.is_dir() else source
    if own.exists() and place.resolve() == own.resolve():
        raise UsageError(f"{source} is where the study's own runs are; give another place")
    return place


def _deviations(manifest: Manifest, places: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs that were derived from the study's, by id, with their copies."""
    planned = {run.run_id for run in manifest.runs}
    found: dict[str, list[Path]] = {}
    for place in places:
        for folder in sorted(layout.run_dirs(place.parent, place.name)):
            if folder.name in planned or not (folder / layout.RUN).is_file():
                continue
            run = RunRecord(folder).run
            if run.get("study") == manifest.name and run.get("deviation_of"):
                found.setdefault(folder.name, []).append(folder)
    return found


def _run(
    manifest: Manifest,
    run_id: str,
    identity: str | None,
    copies: Sequence[Path],
    dry_run: bool,
    tell: Callable[[str], object],
) -> Iterator[Collected]:
    """Choose among all copies of one run, and take the chosen one."""
    target = manifest.root / manifest.project / run_id
    there = [path for path in copies if holds_a_run(path)]
    if not there:
        return
    tell(run_id)
    # Read before anything else: a session that begins later is found out.
    sessions = max(layout.session_numbers(target), default=0) if target.exists() else None
    try:
        own = None if sessions is None else _Copy.read(target)
    except RecordError as error:
        yield Collected(run_id, target, "damaged", f"here: {error}")
        return
    if own is not None and own.alive:
        for path in there:
            yield Collected(run_id, path, "running", "it is running here")
        return
    chosen = own
    told: list[Collected] = []
    for path in there:
        copy, outcome = _weighed(path, identity, chosen, tell)
        if outcome.action == "taken":
            # An earlier choice that is now outdone was never copied.
            told = [
                Collected(one.run_id, one.source, "kept", f"{path} counts")
                if one.action == "taken"
                else one
                for one in told
            ]
            chosen = copy
        told.append(outcome)
    if chosen is not None and chosen is not own and not dry_run:
        _take(manifest, chosen.dir, target, sessions, tell)
    yield from told


def holds_a_run(path: Path) -> bool:
    """Whether a folder, and no link to one, holds a run's record."""
    return not path.is_symlink() and (path / layout.RUN).is_file()


def _weighed(
    path: Path, identity: str | None, chosen: _Copy | None, tell: Callable[[str], object]
) -> tuple[_Copy | None, Collected]:
    """One more copy against the best so far; `taken` when it is better, and sound."""

    def outcome(action: Action, detail: str = "") -> tuple[_Copy | None, Collected]:
        return copy, Collected(path.name, path, action, detail)

    copy: _Copy | None = None
    try:
        copy = _Copy.read(path)
    except RecordError as error:
        return outcome("damaged", str(error))
    if copy.record.problem:
        return outcome("damaged", copy.record.problem)
    if identity is not None and copy.record.identity != identity:
        told = f"its identity is {str(copy.record.identity)[:12]}, planned is {identity[:12]}"
        return outcome("other", told)
    if copy.alive:
        return outcome("running", "it is running there")
    if chosen is not None:
        action, detail = _against(chosen, copy)
        if action != "taken":
            return outcome(action, detail)
    checked = check_run(path, tell=lambda place: tell(f"{path.name}: {place}"))
    if not checked.sound:
        return outcome("damaged", str(checked.problems[0]))
    return outcome("taken")


def _against(chosen: _Copy, copy: _Copy) -> tuple[Action, str]:
    """What one more copy is, beside the one that counts so far."""
    if chosen.results is not None:
        if copy.results is None:
            return "kept", f"{chosen.dir} is accepted"
        if _text(chosen.results) == _text(copy.results):
            return "same", ""
        return "conflict", _difference(chosen, copy)
    if copy.results is not None:
        return "taken", ""
    onward, backward = _goes_on_from(chosen, copy), _goes_on_from(copy, chosen)
    if onward and backward:
        return "same", ""
    if onward:
        return "taken", ""
    if backward:
        return "kept", f"{chosen.dir} goes on where it ends"
    return (
        "conflict",
        f"it and {chosen.dir} are two trainings, of which none goes on from the other",
    )


def _difference(one: _Copy, other: _Copy) -> str:
    """How two accepted results differ, in a line."""
    final, others = (
        found if isinstance(found := (copy.results or {}).get("final"), Mapping) else {}
        for copy in (one, other)
    )
    told = f"it and {one.dir} are both accepted"
    for key in sorted(final.keys() | others.keys()):
        if repr(final.get(key)) != repr(others.get(key)):
            return f"{told}: {key} is {others.get(key)!r} and {final.get(key)!r}"
    return f"{told}, by two trainings with the same final metrics"


def _text(results: Mapping[str, Any]) -> str:
    return repr(sorted(results.items()))  # of NaN, too, which equals nothing


def _goes_on_from(shorter: _Copy, longer: _Copy) -> bool:
    """Whether every session of one copy is in the other, as far as it had come."""
    numbers = layout.session_numbers(shorter.dir)
    if not set(numbers) <= set(layout.session_numbers(longer.dir)):
        return False
    return all(_is_prefix(shorter.dir, longer.dir, number) for number in numbers)


def _is_prefix(shorter: Path, longer: Path, number: int) -> bool:
    """Whether a session is the same process start, and has the same lines, or further ones."""
    before, after = (layout.session_dir(run_dir, number) for run_dir in (shorter, longer))
    if _start_of(before) != _start_of(after):
        return False
    names = {path.name for path in before.glob("*.jsonl")}
    return all(_begins_like(after / name, before / name) for name in names)


def _start_of(session: Path) -> tuple[Any, ...]:
    try:
        fields = files.read_json(session / layout.SESSION)
    except RecordError:
        return ()
    return tuple(fields.get(name) for name in ("started", "host", "boot_id", "pid", "start"))


def _begins_like(longer: Path, shorter: Path) -> bool:
    try:
        with longer.open("rb") as after, shorter.open("rb") as before:
            while block := before.read(_BLOCK):
                if after.read(len(block)) != block:
                    return False
    except OSError:
        return False
    return True


# ---- taking a run ------------------------------------------------------------------------------


def _take(
    manifest: Manifest,
    source: Path,
    target: Path,
    sessions: int | None,
    tell: Callable[[str], object],
) -> None:
    """Copy a run to its place, whole; what is there, with so many sessions, goes to the trash.

    Raises RecordError.
    """
    layout.refuse_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.sweep(target.parent)
    staged = target.parent / files.temporary_name(target.name)
    try:
        copy_tree(source, staged, tell=lambda place: tell(f"{target.name}: {place}"))
        if sessions is not None:
            _put_aside(manifest.root, target, sessions)
        staged.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise RecordError(
            f"{target} was begun by somebody else meanwhile; type the same again"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    files.sync_folder(target.parent)


def _put_aside(root: Path, run_dir: Path, sessions: int) -> None:
    """Take a run into the trash, unless it has more sessions than were looked at.

    Raises FileExistsError then. The next session is claimed first, as a worker would: so none can
    begin to train in a folder that is about to go.
    """
    fence = layout.session_dir(run_dir, sessions + 1)
    fence.mkdir(parents=True)
    trashed = run_dir
    try:
        if (run_dir / layout.RESULTS).exists():
            raise FileExistsError(errno.EEXIST, "it was accepted meanwhile", str(run_dir))
        trashed = trash.remove(root, run_dir)
    finally:
        layout.session_dir(trashed, sessions + 1).rmdir()


def copy_tree(
    source: Path, target: Path, *, tell: Callable[[str], object] = lambda place: None
) -> None:
    """Copy a folder's files with their times, and compare them with what was read; wait for the
    disk. Links and temporaries are left out. Raises OSError, RecordError for bytes that differ."""
    digests: dict[Path, bytes] = {}
    target.mkdir()
    folders = [target]
    for path in _contents(source):
        place = path.relative_to(source)
        made = target / place
        if path.is_dir():
            made.mkdir()
            folders.append(made)
        else:
            tell(place.as_posix())
            digests[made] = _copied(path, made)
    for made, digest in digests.items():
        with made.open("rb") as file:
            if _digest(file) != digest:
                raise RecordError(f"{made} is not what was copied; the disk may be failing")
    for folder in folders:
        files.sync_folder(folder)


def _contents(folder: Path, prefix: str = "") -> Iterator[Path]:
    """Every folder and file below a folder, a folder before what is in it."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            continue
        ours = path.name.startswith((files.TEMPORARY, files.TRASH))
        if ours and not _KEPT.match(prefix):
            continue
        yield path
        if path.is_dir():
            yield from _contents(path, f"{prefix}{path.name}/")


def _copied(source: Path, target: Path) -> bytes:
    """Copy one file with its times; the hash of what was read."""
    digest = sha256()
    with files.open_regular(source) as file, target.open("xb") as made:
        changed = os.fstat(file.fileno()).st_mtime_ns
        while block := file.read(_BLOCK):
            digest.update(block)
            made.write(block)
        made.flush()
        os.fsync(made.fileno())
    os.utime(target, ns=(changed, changed))
    return digest.digest()


def _digest(file: Any) -> bytes:
    digest = sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.digest()
