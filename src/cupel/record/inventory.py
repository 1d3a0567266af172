"""The checkpoints of a run for whoever asks: a list, a check of every byte, a model to take along.

No torch needed. Listing reads a small file a checkpoint and compares sizes; `verify` reads all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import CheckpointError, RecordError, UsageError
from cupel.record import checkpoints, files, manifests

MODEL = "model.safetensors"
_PIECE = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Kept:
    """One checkpoint; `problem` says what is wrong with it as far as sizes tell, else None.

    `time` is when it was written (Unix seconds), `bytes` without the manifest; of a checkpoint
    whose manifest is damaged they are None and 0. `best_of` are the metrics that it is the best of.
    """

    step: int
    path: Path
    time: float | None
    bytes: int
    metrics: dict[str, Any]
    latest: bool
    best_of: list[str]
    pinned: bool
    problem: str | None


def inventory(run_dir: Path) -> list[Kept]:
    """All checkpoints of a run, ascending. Raises RecordError when the pins cannot be read."""
    pinned = checkpoints.pinned_steps(run_dir)
    best = checkpoints.pointed_steps(run_dir)
    try:
        latest = (checkpoints.read_pointer(run_dir, checkpoints.LATEST) or {}).get("step")
    except RecordError:  # the next checkpoint writes it anew
        latest = None
    return [
        _kept(
            checkpoints.step_dir(run_dir, step),
            step=step,
            latest=step == latest,
            best_of=sorted(metric for metric, named in best.items() if named == step),
            pinned=step in pinned,
        )
        for step in checkpoints.all_steps(run_dir)
    ]


def _kept(path: Path, **known: Any) -> Kept:
    try:
        manifest = manifests.read_manifest(path)
    except CheckpointError:
        manifest = {}
    return Kept(
        path=path,
        time=manifest.get("time"),
        bytes=sum(entry["bytes"] for entry in manifest.get("files", {}).values()),
        metrics=manifest.get("metrics", {}),
        problem=manifests.problem(path),
        **known,
    )


def verify(run_dir: Path, steps: Iterable[int] | None = None) -> dict[int, str | None]:
    """Compare every byte of some checkpoints, or all, with what was written.

    Gives a line about what is wrong with each, None for one that is intact. Raises UsageError for
    a step without a checkpoint.
    """
    asked = checkpoints.all_steps(run_dir) if steps is None else list(steps)
    found: dict[int, str | None] = {}
    for step, path in [(step, checkpoints.check_step(run_dir, step)) for step in asked]:
        try:
            manifests.check_bytes(path)
            found[step] = None
        except (CheckpointError, OSError) as error:
            found[step] = str(error)
    return found


def export_model(run_dir: Path, step: int, path: Path) -> Path:
    """Copy the model of a checkpoint to a new file, every byte checked; where it is.

    The file is safetensors, with the names of the module's parameters and buffers; of tied ones
    only the first. In a folder it is called model.safetensors. Raises UsageError when there is no
    such checkpoint, no model in it, or the place cannot be written to or is taken, and
    CheckpointDamaged.
    """
    folder = checkpoints.check_step(run_dir, step)
    manifest = manifests.read_manifest(folder)
    if MODEL not in manifest["files"]:
        held = ", ".join(manifest["parts"])
        raise UsageError(f"{folder} holds no tensors of a part called 'model' (parts: {held})")
    target = path / MODEL if path.is_dir() else path
    if target.exists():
        raise UsageError(f"{target} exists already; choose another name")
    temporary = target.with_name(files.temporary_name(target.name))
    try:
        manifests.check_size(folder / MODEL, manifest["files"][MODEL])
        _copy(folder / MODEL, temporary, manifest["files"][MODEL])
        temporary.replace(target)
        files.sync_folder(target.parent)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _copy(source: Path, target: Path, promised: Mapping[str, Any]) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as old, target.open("xb") as new:
        while piece := old.read(_PIECE):
            digest.update(piece)
            new.write(piece)
        new.flush()
        os.fsync(new.fileno())
    manifests.check_digest(source, digest.hexdigest(), promised)
