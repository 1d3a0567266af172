"""The checkpoints of a run: saved all or nothing, restored from the newest that is intact.

A checkpoint becomes visible by one rename, after its bytes are on the disk; then the pointers
move, and only then are old ones deleted. `save` returns when all this is done. `begin` returns
when the state has been copied in memory, and a thread does the rest: what a step changes later
cannot get into the file, one is written at a time, and `news` tells what became of each. A failure
is never silent: `save` raises it, `begin` puts it into the news, and what nobody has heard of is
raised at the next checkpoint or by `close`. Earlier checkpoints stay as they were.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cupel.checkpoint import folder
from cupel.checkpoint.buffers import Buffers, Packed
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.writing import (
    Failed,
    News,
    Saved,
    Skipped,
    Waited,
    Writing,
    numbers_of,
)
from cupel.errors import CheckpointDamaged, CheckpointError, RecordError, Superseded, UsageError
from cupel.record import checkpoints, files
from cupel.record.manifests import read_manifest


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
    """Saves and restores the parts of one run; for one thread, and not across a fork.

    `run_dir` may be a function that tells where the run lies now, for one that exists and may be
    moved while it runs; what is being written at that moment is written again there.
    `superseded()` tells whether a newer session has taken over. Both are asked from the writing
    thread too. `about` is written into every manifest (the configuration's hash, …).
    """

    def __init__(
        self,
        run_dir: Path | Callable[[], Path],
        *,
        settings: CheckpointSettings,
        superseded: Callable[[], bool] = never,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._place = run_dir
        self._settings = settings
        self._superseded = superseded
        self._about = dict(about or {})
        self._buffers = Buffers()
        self._prepared = False
        self._writing: Writing | None = None
        self._news: list[News] = []

    @property
    def _run_dir(self) -> Path:
        return self._place if isinstance(self._place, Path) else self._place()

    # ---- saving ------------------------------------------------------------------------------

    def save(self, step: int, parts: Parts, *, metrics: Mapping[str, float] | None = None) -> Saved:
        """Write the checkpoint taken after `step` updates, move the pointers, delete old ones.

        One that is being written is waited for, and one that an older session left for the same
        step is replaced. Raises CheckpointError when it cannot be written, and Superseded, with
        nothing changed, when a newer session exists; UsageError for a metric that is no number.
        """
        numbers = numbers_of(metrics)
        self.wait()
        self._raise_unheard()
        return self._write(step, folder.packed(parts.state()), numbers, time.perf_counter())

    def begin(self, step: int, parts: Parts, *, metrics: Mapping[str, float] | None = None) -> bool:
        """Take a checkpoint and let training go on while it is written; whether it was taken.

        What becomes of it is in the `news`, a failure as well. While another is being written it
        waits or is skipped, and without `background` it is written at once, as the settings say.
        Raises UsageError for a metric that is no number.
        """
        numbers = numbers_of(metrics)
        self._raise_unheard()
        if not self._take_turn(step):
            return False
        try:
            if self._settings.background:
                self._start(step, parts, numbers)
            else:
                self._news.append(self.save(step, parts, metrics=numbers))
        except (CheckpointError, Superseded) as error:
            self._news.append(Failed(step, error))
            return False
        return True

    def prepare(self, parts: Parts) -> None:
        """Get the memory that `begin` will copy into, in a thread, so that the first copy is fast.

        To be called once the optimizer has its moments: after the first step. Later calls do
        nothing.
        """
        if self._settings.background and not self._prepared:
            self._prepared = True
            with suppress(CheckpointError):  # the first checkpoint will tell
                self._buffers.reserve(folder.packed(parts.state()))

    def news(self) -> list[News]:
        """What became of the checkpoints that were begun, as far as known; each is told once."""
        if self._writing is not None and not self._writing.busy:
            self._settle(self._writing)
        news, self._news = self._news, []
        return news

    def wait(self) -> None:
        """Wait until nothing is being written. A Ctrl-C that interrupts it gives the file up."""
        if self._writing is not None:
            self._writing.wait()
            self._settle(self._writing)

    def close(self) -> None:
        """Wait for what is being written. Raises a failure that nobody has heard of, once."""
        self.wait()
        self._raise_unheard()

    def _take_turn(self, step: int) -> bool:
        """Whether this step's checkpoint may be taken now; it may have waited for that."""
        if self._writing is None:
            return True
        writing, started = self._writing, time.perf_counter()
        if writing.busy and self._settings.when_busy == "skip":
            self._news.append(Skipped(step, writing.step))
            return False
        waited = writing.busy
        self.wait()
        if waited:
            self._news.append(Waited(step, writing.step, time.perf_counter() - started))
        return True

    def _start(self, step: int, parts: Parts, metrics: Mapping[str, float]) -> None:
        started = time.perf_counter()
        packed = folder.packed(parts.state())
        try:
            copies = self._buffers.copy(packed)
        except (RuntimeError, MemoryError) as error:
            raise CheckpointError(
                f"there is no memory for a copy of the state ({folder.size(packed):,} bytes: "
                f"{str(error).splitlines()[0]}); checkpoint.background=false needs none"
            ) from error
        stalled = time.perf_counter() - started
        writing = Writing(step, metrics)
        self._writing = writing
        writing.start(
            lambda: self._write(
                step, copies, metrics, started, stalled=stalled, check=writing.check
            )
        )

    def _settle(self, writing: Writing) -> None:
        self._news.append(writing.outcome())
        self._writing = None

    def _raise_unheard(self) -> None:
        failed = [news for news in self._news if isinstance(news, Failed)]
        if failed:
            self._news.remove(failed[0])
            raise failed[0].error

    def _write(
        self,
        step: int,
        packed: Packed,
        metrics: Mapping[str, float],
        started: float,
        *,
        stalled: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Saved:
        while True:
            run_dir = self._run_dir
            try:
                manifest, notes = self._write_in(run_dir, step, packed, metrics, check)
                break
            except CheckpointError:
                if self._run_dir == run_dir:
                    raise  # else it was moved meanwhile
        seconds = time.perf_counter() - started
        return Saved(
            path=checkpoints.step_dir(self._run_dir, step),
            step=step,
            seconds=seconds,
            bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
            hashes=manifest["parts"],
            stalled=seconds if stalled is None else stalled,
            notes=notes,
        )

    def _write_in(
        self,
        run_dir: Path,
        step: int,
        packed: Packed,
        metrics: Mapping[str, float],
        check: Callable[[], None],
    ) -> tuple[dict[str, Any], list[str]]:
        """Write it into the run as it lies now: the manifest, and lines on what went wrong."""
        temporary = checkpoints.temporary_dir(run_dir, step)
        try:
            if isinstance(self._place, Path):
                run_dir.mkdir(parents=True, exist_ok=True)
            temporary.parent.mkdir(exist_ok=True)  # not the run's, which may just have been moved
            checkpoints.sweep(run_dir)
            manifest = folder.write(
                temporary, step, packed, metrics=metrics, about=self._about, check=check
            )
            self._publish(run_dir, temporary, step)
            self._point(run_dir, step)
            notes = self._prune(run_dir)
        except (OSError, RecordError) as error:
            raise CheckpointError(f"checkpoint of step {step}: {error}") from error
        finally:
            for place in {run_dir, self._run_dir}:
                left = checkpoints.checkpoints_dir(place) / temporary.name
                shutil.rmtree(left, ignore_errors=True)
        return manifest, notes

    def _publish(self, run_dir: Path, temporary: Path, step: int) -> None:
        if self._superseded():
            raise Superseded(
                f"a newer session has taken over {run_dir}; the checkpoint of step {step} "
                "was dropped"
            )
        path = checkpoints.step_dir(run_dir, step)
        replaced = path.with_name(f"{files.TRASH}{path.name}~{secrets.token_hex(4)}")
        if path.exists():
            # A kill between the two renames leaves the checkpoints of other steps; there is no
            # portable way to exchange two folders at once.
            path.rename(replaced)
        temporary.rename(path)
        files.sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)

    def _point(self, run_dir: Path, step: int) -> None:
        checkpoints.write_pointer(run_dir, checkpoints.LATEST, {"step": step})
        best, goal = self._settings.best, self._settings.goal
        if best is not None:
            checkpoints.write_best_recorded(run_dir, best, goal=goal)

    def _prune(self, run_dir: Path) -> list[str]:
        """Delete what retention does not keep; a line when that could not be told."""
        chosen = self._settings
        keep = set(checkpoints.pointed_steps(run_dir).values())
        if chosen.best is not None and chosen.keep_best > 1:
            keep |= set(
                checkpoints.best_steps(
                    run_dir, chosen.best, goal=chosen.goal, count=chosen.keep_best
                )
            )
        keep = checkpoints.retained(
            checkpoints.list_steps(run_dir),
            keep_last=chosen.keep_last,
            keep_every=chosen.keep_every or 0,
            pinned=keep,
        )
        try:
            # It also spares what `latest` names: after going back that is not the newest step.
            checkpoints.prune(run_dir, keep)
        except RecordError as error:
            return [f"no checkpoint was deleted, for the pinned ones are not known: {error}"]
        return []

    # ---- restoring ---------------------------------------------------------------------------

    def restore(
        self,
        parts: Parts,
        *,
        step: int | None = None,
        map_location: torch.device | str = "cpu",
    ) -> Restored | None:
        """Load the newest intact checkpoint, or that of `step`, into the parts.

        One that is being written is waited for. None when the run has no checkpoint. Raises
        CheckpointDamaged when `step`'s, or every one, is damaged; CheckpointError when there is
        none of `step`; and whatever `Parts.load` raises.
        """
        self.wait()
        run_dir = self._run_dir
        steps = checkpoints.all_steps(run_dir)
        if step is not None and step not in steps:
            raise CheckpointError(f"there is no checkpoint of step {step} (there are: {steps})")
        skipped: list[str] = []
        for candidate in reversed(steps) if step is None else [step]:
            path = checkpoints.step_dir(run_dir, candidate)
            try:
                manifest = read_manifest(path)
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
        """Whether these metrics of an evaluation put this step's checkpoint among the best.

        One that is being written counts as written. Raises UsageError when the metric that
        decides is not among them.
        """
        rule = self._settings.best
        if rule is None:
            return False
        if rule not in metrics:
            raise UsageError(
                f"checkpoint.best is '{rule}', but an evaluation gives {', '.join(metrics)}; "
                "choose one of these, or null"
            )
        writing = self._writing
        return checkpoints.among_best(
            self._run_dir,
            rule,
            float(metrics[rule]),
            goal=self._settings.goal,
            step=step,
            count=self._settings.keep_best,
            pending={writing.step: writing.metrics.get(rule)} if writing is not None else {},
        )

    def best(self, metric: str) -> Path | None:
        """The folder of the checkpoint with the best value of a metric; None when none is known."""
        run_dir = self._run_dir
        pointer = checkpoints.read_pointer(run_dir, f"best-{metric}")
        if pointer is None or pointer["step"] not in checkpoints.all_steps(run_dir):
            return None
        return checkpoints.step_dir(run_dir, pointer["step"])
