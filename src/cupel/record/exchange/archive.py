"""A whole run as one zip file, and back: the same folder, byte for byte, on any machine.

The file `cupel-run.json` in it lists every file with size, SHA-256 and time of change. What lies
under a temporary name is left out, links too. Unpacking trusts nothing: names must stay inside the
run, contents must be those of the list, and a run appears whole under its name or not at all.
Checkpoints are packed like all else; text is compressed, tensors and pictures hardly can be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cupel.errors import RecordError
from cupel.record import codec, files, layout

MANIFEST = "cupel-run.json"
HEADER = b"PK\x03\x04"
FORMAT = 1

_BLOCK = 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MANIFEST_LIMIT = 256 * _BLOCK
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal runs give equal bytes; the true times are in the list
# What zipfile raises on bytes that are no archive, besides its own BadZipFile.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, KeyError, IndexError,
)  # fmt: skip
_KEPT = re.compile("artifacts/[^/]+/[^/]+/files/")  # where names are those of people's own files
_PACKED = (".safetensors", ".png", ".jpg", ".jpeg", ".webp", ".gz", ".zst", ".zip", ".mp4")


def pack(run_dir: Path, file: BinaryIO) -> list[str]:
    """Write the run into an open file; returns the names of what was left out."""
    listed: dict[str, dict[str, Any]] = {}
    folders: list[str] = []
    left_out: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for path, name in _contents(run_dir, left_out):
            if path.is_dir():
                folders.append(name)
            else:
                listed[name] = _add(packed, path, name)
        manifest = {
            "format": FORMAT,
            "schema": layout.SCHEMA,
            "run_id": run_dir.name,
            "project": run_dir.resolve().parent.name,
            "folders": folders,
            "files": listed,
        }
        packed.writestr(_entry(MANIFEST), codec.encode_document(manifest))
    return left_out


def _contents(folder: Path, left_out: list[str], prefix: str = "") -> Iterator[tuple[Path, str]]:
    """Everything below a folder in order of name, with its name in the archive."""
    for path in sorted(folder.iterdir()):
        name = f"{prefix}{path.name}"
        if path.name.startswith((files.TEMPORARY, files.TRASH)) and not _KEPT.match(prefix):
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()) or _refused(name):
            left_out.append(name)
            continue
        yield path, name
        if path.is_dir():
            yield from _contents(path, left_out, f"{name}/")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_PACKED) else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _add(packed: zipfile.ZipFile, path: Path, name: str) -> dict[str, Any]:
    digest, size = sha256(), 0
    with path.open("rb") as source, packed.open(_entry(name), "w", force_zip64=True) as target:
        changed = max(0, os.fstat(source.fileno()).st_mtime_ns)
        while block := source.read(_BLOCK):
            digest.update(block)
            size += len(block)
            target.write(block)
    return {"bytes": size, "sha256": digest.hexdigest(), "mtime_ns": changed}


def unpack(archive: Path, root: Path, project: str | None = None) -> Path:
    """Make the run that an archive holds; returns its folder.

    Under another project than its own, `run.json` says the new one; all else is as it was.
    Raises RecordError when the run is there already, and for anything wrong with the archive.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            manifest = _manifest(archive, packed)
            run_id = layout.check_name("run", manifest["run_id"])
            target = root / layout.check_name("project", project or manifest["project"]) / run_id
            _refuse_existing(target)
            _refuse_without_room(root, manifest)
            missing = [path for path in target.parents if not path.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            files.sweep(target.parent)
            staged = target.parent / files.temporary_name(run_id)
            try:
                _extract(archive, packed, manifest, staged)
                if project not in (None, manifest["project"]):
                    _rename_project(staged / layout.RUN, str(project))
                _refuse_existing(target)
                staged.rename(target)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
                for folder in missing:  # the innermost first; none that holds a run
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            files.sync_folder(target.parent)
            return target
    except _DAMAGE as error:
        raise RecordError(f"{archive.name} is damaged: {error}; pack the run again") from error


def _manifest(archive: Path, packed: zipfile.ZipFile) -> dict[str, Any]:
    try:
        info = packed.getinfo(MANIFEST)
        if info.file_size > _MANIFEST_LIMIT:
            raise RecordError(f"{archive.name} is damaged: its list of files is too large")
        with packed.open(info) as file:
            manifest = json.loads(file.read(_MANIFEST_LIMIT))
    except KeyError as error:
        raise RecordError(
            f"{archive.name} is a zip file without {MANIFEST}: it was not made by cupel's export"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{archive.name} is damaged: {MANIFEST} is no JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RecordError(
            f"{archive.name} is of another format than {FORMAT}; type: pip install --upgrade cupel"
        )
    if why := _wrong(manifest, packed.infolist()):
        raise RecordError(f"{archive.name} is not unpacked: {why}")
    return manifest


def _wrong(manifest: dict[str, Any], entries: list[zipfile.ZipInfo]) -> str | None:
    """Why a list of files is not to be followed; None when it may be."""
    listed, folders = manifest.get("files"), manifest.get("folders")
    if not isinstance(listed, dict) or not isinstance(folders, list):
        return f"{MANIFEST} lists no files"
    if not all(isinstance(manifest.get(key), str) for key in ("run_id", "project")):
        return f"{MANIFEST} does not say which run it is"
    for facts in listed.values():
        if not isinstance(facts, dict) or not (
            _is_count(facts.get("bytes"))
            and _is_count(facts.get("mtime_ns"))
            and isinstance(facts.get("sha256"), str)
        ):
            return f"{MANIFEST} does not describe every file"
    for name in (*listed, *folders):
        if not isinstance(name, str) or _refused(name):
            return f"the name {str(name)[:80]!r} does not stay inside the run"
    if layout.RUN not in listed:
        return f"it holds no {layout.RUN}"
    if sorted(entry.filename for entry in entries) != sorted([*listed, MANIFEST]):
        return f"what it holds is not what {MANIFEST} lists"
    if any(entry.compress_type not in _COMPRESSIONS for entry in entries):
        return "it is compressed in a way that cupel does not use"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _refused(name: str) -> bool:
    """Whether a name might lead out of a run, or mean another thing on another system."""
    parts = name.split("/")
    return (
        name == MANIFEST
        or any(
            part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts
        )
        or re.search(r"^[A-Za-z]:|[\\\x00-\x1f\x7f\ud800-\udfff]", name) is not None
        or PurePosixPath(name).is_absolute()
        or parts[0].startswith((files.TEMPORARY, files.TRASH))
    )


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise RecordError(
            f"the run {target.name} exists already in {target.parent}; remove it first, or import "
            "into another project or root"
        )


def _refuse_without_room(root: Path, manifest: dict[str, Any]) -> None:
    needed = sum(facts["bytes"] for facts in manifest["files"].values())
    there = next(path for path in (root, *root.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RecordError(
            f"the run needs {needed:,} bytes, and {there} has {free:,} left; make room, or choose "
            "another place with --root or CUPEL_ROOT"
        )


def _extract(
    archive: Path, packed: zipfile.ZipFile, manifest: dict[str, Any], staged: Path
) -> None:
    staged.mkdir()
    for name in sorted(manifest["folders"]):
        (staged / name).mkdir(parents=True, exist_ok=True)
    for name, facts in manifest["files"].items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, left = sha256(), facts["bytes"]
        with packed.open(name) as source, path.open("xb") as target:
            while block := source.read(min(_BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if left or digest.hexdigest() != facts["sha256"]:
            raise RecordError(
                f"{archive.name} is damaged: {name} is not what its list says; pack the run again"
            )
        os.utime(path, ns=(facts["mtime_ns"], facts["mtime_ns"]))


def _rename_project(run_json: Path, project: str) -> None:
    try:
        files.write_json(run_json, {**files.read_json(run_json), "project": project})
    except RecordError:  # a damaged run stays as it is
        return
