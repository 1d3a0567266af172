"""QFE against plain numpy with angles, the coherence penalties against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cupel.errors import UsageError
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.wave.loss import (
    QFE,
    Coherence,
    harmonic_deviation,
    norm_drift,
    phase_variance,
)
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import CoherenceSettings, QFESettings, WaveModelSettings

V, T = 11, 6


def batch(seed: int = 0, vocabulary: int = V) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(vocabulary, (2, 3, T), generator=generator).unbind()
    return tokens, targets


def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTModelSettings(layers=1, heads=1, width=8, block=T, vocabulary=V))


def wave_gpt(**more: object) -> WaveGPT:
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "width": 8, "waves": 3, "harmonics": 4, "block": T}
    return WaveGPT(WaveModelSettings(**(sizes | {"vocabulary": V} | more)))


def qfe(vocabulary: int = V, key: int = 7, **chosen: object) -> QFE:
    return QFE(QFESettings(**chosen), vocabulary=vocabulary, key=key)


def draw_logits(seed: int, *, length: int = T, vocabulary: int = V) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, length, vocabulary, generator=generator, dtype=torch.float64)


def plain_coherence(
    logits: np.ndarray,
    targets: np.ndarray,
    projection: np.ndarray | None,
    *,
    temperature: float,
    threshold: float,
) -> float:
    """The definition, with angles: sequence by sequence, one channel and one bin at a time."""
    vocabulary = logits.shape[2]
    basis = np.eye(vocabulary) if projection is None else projection
    total, counted = 0.0, 0
    for rows, wanted in zip(logits, targets, strict=True):
        powers = np.exp(rows / temperature)
        out = (powers / powers.sum(1, keepdims=True)) @ basis
        target = np.eye(vocabulary)[wanted] @ basis
        for channel in range(basis.shape[1]):
            of_out, of_target = np.fft.rfft(out[:, channel]), np.fft.rfft(target[:, channel])
            for a, b in zip(of_out, of_target, strict=True):
                if abs(a) > threshold and abs(b) > threshold:
                    apart = np.arctan2(a.imag, a.real) - np.arctan2(b.imag, b.real)
                    total += abs(a) * abs(b) * (1 - np.cos(apart))
                    counted += 1
    return total / counted if counted else 0.0


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    length=st.integers(1, 7),
    projection=st.sampled_from([3, 256]),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    # Not 0: of bins that are zero but for rounding, each FFT would count other ones.
    threshold=st.sampled_from([1e-6, 0.01, 0.7, 50.0]),
)
def test_qfe_follows_its_definition(seed, length, projection, temperature, threshold):
    objective = qfe(projection=projection, temperature=temperature, threshold=threshold)
    logits = draw_logits(seed, length=length)
    targets = torch.randint(V, (2, length), generator=torch.Generator().manual_seed(seed))
    basis = None if objective.projection is None else objective.projection.double().numpy()
    expected = plain_coherence(
        logits.numpy(), targets.numpy(), basis, temperature=temperature, threshold=threshold
    )
    # float64; amplitudes up to ten, of which a product less its cosine part keeps 14 digits.
    assert float(objective.coherence(logits, targets)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("projection", [3, 256])
def test_gradients_of_qfe_are_those_of_its_values(projection):
    objective = qfe(projection=projection, threshold=1e-6)
    targets = batch()[1][:2]
    logits = draw_logits(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective.coherence(x, targets), (logits,))


def test_perfect_predictions_are_coherent_and_shifted_ones_are_not():
    tokens = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))
    sure = 50.0 * F.one_hot(tokens, V).double()
    assert float(qfe().coherence(sure, tokens)) == pytest.approx(0.0, abs=1e-12)
    assert float(qfe().coherence(sure, tokens.roll(1, dims=1))) > 0.1


def test_gradients_are_finite_where_amplitudes_are_zero():
    # With certain predictions most channels are zero at every frequency.
    logits = (200.0 * F.one_hot(batch()[1], V).float()).requires_grad_()
    qfe(threshold=0.0).coherence(logits, batch(1)[1]).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_no_bin_above_the_threshold_gives_zero_and_no_gradient():
    logits = draw_logits(0).requires_grad_()
    coherence = qfe(threshold=1e6).coherence(logits, batch()[1][:2])
    coherence.backward()
    assert float(coherence.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def loss_and_gradients(objective: nn.Module, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    loss, _ = objective(model, *batch())
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


def test_the_loss_is_cross_entropy_and_weight_times_coherence():
    model, objective = gpt(), qfe(weight=0.3)
    loss, numbers = objective(model, *batch())
    logits, cross_entropy = model(*batch())
    coherence = objective.coherence(logits, batch()[1])
    assert torch.equal(loss, cross_entropy + 0.3 * coherence)
    assert torch.equal(numbers["loss/cross_entropy"], cross_entropy)
    assert torch.equal(numbers["loss/coherence"], coherence)
    assert not any(number.requires_grad for number in numbers.values())
    assert numbers.keys() == {"loss/cross_entropy", "loss/coherence"}


@pytest.mark.parametrize("projection", [3, 256])
def test_weight_0_is_cross_entropy_bit_for_bit(projection):
    model = gpt()
    expected = model(*batch())[1]
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, found = loss_and_gradients(qfe(weight=0, projection=projection), model)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, found, gradients))
    _, with_weight = loss_and_gradients(qfe(weight=0.1, projection=projection), model)
    assert not all(map(torch.equal, with_weight, gradients))


def test_weight_0_keeps_out_a_coherence_that_is_not_finite():
    class Huge(nn.Module):
        """Its logits overflow; what it calls its loss does not."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return self.scale * torch.full((3, T, V), math.inf), 2.0 * self.scale

    model = Huge()
    loss, numbers = qfe(weight=0)(model, *batch())
    loss.backward()
    assert not numbers["loss/coherence"].isfinite()
    assert model.scale.grad is not None
    assert float(model.scale.grad) == 2.0


def test_coherence_is_computed_in_float32_under_autocast():
    model, objective = gpt(), qfe(weight=0.1, projection=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = model(*batch())
        found = objective.coherence(logits, batch()[1])
        loss, _ = objective(model, *batch())
    assert logits.dtype == torch.bfloat16
    assert found.dtype == loss.dtype == torch.float32
    assert torch.equal(found, objective.coherence(logits.float(), batch()[1]))


def test_the_projection_is_drawn_from_the_key_alone_and_only_where_needed():
    torch.manual_seed(1)
    first = qfe(300, key=5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, other = qfe(300, key=5), qfe(300, key=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.projection is not None
    assert second.projection is not None
    assert other.projection is not None
    assert torch.equal(first.projection, second.projection)
    assert not torch.equal(first.projection, other.projection)
    assert first.projection.shape == (300, 256)
    # The spread of 76,800 draws is known to 1/sqrt(2 · 76,800), a quarter of a percent; four of it.
    assert float(first.projection.std()) == pytest.approx(1 / 16, rel=0.01)
    assert qfe(256).projection is None
    assert qfe(256).state_dict() == {}


def test_loading_a_state_restores_the_projection():
    kept, other = qfe(projection=4, key=1), qfe(projection=4, key=2)
    logits, targets = draw_logits(0), batch()[1][:2]
    before = float(other.coherence(logits, targets))
    other.load_state_dict(kept.state_dict())
    assert float(other.coherence(logits, targets)) == float(kept.coherence(logits, targets))
    assert float(other.coherence(logits, targets)) != before


def test_one_hot_projected_targets_are_rows_of_the_projection():
    objective = qfe(projection=4)
    assert objective.projection is not None
    targets = batch()[1]
    dense = F.one_hot(targets, V).float() @ objective.projection
    rows = objective._targets(targets, like=torch.zeros(3, T, V))
    assert torch.equal(rows, dense)  # all other addends are zeros, so not a bit differs


def coherence(**weights: float) -> Coherence:
    none = {"phase_variance": 0.0, "norm_drift": 0.0, "harmonic_deviation": 0.0}
    return Coherence(CoherenceSettings(**(none | weights)), vocabulary=V, key=0)


def test_phase_variance_is_0_for_equal_phases_1_for_opposite_ones_and_knows_no_turns():
    generator = torch.Generator().manual_seed(0)
    phases = 6 * torch.rand(5, 4, generator=generator, dtype=torch.float64)
    expected = np.mean([1 - abs(np.mean(np.exp(1j * row))) for row in phases.numpy()])
    # Sums of four unit vectors in float64.
    assert float(phase_variance(phases)) == pytest.approx(expected, abs=1e-14)
    assert float(phase_variance(phases + 6 * math.pi)) == pytest.approx(expected, abs=1e-14)
    assert float(phase_variance(torch.full((3, 4), 2.5))) == pytest.approx(0, abs=1e-6)
    opposite = torch.tensor([[0.0, math.pi]])
    assert float(phase_variance(opposite)) == pytest.approx(1, abs=1e-6)


def test_norm_drift_is_the_mean_squared_relative_change():
    assert float(norm_drift(torch.tensor([2.0, 3.0, 1.0]))) == 0.25
    assert float(norm_drift(torch.tensor([2.0, 2.0, 2.0]))) == 0.0


@given(st.floats(0.01, 100), st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4))
def test_amplitudes_of_1_over_n_deviate_by_nothing_whatever_scale_and_sign(scale, signs):
    amplitudes = scale * torch.tensor(signs) / torch.arange(1, 5)
    assert float(harmonic_deviation(amplitudes[None, None])) == pytest.approx(0, abs=1e-13)


@settings(deadline=None)
@given(st.integers(0, 999))
def test_harmonic_deviation_is_the_references_term_weighted_by_the_fundamentals_share(seed):
    generator = torch.Generator().manual_seed(seed)
    amplitudes = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    terms = []
    for a in amplitudes.abs().numpy().reshape(-1, 4):
        share = a[0] ** 2 / (a**2).sum()
        terms += [share * (a[n] / a[0] - 1 / (n + 1)) ** 2 for n in range(4)]
    # The plain form loses digits where a[0] is small; a dozen draws of three digits at worst.
    assert float(harmonic_deviation(amplitudes)) == pytest.approx(np.mean(terms), rel=1e-9)
    assert float(harmonic_deviation(amplitudes)) <= 1.0


def test_penalties_and_their_gradients_are_finite_at_their_singular_points():
    for penalty, given_values in (
        (phase_variance, torch.tensor([[0.0, math.pi], [1.0, 1.0]])),
        (phase_variance, torch.zeros(2, 1)),
        (harmonic_deviation, torch.zeros(2, 1, 4)),
        (harmonic_deviation, torch.tensor([[[0.0, 1.0, -1.0]]])),
        (harmonic_deviation, torch.tensor([[[1e-30, 0.0, 1e-30]]])),
    ):
        values = given_values.requires_grad_()
        found = penalty(values)
        found.backward()
        assert found.isfinite()
        assert values.grad is not None
        assert values.grad.isfinite().all()


def test_the_gradient_of_phase_variance_has_no_pole_at_opposite_phases():
    # Both phases opposite exactly: the mean vector is 0 and has no direction.
    phases = torch.tensor([[0.0, math.pi]], dtype=torch.float64, requires_grad=True)
    assert phase_variance(phases).backward() is None
    assert phases.grad is not None
    assert phases.grad.abs().max() <= 1


@pytest.mark.parametrize("embedding", ["packet", "physics"])
def test_the_parts_are_reported_unweighted_and_add_up_by_their_weights(embedding):
    weights = {"phase_variance": 0.5, "norm_drift": 0.25, "harmonic_deviation": 0.125}
    model = wave_gpt(embedding=embedding)
    loss, numbers = coherence(**weights)(model, *batch())
    norms: list[Tensor] = []
    _, cross_entropy = model(*batch(), norms=norms)
    state = model.coherence_state()
    expected = {
        "loss/cross_entropy": cross_entropy,
        "loss/phase_variance": phase_variance(state["phases"]),
        "loss/norm_drift": norm_drift(torch.stack(norms)),
        "loss/harmonic_deviation": harmonic_deviation(state["amplitudes"]),
    }
    assert len(norms) == 3
    assert numbers.keys() == expected.keys()
    assert all(torch.equal(numbers[key], value) for key, value in expected.items())
    assert not any(number.requires_grad for number in numbers.values())
    total = float(cross_entropy.detach()) + sum(
        weight * float(numbers[f"loss/{name}"]) for name, weight in weights.items()
    )
    assert float(loss.detach()) == pytest.approx(total, rel=1e-6)  # float32


@pytest.mark.parametrize("name", ["phase_variance", "norm_drift", "harmonic_deviation"])
def test_each_penalty_falls_when_it_alone_is_followed(name):
    model, objective = wave_gpt(), coherence(**{name: 1.0})
    with torch.no_grad():
        for parameter in model.blocks.parameters():  # fresh blocks hardly move the norms
            parameter.normal_(std=0.3)
    before = objective(model, *batch())[1][f"loss/{name}"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (objective(model, *batch())[0] - model(*batch())[1]).backward()
        optimizer.step()
    assert float(objective(model, *batch())[1][f"loss/{name}"]) < 0.9 * float(before)


def test_weights_of_0_are_cross_entropy_bit_for_bit():
    model = wave_gpt()
    expected = model(*batch())[1]
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, found = loss_and_gradients(coherence(), model)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, found, gradients))


def test_a_model_without_waves_is_refused_with_what_to_type():
    with pytest.raises(UsageError, match=r"objective\.kind=coherence .* GPT has no .*model\.kind"):
        coherence()(gpt(), *batch())
