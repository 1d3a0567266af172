"""A run in a training loop of one's own: `Run`, made by `cupel.init`.

Logging needs no torch. `register`, `steps`, `save_checkpoint` and `load_checkpoint` use the same
checkpoint room as cupel's loop, and `watch` the same monitors, through hooks on the optimizer.
What is restored is what was registered, and the random states; whether that makes resuming exact
is the script's to say, and `cupel verify resume SCRIPT.py` checks it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cupel.errors import MissingDependency, UsageError
from cupel.events import Dispatcher, Event, Monitor, StepView
from cupel.record.model import describe_model
from cupel.record.session import Session

if TYPE_CHECKING:
    from cupel.checkpoint.parts import Parts
    from cupel.checkpoint.room import CheckpointRoom

Status = Literal["finished", "failed", "interrupted"]
_WATCHED: Mapping[str, Any] = {"norms": {"total": True}, "throughput": {}}


class Run:
    """One run: its record, its checkpoints, its monitors.

    `id`, `dir` (its folder), `name`, `project`, `config` and `step` (the step being made, or the
    last one) are for reading.
    """

    def __init__(
        self, session: Session, *, project: str, name: str, config: Mapping[str, Any]
    ) -> None:
        self.project, self.name, self.config = project, name, dict(config)
        self.step = 0
        self.finished = False
        self._session = session
        self._parts: Parts | None = None
        self._room: CheckpointRoom | None = None
        self._dispatcher = Dispatcher(on_problem=session.problem)
        self._units: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._in_steps = False
        if not session.resumed:
            session.begin_at(0)

    @property
    def id(self) -> str:
        """The run's id, as `cupel runs` lists it."""
        return self._session.run_id

    @property
    def dir(self) -> Path:
        """The run's folder."""
        return self._session.run_dir

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Append numbers to the record: one line, on disk when this returns.

        Numbers, 0-d tensors, numpy scalars and short arrays are accepted. Without `step` it is
        the step of `steps()`, or one more than at the last call. A value that cannot be kept is
        left out and told of once; logging never stops training.
        """
        if step is None:
            step = self.step if self._in_steps else self.step + 1
        self.step = int(step)
        self._session.log(metrics, step=self.step)
        for key, value in metrics.items():
            if isinstance(value, int | float):
                self._last[key] = float(value)

    # ---- checkpoints -------------------------------------------------------------------------

    def register(self, **parts: Any) -> None:
        """Name what changes while training: `run.register(model=model, optimizer=optimizer)`.

        Each needs `state_dict` and `load_state_dict`. The global random states of Python, numpy
        and torch are registered along, as `random`.
        """
        room = self._checkpoints()
        assert self._parts is not None
        for name, part in parts.items():
            self._parts.register(name, part)
        assert room is self._room

    def load_checkpoint(self) -> int:
        """Restore the newest valid checkpoint into what was registered; its step, or 0."""
        room = self._checkpoints()
        assert self._parts is not None
        restored = room.restore(self._parts)
        for line in restored.skipped if restored else ():
            self._session.note(line)
        self.step = restored.step if restored else 0
        self._session.begin_at(self.step)
        if restored:
            self._dispatcher.tell(Event.RESUMED, {"step": self.step})
        return self.step

    def save_checkpoint(self, metrics: Mapping[str, float] | None = None) -> Path:
        """Write a checkpoint of the present step. Raises CheckpointError when it cannot."""
        room = self._checkpoints()
        assert self._parts is not None
        saved = room.save(self.step, self._parts, metrics=metrics)
        self._session.event(
            "checkpoint_saved", step=self.step, seconds=saved.seconds, bytes=saved.bytes
        )
        self._dispatcher.tell(Event.CHECKPOINT_SAVED, saved)
        return saved.path

    def steps(self, total: int, *, save_every: int | None = None) -> Iterator[int]:
        """The steps still to make, up to `total`: restores first, then yields 1, 2, … total.

        A checkpoint is written every `save_every` steps and after the last. SIGTERM, SIGUSR1 and
        the first Ctrl-C write one after the step being made and leave Python with exit code 75.
        """
        from cupel.checkpoint.stop import EXIT_INTERRUPTED, StopRequest

        start = self.load_checkpoint()
        self._in_steps = True
        try:
            with StopRequest() as stop:
                for step in range(start + 1, total + 1):
                    self.step = step
                    yield step
                    self.step = step
                    due = save_every is not None and step % save_every == 0
                    if due or step == total or stop.name is not None:
                        self.save_checkpoint()
                    if stop.name is not None:
                        self.finish("interrupted", error=f"asked to stop by {stop.name}")
                        raise SystemExit(EXIT_INTERRUPTED)
        finally:
            self._in_steps = False

    def _checkpoints(self) -> CheckpointRoom:
        """The checkpoint room, opened at its first use (this is where torch comes in)."""
        if self._room is None:
            try:
                from cupel.api.random_states import RandomStates
                from cupel.checkpoint.parts import Parts
                from cupel.checkpoint.room import CheckpointRoom
                from cupel.checkpoint.settings import CheckpointSettings
            except ImportError as missing:
                if missing.name not in ("torch", "safetensors"):
                    raise
                raise MissingDependency(
                    missing.name, extra="train", purpose="saving checkpoints"
                ) from missing
            self._room = CheckpointRoom(
                self.dir, settings=CheckpointSettings(), superseded=self._session.superseded
            )
            self._parts = Parts()
            self._parts.register("random", RandomStates())
        return self._room

    # ---- monitors ----------------------------------------------------------------------------

    def watch(
        self,
        model: Any,
        optimizer: Any,
        *,
        monitors: Mapping[str, Any] = _WATCHED,
        units: Mapping[str, int] | None = None,
    ) -> None:
        """Measure at every `optimizer.step()`, and log what was measured at that step.

        `monitors` maps names to settings (`{"norms": {"every": 10}}`) or to objects of your own
        that follow `cupel.events.Monitor`. `units` says what a step sees, as {"images": 128}.
        $CUPEL_MONITORS=off leaves all of them out. Writes `model.json`.
        """
        if not hasattr(optimizer, "register_step_pre_hook"):
            raise UsageError(
                f"watch() needs the torch optimizer as its second argument, not a "
                f"{type(optimizer).__name__}"
            )
        self._units = dict(units or {})
        self._session.write_run_json("model.json", describe_model(model))
        if os.environ.get("CUPEL_MONITORS") != "off":
            for name, chosen in monitors.items():
                self._dispatcher.add_monitor(name, _monitor(name, chosen))
        self._dispatcher.check_keys(model)
        optimizer.register_step_pre_hook(
            lambda opt, args, kwargs: self._look(Event.AFTER_BACKWARD, model, opt)
        )
        optimizer.register_step_post_hook(
            lambda opt, args, kwargs: self._look(Event.STEP_END, model, opt)
        )

    def _look(self, event: Event, model: Any, optimizer: Any) -> None:
        # Outside of steps() the step in the making is the one after the last that was logged.
        step = self.step if self._in_steps else self.step + 1
        if self._dispatcher.watches(event, step):
            view = StepView(model, optimizer, step, units=self._units)
            measured = self._dispatcher.measure(event, view)
            if measured:
                self._session.log(measured, step=step)

    # ---- the end -----------------------------------------------------------------------------

    def finish(self, status: Status = "finished", *, error: str | None = None) -> None:
        """End the run. A finished one gets `results.json` with the last value of every metric."""
        if self.finished:
            return
        self.finished = True
        results: dict[str, Any] | None = None
        if status == "finished":
            results = {"step": self.step, "final": dict(self._last)}
            if self._parts is not None:
                results["state"] = self._parts.hashes()
            costs = self._dispatcher.costs()
            results["monitors"] = {
                name: {
                    "calls": c.calls,
                    "failures": c.failures,
                    "wall_s": c.wall_s,
                    "cpu_s": c.cpu_s,
                }
                for name, c in costs.items()
            }
        self._session.finish(status, results=results, error=error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("interrupted", error="KeyboardInterrupt")
        else:
            self.finish("failed", error="".join(traceback.format_exception(error)))


def _monitor(name: str, chosen: Any) -> Monitor:
    """A monitor from its settings, or the object itself when it is one already."""
    if isinstance(chosen, Mapping):
        from cupel import registry

        settings = registry.settings_of("monitor", name)
        found: Monitor = registry.resolve("monitor", name)(settings(**chosen))
        return found
    if not isinstance(chosen, Monitor):
        raise UsageError(
            f"monitor '{name}': expected settings as a dict, or an object with on, every, keys() "
            f"and a call; got a {type(chosen).__name__}"
        )
    return chosen
