"""A run in a training loop of one's own: `Run`, made by `cupel.init`.

Logging needs no torch. `register`, `steps`, `save_checkpoint` and `load_checkpoint` use the same
checkpoint room as cupel's loop, and `watch` the same monitors, through hooks on the optimizer.
What is restored is what was registered, and the random states; whether that makes resuming exact
is the script's to say, and `cupel verify resume SCRIPT.py` checks it.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cupel.api.ending import goes_on
from cupel.api.watched import check_watched, monitor_from
from cupel.errors import UsageError, needing_torch
from cupel.events import Dispatcher, Event, StepView
from cupel.record.checkpoints import list_steps
from cupel.record.model import describe_model
from cupel.record.reader import RunRecord
from cupel.record.session import Session

if TYPE_CHECKING:
    from cupel.checkpoint.parts import Parts
    from cupel.checkpoint.room import CheckpointRoom

Status = Literal["finished", "failed", "interrupted"]
_WATCHED: Mapping[str, Any] = {"norms": {"total": True}, "throughput": {}}
_LAST_STEP = 2**53  # up to here JSON readers of every language keep integers exact


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
        self.left_with: Any = None  # the status of a sys.exit; see `ending`
        self._session = session
        self._store: tuple[CheckpointRoom, Parts] | None = None
        self._dispatcher = Dispatcher(on_problem=session.problem)
        self._hooks: list[Any] = []
        self._units: dict[str, int] = {}
        self._logged = 0  # the step of the last line, outside of steps()
        self._updates = 0  # since that line; inside steps() the step itself is known
        self._by_hand = True  # until the first steps(): what is logged says which step it is
        self._in_steps = False
        self._signals = ExitStack()  # the handlers that steps() has installed
        self._restored = False
        self._begun = not session.resumed
        if self._begun:
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
        the step of `steps()`, or one more than at the last call. In a run that uses `steps()`, a
        given step is that line's only. A value that cannot be kept is left out and told of once;
        neither a failure of the disk nor the end of the run makes this raise. Raises UsageError
        for metrics that are no dict and a step that is no whole number from 0 to 2**53.
        """
        if not isinstance(metrics, Mapping):
            raise UsageError(
                f'log() takes a dict, as run.log({{"loss": 0.5}}), not a {type(metrics).__name__}'
            )
        if step is not None:
            at = _whole(step)
        else:
            at = self.step if self._in_steps else self._logged + 1
        if self.finished:
            self._session.problem("log", self._ended())
            return
        if self.left_with is not None and goes_on():
            self.left_with = None
        if not self._in_steps:
            self._logged, self._updates = at, 0
        if self._by_hand:
            self.step = at
        if not self._begun:
            self._begin_before(at)
        self._session.log(metrics, step=at)

    def _begin_before(self, step: int) -> None:
        """A resumed session without checkpoints goes on where its first line says."""
        self._begun = True
        if not list_steps(self.dir):
            self._session.begin_at(step - 1)

    # ---- checkpoints -------------------------------------------------------------------------

    def register(self, **parts: Any) -> None:
        """Name what changes while training: `run.register(model=model, optimizer=optimizer)`.

        Each needs `state_dict` and `load_state_dict`. The global random states of Python, numpy
        and torch are registered along, as `random`.
        """
        _, registered = self._checkpoints()
        for name, part in parts.items():
            registered.register(name, part)

    def load_checkpoint(self) -> int:
        """Restore the newest intact checkpoint into what was registered; its step, or 0.

        A damaged one is passed over and told of. Raises CheckpointDamaged when all are, and
        ResumeError when what was registered does not take what was saved.
        """
        room, parts = self._checkpoints()
        restored = room.restore(parts)
        for line in restored.skipped if restored else ():
            self._session.note(line)
            sys.stderr.write(f"cupel: {line}\n")
        self.step = self._logged = restored.step if restored else 0
        self._begun = self._restored = True
        self._session.begin_at(self.step)
        return self.step

    def save_checkpoint(self, metrics: Mapping[str, float] | None = None) -> Path:
        """Write a checkpoint of the present step: the newest two stay, and the best `val_loss`.

        `metrics` are those that it may be the best of. Raises CheckpointError when it cannot be
        written.
        """
        room, parts = self._checkpoints()
        saved = room.save(self.step, parts, metrics=metrics)
        self._session.event(
            "checkpoint_saved", step=self.step, seconds=saved.seconds, bytes=saved.bytes
        )
        return saved.path

    def steps(self, total: int, *, save_every: int | None = None) -> Iterator[int]:
        """The steps still to make, up to `total`: restores first, then yields 1, 2, … total.

        A checkpoint is written every `save_every` steps and after the last. SIGTERM, SIGUSR1 and
        the first Ctrl-C write one after the step being made and leave Python with exit code 75.
        A step left by `break` counts as made, and the next `steps` goes on with the one after it:
        only the first one restores, unless `load_checkpoint` was called before. Raises UsageError
        for a second loop while one is under way.
        """
        self._check_open()
        if save_every is not None and save_every < 1:
            raise UsageError(f"save_every is {save_every}; it must be 1 or more, or left out")
        from cupel.checkpoint.stop import EXIT_INTERRUPTED, StopRequest

        if self._in_steps:
            raise UsageError(
                "another loop over steps() is under way; end it first (one that was left and is "
                "kept in a variable: by its close())"
            )
        if not self._restored:
            self.load_checkpoint()
        self._in_steps, self._by_hand = True, False
        try:
            stop = self._signals.enter_context(StopRequest())
            for step in range(self.step + 1, total + 1):
                self.step = step
                yield step
                self._check_open()
                self.step = step
                due = save_every is not None and step % save_every == 0
                if due or step == total or stop.name is not None:
                    self.save_checkpoint()
                if stop.name is not None:
                    self.finish("interrupted", error=f"asked to stop by {stop.name}")
                    raise SystemExit(EXIT_INTERRUPTED)
        finally:
            self._in_steps = False
            self._logged, self._updates = self.step, 0
            self._signals.close()

    def _checkpoints(self) -> tuple[CheckpointRoom, Parts]:
        """The checkpoint room and what is registered; torch comes in at the first use."""
        self._check_open()
        if self._store is None:
            with needing_torch("saving checkpoints"):
                from cupel.api.random_states import RandomStates
                from cupel.checkpoint.parts import Parts
                from cupel.checkpoint.room import CheckpointRoom
                from cupel.checkpoint.settings import CheckpointSettings
            room = CheckpointRoom(
                self.dir, settings=CheckpointSettings(), superseded=self._session.superseded
            )
            self._store = room, Parts()
            self._store[1].register("random", RandomStates())
        return self._store

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
        that follow `cupel.events.Monitor`. Gradients are seen as the optimizer gets them, after
        any clipping. `units` says what a step sees, as {"images": 128}. Outside of `steps()` each
        `optimizer.step()` counts as one step after the last that was logged.
        $CUPEL_MONITORS=off leaves all monitors out. Writes `model.json`.

        Raises UsageError for what is no model, optimizer or monitor, for two monitors that would
        write one metric, and for a second call.
        """
        self._check_open()
        check_watched(model, optimizer)
        if self._hooks:
            raise UsageError("this run watches an optimizer already; call watch() once")
        if os.environ.get("CUPEL_MONITORS") != "off":
            for name, chosen in monitors.items():
                self._dispatcher.add_monitor(name, monitor_from(name, chosen))
        self._dispatcher.check_keys(model)
        self._units = dict(units or {})
        self._session.write_run_json("model.json", describe_model(model))

        def before(opt: Any, args: Any, kwargs: Any) -> None:
            self._updates += 1
            self._look(Event.AFTER_BACKWARD, model, opt)

        def after(opt: Any, args: Any, kwargs: Any) -> None:
            self._look(Event.STEP_END, model, opt)

        self._hooks = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]

    def _look(self, event: Event, model: Any, optimizer: Any) -> None:
        step = self.step if self._in_steps else self._logged + self._updates
        if self._dispatcher.watches(event, step):
            view = StepView(model, optimizer, step, units=self._units)
            measured = self._dispatcher.measure(event, view)
            if measured:
                self._session.log(measured, step=step)

    # ---- the end -----------------------------------------------------------------------------

    def finish(self, status: Status = "finished", *, error: str | None = None) -> None:
        """End the run; a second call does nothing.

        A finished one gets `results.json`: the last value of every metric, what the monitors cost,
        and a hash of every registered part. Reads the record once, about 3 µs a line.
        """
        if self.finished:
            return
        self.finished = True
        for hook in self._hooks:
            hook.remove()
        try:
            results = self._results() if status == "finished" else None
        except Exception as problem:
            self._session.finish("failed", error=f"results: {problem}")
            raise
        else:
            self._session.finish(status, results=results, error=error)
        finally:
            # A steps() that was left may still be held. Other threads may not touch handlers.
            if threading.current_thread() is threading.main_thread():
                self._signals.close()

    def _check_open(self) -> None:
        if self.finished:
            raise self._ended()

    def _ended(self) -> UsageError:
        return UsageError(f"run {self.id} is finished; start another one with cupel.init()")

    def _results(self) -> dict[str, Any]:
        final: dict[str, Any] = {}
        for row in RunRecord(self.dir).history():
            final |= row
        costs = self._dispatcher.costs()
        results = {
            "step": self.step,
            "final": {
                key: value
                for key, value in final.items()
                if key not in ("_step", "_t") and isinstance(value, int | float)
            },
            "monitors": {name: asdict(cost) for name, cost in costs.items()},
        }
        return results if self._store is None else {**results, "state": self._store[1].hashes()}

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


def _whole(step: Any) -> int:
    try:
        whole = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        whole = -1
    if 0 <= whole <= _LAST_STEP:
        return whole
    # Python refuses to print integers of more than 4,300 digits.
    long = isinstance(step, int) and step.bit_length() > 64
    shown = f"an integer of {step.bit_length()} bits" if long else " ".join(repr(step).split())
    raise UsageError(f"step is {shown}; it must be a whole number from 0 to 2**53")
