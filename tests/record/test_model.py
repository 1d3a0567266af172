"""What `describe_model` tells of a model, and that no odd model makes it raise."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.resnet.model import ResNet
from cupel.models.resnet.settings import ResNetModelSettings
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings
from cupel.record.described import ModelFile
from cupel.record.files import read_json
from cupel.record.model import _source, describe_model, paths_of
from cupel.record.session import Session


def values(described: dict[str, Any]) -> dict[str, Any]:
    return {name: size["value"] for name, size in described["sizes"].items()}


def start(root: Path) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i", run_id="one")


def test_a_gpt_says_its_sizes_and_where_they_stand() -> None:
    model = GPT(GPTModelSettings(layers=2, heads=2, width=16, block=8, vocabulary=11, tied=True))
    told = describe_model(model)
    assert values(told) == {
        "layers": 2, "heads": 2, "width": 16, "context": 8, "vocabulary": 11,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    assert told["sizes"]["context"]["source"] == "settings.block"
    assert told["shared"] == {"head.weight": "tokens.weight"}
    assert told["extra"]["tokens"] == "11, 16"
    assert "problems" not in told


def test_wave_and_resnet_say_theirs() -> None:
    wave = WaveGPT(WaveModelSettings(layers=1, heads=2, width=16, waves=4, block=8, vocabulary=11))
    assert values(describe_model(wave)).items() >= {"layers": 1, "heads": 2, "width": 16}.items()
    settings = ResNetModelSettings(channels_in=3, classes=10)
    told = describe_model(ResNet(settings))
    assert told["sizes"]["stages"] == {"value": [8, 16], "source": "settings.stages"}
    assert values(told)["classes"] == 10
    assert "layers" not in told["sizes"]
    assert told["buffers"]["stem.norm.running_mean"] == {"shape": [8], "dtype": "float32"}
    assert not any(name in told["tensors"] for name in told["buffers"])


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_names_of_other_libraries_are_known(as_dict: bool) -> None:
    config = {"hidden_size": 4, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 9}
    model = nn.Linear(4, 4)
    model.config = config if as_dict else type("Config", (), config)()  # type: ignore[assignment]
    told = describe_model(model)["sizes"]
    assert {told[n]["value"] for n in ("width", "layers", "heads", "vocabulary")} == {4, 3, 2, 9}
    assert told["width"]["source"] == "config.hidden_size"


def test_what_is_no_whole_number_is_no_size() -> None:
    model = nn.Linear(2, 2)
    model.config = {"n_layer": True, "n_head": 2.0, "n_embd": 0, "block_size": "8"}  # type: ignore[assignment]
    model.layers = nn.ModuleList()  # a name that means something else here
    assert describe_model(model)["sizes"].keys() == {"parameters"}


def test_a_shared_module_stands_under_all_its_paths() -> None:
    inner = nn.Sequential(nn.Linear(2, 2))
    model = nn.ModuleDict({"a": inner, "b": nn.ModuleDict({"again": inner}), "c": nn.ReLU()})
    told = describe_model(model)
    assert told["shared_modules"] == {"b.again": "a", "b.again.0": "a.0"}
    assert [*told["modules"]] == ["a", "a.0", "b", "c"]
    assert told["shared"] == {"b.again.0.weight": "a.0.weight", "b.again.0.bias": "a.0.bias"}
    assert told["parameters"] == 6
    every = [path for path, _ in model.named_modules(remove_duplicate=False)]
    assert [path for path, _ in paths_of(model)] == every


def test_a_module_that_holds_its_parent_is_no_endless_tree() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].above = model
    told = describe_model(model)
    assert [*told["modules"]] == ["0", "1"]
    assert "problems" not in told


def test_a_lazy_model_is_told_as_far_as_it_is_known_and_whole_after_its_first_pass(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    session = start(tmp_path)
    described = ModelFile(session, model, replace=True)
    described.begin()
    told = read_json(session.run_dir / "model.json")
    assert told["parameters"] == 16
    assert [*told["problems"]] == ["tensors.1.weight", "tensors.1.bias"]
    assert session.problems == {"model.json": 1}
    described.watch()
    model(torch.ones(1, 3))
    described.complete(1)
    told = read_json(session.run_dir / "model.json")
    assert told["parameters"] == 26
    assert "problems" not in told
    assert told["calls"]["complete"]
    session.finish("finished")


def test_an_odd_model_raises_nothing() -> None:
    class Odd(nn.Linear):
        @property
        def config(self) -> Any:
            raise ValueError("not yet")

        def extra_repr(self) -> str:
            raise RuntimeError("nor this")

    told = describe_model(Odd(2, 2))
    assert told["problems"] == {"sizes": "ValueError: not yet"}
    assert told["parameters"] == 6
    assert told["extra"] == {}
    assert "modules" in describe_model(object())["problems"]


@pytest.mark.slow
def test_sources_are_those_of_inspect() -> None:
    kinds = [k for k in vars(nn).values() if isinstance(k, type) and issubclass(k, nn.Module)]
    kinds += [GPT, WaveGPT, ResNet]
    assert len(kinds) > 100
    for kind in kinds[::7]:
        assert _source(kind) == inspect.getsource(kind)


def test_a_decorated_class_and_one_of_two_are_found_as_inspect_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "def same(k):\n    return k\n@same\nclass A:\n    x = 1\n\n"
        "if True:\n    class B:\n        y = 1\nelse:\n    class B:\n        y = 2\n\n"
        "class C:\n    z = 3\n"
    )
    (tmp_path / "of_its_own.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import of_its_own  # type: ignore[import-not-found]

    assert _source(of_its_own.A).startswith("@same")
    for kind in (of_its_own.A, of_its_own.B, of_its_own.C):
        assert _source(kind) == inspect.getsource(kind)


def test_a_deep_gpt_is_described_quickly() -> None:
    model = GPT(GPTModelSettings(layers=12, heads=4, width=64, block=8, vocabulary=11))
    describe_model(model)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        describe_model(model)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.02  # 1.6 ms; the first time 10 to 20, for the sources
