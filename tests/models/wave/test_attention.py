"""Interference against loops over positions, heads and waves; causality, slices, gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cupel.models.wave.attention import (
    IntensityAttention,
    InterferenceAttention,
    intensity,
)
from cupel.models.wave.settings import WaveModelSettings

SMALL = {"width": 6, "heads": 2, "waves": 4}


class Largest(TorchDispatchMode):
    """The most numbers that any one tensor of a computation holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args=(), kwargs=None) -> Any:
        out = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return out


def build(kind: type, **more) -> torch.nn.Module:
    """An attention in float64 whose every number is large enough to show."""
    torch.manual_seed(0)
    attention = kind(WaveModelSettings(**(SMALL | more))).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.7)
        if kind is InterferenceAttention:
            attention.temperature.fill_(0.6)
    return attention


def draw(batch: int, length: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def apply_by_hand(attention: torch.nn.Module, x_BTC: torch.Tensor, weights) -> torch.Tensor:
    """Σ_j weight·v_j in every head, and the last projection."""
    B, T, C = x_BTC.shape
    D = C // attention.heads
    v_BTC = attention.qkv(x_BTC)[..., -C:]
    y_BTC = torch.zeros(B, T, C, dtype=torch.float64)
    for b in range(B):
        for h in range(attention.heads):
            part = slice(h * D, (h + 1) * D)
            for i in range(T):
                for j in range(T):
                    y_BTC[b, i, part] += weights[b][h][i][j] * v_BTC[b, j, part]
    return attention.out(y_BTC)


def cosines_by_hand(attention: InterferenceAttention, x_BTC: torch.Tensor) -> torch.Tensor:
    """The softmax of cosine/τ over the positions up to each."""
    B, T, _ = x_BTC.shape
    H, W = attention.heads, attention.waves
    projected = attention.qkv(x_BTC)
    weights = torch.zeros(B, H, T, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            q = [projected[b, t, h * W : (h + 1) * W] + attention.phases[0, h] for t in range(T)]
            k = [
                projected[b, t, (H + h) * W : (H + h + 1) * W] + attention.phases[1, h]
                for t in range(T)
            ]
            for i in range(T):
                scores = [
                    math.exp(
                        sum(x * y for x, y in zip(q[i].tolist(), k[j].tolist(), strict=True))
                        / (math.hypot(*q[i].tolist()) * math.hypot(*k[j].tolist()))
                        / attention.temperature.item()
                    )
                    for j in range(i + 1)
                ]
                for j, score in enumerate(scores):
                    weights[b, h, i, j] = score / sum(scores)
    return weights


def intensities_by_hand(attention: IntensityAttention, x_BTC: torch.Tensor) -> torch.Tensor:
    """I / Σ (A_q + A_k)², wave by wave."""
    B, T, _ = x_BTC.shape
    H, W = attention.heads, attention.waves
    p = attention.qkv(x_BTC)[..., : 6 * H * W].reshape(B, T, 6, H, W).tolist()
    weights = torch.zeros(B, H, T, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for i in range(T):
                for j in range(i + 1):
                    found = largest = 0.0
                    for w in range(W):
                        omega = p[b][i][0][h][w] - p[b][j][1][h][w]
                        phi = p[b][i][2][h][w] - p[b][j][3][h][w]
                        a_q = math.log1p(math.exp(p[b][i][4][h][w]))
                        a_k = math.log1p(math.exp(p[b][j][5][h][w]))
                        crossed = 2 * a_q * a_k * math.cos(omega * (i - j) + phi)
                        found += a_q**2 + a_k**2 + crossed
                        largest += (a_q + a_k) ** 2
                    weights[b, h, i, j] = found / largest
    return weights


BY_HAND = [
    (InterferenceAttention, cosines_by_hand),
    (IntensityAttention, intensities_by_hand),
]
KINDS = [kind for kind, _ in BY_HAND]


@pytest.mark.parametrize(("kind", "by_hand"), BY_HAND)
@pytest.mark.parametrize("waves", [3, 4])
def test_weights_and_output_equal_the_formula(kind, by_hand, waves):
    attention, x_BTC = build(kind, waves=waves), draw(2, 5)
    expected = by_hand(attention, x_BTC)
    torch.testing.assert_close(attention.weights(x_BTC), expected)
    torch.testing.assert_close(attention(x_BTC), apply_by_hand(attention, x_BTC, expected))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_input_and_parameters_are_right(kind):
    attention, x_BTC = build(kind), draw(1, 4).requires_grad_()
    names, values = zip(*attention.named_parameters(), strict=True)

    def run(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return functional_call(attention, dict(zip(names, given, strict=True)), x)

    leaves = [v.detach().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(run, (x_BTC, *leaves), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(length=st.integers(2, 20), data=st.data())
@settings(deadline=None, max_examples=15)
def test_a_later_position_never_changes_an_earlier_one_by_a_bit(kind, dtype, length, data):
    at = data.draw(st.integers(1, length - 1))
    attention, x_BTC = build(kind).to(dtype), draw(2, length, seed=length).to(dtype)
    changed = x_BTC.clone()
    changed[:, at:] *= -3
    with torch.no_grad():
        before, after = attention(x_BTC), attention(changed)
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at:], after[:, at:])


def test_interference_starts_with_no_phase_and_the_root_of_waves_as_temperature():
    attention = InterferenceAttention(WaveModelSettings(waves=36))
    assert attention.temperature.item() == 6.0
    assert attention.phases.shape == (2, 4, 36)
    assert not attention.phases.any()


@given(scale=st.floats(0.01, 100))
@settings(deadline=None, max_examples=20)
def test_interference_looks_at_angles_and_not_at_lengths(scale):
    attention, x_BTC = build(InterferenceAttention, bias=False), draw(1, 6)
    with torch.no_grad():
        attention.phases.zero_()
    before = attention.weights(x_BTC)
    torch.testing.assert_close(attention.weights(scale * x_BTC), before)


def test_interference_of_vectors_that_are_all_zero_is_even_and_finite():
    attention = InterferenceAttention(WaveModelSettings(**SMALL))
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
    x_BTC = draw(1, 3).float()
    expected_TT = torch.tensor([[1.0, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(attention.weights(x_BTC)[0, 0], expected_TT)
    attention(x_BTC).sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


@given(length=st.integers(1, 12), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_intensities_lie_between_0_and_1(length, seed):
    weights_BHTT = build(IntensityAttention).weights(draw(2, length, seed=seed))
    # A sum of squares can come out below 0 by a rounding only.
    assert weights_BHTT.min() >= -1e-12
    assert weights_BHTT.max() <= 1 + 1e-12


def test_equal_waves_reinforce_each_other_and_opposite_ones_cancel():
    waves = torch.ones(6, 1, 1, 3, 2, dtype=torch.float64)
    assert torch.equal(intensity(waves)[0, 0], torch.ones(3, 3).double().tril())
    waves[2] += math.pi
    assert intensity(waves).abs().max() < 1e-15


@given(length=st.integers(1, 7), rows=st.integers(1, 8))
@settings(deadline=None, max_examples=20)
@pytest.mark.slow
def test_slices_of_any_size_give_the_same_weights_and_right_gradients(length, rows):
    generator = torch.Generator().manual_seed(length)
    waves = torch.rand(6, 1, 2, length, 3, generator=generator, dtype=torch.float64)
    numbers = rows * 2 * length * 3
    # The same sums, over other shapes.
    torch.testing.assert_close(
        intensity(waves, slice_numbers=numbers), intensity(waves), rtol=1e-12, atol=1e-13
    )
    leaf = waves.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: intensity(w, slice_numbers=numbers), leaf)


def test_no_tensor_of_the_intensity_outgrows_its_slice():
    waves = torch.rand(6, 1, 2, 32, 8, requires_grad=True)
    whole, sliced = 2 * 32 * 32 * 8, 2 * 4 * 32 * 8
    with Largest() as watched:
        intensity(waves, slice_numbers=whole).sum().backward()
    assert watched.numbers == whole
    with Largest() as watched:
        intensity(waves, slice_numbers=sliced).sum().backward()
    assert watched.numbers == waves.numel()  # 3072; a slice has 2048


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_on_the_weights_in_training_only(kind):
    attention, x_BTC = build(kind, dropout=0.5), draw(2, 8)
    assert not torch.equal(attention(x_BTC), attention(x_BTC))
    attention.eval()
    assert torch.equal(attention(x_BTC), attention(x_BTC))


def test_angles_of_the_intensity_stay_in_float32_under_autocast():
    attention, x_BTC = build(IntensityAttention).float(), draw(1, 60).float()
    seen = []
    attention.drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention(x_BTC)
        projected = attention.qkv(x_BTC)
    # What is left of the projection after its rounding, computed in float64.
    waves = projected.double()[..., :-6].view(1, 60, 6, 2, 4).permute(2, 0, 3, 1, 4).clone()
    waves[4:] = torch.nn.functional.softplus(waves[4:])
    # Angles reach a few hundred rad here; bfloat16 would know them to 1 rad.
    torch.testing.assert_close(seen[0].double(), intensity(waves), atol=1e-3, rtol=0)
