"""Wave embeddings against their formulas, term by term; counts, starts, precision of angles."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from cupel.models.wave.embedding import PhysicsEmbedding, WavePacketEmbedding, packet_state
from cupel.models.wave.settings import WaveModelSettings

SMALL = {"vocabulary": 7, "waves": 3, "harmonics": 2, "width": 6, "heads": 1}
PI = Decimal("3.1415926535897932384626433832795028841971693993751")


def packet(**more) -> WavePacketEmbedding:
    torch.manual_seed(0)
    return WavePacketEmbedding(WaveModelSettings(**(SMALL | more))).double()


def physics(ranks_V: torch.Tensor | None = None, **more) -> PhysicsEmbedding:
    torch.manual_seed(0)
    chosen = WaveModelSettings(**(SMALL | {"embedding": "physics", "harmonics": 4} | more))
    return PhysicsEmbedding(chosen, ranks_V=ranks_V).double()


def draw_tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, (batch, length), generator=torch.Generator().manual_seed(seed))


def check_gradients(module: torch.nn.Module, *inputs: torch.Tensor) -> None:
    """Every parameter's gradient against differences, in float64."""
    names, values = zip(*module.named_parameters(), strict=True)

    def run(*given: torch.Tensor) -> torch.Tensor:
        return functional_call(module, dict(zip(names, given, strict=True)), inputs)

    assert torch.autograd.gradcheck(run, [v.detach().requires_grad_() for v in values])


def layer_norm(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(variance + 1e-5) for v in values]


def packet_by_hand(embedding: WavePacketEmbedding, token: int, position: int) -> list[float]:
    """One token's vector, a sum at a time."""
    f, phi = embedding.frequencies[token].tolist(), embedding.phases[token].tolist()
    a, p = embedding.amplitudes[token].tolist(), embedding.position_frequencies.tolist()
    sines, cosines = [], []
    for w in range(3):
        for h in (1, 2):
            theta = 2 * math.pi * h * f[w] + phi[w] + position * p[w]
            sines.append(a[w][h - 1] * math.sin(theta))
            cosines.append(a[w][h - 1] * math.cos(theta))
    r = 1 / (1 + math.exp(-embedding.ratio.logit.item()))
    weight, bias = embedding.project.weight.tolist(), embedding.project.bias.tolist()
    lookup = embedding.lookup.weight[token].tolist()
    wave = [
        sum(x * y for x, y in zip(row, sines + cosines, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]
    return layer_norm([r * x + (1 - r) * y for x, y in zip(wave, lookup, strict=True)])


@given(length=st.integers(1, 9), logit=st.floats(-3, 3))
@settings(deadline=None, max_examples=15)
def test_a_packet_equals_its_formula(length, logit):
    embedding, tokens = packet(), draw_tokens(2, length)
    with torch.no_grad():
        embedding.ratio.logit.fill_(logit)
        out_BTC = embedding(tokens)
    expected = [
        [packet_by_hand(embedding, token, t) for t, token in enumerate(row)]
        for row in tokens.tolist()
    ]
    torch.testing.assert_close(out_BTC, torch.tensor(expected, dtype=torch.float64))


def test_wave_packets_are_the_sum_of_sines():
    embedding = packet()
    packets_NT = embedding.packets(torch.tensor([4, 1]), torch.tensor([0, 3, 60]))
    f, phi, a = embedding.frequencies, embedding.phases, embedding.amplitudes
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for n, token in enumerate((4, 1)):
        for t, position in enumerate((0, 3, 60)):
            for w in range(3):
                shift = phi[token, w] + position * embedding.position_frequencies[w]
                for h in (1, 2):
                    angle = 2 * math.pi * h * f[token, w] + shift
                    expected[n, t] += (a[token, w, h - 1] * angle.sin()).item()
    torch.testing.assert_close(packets_NT, expected)
    assert not packets_NT.requires_grad


def test_the_derivatives_of_a_packets_state_are_right():
    f_NW, offsets_NW = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in "12")
    a_NWH = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(packet_state, (f_NW, offsets_NW, a_NWH))


@pytest.mark.parametrize("make", [packet, physics])
def test_the_gradients_of_every_parameter_of_an_embedding_are_right(make):
    check_gradients(make(), torch.tensor([[1, 5, 1], [0, 2, 6]]))


def test_a_packet_embedding_of_gpt2s_vocabulary_has_exactly_33_921_361_parameters():
    with torch.device("meta"):
        embedding = WavePacketEmbedding(
            WaveModelSettings(vocabulary=50257, waves=48, harmonics=4, width=384, heads=8)
        )
    assert sum(p.numel() for p in embedding.parameters()) == 33_921_361


def test_waves_start_as_stated():
    torch.manual_seed(3)
    embedding = WavePacketEmbedding(WaveModelSettings(vocabulary=2000, waves=8, harmonics=4))
    spread_W = torch.linspace(0.5, 5, 8)
    # 2,000 draws a wave know their mean to 0.0022 and their spread to 1.6 %; about five of those.
    torch.testing.assert_close(embedding.frequencies.mean(0), spread_W, atol=0.011, rtol=0)
    assert (embedding.frequencies - spread_W).std().item() == pytest.approx(0.1, rel=0.05)
    assert embedding.amplitudes.std().item() == pytest.approx(0.5 / math.sqrt(32), rel=0.03)
    assert 0 <= embedding.phases.min().item() < 0.01
    assert 2 * math.pi - 0.01 < embedding.phases.max().item() <= 2 * math.pi
    assert embedding.position_frequencies.abs().max().item() < 0.6
    assert embedding.ratio.logit.item() == 0.5


@pytest.mark.parametrize("make", [packet, physics])
@pytest.mark.parametrize(("ratio", "unused"), [(0.0, 0), (1.0, 1)])
def test_at_a_ratio_of_0_or_1_the_other_embedding_has_no_part(make, ratio, unused):
    embedding, tokens = make(ratio="decay"), draw_tokens(2, 5)
    embedding.ratio.set(ratio)
    before = embedding(tokens)
    lookup_is_unused = (unused == 1) == (make is packet)  # r is the lookup's share in physics
    changed = embedding.lookup.weight if lookup_is_unused else embedding.phases
    with torch.no_grad():
        changed.add_(0.3)
    assert torch.equal(embedding(tokens), before)


def test_harmonics_of_a_rank_equal_their_formula():
    embedding, tokens = physics(), draw_tokens(2, 8)
    expected = torch.zeros(2, 8, 6, dtype=torch.float64)
    r = 1 / (1 + math.exp(-0.5))
    for b, row in enumerate(tokens.tolist()):
        for t, token in enumerate(row):
            mass = 1 / (token + 1)
            for n in (1, 2, 3):
                angle = n / math.sqrt(mass) * t + embedding.phases[token, n - 1].item()
                expected[b, t, n - 1] = math.sin(angle) / n
                expected[b, t, 3 + n - 1] = math.cos(angle) / n
    mixed = (1 - r) * expected + r * embedding.lookup(tokens)
    torch.testing.assert_close(embedding(tokens), mixed, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_angles_of_ten_million_radians_are_exact_in_float32():
    rank, n, t = 50_256, 192, 255
    with localcontext() as context:
        context.prec = 45
        angle = float(n * t * Decimal(rank + 1).sqrt() % (2 * PI))
    settings_ = WaveModelSettings(
        vocabulary=rank + 1, width=2 * n, heads=1, embedding="physics", ratio="decay"
    )
    embedding = PhysicsEmbedding(settings_)
    embedding.ratio.set(0.0)
    phase = embedding.phases[rank, n - 1].item()
    wave_C = embedding(torch.full((1, t + 1), rank))[0, t]
    # An angle of up to 4π is rounded to float32 once: 5e-7, and then divided by n.
    assert wave_C[n - 1].item() == pytest.approx(math.sin(angle + phase) / n, abs=1e-6 / n)
    assert wave_C[-1].item() == pytest.approx(math.cos(angle + phase) / n, abs=1e-6 / n)


def test_frequencies_follow_ranks_and_not_ids():
    ranks_V = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    spectrum = physics(ranks_V).spectrum()
    expected = torch.sqrt(ranks_V.double() + 1)[:, None] / (2 * math.pi)
    torch.testing.assert_close(spectrum["frequencies"], expected)
    by_rank, by_id = physics(ranks_V), physics()
    with torch.no_grad():
        for embedding in (by_rank, by_id):
            embedding.phases.zero_()
    positions = torch.arange(20)
    assert torch.equal(
        by_rank.packets(torch.arange(7), positions), by_id.packets(ranks_V, positions)
    )


def test_a_packet_of_harmonics_is_the_sum_of_their_sines():
    embedding = physics()
    t_T = torch.tensor([0.0, 1.0, 50.0], dtype=torch.float64)
    expected = sum(
        torch.sin(n * math.sqrt(5) * t_T + embedding.phases[4, n - 1]) / n for n in (1, 2, 3)
    )
    torch.testing.assert_close(embedding.packets(torch.tensor([4]), t_T)[0], expected)


def test_of_the_waves_of_physics_only_phases_are_learned():
    names = {name for name, _ in physics().named_parameters()}
    assert names == {"phases", "lookup.weight", "ratio.logit"}


def test_angles_stay_in_float32_under_autocast():
    tokens = draw_tokens(2, 9)
    harmonics, waves = physics().float(), packet().float()
    seen = []
    waves.project.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    exact, plain = harmonics(tokens), waves(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(harmonics(tokens), exact)
        rounded = waves(tokens)
    assert torch.equal(*seen)
    assert seen[1].dtype == torch.float32
    # The projection alone is rounded: 2^-9 relative of about 1, and a few of those.
    torch.testing.assert_close(rounded.float(), plain, atol=0.03, rtol=0)


def test_angles_are_in_float32_for_a_model_in_bfloat16():
    embedding, tokens = packet().bfloat16(), draw_tokens(1, 60)
    exact = packet().bfloat16().double()
    # p·59 is some 6 rad: in bfloat16 the angle would be known to 0.03 only, and A·sin θ with it.
    with torch.no_grad():
        states = [
            packet_state(f, o.flatten(0, 1), a)
            for f, o, a in (e._gather(tokens, torch.arange(60)) for e in (embedding, exact))
        ]
    torch.testing.assert_close(states[0].double(), states[1], atol=1e-5, rtol=0)
    assert embedding(tokens).dtype == torch.bfloat16
