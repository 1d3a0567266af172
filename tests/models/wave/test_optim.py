"""RGD and WaveNative against references in plain numpy; strength 0 against AdamW, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW

from cupel.errors import TrainingFailed
from cupel.models.wave import optim
from cupel.models.wave.optim import RGD, WaveNative, filtered
from cupel.models.wave.settings import RGDSettings, WaveNativeSettings
from cupel.train.optim import adamw, decay_groups, fused_exists
from cupel.train.settings import AdamWSettings

SHAPES = ((5, 4), (4, 7), (5, 4), (3, 2, 3, 1), (1, 6), (9, 1), (6,))


class Weights(nn.Module):
    """Matrices of even and odd sides, two of one shape, a convolution's kernel, and a vector."""

    def __init__(self, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.all = nn.ParameterList(
            nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
            for shape in SHAPES
        )


def give_gradients(model: nn.Module, step: int) -> None:
    """Gradients that depend on the step only."""
    generator = torch.Generator().manual_seed(step)
    for weight in model.parameters():
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = drawn.to(weight.dtype)


def train(optimizer: torch.optim.Optimizer, model: nn.Module, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def arrays(model: nn.Module) -> list[np.ndarray]:
    return [weight.detach().double().numpy().copy() for weight in model.parameters()]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a.detach(), b.detach()) for a, b in pairs)


# ---- resonant gradient descent --------------------------------------------------------------


def plain_filter(u: np.ndarray, w: np.ndarray, alpha: float, eps: float) -> np.ndarray:
    """Re IFFT2(Û · (α · res + 1 − α)) by the full complex transform."""
    of_w, of_u = np.fft.fft2(w), np.fft.fft2(u)
    res = np.sqrt((np.abs(of_w) / np.abs(of_w).max()) * (np.abs(of_u) / np.abs(of_u).max()) + eps)
    return np.real(np.fft.ifft2(of_u * (alpha * res + 1 - alpha)))


def plain_rgd(model: nn.Module, chosen: RGDSettings, steps: int) -> list[np.ndarray]:
    """The definition, one tensor and one update at a time, in float64."""
    weights, (b1, b2) = arrays(model), chosen.betas
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for n in range(1, steps + 1):
        give_gradients(model, n)
        for i, weight in enumerate(model.parameters()):
            w, g = weights[i], weight.grad.double().numpy()
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * g**2
            u = (m[i] / (1 - b1**n)) / (np.sqrt(v[i] / (1 - b2**n)) + chosen.eps)
            if w.ndim >= 2:
                alpha = chosen.strength * (min(1, n / chosen.warmup) if chosen.warmup else 1)
                flat = (len(w), -1)
                u = plain_filter(u.reshape(flat), w.reshape(flat), alpha, chosen.resonance_eps)
                w = w * (1 - chosen.lr * chosen.weight_decay)
            weights[i] = w - chosen.lr * u.reshape(w.shape)
    return weights


@settings(deadline=None, max_examples=12)
@given(
    strength=st.sampled_from([0.0, 0.3, 1.0]),
    warmup=st.sampled_from([0, 3, 10]),
    decay=st.sampled_from([0.0, 0.1]),
    first_beta=st.sampled_from([0.0, 0.9]),
    resonance_eps=st.sampled_from([1e-8, 0.1]),
    fused=st.booleans(),
)
def test_rgd_follows_its_definition(strength, warmup, decay, first_beta, resonance_eps, fused):
    chosen = RGDSettings(
        lr=0.05,
        betas=(first_beta, 0.999),
        weight_decay=decay,
        strength=strength,
        warmup=warmup,
        resonance_eps=resonance_eps,
        fused=fused,
    )
    model = Weights(dtype=torch.float64)
    expected = plain_rgd(Weights(dtype=torch.float64), chosen, 5)
    train(optim.rgd(model, chosen), model, range(1, 6))
    for found, wanted in zip(arrays(model), expected, strict=True):
        # Moments over 1 − 0.999 lose three of float64's sixteen digits.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)


def test_in_float32_the_bias_correction_keeps_its_digits():
    chosen = RGDSettings(lr=0.05, strength=1.0, warmup=0)
    model = Weights()
    expected = plain_rgd(Weights(), chosen, 3)
    train(optim.rgd(model, chosen), model, range(1, 4))
    for found, wanted in zip(arrays(model), expected, strict=True):
        # Three updates of 0.05 in float32; 1 − 0.999 taken in float32 would show at 1e-6.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=8e-7)


@pytest.mark.parametrize("fused", [True, False, None])
def test_strength_0_is_cupels_adamw_bit_for_bit(fused):
    ours, theirs = Weights(), Weights()
    common = {"lr": 0.03, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": fused}
    train(optim.rgd(ours, RGDSettings(strength=0, **common)), ours, range(1, 6))
    train(adamw(theirs, AdamWSettings(**common)), theirs, range(1, 6))
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("fused", [True, False])
def test_a_computed_correction_of_strength_0_is_adamw_bit_for_bit_too(monkeypatch, fused):
    computed = []

    def damp(self: RGD, group: Any, alpha: float, stack: Any, power: Any) -> None:
        computed.append(alpha)
        original(self, group, 0.0, stack, power)

    original = RGD._damp
    monkeypatch.setattr(RGD, "_damp", damp)
    ours, theirs = Weights(), Weights()
    train(optim.rgd(ours, RGDSettings(strength=1, fused=fused)), ours, range(1, 4))
    common = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01}
    train(adamw(theirs, AdamWSettings(**common, fused=fused)), theirs, range(1, 4))
    assert min(computed) > 0
    assert same_bits(ours, theirs)


def test_the_spectral_part_moves_matrices_and_no_vector():
    ours, theirs = Weights(), Weights()
    train(optim.rgd(ours, RGDSettings(strength=1, warmup=0, weight_decay=0)), ours, range(1, 2))
    train(AdamW(theirs.parameters(), lr=1e-3, weight_decay=0, fused=True), theirs, range(1, 2))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        # All that have two dimensions: a single row or column has a spectrum too.
        assert torch.equal(a, b) == (a.dim() == 1)


def test_a_resumed_warm_up_goes_on_and_a_lost_counter_shows():
    chosen = RGDSettings(lr=0.05, strength=1.0, warmup=6)
    model = Weights()
    optimizer = optim.rgd(model, chosen)
    train(optimizer, model, range(1, 4))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(optimizer, model, range(4, 8))

    def resumed(*, updates: int | None) -> nn.Module:
        again = Weights()
        again.load_state_dict(saved[0])
        state = copy.deepcopy(saved[1])
        for group in state["param_groups"]:
            assert group["updates"] == 3
            group["updates"] = 3 if updates is None else updates
        second = optim.rgd(again, chosen)
        second.load_state_dict(state)
        train(second, again, range(4, 8))
        return again

    assert same_bits(resumed(updates=None), model)
    assert not same_bits(resumed(updates=0), model)


def test_the_nth_update_has_n_over_warm_up_of_the_strength():
    group = {"strength": 0.8, "warmup": 4}
    found = [optim._alpha(group | {"updates": n}) for n in (1, 2, 4, 5)]
    assert found == [0.2, 0.4, 0.8, 0.8]


def test_weights_or_updates_of_zero_stay_finite():
    zero_weights, zero_updates = nn.Linear(4, 3), nn.Linear(4, 3)
    nn.init.zeros_(zero_weights.weight)
    give_gradients(zero_weights, 1)
    before = zero_updates.weight.detach().clone()
    for parameter in zero_updates.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for model in (zero_weights, zero_updates):
        optim.rgd(model, RGDSettings(strength=1, warmup=0, weight_decay=0, lr=1.0)).step()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.equal(zero_updates.weight, before)
    # Adam's first update has elements of 1; sqrt(resonance_eps) = 1e-4 of it is left.
    # AdamW's whole step of 1 is taken and given back in float32, which keeps 1e-7 of it.
    assert zero_weights.weight.abs().max().item() == pytest.approx(1e-4, rel=1e-2)


def test_what_has_no_gradient_or_no_elements_is_left_alone():
    ours, alone = Weights(), Weights()
    ours.empty = nn.Parameter(torch.zeros(0, 3))
    optimizer = optim.rgd(ours, RGDSettings(strength=1, warmup=0))
    give_gradients(ours, 1)
    ours.all[0].grad = None
    before = ours.all[0].detach().clone()
    optimizer.step()
    assert torch.equal(ours.all[0], before)
    # The other matrix of that shape moves as if it were the only one of it.
    alone.all[0].requires_grad_(False)
    second = optim.rgd(alone, RGDSettings(strength=1, warmup=0))
    give_gradients(alone, 1)
    alone.all[0].grad = None
    second.step()
    assert torch.equal(ours.all[2], alone.all[2])


def test_stacks_are_of_one_shape_hold_each_matrix_once_and_have_a_limit(monkeypatch):
    monkeypatch.setattr(optim, "_STACKED", 40)
    weights = [nn.Parameter(torch.zeros(shape)) for shape in [(4, 5)] * 5 + [(20, 4), (5, 4), (9,)]]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    stacks = list(optim._stacks(weights))
    assert [len(stack) for stack in stacks] == [2, 2, 1, 1, 1]
    assert [id(w) for stack in stacks for w in stack] == [id(w) for w in weights[:-1]]


def test_the_rate_is_the_groups_at_the_time_of_the_step():
    ours, theirs = Weights(), Weights()
    changed = optim.rgd(ours, RGDSettings(lr=0.5, strength=1, warmup=0))
    for group in changed.param_groups:
        group["lr"] = 0.01
    train(changed, ours, range(1, 3))
    train(optim.rgd(theirs, RGDSettings(lr=0.01, strength=1, warmup=0)), theirs, range(1, 3))
    assert same_bits(ours, theirs)


def test_a_closure_gives_the_gradients_of_the_step_and_its_loss_is_returned():
    ours, theirs = Weights(), Weights()

    def closure() -> float:
        assert torch.is_grad_enabled()
        give_gradients(ours, 1)
        return 2.5

    assert optim.rgd(ours, RGDSettings(strength=1, warmup=0)).step(closure) == 2.5
    train(optim.rgd(theirs, RGDSettings(strength=1, warmup=0)), theirs, range(1, 2))
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_scaler_skips_an_overflow_whole_and_changes_nothing_else(fused):
    chosen = RGDSettings(strength=1, warmup=4, fused=fused)
    ours, theirs = Weights(), Weights()
    optimizer, scaler = optim.rgd(ours, chosen), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))  # a scaler makes its state when it is first used
    for step in (1, 2, 3):
        give_gradients(ours, step)
        for weight in ours.parameters():
            weight.grad *= 8.0 if step != 2 else torch.inf
        before = copy.deepcopy(ours)
        scaler.step(optimizer)
        assert same_bits(ours, before) == (step == 2)
        scaler.update(8.0)
    assert {group["updates"] for group in optimizer.param_groups} == {2}
    plain = optim.rgd(theirs, chosen)
    for step in (1, 3):
        train(plain, theirs, range(step, step + 1))
    assert same_bits(ours, theirs)


def test_hooks_run_once_a_step_also_after_an_adamw_was_made():
    AdamW([nn.Parameter(torch.zeros(1))])  # wraps AdamW.step
    model, calls = Weights(), []
    optimizer = optim.rgd(model, RGDSettings())
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(optimizer, model, range(1, 2))
    assert calls == ["before", "after"]


def test_weights_in_bfloat16_are_filtered_in_float32():
    model = Weights(dtype=torch.bfloat16)
    before = [weight.detach().clone() for weight in model.parameters()]
    train(RGD(model.parameters(), lr=0.1, strength=1, warmup=0), model, range(1, 2))
    for weight, old in zip(model.parameters(), before, strict=True):
        assert weight.dtype == torch.bfloat16
        assert weight.isfinite().all()
        assert not torch.equal(weight, old)


def test_a_memory_layout_does_not_change_the_numbers():
    plain, last = (nn.Conv2d(3, 4, 3) for _ in range(2))
    last.load_state_dict(plain.state_dict())
    last = last.to(memory_format=torch.channels_last)
    for model in (plain, last):
        optimizer = optim.rgd(model, RGDSettings(lr=0.1, strength=1, warmup=0, fused=False))
        train(optimizer, model, range(1, 4))
    # Equal numbers in another order: the kernels may round differently in the last place.
    torch.testing.assert_close(plain.weight, last.weight, rtol=0, atol=1e-7)


def test_the_groups_and_the_kernel_are_those_of_cupels_adamw():
    model = Weights()
    model.frozen = nn.Linear(2, 2).requires_grad_(False)
    ours, theirs = optim._decay_groups(model, 0.3), decay_groups(model, 0.3)
    assert [[id(p) for p in g["params"]] for g in ours] == [
        [id(p) for p in g["params"]] for g in theirs
    ]
    assert [g["weight_decay"] for g in ours] == [g["weight_decay"] for g in theirs]
    assert len(optim._decay_groups(nn.LayerNorm(3), 0.1)) == 1
    for tried in (model, nn.Linear(1, 1, device="meta")):
        assert optim._fused_exists(tried) == fused_exists(tried)


def cosine_and_norm(shape: tuple[int, int], strength: float) -> tuple[float, float]:
    """Of the filtered update: cosine with the update, and its norm over the update's."""
    generator = torch.Generator().manual_seed(0)
    update, weights = torch.randn(2, *shape, generator=generator)
    moved = filtered(update, weights, strength)
    norm = float(moved.norm() / update.norm())
    return float((moved * update).sum() / update.norm() ** 2) / norm, norm


@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (512, 128), (1536, 384)])
def test_strength_03_keeps_the_direction_of_adam_and_four_fifths_of_its_length(shape):
    # Of normal draws, over seeds: cosine 0.9988 to 0.9993; norm 0.808 at 64², 0.800 at 128²,
    # 0.794 at 512 × 128, 0.789 at 1536 × 384, each ± 0.012 at most.
    cosine, norm = cosine_and_norm(shape, 0.3)
    assert cosine > 0.9985
    assert 0.78 < norm < 0.82


def test_filtered_is_what_a_step_makes_of_adams_update():
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 5, generator=generator, dtype=torch.float64))
    before = weight.detach().clone()
    weight.grad = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    RGD([weight], lr=1.0, strength=0.3, warmup=0, weight_decay=0.0).step()
    update = weight.grad / (weight.grad.abs() + 1e-8)  # Adam's first: m̂ = g, v̂ = g²
    # float64; v̂ is divided by 1 − 0.999, which costs three digits.
    torch.testing.assert_close(
        before - weight.detach(), filtered(update, before, 0.3), rtol=0, atol=1e-11
    )


# ---- wave-native ----------------------------------------------------------------------------


def plain_wave_native(model: nn.Module, chosen: WaveNativeSettings, steps: int) -> list[np.ndarray]:
    """The definition with projectors from the eigenvectors of WWᵀ and WᵀW, in float64."""
    weights = arrays(model)
    velocities, projectors = [np.zeros_like(w) for w in weights], {}
    for n in range(steps):
        give_gradients(model, n + 1)
        for i, weight in enumerate(model.parameters()):
            w, g = weights[i], weight.grad.double().numpy()
            if w.ndim >= 2:
                flat = w.reshape(len(w), -1)
                if n % chosen.every == 0:
                    count = max(1, round(chosen.modes * min(flat.shape)))
                    leading = [
                        np.linalg.eigh(square)[1][:, -count:]
                        for square in (flat @ flat.T, flat.T @ flat)
                    ]
                    projectors[i] = [vectors @ vectors.T for vectors in leading]
                left, right = projectors[i]
                inside = (left @ g.reshape(flat.shape) @ right).reshape(g.shape)
                g = chosen.projected * inside + (1 - chosen.projected) * g
                w = w * (1 - chosen.lr * chosen.weight_decay)
            velocities[i] = velocities[i] * (1 - chosen.damping) - chosen.lr * g
            weights[i] = w + velocities[i]
    return weights


@settings(deadline=None, max_examples=20)
@given(
    damping=st.sampled_from([0.0, 0.1, 1.0]),
    projected=st.sampled_from([0.0, 0.7, 1.0]),
    modes=st.sampled_from([0.01, 0.5, 1.0]),
    every=st.sampled_from([1, 3]),
    decay=st.sampled_from([0.0, 0.2]),
)
def test_wave_native_follows_its_definition(damping, projected, modes, every, decay):
    chosen = WaveNativeSettings(
        lr=0.05,
        damping=damping,
        projected=projected,
        modes=modes,
        every=every,
        weight_decay=decay,
    )
    model = Weights(dtype=torch.float64)
    expected = plain_wave_native(Weights(dtype=torch.float64), chosen, 5)
    train(optim.wave_native(model, chosen), model, range(1, 6))
    for found, wanted in zip(arrays(model), expected, strict=True):
        # float64; modes of nearly equal strength amplify rounding by a few digits.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


def test_all_modes_of_a_square_matrix_leave_the_gradient_as_it_is():
    gradient, weights = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    left, right = optim._modes(weights, 1.0)
    # A product with two orthogonal matrices in float32.
    torch.testing.assert_close(optim._onto(gradient, left, right, 1.0), gradient, rtol=0, atol=1e-5)


def test_a_fully_projected_update_stays_in_the_modes():
    weight = nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    weight.grad = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    WaveNative([weight], projected=1.0, modes=0.4, lr=1.0).step()
    assert torch.linalg.matrix_rank(weight.detach() - before, rtol=1e-4) == 2


def test_a_run_resumed_between_two_computations_of_the_modes_goes_on_with_equal_bits():
    chosen = WaveNativeSettings(every=4)
    model = Weights()
    optimizer = optim.wave_native(model, chosen)
    train(optimizer, model, range(1, 3))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(optimizer, model, range(3, 9))

    def resumed(*, keep_modes: bool) -> nn.Module:
        again = Weights()
        again.load_state_dict(saved[0])
        second = optim.wave_native(again, chosen)
        second.load_state_dict(copy.deepcopy(saved[1]))
        if not keep_modes:
            for weight, state in second.state.items():
                if weight.dim() >= 2:
                    state["left"], state["right"] = optim._modes(weight.flatten(1), chosen.modes)
        train(second, again, range(3, 9))
        return again

    assert same_bits(resumed(keep_modes=True), model)
    assert not same_bits(resumed(keep_modes=False), model)


def test_the_state_holds_no_more_than_the_modes_in_use():
    weight = nn.Parameter(torch.randn(12, 8))
    weight.grad = torch.randn(12, 8)
    optimizer = WaveNative([weight], modes=0.25)
    optimizer.step()
    state = optimizer.state[weight]
    assert {key: state[key].shape for key in ("left", "right")} == {
        "left": (12, 2),
        "right": (8, 2),
    }
    assert state["left"].untyped_storage().nbytes() == 12 * 2 * 4


def test_without_projection_no_modes_are_computed_and_vectors_never_have_any():
    model = Weights()
    optimizer = optim.wave_native(model, WaveNativeSettings(projected=0.0))
    train(optimizer, model, range(1, 2))
    assert all(state.keys() == {"updates", "velocity"} for state in optimizer.state.values())


def test_weights_that_are_not_finite_say_so_when_modes_are_due():
    weight = nn.Parameter(torch.full((3, 2), torch.nan))
    weight.grad = torch.ones(3, 2)
    with pytest.raises(TrainingFailed, match=r"\(3, 2\) are not finite.*train\.optimizer\.lr"):
        WaveNative([weight]).step()


@pytest.mark.parametrize("kind", ["rgd", "wave_native"])
def test_both_learn(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = (
        optim.rgd(model, RGDSettings(lr=1e-2, warmup=5))
        if kind == "rgd"
        else optim.wave_native(model, WaveNativeSettings(every=10))
    )
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True)
    losses: list[Tensor] = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append((model(inputs) - targets).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.5 * losses[0].item()
