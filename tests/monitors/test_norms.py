"""Norms keep the monitor's contract, and equal explicit loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cupel.events import StepView
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.monitors.norms import Norms, layer_of
from cupel.monitors.settings import NormsSettings
from cupel.testing.monitor import MonitorContract


class TestNorms(MonitorContract):
    def make(self) -> Norms:
        return Norms(NormsSettings(every=1))


class TestNormsWithTheTotal(MonitorContract):
    def make(self) -> Norms:
        return Norms(NormsSettings(every=2, total=True))


def gpt(*, tied: bool) -> nn.Module:
    torch.manual_seed(0)
    model = GPT(GPTModelSettings(layers=2, heads=2, width=8, block=4, vocabulary=5, tied=tied))
    tokens_BT = torch.randint(5, (3, 4))
    loss = model(tokens_BT, tokens_BT)[1]
    assert loss is not None
    loss.backward()
    return model


def measured(model: nn.Module, *, total: bool = False) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Norms(NormsSettings(every=1, total=total))(StepView(model, optimizer, 1))


def by_loops(model: nn.Module) -> dict[str, float]:
    """The reference: square and add one number after the other, in float64."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            kinds = (("weight_norm", parameter), ("grad_norm", parameter.grad))
            for kind, tensor in kinds:
                for number in (0.0, *tensor.detach().flatten().tolist()):
                    for layer in (layer_of(name), "total"):
                        key = f"{kind}/{layer}"
                        squares[key] = squares.get(key, 0.0) + number * number
    return {key: math.sqrt(square) for key, square in squares.items()}


@pytest.mark.parametrize("tied", [True, False])
def test_norms_equal_explicit_loops(tied: bool) -> None:
    model = gpt(tied=tied)
    # float32 sums of a few hundred squares against float64.
    assert measured(model, total=True) == pytest.approx(by_loops(model), rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5),
    scale=st.sampled_from([1e-3, 1.0, 1e15]),
)
def test_norms_of_any_shapes_equal_explicit_loops(shapes: list[list[int]], scale: float) -> None:
    model = nn.ParameterList(nn.Parameter(torch.randn(shape) * scale) for shape in shapes)
    for parameter in model:
        parameter.grad = torch.randn(parameter.shape)
    assert measured(model, total=True) == pytest.approx(by_loops(model), rel=1e-5)


def test_layers_are_named_by_their_first_number() -> None:
    assert layer_of("blocks.3.attention.qkv.weight") == "blocks.3"
    assert layer_of("head.weight") == "head"
    assert layer_of("0.weight") == "0"
    found = measured(gpt(tied=False))
    layers = {"tokens", "positions", "blocks.0", "blocks.1", "norm", "head"}
    assert {key.removeprefix("grad_norm/") for key in found if "grad" in key} == layers


def test_frozen_parameters_and_those_without_a_gradient_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert measured(model) == {}
    model[0].requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    assert measured(model).keys() == {"grad_norm/1", "weight_norm/1", "weight_norm/total"}


def test_a_gradient_that_is_not_finite_shows() -> None:
    model = nn.Linear(2, 2)
    model(torch.full((1, 2), torch.inf)).sum().backward()
    assert not math.isfinite(measured(model)["grad_norm/weight"])
