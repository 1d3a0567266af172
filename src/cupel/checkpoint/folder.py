"""One checkpoint folder: written whole, read back only if every byte is what it was.

    manifest.json         step, metrics, sizes and SHA-256 of the other files; written last
    state.json            the skeletons of all parts (see `codec`)
    <part>.safetensors    a part's tensors; absent for a part without any

Loading always compares every byte, which takes a second for 1.2 GB. Where a folder stands, and when
it becomes visible, is `room`'s affair.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cupel.checkpoint.buffers import Packed
from cupel.checkpoint.codec import collect, skeleton_hash, unflatten
from cupel.checkpoint.stream import write_bytes, write_tensors
from cupel.errors import CheckpointDamaged, CheckpointError, UnknownName
from cupel.record import manifests
from cupel.record.manifests import SCHEMA, read_manifest

STATE = "state.json"


def packed(states: Mapping[str, Any]) -> Packed:
    """What is to be written of the states of parts: skeletons, and the states' own tensors.

    Raises CheckpointError that names a part which holds what cannot be saved.
    """
    return {name: _collected(name, state) for name, state in states.items()}


def write(
    folder: Path,
    step: int,
    parts: Packed,
    *,
    metrics: Mapping[str, float],
    about: Mapping[str, Any],
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write a new folder of a checkpoint, synced to the disk, and return its manifest.

    The tensors are read while this runs, so they must not change. `check()` is called every few
    megabytes; what it raises ends the writing. Raises CheckpointError when the disk refuses; a
    folder half-written is then the caller's to remove.
    """
    try:
        folder.mkdir()
        written, hashes = {}, {}
        for name, (skeleton, tensors) in parts.items():
            digests: Mapping[str, str] = {}
            if tensors:
                path = _tensors_file(folder, name)
                written[path.name] = write_tensors(path, tensors, check=check)
                digests = written[path.name].digests
            hashes[name] = skeleton_hash(skeleton, tensors, digests)
        skeletons = {name: skeleton for name, (skeleton, _) in parts.items()}
        # Not by `files.write_json`: it would make a number of the text "NaN".
        state = json.dumps({"schema": SCHEMA, "parts": skeletons}).encode()
        written[STATE] = write_bytes(folder / STATE, state)
        fields = {
            "schema": SCHEMA,
            "step": step,
            "time": time.time(),
            "torch": str(torch.__version__),
            "metrics": dict(metrics),
            "about": about,
            "parts": hashes,
            "files": {name: file.entry for name, file in written.items()},
        }
        return manifests.write_manifest(folder, fields)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder.parent}: {error}; it "
            f"needs {size(parts):,} bytes, and {_free(folder):,} are free there; earlier "
            "checkpoints are untouched"
        ) from error


def size(parts: Packed) -> int:
    """The bytes of all tensors."""
    return sum(tensor.nbytes for _, tensors in parts.values() for tensor in tensors.values())


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


def _collected(name: str, state: Any) -> tuple[Any, dict[str, Tensor]]:
    try:
        return collect(state)
    except TypeError as error:
        raise CheckpointError(f"the part '{name}' cannot be saved: {error}") from error


def _load(
    folder: Path, manifest: Mapping[str, Any], names: list[str], map_location: torch.device | str
) -> dict[str, Any]:
    own = {name: _tensors_file(folder, name) for name in names}
    held = {name: path for name, path in own.items() if path.name in manifest["files"]}
    try:
        for path in (folder / STATE, *held.values()):
            manifests.check_file(path, manifest["files"][path.name])
        skeletons = json.loads((folder / STATE).read_bytes())["parts"]
        tensors = {name: _tensors(held[name]) if name in held else {} for name in names}
    except OSError as error:
        raise CheckpointDamaged(f"{folder} cannot be read: {error}") from error
    return {
        name: unflatten(skeletons[name], tensors[name], map_location=map_location) for name in names
    }


def _tensors(path: Path) -> dict[str, Tensor]:
    # Copies, for safetensors maps the file: retention may delete it while an optimizer still uses
    # the mapped moments, which on a network file system ends in a bus error.
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _tensors_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors"


def _free(folder: Path) -> int:
    standing = next(path for path in folder.absolute().parents if path.exists())
    return shutil.disk_usage(standing).free
