"""The training loop: one step, and what happens between steps.

The loop makes every stateful part itself and registers it where it is made, so that no part can
be left out of a checkpoint by forgetting. Between two steps, in this order: metrics, evaluation,
checkpoint, stop request. A resumed loop goes through the same order, which is why its later
losses and its state are equal, bit for bit, to those of a run that was never stopped.

It does not know the record, the figures or the command line: it writes to a `Recorder` and tells
the dispatcher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from cupel import registry
from cupel.checkpoint.parts import Parts, Stateful
from cupel.checkpoint.room import CheckpointRoom, Restored
from cupel.checkpoint.stop import StopRequest
from cupel.checkpoint.writing import Failed, Saved, record_news
from cupel.errors import CheckpointError, Diverged
from cupel.events import Dispatcher, Event, StepView
from cupel.randomness import Streams
from cupel.train.ema import EMA
from cupel.train.parallel import Objective, World, distribute, without_sync
from cupel.train.precision import autocast, scaler
from cupel.train.protocols import Recorder, Updated, Workload
from cupel.train.schedule import Schedule
from cupel.train.settings import TrainSettings
from cupel.train.stopping import EarlyStopping, Progress

# Keys that the loop writes itself; a monitor may not write them.
LOOP_KEYS = ("loss", "lr", "grad_norm/total", "val_loss", "val_loss_ema")
OBJECTIVE = "val_loss"  # what early stopping and "best" go by; lower is better

Part = TypeVar("Part", bound=Stateful | None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of `Loop.run` ended. `interrupted` carries the signal's name."""

    status: Literal["finished", "interrupted"]
    step: int
    signal: str | None = None


class Loop:
    """Trains a workload. Make one, `restore()`, then `run()`."""

    def __init__(
        self,
        workload: Workload,
        settings: TrainSettings,
        *,
        seed: int,
        room: CheckpointRoom | None = None,
        recorder: Recorder,
        dispatcher: Dispatcher,
        world: World,
        checkpoint_every: int | None = None,
    ) -> None:
        self.workload, self.settings, self.world = workload, settings, world
        self.dispatcher = dispatcher
        self._recorder, self._room = recorder, room
        self._checkpoint_every = checkpoint_every
        self._streams = Streams(seed)
        self._saved_at = self._on_disk = -1  # equal on all ranks; true on rank 0
        self._loss: Tensor | float = math.nan  # of the last step, perhaps still on the device
        self._measured: dict[str, Any] = {}  # by monitors, in this step

        self.parts = Parts()
        self.model = self._own("model", workload.model.to(world.device))
        make_optimizer = registry.resolve("optimizer", settings.optimizer.kind)
        self.optimizer = self._own("optimizer", make_optimizer(self.model, settings.optimizer))
        make_factor = registry.resolve("schedule", settings.schedule.kind)
        factor = make_factor(settings.schedule, settings.steps)
        self._schedule = self._own("schedule", Schedule(self.optimizer, factor))
        self._scaler = self._own("scaler", scaler(settings.precision, world.device))
        self._ema = self._own(
            "ema", None if settings.ema is None else EMA(self.model, settings.ema)
        )
        self._stopping = self._own(
            "stopping", None if settings.stopping is None else EarlyStopping(settings.stopping)
        )
        self.progress = self._own("progress", Progress())
        for name, part in workload.stateful().items():
            self._own(name, part)
        self._objective = distribute(Objective(workload), world)
        dispatcher.check_keys(self.model, taken=LOOP_KEYS)

    def _own(self, name: str, part: Part) -> Part:
        """Register a part by name as it is made; None means that this run has no such part."""
        if part is not None:
            self.parts.register(name, part)
        return part

    def restore(self) -> Restored | None:
        """Load the newest valid checkpoint into every part, if there is one."""
        if self._room is None:
            return None
        restored = self._room.restore(self.parts, map_location=str(self.world.device))
        if restored is not None:
            self._saved_at = self._on_disk = self.progress.step
            self.dispatcher.tell(Event.RESUMED, {"step": restored.step})
        return restored

    def run(self, stop: StopRequest) -> Outcome:
        """Train until the last step, early stopping, or a request to stop.

        `stop` has been entered by whoever opened the record, so that no signal falls between.
        Raises TrainingFailed when the loss is not finite and `nonfinite` is `stop`, and
        CheckpointError when the last checkpoint cannot be written.
        """
        self.dispatcher.tell(Event.RUN_START, {"step": self.progress.step})
        try:
            while not self._done():
                if self.world.any(stop.name is not None):
                    self._save(must=True)
                    signal = stop.name or "a signal to another rank"
                    return Outcome("interrupted", self.progress.step, signal)
                self._step()
                self._between_steps()
            self._finish()
        except BaseException as error:  # Ctrl-C too: what was being written is waited for
            if isinstance(error, Exception):
                self.dispatcher.tell(Event.FAILURE, error)
            with suppress(Exception):  # recorded; the error at hand is the one to tell
                self._hear_of_checkpoints(wait=True)
            raise
        self.dispatcher.tell(Event.RUN_END, {"step": self.progress.step})
        return Outcome("finished", self.progress.step)

    # ---- one step ----------------------------------------------------------------------------

    def _step(self) -> None:
        step = self.progress.step + 1
        self._measured = {}
        self.dispatcher.tell(Event.STEP_START, {"step": step})
        self._look(Event.STEP_START, step)
        loss, numbers, batch = self._forward_backward(step)
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        self._look(Event.AFTER_BACKWARD, step, loss, batch)
        norm = self._clip()
        lr = self.optimizer.param_groups[0]["lr"]
        numbers = {**numbers, **self._update()}
        self.progress.step = step
        self._look(Event.STEP_END, step, loss, batch)
        self._loss = loss
        self._log(step, {"loss": loss, "lr": lr, "grad_norm/total": norm, **numbers})

    def _forward_backward(self, step: int) -> tuple[Tensor, Mapping[str, Any], Any]:
        """Gradients of the mean loss over the global batch; the loss is averaged over ranks.

        The workload's numbers and the batch are those of this rank's last micro-batch.
        """
        accumulate, world = self.settings.accumulate, self.world
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=world.device)
        numbers: Mapping[str, Any] = {}
        for micro in range(accumulate):
            share = (world.rank * accumulate + micro, world.size * accumulate)
            batch = _to(self.workload.batch(step, part=share), world.device)
            self._seed(step, micro)
            last = micro == accumulate - 1
            with without_sync(self._objective, skip=not last):
                with autocast(self.settings.precision, world.device):
                    loss, numbers = self._objective(batch)
                total += loss.detach()
                if last:
                    self._look(Event.AFTER_FORWARD, step, loss, batch)
                scaled = loss / accumulate if accumulate > 1 else loss
                (scaled if self._scaler is None else self._scaler.scale(scaled)).backward()
        return world.mean(total / accumulate), numbers, batch

    def _clip(self) -> Tensor:
        limit = math.inf if self.settings.clip is None else self.settings.clip
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _update(self) -> Mapping[str, Any]:
        """Update the parameters and all that follows them; what the workload tells of it."""
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self._schedule.step()
        told: Mapping[str, Any] = {}
        if isinstance(self.workload, Updated):
            told = self.workload.after_update(steps=self.settings.steps)
        if self._ema is not None:
            self._ema.update()
        return told

    def _seed(self, step: int, micro: int) -> None:
        """Point torch's global generators at this micro-step's place in the dropout stream.

        Not `torch.manual_seed`, which seeds every device's back end and costs 100 µs.
        """
        key = self._streams.key("dropout", step=step, micro=micro, rank=self.world.rank)
        torch.default_generator.manual_seed(key)
        if self.world.device.type == "cuda":
            torch.cuda.default_generators[self.world.device.index].manual_seed(key)

    def _look(self, event: Event, step: int, loss: Tensor | None = None, batch: Any = None) -> None:
        if not self.dispatcher.watches(event, step):
            return
        detached = None if loss is None else loss.detach()
        units = {self.workload.unit: self.workload.units_per_step}
        view = StepView(self.model, self.optimizer, step, detached, batch, self._fresh_loss, units)
        self._measured |= self.dispatcher.measure(event, view)

    def _fresh_loss(self, batch: Any) -> Tensor:
        with _own_buffers(self.model), autocast(self.settings.precision, self.world.device):
            loss: Tensor = self.workload.loss(batch)[0]
        return loss

    def _log(self, step: int, metrics: dict[str, Any]) -> None:
        if step % self.settings.log_every and step != self.settings.steps:
            # What a monitor measured is kept whatever `log_every` says. No more than that: the
            # loss is copied from the device here, and `progress` must not depend on monitors.
            if self._measured:
                self._recorder.log(self._measured, step=step)
            return
        metrics["loss"] = float(metrics["loss"])
        metrics["grad_norm/total"] = float(metrics["grad_norm/total"])
        metrics |= self._measured
        self.progress.loss, self.progress.logged_at = metrics["loss"], step
        self._recorder.log(metrics, step=step)
        self.dispatcher.tell(Event.STEP_END, {"step": step, **metrics})
        self._require_finite("the loss", metrics["loss"])

    def _require_finite(self, name: str, value: float) -> None:
        """Stop, unless told otherwise, before a broken model is saved over healthy ones."""
        if not math.isfinite(value) and self.settings.nonfinite == "stop":
            raise Diverged(
                f"{name} is {value} at step {self.progress.step}; try a lower learning rate "
                "(train.optimizer.lr), clipping (train.clip), or train.nonfinite=continue"
            )

    # ---- between steps -----------------------------------------------------------------------

    def _done(self) -> bool:
        stopped = self._stopping is not None and self._stopping.stopped
        return stopped or self.progress.step >= self.settings.steps

    def _between_steps(self) -> None:
        step = self.progress.step
        if self._room is not None and self.world.first:
            self._room.prepare(self.parts)  # once, now that the optimizer has its moments
        self._hear_of_checkpoints()
        if step % self.settings.evaluate_every == 0 or step == self.settings.steps:
            self._evaluate()
        due = self._checkpoint_every is not None and step % self._checkpoint_every == 0
        if due or self._is_best():
            self._require_finite("the loss", float(self._loss))  # it may not have been logged
            self._save(must=False)

    def _is_best(self) -> bool:
        """Whether the evaluation of this very step is the best so far, by the room's rule."""
        step, room = self.progress.step, self._room
        if room is None or self.progress.evaluated_at != step:
            return False
        best = self.world.first and room.is_best(step, self.progress.evaluation)
        return self.world.any(best)

    def _finish(self) -> None:
        if self._stopping is not None and self._stopping.stopped:
            self._recorder.event("stopped_early", step=self.progress.step)
            self._recorder.note(f"stopped early at step {self.progress.step}")
        self._save(must=True)

    def _evaluate(self) -> None:
        """Evaluate on the fixed set, every rank the whole of it, so that all ranks agree."""
        metrics = self._evaluated()
        if self._ema is not None:
            with self._ema.applied():
                metrics |= {f"{key}_ema": value for key, value in self._evaluated().items()}
        before = self.progress.best
        self.progress.evaluated(metrics, key=OBJECTIVE)
        if self._stopping is not None:
            self._stopping.update(metrics[OBJECTIVE])
        step = self.progress.step
        self._recorder.log(metrics, step=step)
        told = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        self._recorder.note(f"step {step}: {told}")
        self.dispatcher.tell(Event.EVAL_END, {"step": step, "best_before": before, **metrics})
        self._require_finite(OBJECTIVE, metrics[OBJECTIVE])

    @torch.no_grad()
    def _evaluated(self) -> dict[str, float]:
        self.model.eval()
        self.world.share_buffers(self.model)  # or ranks would disagree, and stop at other steps
        with autocast(self.settings.precision, self.world.device):
            return self.workload.evaluate()

    def _save(self, *, must: bool) -> None:
        """Take a checkpoint on rank 0, once a step, and go on; rank 0 writes it meanwhile.

        A failure in the middle of a run is recorded and told, and the next one may succeed. With
        `must` (at the end, or when asked to stop) no rank goes on before this step's checkpoint
        is on the disk, and a failure is raised.
        """
        step, room = self.progress.step, self._room
        if room is None or step == 0 or (step == self._saved_at and not must):
            return
        if must:
            self._hear_of_checkpoints(wait=True)
            if self.world.any(self.world.first and self._on_disk == step):
                return
        if self.world.any(self.world.first and self._write_checkpoint(room, must=must)):
            self._saved_at = step

    def _write_checkpoint(self, room: CheckpointRoom, *, must: bool) -> bool:
        """Whether it was taken; with `must` it is on the disk then, or a failure is raised."""
        step, progress = self.progress.step, self.progress
        metrics = progress.evaluation if progress.evaluated_at == step else {}
        if not must:
            taken = room.begin(step, self.parts, metrics=metrics)
            self._hear_of_checkpoints()
            return taken
        try:
            self._tell_saved(room.save(step, self.parts, metrics=metrics))
        except CheckpointError as error:
            record_news(self._recorder, Failed(step, error))
            raise
        return True

    def _hear_of_checkpoints(self, *, wait: bool = False) -> None:
        """Record and tell what became of those that were begun; with `wait`, of all."""
        if self._room is None or not self.world.first:
            return
        if wait:
            self._room.wait()
        unexpected: list[Exception] = []
        for news in self._room.news():
            if isinstance(news, Saved):
                self._tell_saved(news)
                continue
            record_news(self._recorder, news)
            match news:
                case Failed(error=CheckpointError() as error):
                    self.dispatcher.tell(Event.FAILURE, error)
                case Failed(error=error):  # Superseded, or a mistake of ours
                    unexpected.append(error)
        if unexpected:
            raise unexpected[0]

    def _tell_saved(self, saved: Saved) -> None:
        self._on_disk = saved.step
        record_news(self._recorder, saved)
        self.dispatcher.tell(Event.CHECKPOINT_SAVED, saved)


@contextmanager
def _own_buffers(model: nn.Module) -> Iterator[None]:
    """A context in which a forward pass has copies of the model's buffers to change.

    A batch norm moves its running means at every pass in training mode; a monitor's pass must not.
    They are replaced, and not set back afterwards: the graph of a loss may still refer to them.
    """
    own = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    for module, buffers in own:
        for name, buffer in buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers.update(buffers)


def _to(batch: Any, device: torch.device) -> Any:
    """The batch on the device; tuples, lists and dicts of tensors are followed."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple | list):
        moved = [_to(item, device) for item in batch]
        return moved if isinstance(batch, list) else tuple(moved)
    if isinstance(batch, dict):
        return {key: _to(value, device) for key, value in batch.items()}
    return batch
