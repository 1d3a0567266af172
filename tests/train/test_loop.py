"""The loop's promises: what a step is, what happens between steps, and what stops it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.stop import StopRequest
from cupel.errors import CheckpointError, Diverged, TrainingFailed, UsageError
from cupel.events import Dispatcher, Event, StepView
from cupel.randomness import Streams
from cupel.train.loop import Loop, Outcome
from cupel.train.parallel import World
from cupel.train.settings import TrainSettings
from fakes import Regression, RegressionSettings

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


class Memory:
    """A recorder that keeps everything."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.notes: list[str] = []

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None:
        self.rows.setdefault(step, {}).update(metrics)

    def event(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields))

    def note(self, line: str) -> None:
        self.notes.append(line)

    def column(self, key: str) -> dict[int, float]:
        return {step: row[key] for step, row in self.rows.items() if key in row}

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for found, fields in self.events if found == name]


class Look:
    """A monitor from a function."""

    def __init__(self, on: Event, function: Any, *, every: int = 1, keys: Iterable[str] = ()):
        self.on, self.every = on, every
        self._function, self._keys = function, list(keys)

    def keys(self, model: Any) -> Iterable[str]:
        return self._keys

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._function(view) or {}
        return found


class Room(CheckpointRoom):
    """A checkpoint room that writes at once, and whose disk is full at some steps."""

    full_at: Iterable[int] = ()

    def save(self, step: int, *given: Any, **named: Any) -> Any:
        if step in self.full_at:
            raise CheckpointError(f"the disk is full at step {step}")
        return super().save(step, *given, **named)


def make(
    *,
    workload: Any = None,
    seed: int = 1,
    dropout: float = 0.0,
    room: CheckpointRoom | None = None,
    dispatcher: Dispatcher | None = None,
    checkpoint_every: int | None = None,
    **train: Any,
) -> tuple[Loop, Memory]:
    """A loop over the small regression, twelve steps unless told otherwise, and its record."""
    chosen = {"steps": 12, "evaluate_every": 4, "device": "cpu", **train}
    memory = Memory()
    loop = Loop(
        workload or Regression.build(RegressionSettings(dropout=dropout), seed=seed),
        TrainSettings.model_validate(chosen),
        seed=seed,
        room=room,
        recorder=memory,
        dispatcher=dispatcher or Dispatcher(debug=True),
        world=ALONE,
        checkpoint_every=checkpoint_every,
    )
    return loop, memory


def run(loop: Loop) -> Outcome:
    with StopRequest() as stop:
        return loop.run(stop)


def weights(loop: Loop) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in loop.model.parameters()]


def room(path: Path, *, full_at: Iterable[int] = ()) -> CheckpointRoom:
    made = Room(path, settings=CheckpointSettings(best=None, background=False))
    made.full_at = full_at
    return made


# ---- what a step is ----------------------------------------------------------------------------


def test_the_loop_is_the_plain_loop() -> None:
    """Against the loop that everybody would write, bit for bit."""
    loop, memory = make(
        dropout=0.3,
        optimizer={"kind": "sgd", "lr": 0.1},
        schedule={"kind": "constant"},
        clip=0.5,
    )
    run(loop)
    plain = Regression.build(RegressionSettings(dropout=0.3), seed=1)
    groups = [[p for p in plain.model.parameters() if p.dim() == n] for n in (2, 1)]
    optimizer = torch.optim.SGD([{"params": g} for g in groups], lr=0.1, momentum=0.9)
    for step in range(1, 13):
        torch.manual_seed(Streams(1).key("dropout", step=step))
        optimizer.zero_grad()
        loss, _ = plain.loss(plain.batch(step))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 0.5)
        optimizer.step()
        row = memory.rows[step]
        assert (row["loss"], row["grad_norm/total"]) == (float(loss.detach()), float(norm))
        assert row["lr"] == 0.1
    assert all(map(torch.equal, weights(loop), plain.model.parameters()))


class Shrinking(Regression):
    """After each update its first bias shrinks, and it tells by how much and of how many."""

    def after_update(self, *, steps: int) -> Mapping[str, Any]:
        bias = next(p for p in self.model.parameters() if p.dim() == 1)
        with torch.no_grad():
            bias.mul_(0.5)
        return {"bias/norm": bias.detach().norm(), "bias/steps": steps}


def test_what_a_workload_changes_after_an_update_is_logged_and_averaged() -> None:
    workload = Shrinking.build(RegressionSettings(), seed=1)
    loop, memory = make(workload=workload, ema=0.0)
    run(loop)
    bias = next(p for p in workload.model.parameters() if p.dim() == 1)
    assert float(memory.rows[12]["bias/norm"]) == float(bias.detach().norm())
    assert set(memory.column("bias/steps").values()) == {12}
    # With a decay of 0 the average is the last weights, so it was taken after the change.
    (average,) = (
        tensor
        for name, tensor in loop.parts.state()["ema"]["average"].items()
        if name.endswith("0.bias")
    )
    assert torch.equal(average, bias)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_accumulation_does_not_change_the_step(kind: str) -> None:
    """Equal to 1e-6 and not to the bit: a mean of four means adds in another order than one."""
    optimizer = {"kind": kind, "lr": 1e-2}
    (one, here), (four, there) = make(optimizer=optimizer), make(optimizer=optimizer, accumulate=4)
    run(one)
    run(four)
    for a, b in zip(weights(one), weights(four), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    for step in here.rows:
        assert there.rows[step]["loss"] == pytest.approx(here.rows[step]["loss"], abs=1e-6)


def test_every_micro_step_draws_from_a_place_of_its_own() -> None:
    """A function of seed, step and micro-step, whatever was drawn before."""
    drawn: list[Tensor] = []

    class Drawing(Regression):
        def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
            drawn.append(torch.rand(4))
            return super().loss(batch)

    workload = Drawing.build(RegressionSettings(), seed=1)
    run(make(workload=workload, steps=3, accumulate=2, evaluate_every=3)[0])
    for step in (1, 2, 3):
        for micro in (0, 1):
            key = Streams(1).key("dropout", step=step, micro=micro)
            expected = torch.rand(4, generator=torch.Generator().manual_seed(key))
            assert torch.equal(drawn.pop(0), expected), (step, micro)
    assert len(drawn) == 1, "the evaluation's"


def test_clipping_limits_the_step_and_not_what_is_logged() -> None:
    norms: list[float] = []
    dispatcher = Dispatcher(debug=True)

    def look(view: StepView) -> None:
        grads = [p.grad for p in view.model.parameters()]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    dispatcher.add_monitor("after", Look(Event.STEP_END, look))
    loop, memory = make(clip=1e-3, dispatcher=dispatcher)
    run(loop)
    assert all(value > 1e-3 for value in memory.column("grad_norm/total").values())
    assert norms == pytest.approx([1e-3] * 12, rel=1e-3)


def test_without_a_limit_gradients_keep_their_bits() -> None:
    seen: dict[Event, list[Tensor]] = {}

    def keep(view: StepView, event: Event) -> None:
        seen[event] = [p.grad.clone() for p in view.model.parameters()]

    dispatcher = Dispatcher(debug=True)
    for event in (Event.AFTER_BACKWARD, Event.STEP_END):
        look = Look(event, lambda view, event=event: keep(view, event))
        dispatcher.add_monitor(str(event), look)
    loop, memory = make(clip=None, dispatcher=dispatcher, steps=1)
    run(loop)
    assert all(map(torch.equal, seen[Event.AFTER_BACKWARD], seen[Event.STEP_END]))
    assert memory.rows[1]["grad_norm/total"] > 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_and_keeps_the_parameters_whole(precision: str, fused: bool) -> None:
    optimizer = {"kind": "adamw", "lr": 1e-2, "fused": fused}
    loop, memory = make(precision=precision, optimizer=optimizer)
    exact, expected = make(optimizer=optimizer)
    run(loop)
    run(exact)
    # bfloat16 keeps three digits of a product; fp16 skips an update or two until its scale fits.
    assert list(memory.column("loss").values()) == pytest.approx(
        list(expected.column("loss").values()), rel=0.1
    )
    assert memory.column("loss") != expected.column("loss")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in weights(loop))
    assert ("scaler" in loop.parts.names) == (precision == "fp16")


# ---- observers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_evaluations_do_not_change_what_follows(dropout: float) -> None:
    """With dropout too, whose draws do not depend on what was drawn before."""
    (often, here), (seldom, there) = (
        make(dropout=dropout, evaluate_every=every, ema=0.9) for every in (1, 12)
    )
    run(often)
    run(seldom)
    assert here.column("loss") == there.column("loss")
    assert all(map(torch.equal, weights(often), weights(seldom)))


def test_a_monitor_that_draws_and_takes_losses_does_not_change_what_follows() -> None:
    def look(view: StepView) -> Mapping[str, Any]:
        torch.rand(3)
        return {} if view.batch is None else {"again": view.loss_fn(view.batch).detach()}

    dispatcher = Dispatcher(debug=True)
    for event in (Event.STEP_START, Event.AFTER_FORWARD, Event.AFTER_BACKWARD, Event.STEP_END):
        dispatcher.add_monitor(str(event), Look(event, look))
    (watched, here), (alone, there) = make(dropout=0.3, dispatcher=dispatcher), make(dropout=0.3)
    run(watched)
    run(alone)
    assert here.column("loss") == there.column("loss")
    assert here.column("again").keys() == here.column("loss").keys()
    assert watched.parts.hashes() == alone.parts.hashes()


def test_what_monitors_measure_is_recorded_at_whichever_event_and_step() -> None:
    """Also at the step's start, and in steps that `log_every` leaves out."""
    events = (Event.STEP_START, Event.AFTER_FORWARD, Event.AFTER_BACKWARD, Event.STEP_END)
    dispatcher = Dispatcher(debug=True)
    for event in events:
        look = Look(event, lambda view, event=event: {event: view.step}, every=3, keys=[event])
        dispatcher.add_monitor(str(event), look)
    loop, memory = make(dispatcher=dispatcher, log_every=5, evaluate_every=12)
    run(loop)
    for event in events:
        assert memory.column(event) == {3: 3, 6: 6, 9: 9, 12: 12}
    assert list(memory.column("loss")) == [5, 10, 12]


def test_what_is_saved_does_not_depend_on_monitors() -> None:
    """Also at a step that is not logged, where only what monitors measured is written."""

    def hashes(*names: str) -> dict[int, dict[str, str]]:
        found = {}
        dispatcher = Dispatcher(debug=True)
        for name in names:
            look = Look(Event.STEP_END, lambda view: {"x": 1}, keys=["x"])
            dispatcher.add_monitor(name, look)
        loop, _ = make(dispatcher=dispatcher, log_every=5)

        def listen(event: Event, payload: Any) -> None:
            found[payload["step"]] = loop.parts.hashes()

        dispatcher.add_listener("hashes", listen, [Event.EVAL_END])
        run(loop)
        return found

    assert hashes("each") == hashes()
    assert list(hashes()) == [4, 8, 12]


def test_a_view_shows_the_step() -> None:
    views: list[StepView] = []
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_monitor("view", Look(Event.STEP_END, lambda view: views.append(view)))
    early: list[StepView] = []
    dispatcher.add_monitor("early", Look(Event.AFTER_FORWARD, lambda view: early.append(view)))
    loop, memory = make(dispatcher=dispatcher, accumulate=2)
    run(loop)
    assert [view.step for view in views] == list(range(1, 13))
    assert [float(view.loss) for view in views] == list(memory.column("loss").values())
    assert not any(view.loss.requires_grad for view in (*views, *early))
    assert views[0].units == {"rows": 8}
    assert torch.equal(views[2].batch, loop.workload.batch(3, part=(1, 2)))


def failing(*given: Any) -> Any:
    raise ZeroDivisionError("observer")


@pytest.mark.parametrize("what", ["monitor", "listener"])
def test_a_failing_observer_is_told_and_training_goes_on(what: str) -> None:
    told: list[tuple[str, Exception]] = []
    dispatcher = Dispatcher(on_problem=lambda name, error: told.append((name, error)))
    observe(dispatcher, what)
    loop, memory = make(dispatcher=dispatcher)
    assert run(loop).status == "finished"
    assert len(memory.column("loss")) == 12
    assert len(told) == 12
    assert {(name, type(error)) for name, error in told} == {("bad", ZeroDivisionError)}


@pytest.mark.parametrize("what", ["monitor", "listener"])
def test_a_failing_observer_stops_a_debugged_run(what: str) -> None:
    dispatcher = Dispatcher(debug=True)
    observe(dispatcher, what)
    with pytest.raises(ZeroDivisionError, match="observer"):
        run(make(dispatcher=dispatcher)[0])


def observe(dispatcher: Dispatcher, what: str) -> None:
    if what == "monitor":
        dispatcher.add_monitor("bad", Look(Event.STEP_END, failing))
    else:
        dispatcher.add_listener("bad", failing, [Event.STEP_END])


@pytest.mark.parametrize("key", ["loss", "lr", "grad_norm/total", "val_loss", "val_loss_ema"])
def test_a_key_that_the_loop_writes_is_refused_to_monitors_before_the_first_step(key: str) -> None:
    dispatcher = Dispatcher()
    dispatcher.add_monitor("mine", Look(Event.STEP_END, failing, keys=[key]))
    with pytest.raises(UsageError, match=f"'{key}'.*the training loop.*'mine'"):
        make(dispatcher=dispatcher)


def test_two_monitors_with_one_key_are_refused_before_the_first_step() -> None:
    dispatcher = Dispatcher()
    for name in ("one", "two"):
        dispatcher.add_monitor(name, Look(Event.STEP_END, failing, keys=["x"]))
    with pytest.raises(UsageError, match=r"'x'.*'one'.*'two'"):
        make(dispatcher=dispatcher)


# ---- what stops it -----------------------------------------------------------------------------


def test_early_stopping_stops_and_is_recorded(tmp_path: Path) -> None:
    loop, memory = make(
        stopping={"patience": 2, "min_delta": 100.0}, evaluate_every=2, room=room(tmp_path)
    )
    outcome = run(loop)
    # The first evaluation is better than nothing; the two after it improve by less than 100.
    assert (outcome.status, outcome.step) == ("finished", 6)
    assert max(memory.rows) == 6
    assert memory.named("stopped_early") == [{"step": 6}]
    assert memory.notes[-1] == "stopped early at step 6"
    again, _ = make(stopping={"patience": 2, "min_delta": 100.0}, room=room(tmp_path))
    restored = again.restore()
    assert restored is not None
    assert restored.step == 6
    assert run(again).step == 6


class Exploding(Regression):
    """Its loss is NaN at step 5."""

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        return super().batch(step, part=part) * (math.nan if step == 5 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_recorded_first() -> None:
    told: list[Any] = []
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_listener("told", lambda event, error: told.append(error), [Event.FAILURE])
    workload = Exploding.build(RegressionSettings(), seed=1)
    loop, memory = make(workload=workload, dispatcher=dispatcher)
    with pytest.raises(TrainingFailed, match=r"the loss is nan at step 5; try .*nonfinite=cont"):
        run(loop)
    assert math.isnan(memory.rows[5]["loss"])
    assert max(memory.rows) == 5
    assert [type(error) for error in told] == [Diverged]


def test_or_it_goes_on_when_it_was_asked_to() -> None:
    workload = Exploding.build(RegressionSettings(), seed=1)
    loop, memory = make(workload=workload, nonfinite="continue")
    assert run(loop).step == 12
    assert math.isnan(memory.rows[12]["loss"])
    assert loop.progress.best_step == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_it_after_the_step_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    def look(view: StepView) -> None:
        if view.step == 5:
            os.kill(os.getpid(), number)

    dispatcher = Dispatcher(debug=True)
    dispatcher.add_monitor("kill", Look(Event.AFTER_BACKWARD, look))
    loop, memory = make(dispatcher=dispatcher, room=room(tmp_path), checkpoint_every=5)
    outcome = run(loop)
    assert (outcome.status, outcome.step, outcome.signal) == ("interrupted", 5, number.name)
    assert [fields["step"] for fields in memory.named("checkpoint_saved")] == [5]
    again, _ = make(room=room(tmp_path))
    again.restore()
    assert run(again).status == "finished"
    undisturbed, _ = make()
    run(undisturbed)
    assert again.parts.hashes() == undisturbed.parts.hashes()


# ---- checkpoints -------------------------------------------------------------------------------


def test_a_checkpoint_that_fails_in_the_middle_is_told_and_training_goes_on(tmp_path: Path) -> None:
    """Mutation: the loop does not record it.

        -        self._recorder.event("checkpoint_failed", step=step, reason=str(error))

    Then `assert [] == [{'step': 4, 'reason': 'the disk is full at step 4'}]`.
    """
    told: list[Any] = []
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_listener("told", lambda event, error: told.append(error), [Event.FAILURE])
    loop, memory = make(room=room(tmp_path, full_at=[4]), checkpoint_every=4, dispatcher=dispatcher)
    assert run(loop).status == "finished"
    assert memory.named("checkpoint_failed") == [
        {"step": 4, "reason": "the disk is full at step 4"}
    ]
    assert [fields["step"] for fields in memory.named("checkpoint_saved")] == [8, 12]
    assert [str(error) for error in told] == ["the disk is full at step 4"]
    assert "checkpoint at step 4 FAILED: the disk is full at step 4" in memory.notes


@pytest.mark.parametrize("every", [4, 5], ids=["due at the end", "not due at the end"])
def test_a_checkpoint_that_fails_at_the_end_fails_the_run(tmp_path: Path, every: int) -> None:
    """Also when the last step's regular checkpoint has failed just before."""
    loop, memory = make(room=room(tmp_path, full_at=[12]), checkpoint_every=every)
    with pytest.raises(CheckpointError, match="full at step 12"):
        run(loop)
    assert memory.named("checkpoint_failed")[-1]["step"] == 12


def test_an_interrupted_run_whose_checkpoint_fails_says_so(tmp_path: Path) -> None:
    dispatcher = Dispatcher(debug=True)
    kill = Look(Event.STEP_END, lambda view: os.kill(os.getpid(), signal.SIGTERM), every=4)
    dispatcher.add_monitor("kill", kill)
    loop, _ = make(room=room(tmp_path, full_at=[4]), checkpoint_every=4, dispatcher=dispatcher)
    with pytest.raises(CheckpointError, match="full at step 4"):
        run(loop)


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    told: list[Any] = []
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_listener("told", lambda event, error: told.append(error), [Event.FAILURE])
    loop, _ = make(room=room(tmp_path, full_at=[12]), dispatcher=dispatcher)
    with pytest.raises(CheckpointError):
        run(loop)
    assert len(told) == 1


def test_each_step_is_saved_once_and_the_last_one_always(tmp_path: Path) -> None:
    for every, expected in ((4, [4, 8, 12]), (5, [5, 10, 12]), (None, [12])):
        loop, memory = make(room=room(tmp_path / str(every)), checkpoint_every=every)
        run(loop)
        assert [fields["step"] for fields in memory.named("checkpoint_saved")] == expected


def test_a_checkpoint_carries_the_metrics_of_its_own_step_only(tmp_path: Path) -> None:
    loop, _ = make(room=room(tmp_path), checkpoint_every=3, evaluate_every=2, steps=6)
    run(loop)
    for step, keys in ((3, set()), (6, {"val_loss"})):
        restored = room(tmp_path).restore(make()[0].parts, step=step)
        assert restored is not None
        assert restored.metrics.keys() == keys


class Counting(Regression):
    """A workload with a part of its own: how many rows it has been trained on."""

    class Count:
        def __init__(self) -> None:
            self.rows = 0

        def state_dict(self) -> dict[str, int]:
            return {"rows": self.rows}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.rows = state["rows"]

    def __init__(self, settings: RegressionSettings, *, model: nn.Module, seed: int) -> None:
        super().__init__(settings, model=model, seed=seed)
        self.count = self.Count()

    def stateful(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        self.count.rows += len(batch) if self.model.training else 0
        return super().loss(batch)


EVERYTHING: dict[str, Any] = {
    "ema": 0.9,
    "precision": "fp16",
    "stopping": {"patience": 100},
    "accumulate": 2,
}


def test_every_stateful_part_is_registered() -> None:
    loop, _ = make(workload=Counting.build(RegressionSettings(), seed=1), **EVERYTHING)
    expected = ["model", "optimizer", "schedule", "scaler", "ema", "stopping", "progress", "count"]
    assert loop.parts.names == expected


@pytest.mark.parametrize("at", [1, 3, 4, 6, 11])
@pytest.mark.slow
def test_a_loop_restored_at_any_step_goes_on_with_equal_bits(tmp_path: Path, at: int) -> None:
    def counting(folder: str) -> tuple[Loop, Memory]:
        workload = Counting.build(RegressionSettings(dropout=0.3), seed=1)
        place = room(tmp_path / folder)
        return make(workload=workload, room=place, checkpoint_every=at, **EVERYTHING)

    whole, expected = counting("whole")
    run(whole)
    stopped, _ = counting("stopped")
    while stopped.progress.step < at:  # a kill: nothing runs after the checkpoint
        stopped._step()
        stopped._between_steps()
    resumed, found = counting("stopped")
    restored = resumed.restore()
    assert restored is not None
    assert restored.step == at
    run(resumed)
    assert found.rows == {step: row for step, row in expected.rows.items() if step > at}
    assert resumed.parts.hashes() == whole.parts.hashes()


def test_a_part_that_a_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    run(make(room=room(tmp_path))[0])
    with pytest.raises(CheckpointError, match="has no 'ema', which this run registers"):
        make(room=room(tmp_path), ema=0.9)[0].restore()


# ---- order -------------------------------------------------------------------------------------


def test_events_come_in_their_order(tmp_path: Path) -> None:
    heard: list[str] = []
    dispatcher = Dispatcher(debug=True)
    dispatcher.add_listener("all", lambda event, payload: heard.append(event), Event)
    for event in (Event.AFTER_FORWARD, Event.AFTER_BACKWARD):
        look = Look(event, lambda view, event=event: heard.append(event))
        dispatcher.add_monitor(str(event), look)
    loop, _ = make(
        dispatcher=dispatcher, room=room(tmp_path), steps=4, evaluate_every=2, checkpoint_every=2
    )
    loop.restore()
    run(loop)
    step = ["step_start", "after_forward", "after_backward", "step_end"]
    two = [*step, *step, "eval_end", "checkpoint_saved"]
    assert heard == ["run_start", *two, *two, "run_end"]
    heard.clear()
    again, _ = make(dispatcher=dispatcher, room=room(tmp_path), steps=6, evaluate_every=6)
    again.restore()
    run(again)
    assert heard == [
        *("resumed", "run_start", *step, *step, "eval_end", "checkpoint_saved", "run_end")
    ]


def test_an_evaluation_shows_the_averaged_weights_too() -> None:
    loop, memory = make(ema=0.5, optimizer={"kind": "sgd", "lr": 0.1})
    run(loop)
    assert list(memory.column("val_loss_ema")) == [4, 8, 12]
    assert memory.rows[12]["val_loss_ema"] != memory.rows[12]["val_loss"]
    assert loop.progress.best == min(memory.column("val_loss").values())


def test_a_monitors_own_pass_moves_no_running_mean() -> None:
    """A batch norm in training mode changes its buffers at every pass, a monitor's too."""

    def normed() -> Any:
        workload = Regression.build(RegressionSettings(batch=8), seed=1)
        workload.model.insert(1, nn.BatchNorm1d(16))
        return workload

    def look(view: StepView) -> dict[str, float]:
        assert view.loss_fn is not None
        loss = view.loss_fn(view.batch)
        torch.autograd.grad(loss, list(view.model.parameters()))  # the graph is whole
        return {"again": float(loss.detach())}

    hashes = []
    for looks in (False, True):
        dispatcher = Dispatcher(debug=True)
        if looks:
            dispatcher.add_monitor("look", Look(Event.STEP_END, look, keys=["again"]))
        loop, memory = make(workload=normed(), dispatcher=dispatcher)
        loop.run(StopRequest())
        hashes.append(loop.parts.hashes())
        assert bool(memory.column("again")) is looks
    assert hashes[0] == hashes[1]
