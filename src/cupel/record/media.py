"""Media and artifacts of a run: files beside the numbers, each told of by one event.

    media/<key>/<step>-<8 hex of its SHA-256>.<suffix>       what `log` was given besides numbers
    artifacts/<name>/v<N>/files/…  and manifest.json beside  files that the run was asked to keep

A file is whole under its name before an event tells of it, so a kill leaves at most a file that no
event names; when the same is kept again, it is told of then. Keys and names become folders by
`safe_name`: whatever they hold, nothing is written outside of the run. Artifacts are synced to the
disk; media are not, so a power loss may take the last ones. Of a medium about 0.1 ms, of an
artifact a copy and a SHA-256. Raises, unlike `log`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from cupel.errors import RecordError, Superseded, UsageError
from cupel.record import files, layout
from cupel.record.lines import LineFile

MEDIA = "media"
ARTIFACTS = "artifacts"
MANIFEST = "manifest.json"
FILES = "files"  # a folder of their own, since one of them may be called manifest.json

_LONGEST = 120  # bytes of a folder's name; file systems take 255
_CHUNK = 1 << 20
# What no list of files in UTF-8 can hold, and what a zip file of the run could not carry.
_UNFIT = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")


class Recording(Protocol):
    """What is needed of a session: where it writes, whether it still may, and its events."""

    @property
    def run_dir(self) -> Path: ...
    def superseded(self) -> bool: ...
    def event(self, name: str, /, **fields: Any) -> None: ...


def safe_name(text: str) -> str:
    """Any text as the name of one folder: ASCII, at most 120 bytes, and different for different
    texts.

    Letters, digits, `_`, `-` and inner dots stay; the rest is percent-encoded, and what is too
    long is cut and ends in `~` and 16 digits of its SHA-256.
    """
    quoted = quote(text, safe="", errors="surrogatepass").replace("~", "%7E") or "%"
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= _LONGEST:
        return quoted
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{quoted[: _LONGEST - 17]}~{digest[:16]}"


def store_media(
    session: Recording,
    key: str,
    *,
    step: int,
    kind: str,
    suffix: str,
    data: bytes,
    **about: Any,
) -> Path:
    """Keep one medium of a step: the file, then an event `media` with what it is and where.

    Equal bytes of one key and step are one file. `about` are further fields of the event (a
    caption); `_t` among them overrules the time. Raises RecordError when the disk refuses and
    Superseded when a newer session exists.
    """
    assert re.fullmatch(r"[a-z0-9.]{1,12}", suffix), suffix
    digest = sha256(data).hexdigest()
    folder = session.run_dir / MEDIA / safe_name(key)
    path = folder / f"{step}-{digest[:8]}.{suffix}"
    _check_successor(session, f"the {kind} '{key[:100]}' of step {step}")
    temporary = session.run_dir / files.temporary_name(MEDIA)
    try:
        if path.exists() and path.read_bytes() != data:
            path = folder / f"{step}-{digest}.{suffix}"  # other bytes with the same 8 digits
        if not path.exists():
            temporary.write_bytes(data)
            folder.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritten(path, error) from error
    where = path.relative_to(session.run_dir).as_posix()
    size = len(data)
    session.event(
        "media", key=key, step=step, kind=kind, path=where, sha256=digest, bytes=size, **about
    )
    return path


def store_artifact(
    session: Recording, path: str | os.PathLike[str], *, name: str, kind: str, **about: Any
) -> Path:
    """Keep a file, or all files of a folder, as the next version of an artifact; its folder.

    Files that links point to are copied; links to folders are not followed. Raises UsageError
    when there is nothing at `path`, and as `store_files` does.
    """
    source = Path(path)
    if source.is_file():
        return store_files(session, {source.name: source}, name=name, kind=kind, **about)
    if not source.is_dir():
        raise UsageError(f"there is no file and no folder at {source}; give one that exists")
    _check_outside(session, source)
    found = {file.relative_to(source).as_posix(): file for file in _files_of(source)}
    return store_files(session, found, name=name, kind=kind, **about)


def store_files(
    session: Recording, contents: Mapping[str, Path], *, name: str, kind: str, **about: Any
) -> Path:
    """Keep files under the given paths as the next version of an artifact; its folder.

    What equals the newest version, byte for byte, is that version again. `about` goes into
    manifest.json. Raises UsageError, with nothing kept, for paths that lead out of the artifact or
    could not be written down and read elsewhere, and when there are none; RecordError when a file
    cannot be read or the disk refuses, and Superseded.
    """
    if not contents:
        raise UsageError(f"the artifact '{name}' holds no file; add one")
    for inner in contents:
        _check_inner(inner)
    _check_successor(session, f"the artifact '{name}'")
    folder = session.run_dir / ARTIFACTS / safe_name(name)
    temporary = session.run_dir / files.temporary_name(ARTIFACTS)
    try:
        listed = {
            inner: _copied(source, temporary / FILES / inner) for inner, source in contents.items()
        }
        newest = _versions(folder)[-1:]
        path = folder / f"v{(newest or [0])[0]}"
        before = _manifest(path) if newest else {}
        if before.get("files") == listed:
            if not _is_told(session.run_dir, path):  # a kill came before its event
                _tell(session, path, before)
            return path
        fields = {
            "schema": layout.SCHEMA,
            "name": name,
            "kind": kind,
            "created": time.time(),
            **about,
            "files": listed,
        }
        files.write_json(temporary / MANIFEST, fields)
        path = _published(temporary, folder)
    except OSError as error:
        raise _unwritten(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _tell(session, path, fields)
    return path


def _tell(session: Recording, path: Path, manifest: Mapping[str, Any]) -> None:
    listed = manifest["files"]
    session.event(
        "artifact",
        name=manifest.get("name"),
        version=int(path.name[1:]),
        path=path.relative_to(session.run_dir).as_posix(),
        sha256=digest_of(listed),
        bytes=sum(entry["bytes"] for entry in listed.values()),
        kind=manifest.get("kind"),
        files=len(listed),
    )


def _is_told(run_dir: Path, path: Path) -> bool:
    """Whether an event, of any session and rank, names a version."""
    place = path.relative_to(run_dir).as_posix()
    return any(
        event["_event"] == "artifact" and event.get("path") == place
        for file in sorted((run_dir / layout.SESSIONS).glob("*/events.r*.jsonl"))
        if file.is_file()
        for lines in LineFile(file, "_event", str).read()
        for event in lines
    )


def _published(temporary: Path, folder: Path) -> Path:
    """Give the whole folder the next version's name; another process may take it first."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"v{(_versions(folder) or [-1])[-1] + 1}"
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():
                raise
            continue
        files.sync_folder(folder)
        return path


def _versions(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = (re.fullmatch(r"v([0-9]{1,9})", entry.name) for entry in folder.iterdir())
    return sorted(int(name[1]) for name in names if name)


def _manifest(version: Path) -> dict[str, Any]:
    try:
        return files.read_json(version / MANIFEST)
    except RecordError:
        return {}  # damaged: never equal, so a new version is written


def _copied(source: Path, target: Path) -> dict[str, Any]:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = sha256(), 0
    with source.open("rb") as reads, target.open("xb") as writes:
        while chunk := reads.read(_CHUNK):
            digest.update(chunk)
            size += writes.write(chunk)
        writes.flush()
        os.fsync(writes.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def digest_of(listed: Mapping[str, Mapping[str, Any]]) -> str:
    """A single file's SHA-256; of several, that of the list of theirs."""
    if len(listed) == 1:
        return str(next(iter(listed.values()))["sha256"])
    lines = sorted(f"{entry['sha256']}  {name}\n" for name, entry in listed.items())
    return sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def _files_of(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (file for name in sorted(names) if (file := Path(place, name)).is_file())


def _check_outside(session: Recording, source: Path) -> None:
    if session.run_dir.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"{source} holds this run's own record, which cannot be an artifact of itself; give "
            "a folder below or beside it"
        )


def _check_inner(inner: str) -> None:
    parts = PurePosixPath(inner).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in inner:
        raise UsageError(
            f"{inner!r} cannot be a file's name in an artifact: it must be a relative path "
            "without '..'"
        )
    if odd := _UNFIT.search(inner):
        raise UsageError(
            f"the file {inner!r} cannot be kept in an artifact: its name holds {odd[0]!r}, and a "
            "name with bytes that are no UTF-8, control characters or backslashes cannot be "
            "listed, or means another file elsewhere; rename it"
        )


def _check_successor(session: Recording, what: str) -> None:
    if session.superseded():
        raise Superseded(f"a newer session has taken over {session.run_dir}; {what} was dropped")


def _unwritten(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot write {path}: {error.strerror or error}; is the disk full?")
