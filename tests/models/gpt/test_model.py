"""The GPT against explicit references: attention, loss, parameters, causality, cache, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cupel.models.gpt.model import GPT, Attention, KVCache
from cupel.models.gpt.settings import GPTModelSettings

SMALL = {"layers": 2, "heads": 2, "width": 16, "block": 12, "vocabulary": 11}


def build(seed: int = 0, **more) -> GPT:
    torch.manual_seed(seed)
    return GPT(GPTModelSettings(**(SMALL | more)))


def lively(**more) -> GPT:
    """A model whose weights are large enough that mistakes in attention show in the logits."""
    model = build(**more)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def draw_tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(seed))


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_model_of_gpt2s_vocabulary_has_exactly_52_892_160_parameters():
    sizes = {"layers": 8, "heads": 8, "width": 384, "block": 256, "vocabulary": 50257}
    with torch.device("meta"):
        model = GPT(GPTModelSettings(**sizes, bias=True, tied=False))
    assert count(model) == 52_892_160


@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    depth=st.integers(1, 5),
    block=st.integers(1, 9),
    bias=st.booleans(),
    tied=st.booleans(),
)
@settings(deadline=None, max_examples=30)
@pytest.mark.slow
def test_the_accounting_in_the_docstring_is_the_count(layers, heads, depth, block, bias, tied):
    V, C = 17, heads * depth
    sizes = {"layers": layers, "heads": heads, "width": C, "block": block, "vocabulary": V}
    with torch.device("meta"):
        model = GPT(GPTModelSettings(**sizes, bias=bias, tied=tied))
    blocks = layers * (12 * C**2 + (13 if bias else 2) * C)
    expected = V * C + block * C + blocks + (2 if bias else 1) * C + (0 if tied else V * C)
    assert count(model) == expected


def test_tied_weights_are_one_tensor_and_untied_are_two():
    tied, untied = build(tied=True), build()
    assert tied.head.weight is tied.tokens.weight
    assert tied.head.weight.data_ptr() == tied.tokens.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.tokens.weight.data_ptr()


def test_initial_weights_have_the_stated_spread_and_follow_the_global_seed():
    model = build(width=128, vocabulary=300, layers=8)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            expected = 0.02 / math.sqrt(2 * 8) if residual else 0.02
            # 1,536 numbers at least, so the spread is known to 2 %; five of those.
            assert parameter.std().item() == pytest.approx(expected, rel=0.1)
    same, other = build(seed=0), build(seed=1)
    assert torch.equal(build(seed=0).head.weight, same.head.weight)
    assert not torch.equal(same.head.weight, other.head.weight)


def explicit_attention(attention: Attention, x_BTC: torch.Tensor) -> torch.Tensor:
    B, T, C = x_BTC.shape
    H, D = attention.heads, C // attention.heads
    q, k, v = attention.qkv(x_BTC).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(D)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return attention.out((weights @ v).transpose(1, 2).reshape(B, T, C))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_equals_an_explicit_softmax(heads):
    torch.manual_seed(0)
    attention = Attention(GPTModelSettings(width=16, heads=heads), layer=0)
    x_BTC = torch.randn(3, 10, 16)
    # Both are float32 sums over 16 terms, in another order.
    torch.testing.assert_close(attention(x_BTC), explicit_attention(attention, x_BTC))


def test_training_takes_the_fused_causal_path(monkeypatch):
    seen = []
    real = F.scaled_dot_product_attention

    def spy(*tensors, **options):
        seen.append((options["is_causal"], options["attn_mask"]))
        return real(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    build()(draw_tokens(2, 12), draw_tokens(2, 12))
    assert seen == [(True, None)] * 2


@given(length=st.integers(2, 12), data=st.data())
@settings(deadline=None, max_examples=30)
def test_a_later_token_never_changes_earlier_logits(length, data):
    at = data.draw(st.integers(1, length - 1))
    model, tokens = lively().eval(), draw_tokens(2, length, seed=length)
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + data.draw(st.integers(1, 10))) % 11
    with torch.no_grad():
        before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at:], after[:, at:])


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_logits_with_the_cache_equal_the_full_forward(cuts):
    lengths = [n for i, n in enumerate(cuts) if sum(cuts[: i + 1]) <= 12]
    model, tokens = lively().eval(), draw_tokens(2, sum(lengths))
    cache, start, parts = KVCache(), 0, []
    with torch.no_grad():
        for n in lengths:
            parts.append(model(tokens[:, start : start + n], cache=cache)[0])
            start += n
            assert cache.length == start
        full = model(tokens)[0]
    # The same sums over other shapes: float32 rounding only.
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_cross_entropy_in_float32_nats():
    model, x, y = lively(), draw_tokens(3, 12), draw_tokens(3, 12, seed=1)
    logits, loss = model(x, y)
    explicit = -logits.softmax(-1).gather(2, y[..., None]).log().mean()
    torch.testing.assert_close(loss, explicit)
    assert model(x)[1] is None
    logits, loss = model.bfloat16()(x, y)
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)


def test_an_untrained_model_knows_nothing():
    model = build(vocabulary=300)
    _, loss = model(draw_tokens(8, 12), draw_tokens(8, 12, seed=1))
    assert loss.item() == pytest.approx(math.log(300), rel=0.01)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_gives_equal_losses_and_gradients(dropout):
    x, y, results = draw_tokens(3, 12), draw_tokens(3, 12, seed=1), []
    for recompute in (False, True):
        model = lively(dropout=dropout, activation_checkpointing=recompute)
        torch.manual_seed(5)
        loss = model(x, y)[1]
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_recomputing_really_keeps_less():
    kept = []
    for recompute in (False, True):
        sizes = []
        model = build(activation_checkpointing=recompute)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            model(draw_tokens(3, 12), draw_tokens(3, 12))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_dropout_acts_in_training_only():
    model, x = lively(dropout=0.5), draw_tokens(2, 12)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_gets_a_gradient(tied):
    model = lively(tied=tied)
    model(draw_tokens(3, 12), draw_tokens(3, 12, seed=1))[1].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_a_model_learns_a_repeating_text():
    model, data = build(), torch.arange(13).repeat(4, 1) % 5
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(data[:, :-1], data[:, 1:])[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_a_context_longer_than_the_block_is_the_programmers_mistake():
    with pytest.raises(AssertionError):
        build()(draw_tokens(1, 13))
    with pytest.raises(AssertionError, match=r"fill in settings.vocabulary"):
        build(vocabulary=None)
