"""The activations against the error function, their derivatives, and what they keep in memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cupel.models.wave.mlp import MLP, gelu_sine, sine
from cupel.models.wave.settings import WaveModelSettings


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


FORMULAS = {
    "gelu_sine": lambda x: gelu(x) + 0.1 * math.sin(x),
    "sine": lambda x: math.sin(x) + 0.1 * x,
    "gelu": gelu,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_named_activation_stands_between_the_two_layers(name):
    mlp = MLP(WaveModelSettings(width=4, heads=1, mlp=name)).double()
    x_C = torch.randn(4, dtype=torch.float64)
    inside = [FORMULAS[name](x) for x in mlp.up(x_C).tolist()]
    expected = mlp.down(torch.tensor(inside, dtype=torch.float64))
    torch.testing.assert_close(mlp(x_C), expected, rtol=1e-12, atol=1e-14)


@given(x=st.floats(-30, 30))
def test_activations_equal_their_formulas(x):
    x_1 = torch.tensor([x], dtype=torch.float64)
    assert gelu_sine(x_1).item() == pytest.approx(FORMULAS["gelu_sine"](x), rel=1e-12, abs=1e-14)
    assert sine(x_1).item() == pytest.approx(FORMULAS["sine"](x), rel=1e-12, abs=1e-14)


def test_the_derivative_of_gelu_sine_is_right():
    x_N = torch.linspace(-6, 6, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gelu_sine, x_N)


def test_gelu_sine_equals_what_autograd_makes_of_it_in_bfloat16_too():
    x_N = torch.randn(257).bfloat16().requires_grad_()
    plain_N = x_N.detach().clone().requires_grad_()
    gelu_sine(x_N).sum().backward()
    (torch.nn.functional.gelu(plain_N) + 0.1 * plain_N.sin()).sum().backward()
    # bfloat16 has a spacing of 1/128 around 1; the two round at different places.
    torch.testing.assert_close(x_N.grad, plain_N.grad, rtol=0, atol=2**-6)


def test_gelu_sine_keeps_its_input_once():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.append(t.numel()), t)[1], lambda t: t
    ):
        gelu_sine(torch.randn(100, requires_grad=True))
    assert kept == [100]
