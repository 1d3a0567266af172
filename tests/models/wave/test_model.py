"""The wave GPT as a whole: parameters, causality, loss, starts, precision, what monitors read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cupel.models.gpt.generate import generate
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings

SMALL = {
    "layers": 2, "heads": 2, "width": 16, "waves": 6, "harmonics": 3, "block": 12, "vocabulary": 11
}  # fmt: skip
VARIANTS = {
    "interference": {},
    "linear": {"attention": "pure", "mlp": "sine"},
    "quadratic": {"attention": "pure", "pure": {"form": "quadratic", "normaliser": "sum"}},
    "physics": {
        "attention": "physics", "embedding": "physics", "harmonics": 4, "ratio": "decay",
        "mlp": "gelu",
    },
}  # fmt: skip
every_variant = pytest.mark.parametrize("more", VARIANTS.values(), ids=VARIANTS)


def build(seed: int = 0, ranks_V: torch.Tensor | None = None, **more) -> WaveGPT:
    torch.manual_seed(seed)
    return WaveGPT(WaveModelSettings(**(SMALL | more)), ranks_V=ranks_V)


def lively(**more) -> WaveGPT:
    """A model whose weights are large enough that mistakes show in the logits."""
    model = build(**more)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" not in name and "temperature" not in name:
                parameter.normal_(std=0.3)
    if more.get("ratio") == "decay":
        model.embedding.ratio.set(0.4)
    return model


def draw_tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(seed))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_recorded_model_has_exactly_67_473_706_parameters():
    sizes = {"layers": 8, "heads": 8, "width": 384, "waves": 48, "harmonics": 4, "block": 256}
    with torch.device("meta"):
        model = WaveGPT(
            WaveModelSettings(**sizes, vocabulary=50257, bias=True, head_bias=True, input_norm=True)
        )
    assert count(model) == 67_473_706
    assert count(model.embedding) == 33_921_361


@given(
    L=st.integers(1, 3),
    H=st.integers(1, 3),
    D=st.integers(1, 5),
    W=st.integers(1, 5),
    h=st.integers(1, 4),
)
@settings(deadline=None, max_examples=30)
@pytest.mark.slow
def test_the_accounting_in_the_docstring_is_the_count(L, H, D, W, h):
    V, C = 17, H * D
    sizes = {"layers": L, "heads": H, "width": C, "waves": W, "harmonics": h, "vocabulary": V}
    with torch.device("meta"):
        model = WaveGPT(WaveModelSettings(**sizes, head_bias=True, input_norm=True))
    embedding = 2 * V * W + V * W * h + (2 * W * h * C + C) + W + V * C + 1 + 2 * C
    block = 10 * C**2 + 2 * C * H * W + 11 * C + 4 * H * W + 1
    assert count(model) == embedding + L * block + 4 * C + V * C + V


def test_settings_without_biases_leave_none():
    names = [name for name, _ in build(bias=False, input_norm=True).named_parameters()]
    assert not [name for name in names if name.endswith("bias")]
    assert "input_norm.weight" in names


@every_variant
@given(length=st.integers(2, 12), data=st.data())
@settings(deadline=None, max_examples=15)
def test_a_later_token_never_changes_earlier_logits(more, length, data):
    at = data.draw(st.integers(1, length - 1))
    model, tokens = lively(**more).eval(), draw_tokens(2, length, seed=length)
    changed = tokens.clone()
    changed[:, at:] = (changed[:, at:] + data.draw(st.integers(1, 10))) % 11
    with torch.no_grad():
        before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at:], after[:, at:])


@every_variant
def test_the_same_token_at_another_position_is_seen_as_another(more):
    x_BTC = lively(**more).embedding(torch.full((1, 12), 3))[0]
    assert len(x_BTC.unique(dim=0)) == 12


@every_variant
def test_the_loss_is_the_mean_cross_entropy_in_float32_nats(more):
    model, x, y = lively(**more), draw_tokens(3, 12), draw_tokens(3, 12, seed=1)
    logits, loss = model(x, y)
    explicit = -logits.softmax(-1).gather(2, y[..., None]).log().mean()
    torch.testing.assert_close(loss, explicit)
    assert model(x)[1] is None
    logits, loss = model.bfloat16()(x, y)
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)


@every_variant
def test_a_model_trains_under_bfloat16_autocast(more):
    model, x, y = lively(**more), draw_tokens(3, 12), draw_tokens(3, 12, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss = model(x, y)
    loss.backward()
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    # A few hundred roundings to 8 bits; a wrong angle would change it by much more.
    assert loss.item() == pytest.approx(model(x, y)[1].item(), rel=0.03)


@every_variant
def test_every_parameter_gets_a_gradient(more):
    model = lively(**more)
    model(torch.arange(11).repeat(3, 1), draw_tokens(3, 11, seed=1))[1].backward()
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


@every_variant
def test_a_model_runs_on_the_meta_device_so_that_costs_can_be_counted(more):
    with torch.device("meta"):
        tokens = torch.zeros(2, 12, dtype=torch.int64)
        loss = build(**more)(tokens, tokens)[1]
    loss.backward()
    assert (loss.shape, loss.device.type) == ((), "meta")


@every_variant
def test_weights_follow_the_global_seed(more):
    one, same, other = (build(seed, **more).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if one[name].dim() >= 2 and one[name].any()]
    assert all(not torch.equal(one[name], other[name]) for name in drawn)


def test_linear_layers_start_as_a_gpts():
    model = build(width=128, vocabulary=300, layers=8, head_bias=True)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            residual = name.endswith(("attention.out", "mlp.down"))
            expected = 0.02 / math.sqrt(2 * 8) if residual else 0.02
            # 4,608 numbers at least, so the spread is known to 1 %; five of those.
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert isinstance(module, torch.nn.Embedding) or not module.bias.any()


@every_variant
def test_an_untrained_model_knows_nothing(more):
    model = build(vocabulary=300, **more)
    _, loss = model(draw_tokens(8, 12), draw_tokens(8, 12, seed=1))
    assert loss.item() == pytest.approx(math.log(300), rel=0.01)


@every_variant
@pytest.mark.slow
def test_a_model_learns_a_repeating_text(more):
    model, data = build(**more), torch.arange(13).repeat(4, 1) % 5
    optimizer, schedule = torch.optim.Adam(model.parameters(), lr=1e-2), model.ratio_schedule()
    for _ in range(60):
        loss = model(data[:, :-1], data[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step(60)
    assert loss.item() < 0.05


def test_the_schedule_moves_the_ratio_that_the_model_mixes_with():
    model = build()
    first = model.ratio_schedule().step(10)
    assert model.embedding.ratio().item() == first
    assert first == pytest.approx(0.99 / (1 + math.exp(-0.5)) + 0.01 * 0.54, rel=1e-6)
    decaying = build(ratio="decay", ratio_steps=4)
    schedule = decaying.ratio_schedule()
    assert [schedule.step(99) for _ in range(5)] == [0.75, 0.5, 0.25, 0.0, 0.0]
    assert decaying.spectral_state()["ratio"].item() == 0.0


@pytest.mark.parametrize("input_norm", [False, True])
def test_norms_are_those_of_the_residual_stream_with_its_graph(input_norm):
    model, tokens, streams, norms = lively(input_norm=input_norm), draw_tokens(2, 12), [], []
    model.blocks[0].register_forward_pre_hook(lambda _, given: streams.append(given[0]))
    for block in model.blocks:
        block.register_forward_hook(lambda _, given, out: streams.append(out))
    model(tokens, norms=norms)
    assert len(norms) == 1 + 2
    for norm, x_BTC in zip(norms, streams, strict=True):
        torch.testing.assert_close(norm, x_BTC.square().sum(-1).sqrt().mean())
    norms[-1].backward()
    assert model.embedding.phases.grad.any()


def test_norms_are_computed_only_where_asked_for():
    model, tokens = lively(), draw_tokens(2, 12)
    assert torch.equal(model(tokens)[0], model(tokens, norms=[])[0])


def test_the_spectral_state_of_packets_has_the_stated_shapes():
    state = build(attention="interference").spectral_state()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "frequencies": (11, 6),
        "phases": (11, 6),
        "amplitudes": (11, 6, 3),
        "position_frequencies": (6,),
        "ratio": (),
        "temperatures": (2,),
    }


def test_the_spectral_state_of_physics_has_the_stated_shapes():
    state = build(**VARIANTS["physics"]).spectral_state()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "frequencies": (11, 1),
        "phases": (11, 8),
        "amplitudes": (11, 1, 8),
        "ratio": (),
    }
    assert torch.equal(state["amplitudes"][4, 0], 1 / torch.arange(1.0, 9))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_monitors_read_is_float32_without_a_graph(more, dtype):
    model = build(**more).to(dtype)
    packets_NT = model.wave_packets(torch.tensor([1, 10]), torch.arange(64))
    assert packets_NT.shape == (2, 64)
    for tensor in (packets_NT, *model.spectral_state().values()):
        assert (tensor.dtype, tensor.device.type, tensor.requires_grad) == (
            torch.float32, "cpu", False,
        )  # fmt: skip


@every_variant
def test_penalties_reach_the_phases(more):
    model = build(**more)
    state = model.coherence_state()
    assert set(state) == {"phases", "amplitudes"}
    state["phases"].cos().sum().backward()
    assert model.embedding.phases.grad.any()


def test_penalties_reach_the_amplitudes_of_packets():
    model = build()
    model.coherence_state()["amplitudes"].square().sum().backward()
    assert model.embedding.amplitudes.grad.any()


def test_ranks_are_kept_with_the_model():
    ranks_V = torch.arange(11).flip(0)
    model = lively(ranks_V=ranks_V, **VARIANTS["physics"])
    again = build(seed=1, **VARIANTS["physics"])
    again.load_state_dict(model.state_dict())
    tokens = draw_tokens(2, 12)
    assert torch.equal(again(tokens)[0], model(tokens)[0])
    assert not torch.equal(lively(**VARIANTS["physics"])(tokens)[0], model(tokens)[0])


@every_variant
def test_dropout_acts_in_training_only(more):
    model, x = lively(dropout=0.5, **more), draw_tokens(2, 12)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@every_variant
def test_sampling_continues_past_the_block(more):
    made = generate(build(**more), torch.tensor([1, 2]), tokens=15, temperature=0, key=0)
    assert len(made) == 15


def test_the_head_has_a_bias_only_if_asked_for():
    assert build().head.bias is None
    model = build(head_bias=True)
    with torch.no_grad():
        model.head.bias[3] = 50.0
    assert (model(draw_tokens(2, 5))[0].argmax(-1) == 3).all()


def test_mistakes_of_the_programmer_are_asserts():
    with pytest.raises(AssertionError):
        build()(draw_tokens(1, 13))
    with pytest.raises(AssertionError, match=r"fill in settings.vocabulary"):
        build(vocabulary=None)
    with pytest.raises(AssertionError, match=r"embedding: physics"):
        build(ranks_V=torch.arange(11))
    with pytest.raises(AssertionError):
        build(ranks_V=torch.arange(10), **VARIANTS["physics"])


def test_the_residual_stream_is_read_through_the_last_norm():
    model, tokens, seen = lively(), draw_tokens(2, 12), []
    model.blocks[-1].register_forward_hook(lambda _, given, out: seen.append(out))
    logits_BTV = model(tokens)[0]
    normed = F.layer_norm(seen[0], (16,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(logits_BTV, normed @ model.head.weight.T)
