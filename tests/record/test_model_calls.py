"""What a training pass is seen to do, and that seeing it changes nothing and keeps nothing."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.resnet.model import ResNet
from cupel.models.resnet.settings import ResNetModelSettings
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings
from cupel.record import layout
from cupel.record.calls import trace
from cupel.record.described import ModelFile
from cupel.record.files import read_json
from cupel.record.reader import list_runs
from cupel.record.session import Session

SCHEMA = Path(__file__).parents[2] / "docs" / "record-format.schema.json"


def gpt(**more: Any) -> GPT:
    return GPT(GPTModelSettings(layers=2, heads=2, width=16, block=8, vocabulary=11, **more))


def wave() -> WaveGPT:
    return WaveGPT(WaveModelSettings(layers=2, heads=2, width=16, waves=4, block=8, vocabulary=11))


def resnet() -> ResNet:
    return ResNet(ResNetModelSettings(channels_in=3, classes=10))


def tokens() -> Tensor:
    return torch.arange(16).reshape(2, 8) % 11


def traced(model: nn.Module, *given: Any) -> dict[str, Any]:
    tracer = trace(model)
    model(*given)
    assert tracer.problem is None
    return tracer.finish(1)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def shapes(calls: dict[str, Any], path: str, side: str) -> list[list[int]]:
    return [tensor["shape"] for tensor in calls["modules"][path][side]]


# ---- what is seen ----------------------------------------------------------------------------


def test_a_gpt_is_seen_whole() -> None:
    calls = traced(gpt(), tokens(), tokens())
    assert calls["complete"]
    assert calls["reason"] is None
    assert calls["step"] == 1
    assert shapes(calls, "", "in") == [[2, 8], [2, 8]]
    assert shapes(calls, "", "out") == [[2, 8, 11], []]
    assert calls["modules"]["tokens"]["in"] == [{"shape": [2, 8], "dtype": "int64"}]
    assert calls["modules"]["blocks.1"]["calls"] == 1
    assert "blocks" not in calls["modules"]  # a list is not called
    assert calls["edges"]["blocks"] == [["", "0", False], ["0", "1", False], ["1", "", False]]
    root = {(a, b): inferred for a, b, inferred in calls["edges"][""]}
    assert root["drop", "blocks"] is root["blocks", "norm"] is root["norm", "head"] is False
    assert root["positions", "drop"] is True  # a sum lies between


def test_modules_are_in_the_order_of_their_first_calls() -> None:
    calls = traced(gpt(), tokens())
    orders = [called["order"] for called in calls["modules"].values()]
    assert orders == sorted(orders) == list(range(len(orders)))
    assert [*calls["modules"]][:4] == ["", "tokens", "positions", "drop"]


def test_a_wave_gpt_and_a_resnet_are_seen_whole() -> None:
    assert traced(wave(), tokens(), tokens())["complete"]
    calls = traced(resnet(), torch.randn(2, 3, 8, 8))
    assert calls["complete"]
    assert shapes(calls, "stages.1", "out") == [[2, 16, 4, 4]]
    block = calls["edges"]["stages.1.0"]
    assert ["", "first", False] in block
    assert ["", "shortcut", False] in block
    assert ["first", "second", True] in block  # a ReLU that is no module lies between
    assert not any(a == "second" and b == "shortcut" for a, b, _ in block)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(x) if x.mean().item() > 0 else self.down(x)
        return y


@pytest.mark.parametrize(("sign", "taken"), [(1.0, "up"), (-1.0, "down")])
def test_the_branch_that_the_data_chose_is_the_one_that_is_seen(sign: float, taken: str) -> None:
    calls = traced(Branching(), torch.full((2, 4), sign))
    assert calls["complete"]
    assert [*calls["modules"]] == ["", taken]
    assert calls["edges"] == {"": [["", taken, False], [taken, "", False]]}


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        state = None
        for t in range(x.size(0)):
            state = self.cell(x[t], state)
        return {"logits": self.head(state), "more": [{"state": (state, "text", None)}]}


def test_a_loop_calls_its_cell_as_often_as_it_goes_round() -> None:
    calls = traced(Looping(), torch.randn(7, 2, 3))
    cell = calls["modules"]["cell"]
    assert cell["calls"] == 7
    assert cell["varies"]
    assert ["cell", "cell", False] in calls["edges"][""]
    assert ["", "cell", False] in calls["edges"][""]  # x[t] is a view of what was given
    assert ["cell", "head", False] in calls["edges"][""]
    assert shapes(calls, "", "out") == [[2, 2], [2, 5]]


def test_tensors_are_found_in_keywords_dataclasses_and_deep_structures() -> None:
    @dataclass
    class Out:
        score: Tensor
        rest: Any

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(2, 2)

        def forward(self, *, batch: dict[str, Any]) -> Out:
            return Out(self.lin(batch["x"][0]), {"deep": [[(batch["y"],)]], "many": [1] * 9})

    model = Wide()
    tracer = trace(model)
    model(batch={"x": [torch.ones(1, 2)], "y": torch.ones(3)})
    calls = tracer.finish()
    assert shapes(calls, "", "in") == [[1, 2], [3]]
    assert shapes(calls, "", "out") == [[1, 2], [3]]
    assert calls["edges"][""] == [["", "lin", False], ["lin", "", False]]


def test_what_is_told_of_a_call_is_bounded() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> list[Any]:
            endless: list[Any] = [x]
            endless.append(endless)
            return [*(x + i for i in range(1000)), endless, list(range(10**6))]

    calls = traced(Many(), torch.ones(2))
    assert len(calls["modules"][""]["out"]) == 16


def test_a_shared_module_is_named_as_its_caller_knows_it() -> None:
    class Half(nn.Module):
        def __init__(self, table: nn.Module) -> None:
            super().__init__()
            self.table, self.lin = table, nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.lin(self.table(x))
            return y

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            table = nn.Linear(4, 4)
            self.a, self.b = Half(table), Half(table)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(x))
            return y

    calls = traced(Both(), torch.ones(1, 4))
    assert {"a.table", "b.table"} <= calls["modules"].keys()
    assert calls["edges"]["b"] == [
        ["", "table", False],
        ["table", "lin", False],
        ["lin", "", False],
    ]


def test_a_module_that_is_called_twice_is_counted_twice() -> None:
    lin = nn.Linear(3, 3)
    calls = traced(nn.Sequential(lin, nn.ReLU(), lin), torch.ones(1, 3))
    assert calls["modules"]["0"]["calls"] == 2
    assert "2" not in calls["modules"]
    assert ["1", "0", False] in calls["edges"][""]


def test_a_tensor_that_is_gone_is_not_taken_for_a_new_one() -> None:
    """What is freed gives its place, and so its id, to the next; that must be no edge."""

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(50):
                self.first(x.detach().clone())  # its result is dropped at once
                y = self.second(torch.zeros(2))
            return y

    edges = {(a, b): inferred for a, b, inferred in traced(Dropping(), torch.ones(2))["edges"][""]}
    assert edges["first", "second"] is True
    assert ("", "first") not in edges or edges["", "first"]


# ---- when it looks ---------------------------------------------------------------------------


def test_only_a_training_pass_with_gradients_counts_and_only_the_first() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    tracer = trace(model)
    with torch.no_grad():
        model(torch.ones(9, 2))
    model.eval()(torch.ones(8, 2))
    assert not tracer.done
    model.train()(torch.ones(7, 2))
    assert tracer.done
    assert not hooks_of(model)
    model(torch.ones(6, 2))
    assert shapes(tracer.finish(), "0", "in") == [[7, 2]]


def test_without_a_pass_it_says_so_and_leaves_no_hook() -> None:
    model = gpt()
    calls = trace(model).finish(1)
    assert not calls["complete"]
    assert calls["reason"] == "no pass in training mode was seen"
    assert calls["modules"] == {}
    assert not hooks_of(model)


def test_a_pass_of_parts_only_is_told_as_such() -> None:
    model = gpt()
    tracer = trace(model)
    model.norm(model.tokens(tokens())).sum().backward()
    calls = tracer.finish(1)
    assert calls["reason"] == "the model itself was not called, only parts of it"
    assert [*calls["modules"]] == ["tokens", "norm"]
    assert ["tokens", "norm", False] in calls["edges"][""]


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_backward_pass_calls_again_is_not_counted(reentrant: bool) -> None:
    class Recomputing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 2), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = checkpoint(self.inner, x, use_reentrant=reentrant)
            return y

    def gradients(look: bool) -> tuple[list[Tensor], dict[str, Any] | None]:
        torch.default_generator.manual_seed(0)
        model, part = Recomputing(), nn.Linear(2, 2)
        tracer = trace(model) if look else None
        x = part(torch.ones(3, 2))
        model(x).sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert len(found) == 2
        return found, tracer.finish() if tracer else None

    watched, calls = gradients(True)
    assert all(map(torch.equal, watched, gradients(False)[0]))
    assert calls is not None
    assert calls["complete"]
    assert {called["calls"] for called in calls["modules"].values()} == {1}


def test_parts_that_a_backward_pass_calls_again_are_not_counted_either() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.Tanh())})
    tracer = trace(model)
    x = torch.ones(3, 2, requires_grad=True)
    checkpoint(model["a"], x, use_reentrant=False).sum().backward()
    assert tracer.finish()["modules"]["a.0"]["calls"] == 1


def test_activation_checkpointing_of_a_gpt_gives_the_same_calls() -> None:
    def of(**more: Any) -> dict[str, Any]:
        model = gpt(**more)
        tracer = trace(model)
        model(tokens(), tokens())[1].backward()
        return tracer.finish()["modules"]

    assert of() == of(activation_checkpointing=True)


@pytest.mark.slow
def test_a_compiled_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    compiled = torch.compile(model, backend="eager")
    calls = trace(compiled).finish()
    assert not hooks_of(model)
    assert "compiled" in calls["reason"]
    inner = nn.Sequential(torch.compile(model, backend="eager"))
    calls = traced(nn.Sequential(inner, nn.Linear(2, 2)), torch.ones(1, 2))
    assert not hooks_of(model)
    assert calls["reason"] == "compiled, so not looked into: 0.0"
    assert not calls["complete"]
    assert [*calls["modules"]] == ["", "0", "1"]
    model.compile(backend="eager")
    assert "compiled" in trace(model).finish()["reason"]


@pytest.mark.slow
def test_a_model_that_is_compiled_while_it_is_watched_has_no_break_in_its_graph() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    tracer = trace(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(torch.ones(1, 2)).sum().backward()
    assert tracer.finish()["reason"] == "no pass in training mode was seen"
    compiled(torch.ones(1, 2))


def test_a_functional_call_is_a_pass_like_others() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    tracer = trace(model)
    given = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.func.functional_call(model, given, (torch.ones(1, 2),))
    assert tracer.finish()["complete"]


def test_a_distributed_wrapper_is_looked_through() -> None:
    class DistributedDataParallel(nn.Module):  # torch's own needs a process group
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Any) -> Any:
            return self.module(*given)

    calls = traced(DistributedDataParallel(gpt()), tokens(), tokens())
    assert calls["complete"]
    assert [*calls["modules"]][:2] == ["module", "module.tokens"]
    assert calls["edges"]["module.blocks"][1] == ["0", "1", False]


# ---- what it must not do ---------------------------------------------------------------------


def test_an_exception_in_the_pass_comes_through_and_takes_the_hooks_along() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.lin(x)
            raise KeyError("mine")

    model = Failing()
    tracer = trace(model)
    with pytest.raises(KeyError, match="mine"):
        model(torch.ones(1, 2))
    assert tracer.done
    assert hooks_of(model) == 1
    calls = tracer.finish()
    assert not hooks_of(model)
    assert not calls["complete"]
    assert "exception" in calls["reason"]
    assert [*calls["modules"]] == ["", "lin"]


def test_an_exception_that_the_model_catches_does_not_confuse_what_follows() -> None:
    class Retrying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bad, self.good = nn.Linear(3, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.bad(x)  # type: ignore[no-any-return]
            except RuntimeError:
                return self.good(x)  # type: ignore[no-any-return]

    calls = traced(Retrying(), torch.ones(1, 2))
    assert calls["complete"]
    assert calls["modules"]["bad"]["out"] == []
    assert shapes(calls, "", "out") == [[1, 2]]


def test_a_failure_in_a_hook_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupel.record.calls as looking

    def breaks(tensor: Any) -> Any:
        raise ValueError("cannot tell")

    model = gpt()
    tracer = trace(model)
    monkeypatch.setattr(looking, "_told", breaks)
    loss = model(tokens(), tokens())[1]
    loss.backward()
    calls = tracer.finish()
    assert isinstance(tracer.problem, ValueError)
    assert tracer.problem.__traceback__ is None
    assert calls["reason"] == "ValueError: cannot tell"
    assert not calls["complete"]
    assert not hooks_of(model)


def test_a_model_that_takes_no_hooks_is_told_as_such() -> None:
    assert trace(object()).finish()["reason"] == "the model is no module of torch"
    scripted = trace(torch.nn.Module.__new__(nn.Module))  # half a module
    assert scripted.problem is not None
    assert not scripted.finish()["complete"]


def test_a_copy_or_a_pickle_of_a_watched_model_watches_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    tracer = trace(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(torch.ones(1, 2))
    assert not tracer.done
    assert not tracer.finish()["modules"]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "gpt": (lambda: gpt(dropout=0.1), tokens),
    "wave": (wave, tokens),
    "resnet": (resnet, lambda: torch.randn(4, 3, 8, 8)),
    "looping": (Looping, lambda: torch.randn(4, 2, 3)),
    "branching": (Branching, lambda: torch.randn(2, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_random_numbers_are_the_same_with_and_without(name: str) -> None:
    build, data = MODELS[name]

    def trained(look: bool) -> str:
        torch.default_generator.manual_seed(3)
        model = build().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tracer = trace(model) if look else None
        for step in range(3):
            given = model(data())
            out = given["logits"] if isinstance(given, dict) else given
            (out[0] if isinstance(out, tuple) else out).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if tracer and step == 0:
                assert tracer.finish(1)["complete"]
        state = [t.numpy().tobytes() for t in (*model.state_dict().values(), torch.get_rng_state())]
        return hashlib.sha256(b"".join(state)).hexdigest()

    assert trained(True) == trained(False)


def test_no_tensor_lives_longer_for_being_watched() -> None:
    """Without the garbage collector: not even a cycle may hold one."""
    alive: list[list[bool]] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            refs = []
            for _ in range(3):
                with torch.no_grad():
                    y = self.a({"x": x}["x"])
                    refs.append(weakref.ref(y))
                    del y
            alive.append([ref() is not None for ref in refs])
            z: Tensor = self.b(x)
            return z

    gc.disable()
    try:
        model = Watching()
        tracer = trace(model)
        x = torch.ones(2, 4)
        out = model(x)
        ends = [weakref.ref(out), weakref.ref(x)]
        del out, x
        assert alive == [[False] * 3]
        assert [end() for end in ends] == [None, None]
        assert tracer.finish()["complete"]
    finally:
        gc.enable()


# ---- the file --------------------------------------------------------------------------------


def start(root: Path) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i", run_id="one")


def test_the_tree_is_there_at_once_and_the_calls_after_the_first_step(tmp_path: Path) -> None:
    session, model = start(tmp_path), gpt()
    described = ModelFile(session, model, replace=False)
    described.begin()
    path = session.run_dir / "model.json"
    tree = read_json(path)
    assert "calls" not in tree
    assert tree["class"].endswith(":GPT")
    described.watch()
    model(tokens(), tokens())
    assert described.seen
    described.complete(1)
    described.complete(2)
    told = read_json(path)
    assert told.pop("calls")["step"] == 1
    assert told == tree
    session.finish("finished")


def run_pass(session: Session, model: nn.Module, *, replace: bool, step: int) -> None:
    described = ModelFile(session, model, replace=replace)
    described.begin()
    described.watch()
    model(tokens(), tokens())
    described.complete(step)
    session.finish("interrupted")


@pytest.mark.parametrize("replace", [False, True])
def test_a_resumed_session_keeps_what_is_whole_and_true(tmp_path: Path, replace: bool) -> None:
    model = gpt()
    run_pass(session := start(tmp_path), model, replace=replace, step=1)
    path = session.run_dir / "model.json"
    before = path.read_bytes()
    run_pass(Session.resume(session.run_dir), model, replace=replace, step=7)
    assert path.read_bytes() == before
    assert not hooks_of(model)


@pytest.mark.parametrize("replace", [False, True])
def test_a_resumed_session_adds_the_calls_that_a_kill_prevented(
    tmp_path: Path, replace: bool
) -> None:
    model = gpt()
    session = start(tmp_path)
    ModelFile(session, model, replace=replace).begin()
    session.finish("interrupted")
    run_pass(Session.resume(session.run_dir), model, replace=replace, step=7)
    assert read_json(session.run_dir / "model.json")["calls"]["step"] == 7


@pytest.mark.slow
def test_another_model_in_a_resumed_session_replaces_the_file_only_if_asked(
    tmp_path: Path,
) -> None:
    run_pass(session := start(tmp_path), gpt(), replace=False, step=1)
    path = session.run_dir / "model.json"
    before = path.read_bytes()
    run_pass(Session.resume(session.run_dir), wave(), replace=False, step=2)
    assert path.read_bytes() == before
    run_pass(Session.resume(session.run_dir), wave(), replace=True, step=3)
    told = read_json(path)
    assert told["class"].endswith(":WaveGPT")
    assert told["calls"]["step"] == 3


def test_a_file_of_an_older_version_is_completed(tmp_path: Path) -> None:
    from cupel.record.model import describe_model

    model, session = gpt(), start(tmp_path)
    new = ("shared_modules", "buffers", "sizes", "extra")
    older = {key: value for key, value in describe_model(model).items() if key not in new}
    session.write_run_json("model.json", older)
    session.finish("interrupted")
    run_pass(Session.resume(session.run_dir), model, replace=False, step=4)
    told = read_json(session.run_dir / "model.json")
    assert told["calls"]["complete"]
    assert told["sizes"]["layers"]["value"] == 2


def test_a_session_that_has_a_successor_counts_a_problem_and_changes_nothing(
    tmp_path: Path,
) -> None:
    model, session = gpt(), start(tmp_path)
    described = ModelFile(session, model, replace=False)
    described.begin()
    described.watch()
    model(tokens(), tokens())
    before = (session.run_dir / "model.json").read_bytes()
    layout.session_dir(session.run_dir, 2).mkdir()
    described.complete(1)
    assert (session.run_dir / "model.json").read_bytes() == before
    assert session.problems == {"model.json": 1}
    assert not hooks_of(model)
    session.finish("interrupted")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_fits_the_schema_and_holds_no_more(name: str, tmp_path: Path) -> None:
    kinds = json.loads(SCHEMA.read_text(encoding="utf-8"))
    build, data = MODELS[name]
    model, session = build(), start(tmp_path)
    described = ModelFile(session, model, replace=True)
    described.begin()
    described.watch()
    model(data())
    described.complete(1)
    session.finish("finished")
    told = read_json(session.run_dir / "model.json")
    whole = {**kinds, "$ref": "#/$defs/model"}
    jsonschema.Draft202012Validator(whole).validate(told)
    known = kinds["$defs"]["model"]["properties"]
    assert told.keys() <= known.keys()
    assert told["calls"].keys() == known["calls"]["properties"].keys()
    called = kinds["$defs"]["module_call"]["properties"].keys()
    assert all(one.keys() <= called for one in told["calls"]["modules"].values())
    page = SCHEMA.with_name("record-format.md").read_text(encoding="utf-8")
    assert not [key for key in {*known, *known["calls"]["properties"], *called}
                if f"`{key}`" not in page]  # fmt: skip


# ---- in real runs ----------------------------------------------------------------------------


SMALL = (
    "train.steps=3 train.evaluate_every=1 train.log_every=2 data.max_bytes=300000 "
    "data.val_batches=1 model.width=32 model.layers=2 figures.formats=[]"
)


def recorded(folder: Path, *words: str) -> Path:
    """The folder of a run of the tiny recipe, made by the command as it is typed."""
    command = [str(Path(sys.executable).with_name("cupel")), "run", "gpt-tiny", *SMALL.split()]
    done = subprocess.run(
        [*command, *words, "--root", "runs"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(folder / "runs")
    return run.run_dir


@pytest.mark.slow
def test_a_recipes_run_tells_its_calls_and_an_activation_checkpointed_one_the_same(
    tmp_path: Path,
) -> None:
    told = []
    for number, words in enumerate(([], ["model.activation_checkpointing=true"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        run_dir = recorded(folder, *words)
        events = list_runs(folder / "runs")[0].events()
        assert not [event for event in events if event["_event"] == "problem"]
        told.append(read_json(run_dir / "model.json"))
    calls = told[0]["calls"]
    assert calls["complete"]
    assert calls["step"] == 1
    assert calls["modules"]["blocks.1.mlp"]["calls"] == 1
    assert calls["edges"]["blocks"] == [["", "0", False], ["0", "1", False], ["1", "", False]]
    assert told[1]["calls"] == calls
    assert told[0]["sizes"]["layers"] == {"value": 2, "source": "settings.layers"}


@pytest.mark.slow
def test_gradients_that_are_gathered_over_several_passes_are_of_one_traced_pass(
    tmp_path: Path,
) -> None:
    run_dir = recorded(tmp_path, "train.accumulate=4")
    calls = read_json(run_dir / "model.json")["calls"]
    assert {called["calls"] for path, called in calls["modules"].items()
            if not path.endswith("drop")} == {1}  # fmt: skip
