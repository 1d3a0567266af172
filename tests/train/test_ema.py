"""The moving average equals a plain one, and lends itself to the model without a trace."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cupel.train.ema import EMA


def network(*, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model[2].weight = nn.Parameter(model[2].weight.detach().to(dtype))
    return model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def move(model: nn.Module, step: int) -> None:
    """Change every parameter and buffer, as a training step would."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


@settings(deadline=None, max_examples=20)
@given(decay=st.floats(0, 0.999), steps=st.integers(1, 10))
def test_it_is_the_plain_moving_average(decay: float, steps: int) -> None:
    model = network()
    ema = EMA(model, decay)
    expected = {name: tensor.double() for name, tensor in tensors(model).items()}
    for step in range(steps):
        move(model, step)
        ema.update()
        for name, tensor in tensors(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    for name, average in ema.state_dict()["average"].items():
        if average.is_floating_point():
            # float32 against float64 over at most ten additions of numbers of size 1.
            torch.testing.assert_close(average.double(), expected[name], atol=1e-5, rtol=1e-5)


def test_buffers_that_are_no_floats_are_copied() -> None:
    model = network()
    ema = EMA(model, 0.9)
    for step in range(3):
        move(model, step)
        ema.update()
    assert ema.state_dict()["average"]["1.num_batches_tracked"].item() == 3


def test_tensors_of_several_dtypes_are_averaged_each_in_its_own() -> None:
    model = network(dtype=torch.float64)
    ema = EMA(model, 0.5)
    before = model[2].weight.detach().clone()
    with torch.no_grad():
        model[2].weight.add_(1.0)
    ema.update()
    average = ema.state_dict()["average"]["2.weight"]
    assert average.dtype == torch.float64
    torch.testing.assert_close(average, before + 0.5)


def test_a_tied_tensor_is_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    ema = EMA(model, 0.5)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(2.0)
    ema.update()
    assert list(ema.state_dict()["average"]) == ["0.weight"]
    with ema.applied():
        assert model[1].weight is model[0].weight
        torch.testing.assert_close(model[1].weight.detach(), before + 1.0)


def test_applied_lends_the_average_and_gives_the_same_bits_back() -> None:
    model = network()
    ema = EMA(model, 0.9)
    move(model, 1)
    ema.update()
    before, addresses = tensors(model), [t.data_ptr() for t in model.state_dict().values()]
    with ema.applied():
        assert torch.is_grad_enabled(), "gradients are switched off for whoever is inside"
        average = ema.state_dict()["average"]
        assert all(torch.equal(t, average[name]) for name, t in tensors(model).items())
    assert all(torch.equal(t, before[name]) for name, t in tensors(model).items())
    assert [t.data_ptr() for t in model.state_dict().values()] == addresses


def test_a_failure_inside_applied_gives_the_weights_back_too() -> None:
    model = network()
    ema = EMA(model, 0.9)
    move(model, 1)
    before = tensors(model)
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert all(torch.equal(t, before[name]) for name, t in tensors(model).items())


def test_a_restored_average_goes_on_with_equal_bits() -> None:
    model = network()
    one = EMA(model, 0.9)
    for step in range(3):
        move(model, step)
        one.update()
    two = EMA(model, 0.9)
    two.load_state_dict({"average": {n: t.clone() for n, t in one.state_dict()["average"].items()}})
    move(model, 4)
    one.update()
    two.update()
    for name, average in one.state_dict()["average"].items():
        assert torch.equal(average, two.state_dict()["average"][name])
