"""The checkpoints of a run: saved all or nothing, restored from the newest that is intact.

A checkpoint becomes visible by one rename, after its bytes are on the disk; then the pointers
move, and only then are old ones deleted. `save` returns when all this is done: it does not write
in the background, so what a step changes later cannot get into the file. A failure is never
silent: it raises CheckpointError, and earlier checkpoints stay as they were.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.settings import CheckpointSettings
from cupel.errors import CheckpointDamaged, CheckpointError, RecordError, Superseded, UsageError
from cupel.record import checkpoints, files


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is on the disk: where, what it cost, and each part's state hash."""

    path: Path
    step: int
    seconds: float
    bytes: int
    hashes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Restored:
    """The checkpoint that was loaded; `skipped` has a line on what is wrong with each newer one."""

    step: int
    path: Path
    metrics: dict[str, float]
    skipped: list[str] = field(default_factory=list)


def never() -> bool:
    """The answer of a run that has no other session."""
    return False


class CheckpointRoom:
    """Saves and restores the parts of one run.

    `superseded()` tells whether a newer session has taken over; `about` is written into every
    manifest (the configuration's hash, the session's number, …).
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        settings: CheckpointSettings,
        superseded: Callable[[], bool] = never,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._settings = settings
        self._superseded = superseded
        self._about = dict(about or {})

    def save(self, step: int, parts: Parts, *, metrics: Mapping[str, float] | None = None) -> Saved:
        """Write the checkpoint taken after `step` updates, move the pointers, delete old ones.

        One that an older session left for the same step is replaced. Raises CheckpointError when
        it cannot be written, and Superseded, with nothing changed, when a newer session exists.
        """
        started = time.perf_counter()
        temporary = checkpoints.temporary_dir(self._run_dir, step)
        metrics = metrics or {}
        try:
            checkpoints.sweep(self._run_dir)
            manifest = folder.write(
                temporary, step, parts.state(), metrics=metrics, about=self._about
            )
            path = self._publish(temporary, step)
            self._point(step, metrics)
            self._prune()
        except (OSError, RecordError) as error:
            raise CheckpointError(f"checkpoint of step {step}: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Saved(
            path=path,
            step=step,
            seconds=time.perf_counter() - started,
            bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
            hashes=manifest["parts"],
        )

    def restore(
        self,
        parts: Parts,
        *,
        step: int | None = None,
        map_location: torch.device | str = "cpu",
    ) -> Restored | None:
        """Load the newest intact checkpoint, or that of `step`, into the parts.

        None when the run has no checkpoint. Raises CheckpointDamaged when `step`'s, or every one,
        is damaged; CheckpointError when there is none of `step`; and whatever `Parts.load` raises.
        """
        steps = self._steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} (there are: {steps})")
        skipped: list[str] = []
        for candidate in reversed(steps) if step is None else [step]:
            path = checkpoints.step_dir(self._run_dir, candidate)
            try:
                manifest = folder.read_manifest(path)
                states = folder.load_states(path, map_location=map_location)
            except CheckpointDamaged as damage:
                skipped.append(f"step {candidate}: {damage}")
                continue
            parts.load(states)
            return Restored(candidate, path, manifest["metrics"], skipped)
        if skipped:
            raise CheckpointDamaged(f"no intact checkpoint: {'; '.join(skipped)}")
        return None

    def is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics of an evaluation make the checkpoint of this step the best one.

        Raises UsageError when the metric that decides is not among them.
        """
        rule, goal = self._settings.best, self._settings.goal
        if rule is None:
            return False
        if rule not in metrics:
            raise UsageError(
                f"checkpoint.best is '{rule}', but an evaluation gives {', '.join(metrics)}; "
                "choose one of these, or null"
            )
        return checkpoints.beats(self._run_dir, rule, float(metrics[rule]), goal=goal, step=step)

    def best(self, metric: str) -> Path | None:
        """The folder of the checkpoint with the best value of a metric; None when none is known."""
        pointer = checkpoints.read_pointer(self._run_dir, f"best-{metric}")
        if pointer is None or pointer["step"] not in self._steps():
            return None
        return checkpoints.step_dir(self._run_dir, pointer["step"])

    def _publish(self, temporary: Path, step: int) -> Path:
        if self._superseded():
            raise Superseded(
                f"a newer session has taken over {self._run_dir}; the checkpoint of step {step} "
                "was dropped"
            )
        path = checkpoints.step_dir(self._run_dir, step)
        replaced = path.with_name(f"{files.TRASH}{path.name}~{secrets.token_hex(4)}")
        if path.exists():
            # A kill between the two renames leaves the checkpoints of other steps; there is no
            # portable way to exchange two folders at once.
            path.rename(replaced)
        temporary.rename(path)
        files.sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return path

    def _point(self, step: int, metrics: Mapping[str, float]) -> None:
        checkpoints.write_pointer(self._run_dir, checkpoints.LATEST, {"step": step})
        best = self._settings.best
        if best is not None and best in metrics:
            checkpoints.write_best(
                self._run_dir, best, float(metrics[best]), goal=self._settings.goal, step=step
            )

    def _prune(self) -> None:
        keep = checkpoints.retained(
            checkpoints.list_steps(self._run_dir),
            keep_last=self._settings.keep_last,
            keep_every=self._settings.keep_every or 0,
            pinned=checkpoints.pinned_steps(self._run_dir),
        )
        # It also spares what `latest` names: after going back that is not the newest step.
        checkpoints.prune(self._run_dir, keep)

    def _steps(self) -> list[int]:
        """The steps of all checkpoints, ascending, also of those that have lost their manifest."""
        names = (path.name for path in checkpoints.checkpoints_dir(self._run_dir).glob("step-*"))
        matches = (re.fullmatch(r"step-([0-9]{9,})", name) for name in names)
        return sorted(int(match[1]) for match in matches if match)
