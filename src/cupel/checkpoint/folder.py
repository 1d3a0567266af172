"""One checkpoint folder: written whole, read back only if every byte is what it was.

    manifest.json         step, metrics, sizes and SHA-256 of the other files; written last
    state.json            the skeletons of all parts (see `codec`)
    <part>.safetensors    a part's tensors; absent for a part without any

Writing costs the host a copy of what lies on an accelerator, and two SHA-256 of everything. Where
a folder stands, and when it becomes visible, is `room`'s affair.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cupel.checkpoint.codec import flatten, state_hash, unflatten
from cupel.errors import CheckpointDamaged, CheckpointError, RecordError, UnknownName
from cupel.record import codec, files
from cupel.record.checkpoints import MANIFEST

SCHEMA = 1
STATE = "state.json"


def write(
    folder: Path,
    step: int,
    states: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a new checkpoint folder, synced to the disk, and return its manifest.

    Raises CheckpointError when a part holds what cannot be saved, or the disk refuses; a folder
    half-written is then the caller's to remove.
    """
    packed = {name: _flattened(name, state) for name, state in states.items()}
    try:
        folder.mkdir(parents=True)
        written = _write_parts(folder, packed)
        fields = {
            "schema": SCHEMA,
            "step": step,
            "time": time.time(),
            "torch": str(torch.__version__),
            "metrics": {key: float(value) for key, value in metrics.items()},
            "about": about,
            "parts": {name: state_hash(unflatten(*pair)) for name, pair in packed.items()},
            "files": {path.name: _synced(path) for path in written},
        }
        return _write_manifest(folder, fields)
    except (OSError, SafetensorError) as error:
        needed = sum(t.nbytes for _, tensors in packed.values() for t in tensors.values())
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder.parent}: {error}; it "
            f"needs {needed:,} bytes, and {_free(folder):,} are free there; earlier checkpoints "
            "are untouched"
        ) from error


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
    if manifest["schema"] > SCHEMA:
        raise CheckpointError(
            f"{path} has schema {manifest['schema']}, and this cupel reads up to {SCHEMA}; type: "
            "pip install --upgrade cupel"
        )
    return manifest


def load_states(folder: Path, *, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Every part's state by name, after a check of every byte; see `codec.unflatten`.

    Raises CheckpointDamaged that says which file is wrong, and how.
    """
    manifest = read_manifest(folder)
    return _load(folder, manifest, list(manifest["parts"]), map_location)


def load_part(folder: Path, name: str, *, map_location: torch.device | str = "cpu") -> Any:
    """The state of one part; only the files that hold it are checked and read.

    Raises CheckpointDamaged, and UnknownName when the checkpoint has no such part.
    """
    manifest = read_manifest(folder)
    if name not in manifest["parts"]:
        raise UnknownName("part", name, manifest["parts"], hint=f"looked in {folder}")
    return _load(folder, manifest, [name], map_location)[name]


def _flattened(name: str, state: Any) -> tuple[Any, dict[str, Tensor]]:
    try:
        return flatten(state)
    except TypeError as error:
        raise CheckpointError(f"the part '{name}' cannot be saved: {error}") from error


def _write_parts(folder: Path, packed: Mapping[str, tuple[Any, dict[str, Tensor]]]) -> list[Path]:
    written = []
    for name, (_, tensors) in packed.items():
        if tensors:
            path = _tensors_file(folder, name)
            save_file(tensors, path)
            # safetensors makes its files private; these are as readable as their folder.
            path.chmod(folder.stat().st_mode & 0o666)
            written.append(path)
    skeletons = {name: skeleton for name, (skeleton, _) in packed.items()}
    # Not by `files.write_json`: it would make a number of the text "NaN".
    state = folder / STATE
    state.write_text(json.dumps({"schema": SCHEMA, "parts": skeletons}))
    return [*written, state]


def _synced(path: Path) -> dict[str, Any]:
    """Wait until a file is on the disk; its size and SHA-256."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_manifest(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    manifest = codec.decode_line(codec.encode_document(fields))  # as it will be read
    files.write_json(folder / MANIFEST, {**manifest, "seal": _seal(manifest)})
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    """What guards the manifest itself, which guards the other files."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _load(
    folder: Path, manifest: Mapping[str, Any], names: list[str], map_location: torch.device | str
) -> dict[str, Any]:
    own = {name: _tensors_file(folder, name) for name in names}
    held = {name: path for name, path in own.items() if path.name in manifest["files"]}
    try:
        for path in (folder / STATE, *held.values()):
            _check(path, manifest["files"][path.name])
        skeletons = json.loads((folder / STATE).read_bytes())["parts"]
        tensors = {name: _tensors(held[name]) if name in held else {} for name in names}
    except OSError as error:
        raise CheckpointDamaged(f"{folder} cannot be read: {error}") from error
    return {
        name: unflatten(skeletons[name], tensors[name], map_location=map_location) for name in names
    }


def _check(path: Path, promised: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointDamaged(f"{path} is missing")
    if (size := path.stat().st_size) != promised["bytes"]:
        raise CheckpointDamaged(f"{path} has {size:,} bytes; it had {promised['bytes']:,}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != promised["sha256"]:
        raise CheckpointDamaged(
            f"{path} has changed: its SHA-256 begins with {digest[:12]}; it was "
            f"{promised['sha256'][:12]}"
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    # Copies, for safetensors maps the file: retention may delete it while an optimizer still uses
    # the mapped moments, which on a network file system ends in a bus error.
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _tensors_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors"


def _free(folder: Path) -> int:
    standing = next(path for path in folder.absolute().parents if path.exists())
    return shutil.disk_usage(standing).free
