"""A run in a training loop of one's own: `Run`, made by `cupel.init`.

Logging needs no torch. `register`, `steps`, `save_checkpoint` and `load_checkpoint` use the same
checkpoint room as cupel's loop, and `watch` the same monitors, through hooks on the optimizer.
What is restored is what was registered, and the random states; whether that makes resuming exact
is the script's to say, and `cupel verify resume SCRIPT.py` checks it. What describes a run is in
`facts`, what it keeps besides numbers in `kept`, its checkpoints in `saving`.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex

from cupel.api import rendezvous
from cupel.api.ending import goes_on
from cupel.api.gradients import Histograms
from cupel.api.kept import Kept
from cupel.api.rows import Rows, whole
from cupel.api.saving import Saving
from cupel.api.told import tell_ignored
from cupel.api.watched import Watcher, check_module, check_second, is_optimizer
from cupel.errors import CupelError, RecordError, Superseded, UsageError
from cupel.events import Dispatcher
from cupel.record.checkpoints import list_steps, step_dir
from cupel.record.reader import RunRecord
from cupel.record.session import Session

if TYPE_CHECKING:
    from cupel.record.described import ModelFile

Status = Literal["finished", "failed", "interrupted"]
_WATCHED: Mapping[str, Any] = {"norms": {"total": True}, "throughput": {}}
_PLAIN = frozenset({float, int, bool})  # values that need no second look


class Run(Kept):
    """One run: its record, its checkpoints, its monitors.

    `id`, `dir` (its folder), `project`, `group` and `step` (the step being made, or the last one)
    are for reading; `name`, `tags`, `notes`, `config` and `summary` also for setting.
    """

    disabled = False

    def __init__(
        self,
        session: Session,
        *,
        project: str,
        name: str,
        config: Mapping[str, Any],
        tags: Sequence[str] = (),
        notes: str = "",
        group: str | None = None,
        leads: bool = True,
        checkpoint: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        super().__init__(
            session,
            project=project,
            name=name,
            config=config,
            tags=tags,
            notes=notes,
            group=group,
            **about,
        )
        self.step = 0
        self.left_with: Any = None  # the status of a sys.exit; see `ending`
        self.pid = os.getpid()
        self._saving = Saving(
            session, place=lambda: self.dir, settings=checkpoint or {}, leads=leads
        )
        self._dispatcher = Dispatcher(on_problem=session.problem)
        self._lock = threading.RLock()
        self._rows = Rows()
        self._watcher = Watcher(
            self._dispatcher,
            self._rows,
            step=lambda: self.step if self._in_steps else None,
            log=lambda metrics, step: self._session.log(metrics, step=step),
        )
        self._histograms: list[Histograms] = []
        self._model: ModelFile | None = None  # of the model that was watched last
        self._traced: ModelFile | None = None  # the same, until its first pass was seen
        self._by_hand = True  # until the first steps(): what is logged says which step it is
        self._in_steps = False
        self._signals = ExitStack()  # the handlers that steps() has installed
        self._restored = False
        self._leads = leads  # rank 0 does, which saves, and whose random states are saved
        self._ends: list[Callable[[], None]] = []
        self._begun = not (leads and session.resumed)
        if leads and self._begun:
            session.begin_at(0)

    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        step: int | None = None,
        commit: bool | None = None,
        sync: bool | None = None,
        *,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Append numbers to the record: one line, on disk when this returns.

        Numbers, 0-d tensors, numpy scalars and short arrays are accepted; mappings inside give
        names with slashes, media become files. Without `step` it is the step of `steps()`, or by
        wandb's rule (see `rows`): 0, 1, 2, … with each call, `commit=False` staying at its step.
        In a run that uses `steps()`, a given step is that line's only. A value that cannot be kept
        is left out and told of once; neither a failure of the disk nor the end of the run makes
        this raise. `data` is wandb's word for the metrics, and `sync`, its too, changes nothing:
        every line is on disk. Raises UsageError for metrics that are no dict and a step that is no
        whole number from 0 to 2**53.
        """
        if data is not None or type(metrics) is not dict:
            metrics = self._checked(metrics, data)
        given = None if step is None else whole(step)
        if self.finished:
            self._session.problem("log", self._ended())
            return
        if self.left_with is not None and goes_on():
            self.left_with = None
        self._write(metrics, self._place(given, commit))

    def _checked(self, metrics: Any, data: Any) -> Mapping[str, Any]:
        """What `log` was given, under either name. Raises UsageError for what is no dict."""
        found = data if metrics is None else metrics
        if not isinstance(found, Mapping):
            raise UsageError(
                f'log() takes a dict, as run.log({{"loss": 0.5}}), not a {type(found).__name__}'
            )
        if found is not data and data is not None:
            raise UsageError("log() takes its numbers as metrics or as data, not as both")
        return found

    def log_at(self, metrics: Mapping[str, Any], step: int, t: float | None) -> None:
        """A line of any whole step, at a wall time of its own: what other formats hold."""
        if self.finished:
            self.problem("log", self._ended())
            return
        self._place(max(step, 0), None)
        self._write(metrics, step, t)

    def problem(self, name: str, error: Exception) -> None:
        """Count a failure that must not stop training; the first of each name is told."""
        self._session.problem(name, error)

    def _place(self, step: int | None, commit: bool | None) -> int:
        """The step that a line goes to; each thread that logs gets its own."""
        if self._in_steps:
            return self.step if step is None else step
        # In a child made by fork the lock may be held for ever, by a thread that is not there.
        with self._lock if os.getpid() == self.pid else nullcontext():
            at = self._rows.place(step, commit)
            if self._by_hand:
                self.step = at
        return at

    def _write(self, metrics: Mapping[str, Any], at: int, t: float | None = None) -> None:
        """A line for a step, at a time of its own if given."""
        if not self._begun:
            self._begin_before(at)
        self._watcher.line_comes(at)
        if self._traced is not None and self._traced.seen:
            self._describe_calls(at)
        for seen in self._histograms:
            for key, one in seen.take().items():
                self._keep(key, one, at)
        numbers: Mapping[str, Any] = metrics
        if not _PLAIN.issuperset(map(type, metrics.values())):
            about = {} if t is None else {"_t": t}
            numbers = self._numbers_of(metrics, at, **about)
            if not numbers:
                return
        if self._axes:
            numbers = self._on_axes(numbers)
        self._session.log(numbers, step=at, t=t)

    def _begin_before(self, step: int) -> None:
        """A resumed session without checkpoints goes on where its first line says."""
        self._begun = True
        if not list_steps(self.dir):
            try:
                self._session.begin_at(step - 1)
            except Superseded as error:  # logging stops no training
                self._session.note(f"{error}: the lines of the newer one count")

    def go_on_after(self, step: int) -> None:
        """Have lines without a step go on after this one; what was logged before stays."""
        self._rows.go_on_after(step)
        self.step = step
        if not self._begun:
            self._begun = True
            self._session.begin_at(step)

    # ---- checkpoints -------------------------------------------------------------------------

    def register(self, **parts: Any) -> None:
        """Name what changes while training: `run.register(model=model, optimizer=optimizer)`.

        Each needs `state_dict` and `load_state_dict`. The global random states of Python, numpy
        and torch are registered along, as `random`.
        """
        self._check_open()
        self._saving.register(parts)

    def load_checkpoint(self) -> int:
        """Restore the newest intact checkpoint into what was registered; its step, or 0.

        One that is being written is waited for. A damaged one is passed over and told of. Raises
        CheckpointDamaged when all are, ResumeError when what was registered does not take what was
        saved, and Superseded when a newer session of the run exists.
        """
        self._check_open()
        step = None if self._leads else rendezvous.step_of_rank_zero(*self._followed())
        restored = None if step == 0 else self._saving.restore(step=step)
        for line in restored.skipped if restored else ():
            self._session.note(line)
            sys.stderr.write(f"cupel: {line}\n")
        self.step = restored.step if restored else 0
        if restored:
            self._rows.go_on_after(self.step)
        self._begun = self._restored = True
        if self._leads:
            self._session.begin_at(self.step)
        return self.step

    def _followed(self) -> tuple[Path, int]:
        """The session whose rank 0 says what is restored: folder of the run, and number."""
        return self.dir, self._session.number

    def save_checkpoint(
        self, metrics: Mapping[str, float] | None = None, *, wait: bool = False
    ) -> Path:
        """Save a checkpoint of the present step: the newest two stay, and the best `val_loss`.

        The state is copied, and a thread writes it while training goes on; with `wait` it is on
        the disk when this returns. `metrics` are those that it may be the best of. Returns the
        folder where it will be; when the settings have it left out because one is being written,
        that one's. A rank that does not lead saves none: rank 0's holds for all.

        Raises CheckpointError when it cannot be copied, or with `wait` written, and UsageError for
        a metric that is no number. A failure in the thread is recorded, told at the next
        checkpoint, and raised by `finish` if none followed.
        """
        self._check_open()
        from cupel.checkpoint.writing import numbers_of

        numbers = numbers_of(metrics)
        if not self._leads or self._is_childs("checkpoint"):
            return step_dir(self.dir, self.step)
        return self._saving.save(self.step, numbers, wait=wait)

    def steps(self, total: int, *, save_every: int | None = None) -> Iterator[int]:
        """The steps still to make, up to `total`: restores first, then yields 1, 2, … total.

        A checkpoint is saved every `save_every` steps, and after the last, which is on the disk
        when the loop ends. SIGTERM, SIGUSR1 and the first Ctrl-C save one after the step being
        made and leave Python with exit code 75 when it is on the disk.
        A step left by `break` counts as made, and the next `steps` goes on with the one after it:
        only the first one restores, unless `load_checkpoint` was called before. Raises UsageError
        for a second loop while one is under way.
        """
        self._check_open()
        check_steps(total, save_every)
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
                self._saving.hear()
                last = step == total or stop.name is not None
                if last or (save_every is not None and step % save_every == 0):
                    self.save_checkpoint(wait=last)
                elif save_every is not None and save_every < total and self._leads:
                    self._saving.prepare()  # once, now that the optimizer has its moments
                if stop.name is not None:
                    self.finish("interrupted", error=f"asked to stop by {stop.name}")
                    raise SystemExit(EXIT_INTERRUPTED)
        finally:
            self._in_steps = False
            self._rows.go_on_after(self.step)
            self._signals.close()

    # ---- monitors ----------------------------------------------------------------------------

    def watch(
        self,
        model: Any,
        optimizer: Any = None,
        log: str | None = "auto",
        log_freq: int = 1000,
        idx: int | None = None,
        log_graph: bool = False,
        *,
        criterion: Any = None,
        monitors: Mapping[str, Any] = _WATCHED,
        units: Mapping[str, int] | None = None,
    ) -> None:
        """Measure while training: monitors at every `optimizer.step()`, or histograms.

        With an optimizer, what is measured is logged at that step. `monitors` maps names to
        settings (`{"norms": {"every": 10}}`) or to objects of your own that follow
        `cupel.events.Monitor`. Gradients are seen as the optimizer gets them, after any clipping.
        `units` says what a step sees, as {"images": 128}. Outside of `steps()` each
        `optimizer.step()` counts as one step after the last that was logged.
        $CUPEL_MONITORS=off leaves all monitors out.

        As wandb's `watch(model)`: every `log_freq` backward passes a histogram of the gradients
        of each parameter (`log="gradients"`), of the "parameters", or of "all", at the next log.
        `log=None` looks at nothing. Writes `model.json` either way, and again after the first
        training pass of the model, with the order and the shapes of its modules' calls.

        Raises UsageError for what is no model, optimizer or monitor, for two monitors that would
        write one metric, and for a second optimizer.
        """
        self._check_open()
        models = list(model) if isinstance(model, list | tuple) else [model]
        for one in models:
            check_module(one)
        tell_ignored("watch", {"log_graph": log_graph}, "model.json has the tree of modules")
        if optimizer is not None:
            check_second(optimizer)
        if is_optimizer(optimizer):
            if self._watcher.looks:
                raise UsageError("this run watches an optimizer already; call watch() once")
            self._watcher.add(monitors, models[0])
        if self._leads:
            self._describe_model(models[0])
        if is_optimizer(optimizer):
            units = dict(units or {})
            self._watcher.start(models[0], optimizer, units, then=self._describe_calls)
        kind = ("gradients" if not is_optimizer(optimizer) else None) if log == "auto" else log
        if kind is not None:
            for one in models:
                number = len(self._histograms) if idx is None else idx
                self._histograms.append(
                    Histograms(
                        one,
                        kind,
                        every=log_freq,
                        prefix=f"graph_{number}/" if number else "",
                        on_problem=self._session.problem,
                    )
                )

    def _describe_model(self, model: Any) -> None:
        """Write model.json; at the first line after the first training pass it gets its calls."""
        from cupel.record.described import NAME, ModelFile

        if self._model is not None and self._model.is_of(model):
            return
        if self._model is not None:
            self._model.leave()
        self._model = self._traced = ModelFile(self._session, model, replace=True)
        self._quietly(NAME, self._model.begin)
        self._model.watch()

    def _describe_calls(self, step: int) -> None:
        """The first training step is over: what was seen of the model's calls is written."""
        traced, self._traced = self._traced, None
        if traced is not None:
            traced.complete(step)

    def unwatch(self, model: Any = None) -> None:
        """Look no longer, at whatever was watched."""
        self._describe_calls(self.step)
        self._watcher.stop()
        for seen in self._histograms:
            seen.stop()

    # ---- the end -----------------------------------------------------------------------------

    def finish(
        self,
        status: Status | int | None = "finished",
        *,
        error: str | None = None,
        exit_code: int | None = None,
        quiet: bool | None = None,
    ) -> None:
        """End the run; a second call does nothing, nor does a forked child's.

        An exit code other than 0 (wandb's word, also in the place of the status) is "failed".

        A finished one gets `results.json`: the summary's numbers, what the monitors cost, and a
        hash of every registered part. Reads the record once, about 1 µs a line. A checkpoint that
        is being written is waited for. Results that the disk refuses are told on stderr, and the
        run is "failed": what follows in the script goes on. Raises CheckpointError when the last
        one could not be written, and it was not raised before: what was to be finished has failed
        then.
        """
        if self.finished or os.getpid() != self.pid:
            return  # a forked child's end is not the run's
        outcome, error = _outcome(status, exit_code, error)
        self.unwatch()
        self._keep_what_waits()
        self._write_about()
        self.finished = True
        for end in self._ends:
            end()
        try:
            lost = self._saving.close()
            if lost is not None and outcome == "finished":
                outcome, error = "failed", str(lost)
            results = self._results() if outcome == "finished" and self._leads else None
        except KeyboardInterrupt:
            self._session.finish("interrupted", error="KeyboardInterrupt")
            raise
        except (RecordError, OSError) as problem:  # the record cannot be read
            self._session.finish("failed", error=f"results: {problem}")
            self._say_unfinished(problem)
            return
        except Exception as problem:  # whatever a registered part raises for its state
            self._session.finish("failed", error=f"results: {problem}")
            raise
        else:
            try:
                self._session.finish(outcome, results=results, error=error)
            except (RecordError, OSError) as problem:
                self._say_unfinished(problem)
        finally:
            # A steps() that was left may still be held. Other threads may not touch handlers.
            if threading.current_thread() is threading.main_thread():
                self._signals.close()
        if lost is not None:
            raise lost

    def _say_unfinished(self, problem: Exception) -> None:
        self._say(
            f"run {self.id} has failed at its end: {' '.join(str(problem).split())}; make room on "
            f"the disk. What was recorded before stays in {self.dir}"
        )

    def at_end(self, does: Callable[[], None]) -> None:
        """Have something done when the run ends."""
        self._ends.append(does)

    def _keep_what_waits(self) -> None:
        """Histograms of passes after the last line belong to the step that is open."""
        at = self.step if self._in_steps else self._rows.open
        for seen in self._histograms:
            for key, one in seen.take().items():
                self._keep(key, one, at)

    def _check_open(self) -> None:
        if self.finished:
            raise self._ended()

    def _results(self) -> dict[str, Any]:
        costs = self._dispatcher.costs()
        results = {
            "step": self.step,
            "final": {
                key: value
                for key, value in RunRecord(self.dir).summary.items()
                if isinstance(value, int | float)
            },
            "monitors": {name: asdict(cost) for name, cost in costs.items()},
        }
        state = self._saving.hashes()
        return results if state is None else {**results, "state": state}

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
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            told = "KeyboardInterrupt" if stopped else "".join(traceback.format_exception(error))
            try:
                self.finish("interrupted" if stopped else "failed", error=told)
            except CupelError as lost:  # recorded; the error at hand is the one to raise
                self._say(str(lost))


def check_steps(total: Any, save_every: Any) -> None:
    """What `steps` is given. Raises UsageError."""
    for name, given in (("total", total), ("save_every", save_every)):
        if not isinstance(given, SupportsIndex | None):
            raise UsageError(f"steps({name}={given!r}): it must be a whole number")
    if total is None:
        raise UsageError("steps() needs the number of steps, as steps(1000)")
    if save_every is not None and save_every < 1:
        raise UsageError(f"save_every is {save_every}; it must be 1 or more, or left out")


def _outcome(
    status: Status | int | None, exit_code: int | None, error: str | None
) -> tuple[Status, str | None]:
    """What cupel's status or wandb's exit code says. Raises UsageError for another word."""
    if status is None or isinstance(status, int):
        exit_code = exit_code if status is None else status
        status = "finished"
    if status not in ("finished", "failed", "interrupted"):
        raise UsageError(f"finish({status!r}): a run ends as finished, failed or interrupted")
    if exit_code and status == "finished":
        return "failed", error or f"exit code {exit_code}"
    return status, error
