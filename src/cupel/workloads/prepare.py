"""What comes before a run's folder is touched: build, and refuse everything that can be refused.

A mistake found here leaves nothing behind. What must be tried on the machine (will it fit?) is
tried with the run's own first batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cupel import registry
from cupel.checkpoint.settings import CheckpointSettings
from cupel.config import NOT_IDENTITY, Recipe, differences
from cupel.errors import (
    CupelError,
    MissingDependency,
    PreflightError,
    RecordError,
    ResumeError,
    UsageError,
)
from cupel.events import Dispatcher
from cupel.figures.settings import FigureSettings
from cupel.record.reader import RunRecord
from cupel.train import preflight
from cupel.train.loop import LOOP_KEYS
from cupel.train.parallel import World
from cupel.train.protocols import Workload
from cupel.train.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin; nothing of it has been written yet."""

    recipe: Recipe
    workload: Workload
    dispatcher: Dispatcher
    world: World
    # What the run is called and identified by: `recipe` without what only this session has
    # otherwise, such as smaller micro-batches on a device that is short of memory.
    planned: Recipe

    @property
    def train(self) -> TrainSettings:
        """The section `train`."""
        return self.recipe.section("train", TrainSettings)

    @property
    def checkpoint(self) -> CheckpointSettings:
        """The section `checkpoint`."""
        return self.recipe.section("checkpoint", CheckpointSettings)

    @property
    def figures(self) -> FigureSettings:
        """The section `figures`."""
        return self.recipe.section("figures", FigureSettings)

    def offer(self, name: str, otherwise: Any) -> Any:
        """What a workload may offer beyond its protocol.

        `describe`, `notes`, `references`, `files` and `samples`: methods without arguments.
        """
        method = getattr(self.workload, name, None)
        return method() if callable(method) else otherwise

    def monitor_notes(self) -> list[str]:
        """What monitors say about this model beforehand, as that they can measure little of it."""
        asked = [getattr(m, "note", None) for m in self.dispatcher.monitors()]
        told = [note(self.workload.model) for note in asked if callable(note)]
        return [str(line) for line in told if line]


def prepare(
    planned: Recipe,
    world: World,
    *,
    root: Path,
    resume: Path | None,
    debug: bool,
    changes: Mapping[str, Any] | None = None,
) -> Prepared:
    """Build workload and monitors and check them; `changes` are settings of this session only.

    Raises UsageError of many kinds.
    """
    recipe = planned.with_changes(changes) if changes else planned
    figures = recipe.section("figures", FigureSettings)
    if figures.formats and find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", extra="analysis", purpose="drawing figures")
    with _fitting():
        workload = registry.resolve("workload", recipe.workload).build(
            recipe.workload_settings, seed=recipe.seed
        )
    dispatcher = _dispatcher(recipe, workload, debug=debug)
    ready = Prepared(recipe, workload, dispatcher, world, planned)
    if resume is not None:
        _check_same_run(ready, RunRecord(resume))
    shares = world.size * ready.train.accumulate
    with _fitting():
        workload.batch(1, part=(0, shares))  # a batch that cannot be shared says so now
    preflight.check(
        workload.model,
        ready.train,
        folder=_existing(root),
        checkpoints_kept=ready.checkpoint.keep_last
        + (ready.checkpoint.keep_best if ready.checkpoint.best else 0),
        device=world.device,
        background=ready.checkpoint.background and world.first,
    )
    return ready


def _dispatcher(recipe: Recipe, workload: Workload, *, debug: bool) -> Dispatcher:
    """The monitors, asked for their keys, so that a broken one or a duplicate is refused."""
    dispatcher = Dispatcher(debug=debug)
    for name, chosen in recipe.monitors.items():
        try:
            monitor = registry.resolve("monitor", name)(chosen)
            dispatcher.add_monitor(name, monitor)
            list(monitor.keys(workload.model))
        except CupelError:
            raise
        except Exception as error:  # a monitor of the user's own may raise anything
            raise UsageError(
                f"monitor '{name}' cannot start: {type(error).__name__}: {error}; mend it, or "
                "leave it out with monitors=off"
            ) from error
    dispatcher.check_keys(workload.model, taken=LOOP_KEYS)
    return dispatcher


def _check_same_run(ready: Prepared, record: RunRecord) -> None:
    """A run goes on only with the settings and the data that it began with."""
    if record.problem:
        raise RecordError(record.problem)
    if record.identity != ready.planned.identity():
        changed = differences(_numbers(record.config), _numbers(ready.planned.resolved()))
        listed = "; ".join(changed[:4]) + ("; …" if len(changed) > 4 else "")
        raise ResumeError(
            f"run {record.run_id} was started with other settings ({listed}); "
            "give it the same ones, or start a new run with --resume never"
        )
    before, now = record.run.get("data") or {}, ready.offer("describe", {})
    if before.get("sha256") != now.get("sha256"):
        raise ResumeError(
            f"run {record.run_id} was trained on data with SHA-256 "
            f"{str(before.get('sha256'))[:12]}…, and the data is now {str(now.get('sha256'))[:12]}…"
            "; restore the data, or start a new run with --resume never"
        )


def _numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in NOT_IDENTITY}


def _existing(folder: Path) -> Path:
    """The nearest folder that exists: the disk on which a run will be written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


@contextmanager
def _fitting() -> Iterator[None]:
    """Turn a failure to get memory into one line; whatever else goes wrong stays as it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "memory" not in text and "overflow" not in text:
            raise
        first = text.splitlines()[0] if text else "MemoryError"
        raise PreflightError(
            f"model or batch do not fit into this machine's memory ({first}); make them smaller"
        ) from error
