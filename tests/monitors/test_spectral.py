"""Spectral keeps the monitor's contract, equals plain numpy, and says what it cannot measure."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cupel.events import StepView
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings
from cupel.monitors.settings import SpectralSettings
from cupel.monitors.spectral import QUANTILES, Spectral
from cupel.record.codec import encode_line
from cupel.testing.monitor import MonitorContract


class TinyWaves(nn.Module):
    """A regression on the states of four wave packets: every parameter is trained."""

    def __init__(self, vocabulary: int = 12, waves: int = 3, harmonics: int = 2) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        shape = (vocabulary, waves)
        self.f = nn.Parameter(torch.rand(shape, generator=draw) * 5)
        self.phi = nn.Parameter(torch.rand(shape, generator=draw) * 2 * math.pi)
        self.a = nn.Parameter(torch.randn((*shape, harmonics), generator=draw))
        self.p = nn.Parameter(torch.randn(waves, generator=draw) * 0.1)
        self.rho = nn.Parameter(torch.tensor(0.5))
        self.out = nn.Linear(4, 1)

    def angles(self, tokens: Tensor, positions: Tensor) -> Tensor:
        h = torch.arange(1, self.a.shape[-1] + 1)
        moved = self.phi[tokens][:, None] + positions[:, None] * self.p
        return 2 * math.pi * h * self.f[tokens][:, None, :, None] + moved[..., None]

    def wave_packets(self, tokens: Tensor, positions: Tensor) -> Tensor:
        theta_NTWH = self.angles(tokens, positions)
        return (self.a[tokens][:, None] * theta_NTWH.sin()).sum((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        packets_T = self.wave_packets(torch.arange(4), torch.arange(4)).sum(0)
        return self.out(x * self.rho.sigmoid() + packets_T)

    def spectral_state(self) -> dict[str, Tensor]:
        return {
            "frequencies": self.f.detach(),
            "phases": self.phi.detach(),
            "amplitudes": self.a.detach(),
            "ratio": self.rho.detach().sigmoid(),
            "temperatures": torch.tensor([1.5, 1.25]),
        }


class TestSpectralOfWaves(MonitorContract):
    def make(self) -> Spectral:
        return Spectral(SpectralSettings(every=1, tokens=(3, 1)))

    def model(self) -> Any:
        return TinyWaves()


class TestSpectralOfAnotherModel(MonitorContract):
    def make(self) -> Spectral:
        return Spectral(SpectralSettings(every=2))


class WaveRegression(nn.Module):
    """A wave GPT that reads the signs of its input as tokens."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        sizes = {"layers": 1, "heads": 2, "width": 8, "waves": 3, "harmonics": 2, "block": 4}
        self.gpt = WaveGPT(WaveModelSettings(**{"vocabulary": 6, **sizes, **changes}))
        self.spectral_state, self.wave_packets = self.gpt.spectral_state, self.gpt.wave_packets
        self.settings = self.gpt.settings

    def forward(self, x: Tensor) -> Tensor:
        return self.gpt((x > 0).long() + 2 * (x > 1).long())[0].sum(1)[:, :1]


class TestSpectralOfAWaveGPT(MonitorContract):
    def make(self) -> Spectral:
        return Spectral(SpectralSettings(every=1, tokens=(3, 1)))

    def model(self) -> Any:
        return WaveRegression()


class TestSpectralOfAPhysicsWaveGPT(TestSpectralOfAWaveGPT):
    def model(self) -> Any:
        return WaveRegression(embedding="physics", attention="physics", harmonics=4)


def spectral(*tokens: int) -> Spectral:
    return Spectral(SpectralSettings(every=1, tokens=tokens or (3, 1)))


def measured(model: Any, *tokens: int) -> dict[str, Any]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    found = spectral(*tokens)(StepView(model, optimizer, 1))
    encode_line(found)  # every measurement must fit into the record
    return {
        key.removeprefix("spectral/"): np.asarray(value, dtype=np.float64)
        for key, value in found.items()
    }


def state(model: Any) -> dict[str, Any]:
    return {name: value.double().numpy() for name, value in model.spectral_state().items()}


class Waves(nn.Module):
    """A model that tells just the given state, and has no packets."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given

    def spectral_state(self) -> dict[str, Any]:
        return self.given


def test_every_statistic_is_what_plain_numpy_makes_of_the_state() -> None:
    model = TinyWaves()
    found, plain = measured(model), state(model)
    magnitude = np.abs(plain["amplitudes"])
    share, _ = np.histogram(plain["phases"] % (2 * math.pi), 36, (0, 2 * math.pi))
    # All of these are float32 against float64.
    near = {"rel": 1e-5, "abs": 1e-6}
    assert found["frequency_quantiles"] == pytest.approx(
        np.quantile(plain["frequencies"], QUANTILES, axis=0), **near
    )
    assert found["harmonic_quantiles"] == pytest.approx(
        np.quantile(magnitude, QUANTILES, axis=(0, 1)), **near
    )
    assert found["harmonic_amplitude"] == pytest.approx(magnitude.mean((0, 1)), **near)
    assert found["phase_histogram"] == pytest.approx(share / plain["phases"].size, **near)
    assert found["wave_ratio"] == pytest.approx(1 / (1 + math.exp(-0.5)), **near)
    assert found["temperature"].tolist() == [1.5, 1.25]


def test_packets_are_those_of_the_named_tokens_at_the_first_positions() -> None:
    model = TinyWaves()
    found, plain = measured(model, 3, 1)["packets"], state(model)
    assert found.shape == (2, 64)
    p = model.p.detach().double().numpy()
    for row, token in enumerate((3, 1)):
        for position in (0, 1, 63):
            expected = sum(
                plain["amplitudes"][token, w, h - 1]
                * math.sin(
                    2 * math.pi * h * plain["frequencies"][token, w]
                    + plain["phases"][token, w]
                    + position * p[w]
                )
                for w in range(3)
                for h in (1, 2)
            )
            # Angles up to 70 rad in float32 are off by 70·2⁻²⁴, six of them.
            assert found[row, position] == pytest.approx(expected, abs=5e-5)


def test_positions_end_where_the_model_has_no_more() -> None:
    model = TinyWaves()
    model.settings = SimpleNamespace(block=10)  # type: ignore[assignment]
    assert measured(model)["packets"].shape == (2, 10)


@pytest.mark.parametrize("position", [0, 7])
def test_interference_is_the_cosine_of_packet_states_at_any_position(position: int) -> None:
    model = TinyWaves()
    found = measured(model, 3, 1)
    tokens = found["tokens"].astype(int)
    theta = model.angles(torch.tensor(tokens), torch.tensor([position]))[:, 0].detach().double()
    a = model.a.detach().double()[tokens]
    states = torch.cat([a * theta.sin(), a * theta.cos()], dim=-1).flatten(1).numpy()
    norms = np.linalg.norm(states, axis=1)
    assert found["interference"] == pytest.approx(
        states @ states.T / np.outer(norms, norms), abs=1e-5
    )


def test_ids_are_the_named_ones_and_then_those_that_follow_round_the_vocabulary() -> None:
    assert measured(TinyWaves(), 9, 3)["tokens"].tolist() == [9, 3, 4, 5, 6, 7, 8, 10, 11, 0, 1, 2]
    model = TinyWaves(vocabulary=300, waves=1)
    expected = [32, 101, 116, 97, *range(98, 101), *range(102, 116), 117, 118, 119]
    assert measured(model, 32, 101, 116, 97)["tokens"].tolist() == expected


def test_ids_outside_the_vocabulary_are_left_out_and_told() -> None:
    model = TinyWaves()
    told = spectral(3, 12, 300).note(model)
    assert told == "spectral: left out of tokens, as the vocabulary has 12 ids: 12, 300"
    assert measured(model, 3, 12, 300)["packets"].shape == (1, 64)
    assert measured(model, 12)["tokens"].tolist() == list(range(12))
    assert "packets" not in measured(model, 12)
    assert spectral(3, 1).note(model) is None


def test_a_model_without_waves_is_told_and_its_first_matrix_is_measured() -> None:
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4))
    told = spectral().note(model)
    assert (
        told
        == "spectral: Sequential has no waves, so only the spectrum of 1.weight's rows is measured"
    )
    found = measured(model)
    rows = model[1].weight.detach().double().numpy()
    expected = (np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(0) / 6
    assert found["embedding_power"] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert found["embedding_frequency"] == pytest.approx(np.fft.rfftfreq(6))
    assert found.keys() == {"embedding_power", "embedding_frequency"}


def test_a_model_without_any_matrix_is_told_and_measures_nothing() -> None:
    model = nn.LayerNorm(3)
    assert spectral().note(model) == "spectral: LayerNorm has no waves, so nothing is measured"
    assert measured(model) == {}


@given(st.integers(1, 500), st.integers(1, 9), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=30)
def test_power_bins_are_few_ordered_and_keep_a_tone_in_its_place(
    width: int, rows: int, scale: float
) -> None:
    model = nn.Linear(width, rows, bias=False)
    tone = width // 3
    with torch.no_grad():
        wave = scale * torch.cos(2 * math.pi * tone * torch.arange(width) / width)
        model.weight.copy_(wave.expand(rows, width))
    found = measured(model)
    cycles, power = found["embedding_frequency"], found["embedding_power"]
    assert len(power) == min(64, width // 2 + 1)
    assert np.all(np.diff(cycles) > 0)
    # A bin pools at most four of the 251 frequencies.
    assert abs(cycles[power.argmax()] - tone / width) <= 3 / width


def test_a_state_of_frequencies_alone_is_measured_and_the_rest_is_told() -> None:
    model = Waves(frequencies=torch.ones(5, 2))
    assert spectral(1).note(model) == (
        "spectral: Waves tells no phases, amplitudes, ratio, wave_packets()"
    )
    assert measured(model).keys() == {"frequency_quantiles"}


def test_one_wave_with_a_phase_for_each_harmonic_interferes_by_those_phases() -> None:
    phases, amplitudes = torch.rand(9, 6) * 6, torch.rand(9, 1, 6)
    model = Waves(frequencies=torch.rand(9, 1), phases=phases, amplitudes=amplitudes, ratio=0.5)
    found = measured(model, 2)
    shift = (phases[2] - phases[5]).double()
    a, b = amplitudes[2, 0].double(), amplitudes[5, 0].double()
    expected = (a * b * shift.cos()).sum() / (a.norm() * b.norm())
    row = found["tokens"].tolist().index(5)
    assert found["interference"][0, row] == pytest.approx(float(expected), abs=1e-6)
    assert found["frequency_quantiles"].shape == (5, 1)


def test_phases_of_no_known_shape_are_counted_but_do_not_interfere() -> None:
    model = Waves(
        frequencies=torch.rand(9, 2), phases=torch.rand(9, 5), amplitudes=torch.rand(9, 2, 3)
    )
    found = measured(model)
    assert "interference" not in found
    assert found["phase_histogram"].sum() == pytest.approx(1)


def test_many_waves_are_pooled_and_many_harmonics_are_cut_and_told() -> None:
    model = Waves(
        frequencies=torch.rand(4, 300),
        phases=torch.rand(4, 300),
        amplitudes=torch.rand(4, 300, 400),
    )
    found = measured(model)
    assert found["frequency_quantiles"].shape == (5, 1)
    assert found["harmonic_amplitude"].shape == (200,)
    told = spectral(1).note(model)
    assert told is not None
    assert "only the first 200 of 400 harmonics" in told


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200))
@settings(deadline=None)
def test_the_shares_of_any_finite_phases_make_one(phases: list[float]) -> None:
    phases_V1 = torch.tensor(phases)[:, None]
    found = measured(Waves(frequencies=phases_V1, phases=phases_V1), 0)["phase_histogram"]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert len(found) == 36


def test_values_that_are_not_finite_show() -> None:
    bad = torch.full((4, 2), torch.nan)
    found = measured(
        Waves(frequencies=bad, phases=bad, amplitudes=bad[..., None], ratio=math.inf), 1
    )
    assert np.isnan(found["frequency_quantiles"]).all()
    assert np.isnan(found["harmonic_amplitude"]).all()
    assert np.isnan(found["interference"]).all()
    assert found["phase_histogram"].sum() == 0
    assert found["wave_ratio"] == math.inf


def test_quantiles_of_a_large_vocabulary_come_from_spaced_tokens_and_means_from_all() -> None:
    # A ramp over 200,000 tokens: the quantiles of every k-th are those of all within one token.
    ramp_V = torch.linspace(0, 1, 200_000)
    model = Waves(frequencies=ramp_V[:, None].expand(-1, 4), amplitudes=ramp_V[:, None, None])
    found = measured(model)
    for place in range(4):
        assert found["frequency_quantiles"][:, place] == pytest.approx(QUANTILES, abs=1e-4)
    assert found["harmonic_amplitude"] == pytest.approx([0.5], rel=1e-4)


def test_two_measurements_of_one_state_are_equal_bit_for_bit() -> None:
    model = TinyWaves()
    first, second = measured(model), measured(model)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_a_wave_gpt_of_either_embedding_tells_all_that_it_has() -> None:
    shared = {"frequency_quantiles", "phase_histogram", "harmonic_amplitude", "harmonic_quantiles"}
    shared |= {"wave_ratio", "tokens", "packets", "interference"}
    assert measured(WaveRegression()).keys() == shared | {"temperature"}
    physics = measured(WaveRegression(embedding="physics", attention="physics", harmonics=4))
    assert physics.keys() == shared
    assert physics["harmonic_amplitude"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert physics["packets"].shape == (2, 4)
