"""A trace tells what the model computes, of each layer and token, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cupel.models.memory.model import MemoryLM
from cupel.models.memory.settings import MemoryModelSettings
from cupel.models.memory.state import LayerState

V, T = 11, 13


def made(**changes: Any) -> MemoryLM:
    torch.manual_seed(1)
    size: dict[str, Any] = {"layers": 2, "heads": 2, "width": 12, "vocabulary": V, "persistent": 3}
    settings = MemoryModelSettings.model_validate(size | {"window": 6, "segment": 8} | changes)
    model = MemoryLM(settings).double()
    for name, parameter in model.named_parameters():
        if "gates" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def tokens(length: int = T) -> torch.Tensor:
    return torch.randint(0, V, (length,), generator=torch.Generator().manual_seed(3))


KINDS: list[dict[str, Any]] = [
    *({"mixer": mixer, "memory": {"chunk": 4}} for mixer in ("lmm", "mac", "mag", "mal")),
    {"memory": {"kind": "yaad", "chunk": 4}},
    {"memory": {"kind": "memora", "chunk": 4}},
    {"mixer": "hope"},
    {"mixer": "hope", "hope": {"chunk": 1, "depth": 1}},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_norms_are_those_of_the_weights_behind_each_token(changes: dict[str, Any]) -> None:
    model, given = made(**changes), tokens()
    found = model.memory_trace(given)
    for length in (1, 5, T):
        _, state = model.extend(given[None, :length])
        for n, layer in enumerate(state.layers):
            torch.testing.assert_close(found["norm"][n, length - 1], norm_of(layer))


def norm_of(layer: LayerState) -> torch.Tensor:
    assert layer.fast is not None
    squares = torch.stack([weight.flatten(1).square().sum(1) for weight in layer.fast.weights])
    return squares.sum(0).sqrt().mean()


@pytest.mark.parametrize("depth", [1, 2])
def test_surprise_is_the_norm_of_the_gradient_that_a_token_writes(depth: int) -> None:
    """Without decay and momentum a token moves the weights by theta times its gradient."""
    memory = {"depth": depth, "chunk": 1, "decay": "none", "momentum": "none"}
    model, given = made(memory=memory, layers=1, heads=1, persistent=0), tokens()
    found = model.memory_trace(given)
    state, before = None, [list(model.blocks[0].mixer.memory.begin(1).weights)]
    for token in given:
        _, state = model.extend(token.view(1, 1), state)
        before.append(list(state.layers[0].fast.weights))
    for n in range(T):
        moved = torch.cat(
            [(a - b).flatten() for a, b in zip(before[n + 1], before[n], strict=True)]
        )
        torch.testing.assert_close(found["surprise"][0, n] * found["step"][0, n], moved.norm())


def test_gates_are_those_of_the_layer() -> None:
    model, given = made(memory={"chunk": 4}, layers=1, persistent=0), tokens()
    found, block = model.memory_trace(given), model.blocks[0]
    x_BTC = block.mixer_norm(model.tokens(given[None]))
    gates = block.mixer.memory.gate(x_BTC, torch.float64)
    torch.testing.assert_close(found["decay"][0], (1 - gates.log_keep.exp()).mean(0))
    torch.testing.assert_close(found["momentum"][0], gates.log_eta.exp().mean(0))
    torch.testing.assert_close(found["step"][0], gates.theta.mean(0))


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_trace_leaves_the_model_as_it_was(changes: dict[str, Any]) -> None:
    model, given = made(**changes), tokens()
    before = model(given[None])[0]
    model.memory_trace(given)
    torch.testing.assert_close(model(given[None])[0], before, rtol=0, atol=0)
    assert all(getattr(module, "watch", None) is None for module in model.modules())


def test_a_model_without_memories_has_no_trace() -> None:
    assert made(mixer="attention").memory_trace(tokens()) == {}
