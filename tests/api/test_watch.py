"""`Run.watch`: monitors look at a loop of one's own through the optimizer's hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import cupel
from cupel.errors import UnknownName, UsageError
from cupel.events import Event, StepView
from cupel.record.reader import RunRecord

Init = Callable[..., cupel.Run]


class Mine:
    """A monitor of one's own: returns the step under one key."""

    def __init__(self, key: str = "mine", *, on: Event = Event.STEP_END, every: int = 1) -> None:
        self.key, self.on, self.every = key, on, every

    def keys(self, model: Any) -> list[str]:
        return [self.key]

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        return {self.key: view.step}


class Complete(Mine):
    """Has all that the protocol names already as a class."""

    on, every = Event.STEP_END, 1


@pytest.fixture
def model() -> nn.Module:
    torch.default_generator.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    loss: torch.Tensor = model(torch.ones(2, 3)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def media(run: cupel.Run) -> list[dict[str, Any]]:
    return [event for event in RunRecord(run.dir).events() if event["_event"] == "media"]


def parts(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(model.named_parameters())


def measured(run: cupel.Run, key: str) -> list[tuple[int, Any]]:
    return [(row["_step"], row[key]) for row in RunRecord(run.dir).history([key])]


@pytest.mark.slow
def test_built_in_monitors_measure_at_their_steps(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    chosen = {"norms": {"every": 2, "total": True}, "throughput": {"every": 2}}
    with init() as run:
        run.watch(model, optimizer, monitors=chosen, units={"images": 2})
        norms = []
        for _ in range(6):
            loss = update(model, optimizer)
            norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters()])))
            run.log({"loss": loss})
    found = measured(run, "grad_norm/total")
    assert [step for step, _ in found] == [2, 4]
    assert [norm for _, norm in found] == pytest.approx(norms[2::2])  # steps count from 0
    assert [step for step, _ in measured(run, "perf/images_per_s")] == [4]
    results = RunRecord(run.dir).results
    assert results is not None
    assert results["monitors"]["norms"]["calls"] == 2
    assert results["final"].keys() > {"loss", "grad_norm/total", "perf/images_per_s"}
    assert (run.dir / "model.json").is_file()


@pytest.mark.slow
def test_a_monitor_sees_gradients_before_and_weights_after_the_update(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    seen: dict[str, tuple[torch.Tensor, bool]] = {}

    class Looks(Mine):
        def __call__(self, view: StepView) -> Mapping[str, Any]:
            weight = view.model[0].weight
            seen[self.key] = weight.detach().clone(), weight.grad is not None
            return {self.key: 1}

    before = model[0].weight.detach().clone()
    with init() as run:
        run.watch(
            model,
            optimizer,
            monitors={"a": Looks("before", on=Event.AFTER_BACKWARD), "b": Looks("after")},
        )
        update(model, optimizer)
    assert torch.equal(seen["before"][0], before)
    assert torch.equal(seen["after"][0], model[0].weight)
    assert not torch.equal(model[0].weight, before)
    assert seen["before"][1]
    assert seen["after"][1]


@pytest.mark.slow
def test_outside_of_steps_every_update_counts_also_when_few_are_logged(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with init() as run:
        run.watch(model, optimizer, monitors={"mine": Mine(every=2)})
        for step in range(1, 11):
            loss = update(model, optimizer)
            if step % 5 == 0:
                run.log({"loss": loss}, step=step)
    assert measured(run, "mine") == [(step, step) for step in (2, 4, 6, 8, 10)]


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.slow
def test_what_was_measured_before_the_first_line_goes_to_its_step(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer, first: int
) -> None:
    """Only the first line tells whether steps count from 0 or from 1."""
    with init() as run:
        run.watch(model, optimizer, monitors={"mine": Mine()})
        for step in range(first, first + 3):
            loss = update(model, optimizer)
            run.log({"loss": loss}, step=step)
    with init(name="m") as counted:
        counted.watch(model, optimizer, monitors={"mine": Mine()})
        for _ in range(3):
            counted.log({"lr": 0.1}, commit=False)
            counted.log({"loss": update(model, optimizer)})
    assert [step for step, _ in measured(run, "mine")] == [first, first + 1, first + 2]
    assert [step for step, _ in measured(counted, "mine")] == [0, 1, 2]


def test_without_an_optimizer_histograms_go_to_the_step_of_the_next_line(
    init: Init, model: nn.Module
) -> None:
    """What wandb's watch(model) does; gradients are those of the pass before the line."""
    with init() as run:
        run.watch(model, nn.functional.mse_loss, log="all", log_freq=2)
        for _ in range(5):
            model.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            run.log({"loss": 0.0})
        before = len(media(run))
        model(torch.ones(2, 3)).square().mean().backward()  # the sixth: belongs to the next line
        assert len(media(run)) == before
    found = media(run)
    names = {f"{kind}/{name}" for kind in ("gradients", "parameters") for name, _ in parts(model)}
    for step in (1, 3, 5):
        assert {event["key"] for event in found if event["step"] == step} == names
    assert {event["step"] for event in found} == {1, 3, 5}
    one = json.loads((run.dir / found[0]["path"]).read_text())
    assert sum(one["counts"]) == dict(parts(model))[found[0]["key"].split("/")[1]].numel()
    assert (run.dir / "model.json").is_file()


def test_unwatch_and_the_end_of_the_run_take_all_hooks_away(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with init() as run:
        run.watch([model], log_freq=1)
        run.watch(model, optimizer, monitors={"mine": Mine()})
        run.unwatch()
        update(model, optimizer)
        run.log({"loss": 0.0})
    assert media(run) == []
    assert measured(run, "mine") == []


def test_a_histogram_that_cannot_be_made_stops_no_backward_pass(
    init: Init, model: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        run.watch(model, log_freq=1)
        with torch.no_grad():
            model[0].weight.fill_(torch.inf)
        model(torch.ones(2, 3)).square().mean().backward()
        run.log({"loss": 0.0})
    found = {event["key"]: event for event in media(run)}
    whole = json.loads((run.dir / found["gradients/0.weight"]["path"]).read_text())
    assert whole["not_finite"] + sum(whole["counts"]) == 12


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"log": "everything"}, r"watch\(log='everything'\) is not one of 'gradients', 'par"),
        ({"log_freq": 0}, r"watch\(log_freq=0\): it must be a whole number, 1 or more"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    init: Init, model: nn.Module, wrong: dict[str, Any], told: str
) -> None:
    with init() as run, pytest.raises(UsageError, match=told):
        run.watch(model, **wrong)


def test_inside_of_steps_the_step_is_the_one_being_made(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    run = init()
    run.watch(model, optimizer, monitors={"mine": Mine()})
    run.register(model=model)
    for _ in run.steps(3):
        run.log({"val_loss": 0.0}, step=1000)
        update(model, optimizer)
    run.finish("interrupted")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with init(resume="auto") as resumed:
        resumed.watch(model, optimizer, monitors={"mine": Mine()})
        resumed.register(model=model)
        for _ in resumed.steps(5):
            update(model, optimizer)
            resumed.log({"loss": 0.0})
        update(model, optimizer)  # outside again: one more than the last
    assert measured(run, "mine") == [(step, step) for step in range(1, 7)]


def test_a_failing_monitor_is_told_once_and_training_goes_on(
    init: Init,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Fails(Mine):
        def __call__(self, view: StepView) -> Mapping[str, Any]:
            raise RuntimeError("no such layer")

    with init() as run:
        run.watch(model, optimizer, monitors={"fails": Fails(), "mine": Mine("other")})
        for _ in range(3):
            run.log({"loss": update(model, optimizer)})
    told = capsys.readouterr().err
    assert told.count("cupel: fails: RuntimeError: no such layer (told once") == 1
    assert [step for step, _ in measured(run, "other")] == [0, 1, 2]
    results = RunRecord(run.dir).results
    assert results is not None
    assert results["monitors"]["fails"]["failures"] == 3


def test_the_variable_leaves_all_monitors_out(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPEL_MONITORS", "off")
    with init() as run:
        run.watch(model, optimizer, monitors={"mine": Mine()})
        update(model, optimizer)
        run.log({"loss": 0.0})
    assert measured(run, "mine") == []
    assert measured(run, "loss") == [(0, 0.0)]


@pytest.mark.parametrize(
    "monitors,told",
    [
        ({"a": Mine("x"), "b": Mine("x")}, "'x' would be written twice, by monitor 'a' and"),
        ({"norms": {"every": 0}}, "norms.every: 0 is out of range; it must be 1 or more"),
        ({"norms": {"evry": 5}}, "norms.evry: no such setting; did you mean 'every'?"),
        ({"a": Complete}, r"monitor 'a': expected settings as a dict, or an object with on, every"),
        ({"a": 3}, "monitor 'a': expected settings .* got 3"),
        ({"a": Mine(on=Event.STEP_START)}, "looks at step_start, .* can serve: after_backward, "),
        ({"norm": {}}, "no monitor is called 'norm'; did you mean 'norms'"),
    ],
)
def test_monitors_that_cannot_serve_are_refused_in_one_line(
    init: Init,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    monitors: dict[str, Any],
    told: str,
) -> None:
    with init() as run, pytest.raises(UsageError, match=told) as raised:
        run.watch(model, optimizer, monitors=monitors)
    assert len(str(raised.value).splitlines()) == 1
    assert isinstance(raised.value, UnknownName) == ("norm" in monitors)
    assert not (run.dir / "model.json").exists()


def test_swapped_or_wrong_arguments_are_told_apart(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with init() as run:
        with pytest.raises(UsageError, match="module as its first argument, not a SGD"):
            run.watch(optimizer, model)
        with pytest.raises(
            UsageError, match=r"takes the torch optimizer \(or a loss .* not a dict"
        ):
            run.watch(model, {})
        with pytest.raises(UsageError, match="module as its first argument, not a SGD"):
            run.watch(optimizer, optimizer)
        run.watch(model, optimizer)
        with pytest.raises(UsageError, match=r"watches an optimizer already; call watch\(\) once"):
            run.watch(model, optimizer)


def test_the_end_of_the_run_takes_the_hooks_away(
    init: Init,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with init() as first:
        first.watch(model, optimizer, monitors={"mine": Mine()})
        update(model, optimizer)
    with init() as second:
        second.watch(model, optimizer, monitors={"mine": Mine()})
        update(model, optimizer)
    assert measured(first, "mine") == measured(second, "mine") == [(1, 1)]
    assert capsys.readouterr().err == ""


def calls(run: cupel.Run) -> Any:
    return json.loads((run.dir / "model.json").read_text()).get("calls")


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_calls_of_the_first_step_are_written_when_the_optimizer_has_made_it(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with init() as run:
        run.watch(model, optimizer)
        assert calls(run) is None
        for step in run.steps(3):
            update(model, optimizer)
            assert calls(run)["step"] == 1
            assert not hooks_of(model)
            run.log({"loss": step})
    told = calls(run)
    assert told["complete"]
    assert [*told["modules"]] == ["", "0", "1", "2"]
    assert told["modules"]["0"]["in"] == [{"shape": [2, 3], "dtype": "float32"}]


def test_without_an_optimizer_the_next_line_writes_the_calls(init: Init, model: nn.Module) -> None:
    with init() as run:
        run.watch(model)
        run.log({"before": 1})
        with torch.no_grad():
            model(torch.ones(5, 3))
        run.log({"evaluated": 1})
        assert calls(run) is None
        model(torch.ones(2, 3)).sum().backward()
        run.log({"loss": 1})
        assert calls(run)["modules"]["2"]["out"] == [{"shape": [2, 1], "dtype": "float32"}]
        assert calls(run)["step"] == 2


def test_a_model_that_is_watched_twice_is_described_once(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with init() as run:
        run.watch(model, log_freq=2)
        update(model, optimizer)
        run.log({"loss": 1})
        run.watch(model, optimizer)
        assert calls(run)["complete"]
        update(model, optimizer)
    assert calls(run)["complete"]


def test_another_model_takes_the_place_of_the_first_and_its_hooks_go(
    init: Init, model: nn.Module
) -> None:
    other = nn.Sequential(nn.Linear(3, 3))
    with init() as run:
        run.watch(model)
        run.watch(other)
        assert not hooks_of(model)
        other(torch.ones(1, 3))
    assert [*calls(run)["modules"]] == ["", "0"]


def test_a_run_without_training_says_so_at_its_end_and_leaves_no_hook(
    init: Init, model: nn.Module
) -> None:
    with init() as run:
        run.watch(model)
        model.eval()(torch.ones(2, 3))
    assert calls(run)["reason"] == "no pass in training mode was seen"
    assert not hooks_of(model)


def test_a_resumed_run_keeps_the_calls_of_its_first_session(
    init: Init, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    for resume in ("never", "must"):
        run = init(id="again", resume=resume)
        run.watch(model, optimizer)
        if resume == "must":
            assert calls(run)["complete"]
        update(model, optimizer)
        run.log({"loss": 1})
        run.finish("interrupted")
    assert calls(run)["modules"]["0"]["calls"] == 1


def test_weights_are_the_same_watched_or_not(init: Init) -> None:
    def weights(watched: bool) -> list[torch.Tensor]:
        torch.default_generator.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters())
        with init() as run:
            if watched:
                run.watch(model, optimizer)
            for _ in range(3):
                update(model, optimizer)
        return [*(p.detach() for p in model.parameters()), torch.get_rng_state()]

    assert all(map(torch.equal, weights(True), weights(False)))
