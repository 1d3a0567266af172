"""The ResNet against an explicit reference: its function, its parameters, its initial weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cupel.models.resnet.model import Block, ResNet
from cupel.models.resnet.settings import ResNetModelSettings

RESNET_18 = {"stages": (64, 128, 256, 512), "blocks": 2, "channels_in": 3, "classes": 10}
SMALL = {"stages": (8, 16), "blocks": 2, "channels_in": 2, "classes": 5}


def build(seed: int = 0, **more) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(ResNetModelSettings(**(SMALL | more)))


def images(batch: int = 3, channels: int = 2, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet_18_for_cifar_has_exactly_11_173_962_parameters():
    with torch.device("meta"):
        model = ResNet(ResNetModelSettings(**RESNET_18))
    assert count(model) == 11_173_962


def test_without_normalisation_every_gain_and_shift_is_one_bias():
    """9,600 parameters of normalisations (4,800 channels) become 4,800 biases."""
    with torch.device("meta"):
        model = ResNet(ResNetModelSettings(**RESNET_18, norm="none"))
    assert count(model) == 11_173_962 - 4_800
    assert not list(model.buffers())


def test_the_default_is_the_tiny_one_that_its_docstring_states():
    with torch.device("meta"):
        model = ResNet(ResNetModelSettings(channels_in=1, classes=10))
    assert f"{count(model):,}" in (ResNetModelSettings.__doc__ or "")


@given(
    stages=st.lists(st.integers(1, 5).map(lambda n: 8 * n), min_size=1, max_size=4),
    blocks=st.integers(1, 3),
    norm=st.sampled_from(["batch", "none"]),
    channels_in=st.integers(1, 4),
    classes=st.integers(2, 12),
)
@settings(deadline=None, max_examples=40)
@pytest.mark.slow
def test_the_accounting_in_the_docstring_is_the_count(stages, blocks, norm, channels_in, classes):
    with torch.device("meta"):
        model = ResNet(
            ResNetModelSettings(
                stages=stages, blocks=blocks, norm=norm, channels_in=channels_in, classes=classes
            )
        )
    c = 2 if norm == "batch" else 1
    expected = 9 * channels_in * stages[0] + c * stages[0] + stages[-1] * classes + classes
    A = stages[0]
    for stage, W in enumerate(stages):
        for block in range(blocks):
            expected += 9 * A * W + 9 * W**2 + 2 * c * W
            if stage > 0 and block == 0:
                expected += A * W + c * W
            A = W
    assert count(model) == expected


def reference(model: ResNet, x_BCHW: Tensor) -> Tensor:
    """The logits from the weights by name: figure 5 of the paper, written out."""
    state = dict(model.named_parameters()) | dict(model.named_buffers())

    def convolution(x: Tensor, name: str, *, stride: int) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        padding = weight.shape[-1] // 2
        y = F.conv2d(x, weight, state.get(f"{name}.conv.bias"), stride=stride, padding=padding)
        if f"{name}.norm.weight" not in state:
            return y
        if model.training:
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
        else:
            mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        scaled = (y - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        gain, shift = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
        return scaled * gain[:, None, None] + shift[:, None, None]

    x_BCHW = convolution(x_BCHW, "stem", stride=1).relu()
    for stage in range(len(model.settings.stages)):
        for block in range(model.settings.blocks):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            inner = convolution(x_BCHW, f"{name}.first", stride=stride).relu()
            outer = convolution(inner, f"{name}.second", stride=1)
            projected = f"{name}.shortcut.conv.weight" in state
            assert projected == (stage > 0 and block == 0)
            short = convolution(x_BCHW, f"{name}.shortcut", stride=stride) if projected else x_BCHW
            x_BCHW = (outer + short).relu()
    return x_BCHW.flatten(2).mean(2) @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("side", [8, 7])
def test_the_logits_are_those_of_the_formula_written_out(norm, training, side):
    model = build(norm=norm).double()
    with torch.no_grad():  # so that a gain, a bias or a running mean that is left out shows
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5)
    model.train(training)
    x_BCHW = images(side=side).double()
    expected = reference(model, x_BCHW)
    assert expected.shape == (3, 5)
    # In float64, sums of at most 144 products in another order.
    assert torch.allclose(model(x_BCHW), expected, rtol=0, atol=1e-10)


def test_each_stage_after_the_first_halves_height_and_width():
    model, sizes = build(stages=(8, 16, 16)), []
    for blocks in model.stages:
        blocks.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    model(images())
    assert sizes == [(8, 8, 8), (16, 4, 4), (16, 2, 2)]


def test_a_block_whose_branch_is_zero_is_a_relu_of_its_input():
    block = Block(8, 8, stride=1, normed=False)
    with torch.no_grad():
        block.second.conv.weight.zero_()
        block.second.conv.bias.zero_()
        x_BCHW = images(channels=8)
        assert torch.equal(block(x_BCHW), x_BCHW.relu())


def test_initial_weights_have_the_stated_spread_and_follow_the_global_seed():
    model = build(stages=(64, 128), norm="none", classes=200)
    for name, weight in model.named_parameters():
        parameter = weight.detach()
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        fan_in = parameter[0].numel()
        variance = (1 if name == "head.weight" else 2) / fan_in
        # The deviation of a sample of n has a spread of 1/√(2n); of 1,152 or more: 5 spreads.
        assert float(parameter.var()) ** 0.5 == pytest.approx(variance**0.5, rel=0.11), name
        assert abs(float(parameter.mean())) < 5 * (variance / parameter.numel()) ** 0.5, name
    same, other = build(seed=0), build(seed=1)
    assert torch.equal(build(seed=0).stem.conv.weight, same.stem.conv.weight)
    assert not torch.equal(same.stem.conv.weight, other.stem.conv.weight)


def test_normalisations_begin_as_the_identity_on_standardised_input():
    for name, parameter in build().named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all()


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_parameter_gets_a_gradient(norm):
    model = build(norm=norm)
    F.cross_entropy(model(images(batch=8)), torch.arange(8) % 5).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_in_evaluation_an_image_does_not_depend_on_its_neighbours():
    model, x_BCHW = build().double(), images(batch=4).double()
    model(x_BCHW)  # moves the running means
    model.eval()
    together, alone = model(x_BCHW), torch.cat([model(x[None]) for x in x_BCHW])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)
    model.train()
    assert not torch.allclose(model(x_BCHW)[:2], model(x_BCHW[:2]), atol=1e-3)
