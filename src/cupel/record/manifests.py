"""What one checkpoint's folder promises, and whether it holds it; no torch needed.

A manifest names the size and SHA-256 of every other file and has a seal of its own. Comparing
sizes costs microseconds; comparing bytes costs a reading at the speed of SHA-256 (1.4 GB/s on a
processor with instructions for it) or of the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.errors import CheckpointDamaged, CheckpointError, RecordError
from cupel.record import codec, files

SCHEMA = 1
MANIFEST = "manifest.json"


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a folder whose other files are on the disk; returns what it says.

    Raises OSError.
    """
    manifest = codec.decode_line(codec.encode_document(fields))  # as it will be read
    files.write_json(folder / MANIFEST, {**manifest, "seal": _seal(manifest)})
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises CheckpointDamaged when it is missing or changed, CheckpointError when a newer cupel
    wrote it.
    """
    path = folder / MANIFEST
    try:
        manifest = files.read_json(path)
    except RecordError as error:
        raise CheckpointDamaged(str(error)) from error
    seal = manifest.pop("seal", None)
    if seal != _seal(manifest):
        raise CheckpointDamaged(f"{path} is not what was written: its seal does not match")
    schema = manifest.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema}, and this cupel reads up to {SCHEMA}; type: "
            "pip install --upgrade cupel"
        )
    if not _is_one(manifest):
        raise CheckpointDamaged(f"{path} is no manifest of a checkpoint, though its seal matches")
    return manifest


def check_sizes(folder: Path) -> dict[str, Any]:
    """The manifest, when every file is there and as long as it says; else as `read_manifest`."""
    manifest = read_manifest(folder)
    for name, promised in manifest["files"].items():
        check_size(folder / name, promised)
    return manifest


def check_bytes(folder: Path) -> dict[str, Any]:
    """The manifest, when every byte of every file is what it was; else as `read_manifest`."""
    manifest = read_manifest(folder)
    for name, promised in manifest["files"].items():
        check_file(folder / name, promised)
    return manifest


def problem(folder: Path) -> str | None:
    """What is wrong with a folder as far as sizes tell, in one line; None when they fit."""
    try:
        check_sizes(folder)
    except (CheckpointError, OSError) as error:
        return str(error)
    return None


def check_size(path: Path, promised: Mapping[str, Any]) -> None:
    """Raise CheckpointDamaged unless a file is there and as long as its manifest says."""
    if not path.is_file():
        raise CheckpointDamaged(f"{path} is missing")
    if (size := path.stat().st_size) != promised["bytes"]:
        raise CheckpointDamaged(f"{path} has {size:,} bytes; it had {promised['bytes']:,}")


def check_file(path: Path, promised: Mapping[str, Any]) -> None:
    """Raise CheckpointDamaged unless every byte of a file is what it was; OSError is the disk's."""
    check_size(path, promised)
    with files.open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    check_digest(path, digest, promised)


def check_digest(path: Path, digest: str, promised: Mapping[str, Any]) -> None:
    """Raise CheckpointDamaged unless a file's SHA-256 (hex) is that of its manifest."""
    if digest != promised["sha256"]:
        raise CheckpointDamaged(
            f"{path} has changed: its SHA-256 begins with {digest[:12]}; it was "
            f"{promised['sha256'][:12]}"
        )


def _is_one(manifest: Mapping[str, Any]) -> bool:
    """Whether what is read of a manifest has its form, as far as it is there."""
    listed = manifest.get("files")
    return (
        isinstance(manifest.get("schema"), int)
        and isinstance(manifest.get("step", 0), int)
        and all(isinstance(manifest.get(name, {}), Mapping) for name in ("parts", "metrics"))
        and isinstance(listed, Mapping)
        and all(
            isinstance(entry, Mapping)
            and isinstance(entry.get("bytes"), int)
            and isinstance(entry.get("sha256"), str)
            for entry in listed.values()
        )
    )


def _seal(manifest: Mapping[str, Any]) -> str:
    """What guards the manifest itself, which guards the other files."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
