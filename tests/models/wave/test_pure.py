"""Pure wave attention against loops; the linear form against the quadratic one, and its growth."""

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

from cupel.models.wave.pure import PureWaveAttention, kernel_weights, linear_sums
from cupel.models.wave.settings import WaveModelSettings

SMALL = {"width": 6, "heads": 2, "waves": 4, "attention": "pure"}
KERNELS = {
    "elu": lambda x: x + 1 if x > 0 else math.exp(x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "exp": math.exp,
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_form = pytest.mark.parametrize("form", ["linear", "quadratic"])
every_normaliser = pytest.mark.parametrize("normaliser", ["sqrt", "sum"])


def build(dropout: float = 0.0, **pure: str) -> PureWaveAttention:
    torch.manual_seed(0)
    chosen = WaveModelSettings(**SMALL, dropout=dropout, pure=pure)
    attention = PureWaveAttention(chosen).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.7)
    return attention


def draw(batch: int, length: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, width, generator=generator, dtype=torch.float64)


def features_by_hand(frequency, phase, position: int, kernel) -> list[float]:
    sines = [math.sin(f * position + p) for f, p in zip(frequency, phase, strict=True)]
    scale = len(sines) ** 0.25 / math.hypot(*sines)
    return [kernel(scale * s) for s in sines]


def weights_by_hand(
    attention: PureWaveAttention, x_BTC: torch.Tensor, kernel: str, normaliser: str
) -> torch.Tensor:
    B, T, _ = x_BTC.shape
    H, W = attention.heads, attention.waves
    p = attention.qkv(x_BTC)[..., : 4 * H * W].reshape(B, T, 2, 2, H, W).tolist()
    weights = torch.zeros(B, H, T, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            q, k = (
                [
                    features_by_hand(p[b][t][0][n][h], p[b][t][1][n][h], t, KERNELS[kernel])
                    for t in range(T)
                ]
                for n in (0, 1)
            )
            for i in range(T):
                row = [sum(x * y for x, y in zip(q[i], k[j], strict=True)) for j in range(i + 1)]
                divisor = math.sqrt(i + 1) if normaliser == "sqrt" else sum(row)
                for j, weight in enumerate(row):
                    weights[b, h, i, j] = weight / divisor
    return weights


@every_kernel
@every_form
@every_normaliser
def test_weights_and_output_equal_the_formula(kernel, form, normaliser):
    attention, x_BTC = build(kernel=kernel, form=form, normaliser=normaliser), draw(2, 5)
    expected = weights_by_hand(attention, x_BTC, kernel, normaliser)
    torch.testing.assert_close(attention.weights(x_BTC), expected)
    v_BHTD = attention.qkv(x_BTC)[..., -6:].view(2, 5, 2, 3).transpose(1, 2)
    y_BTC = torch.einsum("bhij,bhjd->bihd", expected, v_BHTD).reshape(2, 5, 6)
    torch.testing.assert_close(attention(x_BTC), attention.out(y_BTC))


@every_normaliser
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@given(length=st.integers(1, 70), chunk=st.integers(1, 40), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_the_linear_form_equals_the_quadratic_one(
    normaliser, dtype, tolerance, length, chunk, seed
):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.rand(2, 1, length, 5, generator=generator, dtype=dtype) + 0.1 for _ in "qk")
    v = torch.randn(2, 1, length, 3, generator=generator, dtype=dtype)
    linear = linear_sums(q, k, v, normaliser=normaliser, chunk=chunk)
    quadratic = kernel_weights(q, k, normaliser=normaliser) @ v
    # Sums of up to 70 terms in another order, relative to the largest result.
    assert (linear - quadratic).abs().max() <= tolerance * max(1.0, quadratic.abs().max().item())


@every_form
@every_normaliser
def test_gradients_of_input_and_parameters_are_right(form, normaliser):
    attention = build(kernel="sigmoid", form=form, normaliser=normaliser)
    names, values = zip(*attention.named_parameters(), strict=True)

    def run(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return functional_call(attention, dict(zip(names, given, strict=True)), x)

    leaves = [v.detach().requires_grad_() for v in values]
    # 35 positions are two chunks of the linear form.
    x_BTC = draw(1, 35).requires_grad_()
    assert torch.autograd.gradcheck(run, (x_BTC, *leaves), fast_mode=True)


@every_form
@every_normaliser
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(length=st.integers(2, 70), data=st.data())
@settings(deadline=None, max_examples=15)
@pytest.mark.slow
def test_a_later_position_never_changes_an_earlier_one_by_a_bit(
    form, normaliser, dtype, length, data
):
    at = data.draw(st.integers(1, length - 1))
    attention = build(form=form, normaliser=normaliser).to(dtype)
    x_BTC = draw(2, length).to(dtype)
    changed = x_BTC.clone()
    changed[:, at:] *= -3
    with torch.no_grad():
        before, after = attention(x_BTC), attention(changed)
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at:], after[:, at:])


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


def largest_tensor(form: str, length: int) -> int:
    attention, x_BTC = build(form=form), draw(1, length)
    with Largest() as watched:
        attention(x_BTC).sum().backward()
    return watched.numbers


@pytest.mark.slow
def test_the_chosen_form_is_the_one_that_runs():
    assert largest_tensor("linear", 2048) == 2 * largest_tensor("linear", 1024)
    assert largest_tensor("quadratic", 1024) == 2 * 1024**2
    assert largest_tensor("linear", 1024) < 2 * 1024**2 / 10


def test_queries_and_keys_have_the_stated_length_before_the_kernel():
    attention = build(kernel="exp")
    q_BHTW, k_BHTW, _ = attention._features(attention.qkv(draw(2, 9)))
    for features in (q_BHTW, k_BHTW):
        lengths = features.log().norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 4**0.25))


def test_dropout_acts_on_the_weights_of_the_quadratic_form_only():
    x_BTC = draw(2, 8)
    linear, quadratic = (build(0.5, form=form) for form in ("linear", "quadratic"))
    assert torch.equal(linear(x_BTC), linear(x_BTC))
    assert not torch.equal(quadratic(x_BTC), quadratic(x_BTC))
    quadratic.eval()
    assert torch.equal(quadratic(x_BTC), quadratic(x_BTC))


@every_form
def test_sums_stay_in_float32_under_autocast(form):
    attention, x_BTC, seen = build(form=form).float(), draw(1, 64).float(), []
    attention.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_BTC = attention(x_BTC)
        projected = attention.qkv(x_BTC)
    assert out_BTC.dtype == torch.bfloat16
    q, k, v = attention._features(projected.double())
    expected = (kernel_weights(q, k, normaliser="sqrt") @ v).transpose(1, 2).reshape(1, 64, 6)
    # Exact but for float32 angles of some hundred rad (1e-5) and the rounding of the result.
    torch.testing.assert_close(seen[0].double(), expected, rtol=2**-8, atol=2e-4)
