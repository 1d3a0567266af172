"""Sampling against an explicit reference without cache, and that it leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.models.gpt.generate import generate, token_probabilities
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings

BLOCK, VOCABULARY = 6, 11

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=12)


def build(block: int = BLOCK, dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "width": 16, "block": block, "vocabulary": VOCABULARY}
    model = GPT(GPTModelSettings(**sizes, dropout=dropout))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


PROMPT = torch.tensor([1, 2, 3])


def reference_window(context: list[int], prompt: int, block: int) -> list[int]:
    """What the model may see: after each time the window fills, its last half and what follows."""
    seen = min(prompt, block)
    for _ in range(len(context) - prompt):
        seen = max(1, block // 2) if seen == block else seen + 1
    return context[-seen:]


@pytest.mark.parametrize("block", [1, 2, 5, 6, 40])
@pytest.mark.parametrize("prompt", [[3], [1, 2, 3], list(range(9))])
def test_greedy_text_equals_full_forwards_over_the_documented_window(block, prompt):
    model = build(block).eval()
    context = list(prompt)
    with torch.no_grad():
        for _ in range(20):
            window = reference_window(context, len(prompt), block)
            context.append(int(model(torch.tensor([window]))[0][0, -1].argmax()))
    made = generate(model, torch.tensor(prompt), tokens=20, temperature=0, key=1)
    assert made == context[len(prompt) :]


def explicit_cut(
    values: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    largest = max(values)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:top_k]
    weights = {i: math.exp((values[i] - largest) / temperature) for i in order}
    total, kept, mass = sum(weights.values()), [], 0.0
    for i in order:
        kept.append(i)
        mass += weights[i] / total
        if top_p is not None and mass >= top_p:
            break
    share = sum(weights[i] for i in kept)
    return [weights[i] / share if i in kept else 0.0 for i in range(len(values))]


@given(
    values=logits,
    temperature=st.floats(0.1, 5),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.sampled_from([0.1, 0.33, 0.5, 0.77, 0.9, 0.99]),
)
@settings(deadline=None)
def test_probabilities_equal_an_explicit_reference(values, temperature, top_k, top_p):
    # Rounded, so that no share falls within rounding of top_p; ties are wanted and stay.
    values = [float(round(value)) for value in values]
    found = token_probabilities(
        torch.tensor(values), temperature=temperature, top_k=top_k, top_p=top_p
    )
    expected = explicit_cut(values, temperature, top_k, top_p)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    values = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64).log()
    for top_p, kept in ((0.2, 1), (0.49, 1), (0.51, 2), (0.76, 3), (0.95, 4), (1.0, 4)):
        found = token_probabilities(values, temperature=1, top_k=None, top_p=top_p)
        assert int((found > 0).sum()) == kept


@given(values=logits, temperature=st.sampled_from([0.0, 1e-308, 1e-30]))
@settings(deadline=None)
def test_no_temperature_is_too_low(values, temperature):
    found = token_probabilities(
        torch.tensor(values), temperature=temperature, top_k=None, top_p=None
    )
    assert float(found.sum()) == pytest.approx(1)
    if temperature == 0:
        assert int(found.argmax()) == int(torch.tensor(values).argmax())
        assert int((found > 0).sum()) == 1


@pytest.mark.slow
def test_tokens_come_as_often_as_their_probabilities_say():
    model = build()
    with torch.no_grad():
        expected = model(PROMPT[None])[0][0, -1].double().softmax(0)
    drawn = [generate(model, PROMPT, tokens=1, key=key)[0] for key in range(1000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY) / 1000
    # The standard error of a share is at most 0.016; four of them.
    assert (shares - expected).abs().max() < 0.064


def test_a_key_gives_the_same_tokens_and_another_key_others():
    model = build(40)
    one = generate(model, PROMPT, tokens=30, key=1)
    assert generate(model, PROMPT, tokens=30, key=1) == one
    assert generate(model, PROMPT, tokens=30, key=2) != one
    assert generate(model, PROMPT, tokens=10, key=1) == one[:10]


def test_each_token_is_told_as_it_is_made():
    told: list[int] = []
    assert generate(build(), PROMPT, tokens=15, key=3, on_token=told.append) == told
    assert generate(build(), PROMPT, tokens=0, key=3, on_token=told.append) == []
    assert len(told) == 15


def test_sampling_leaves_modes_gradients_and_the_global_generator_alone():
    model = build(dropout=0.5)
    model.train()
    model.blocks[1].eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    one = generate(model, PROMPT, tokens=5, key=1)
    assert one == generate(model, PROMPT, tokens=5, key=1)  # dropout was off
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_no_graph_is_built_while_sampling():
    seen: list[bool] = []
    generate(
        build(), PROMPT, tokens=2, key=1, on_token=lambda _: seen.append(torch.is_grad_enabled())
    )
    assert seen == [False, False]


def test_modes_come_back_after_a_failure():
    model = build().train()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, PROMPT, tokens=5, key=1, on_token=interrupt)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "more, message",
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(more, message):
    with pytest.raises(UsageError, match=message):
        generate(build(), PROMPT, tokens=1, key=1, **more)


def test_an_empty_prompt_is_refused():
    with pytest.raises(UsageError, match="the prompt is empty"):
        generate(build(), torch.tensor([], dtype=torch.int64), tokens=1, key=1)


class WithoutCache(GPT):
    """The same model, which encodes its whole window for every token."""

    caches = False

    def forward(self, *given, **named):
        assert "cache" not in named
        return super().forward(*given, **named)


@pytest.mark.parametrize("prompt", [[3], list(range(9))])
def test_a_model_without_cache_writes_what_it_would_write_with_one(prompt):
    cached = build(5)
    plain = WithoutCache(cached.settings)
    plain.load_state_dict(cached.state_dict())
    texts = [
        generate(model, torch.tensor(prompt), tokens=20, temperature=0, key=4)
        for model in (cached, plain)
    ]
    assert texts[0] == texts[1]
