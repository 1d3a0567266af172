"""Hope as a model that is taught by its own targets, and one layer against the equations.

That it is causal, and equal over any split of calls, `test_model` holds of every kind.
"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

import memory_models
from cupel.errors import UsageError
from cupel.models.memory.hope import Hope, HopeAttention, SelfModifying
from cupel.models.memory.model import MemoryLM
from cupel.models.memory.oracles_hope import Memory, self_modifying
from cupel.models.memory.settings import HopeSettings
from memory_models import CLOSE, HOPES, LEVELS, T, V, assert_equal_states, named, tokens

# Levels that learn within a few tokens.
LEARNING: dict[str, Any] = {"frequencies": (1.0, 0.5), "chunk": 2, "signal": "local"}
each_mixer = pytest.mark.parametrize("mixer", ["hope", "hope-attention"])
each_kind = pytest.mark.parametrize(
    ("mixer", "changes"),
    [
        *(("hope", changes) for changes in (*HOPES, *LEVELS)),
        *(("hope-attention", changes) for changes in ({}, *LEVELS)),
    ],
    ids=named,
)


def made(mixer: str = "hope", **changes: Any) -> MemoryLM:
    """Taught by targets."""
    hope = {**changes, "cms": {"signal": "teach", **changes.get("cms", {})}}
    return memory_models.made(mixer, hope=hope)


@each_kind
@pytest.mark.slow
def test_every_parameter_has_a_gradient(mixer: str, changes: dict[str, Any]) -> None:
    """Step sizes and read-outs too: the loss is carried back through the updates."""
    model, given = made(mixer, **changes), tokens()
    _, loss = model(given, given.roll(-1, 1))
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


# ---- taught by targets -----------------------------------------------------------------------


@each_mixer
def test_a_target_is_seen_by_later_chunks_only(mixer: str) -> None:
    model, given = made(mixer), tokens()
    targets = given.roll(-1, 1)
    before = model.learn(given, targets)[0]
    other = targets.clone()
    other[0, 9] = (other[0, 9] + 1) % V
    after = model.learn(given, other)[0]
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.equal(before[0, 12:], after[0, 12:])
    assert torch.equal(before[1], after[1])


@each_mixer
def test_learning_can_be_split_where_chunks_end_and_needs_no_gradients(mixer: str) -> None:
    model, given = made(mixer), tokens()
    targets = given.roll(-1, 1)
    whole, loss, last = model.learn(given, targets)
    model.requires_grad_(False)
    state, parts, total = None, [], torch.zeros(())
    with torch.no_grad():
        for part in (slice(0, 4), slice(4, 12), slice(12, T)):
            found, mean, state = model.learn(given[:, part], targets[:, part], state)
            parts.append(found)
            total = total + mean * found[..., 0].numel()
    torch.testing.assert_close(torch.cat(parts, 1), whole.detach(), **CLOSE)
    torch.testing.assert_close(total / given.numel(), loss.detach(), rtol=1e-6, atol=0)
    assert state is not None
    assert_equal_states(state, last, CLOSE)


@each_mixer
@pytest.mark.slow
def test_what_is_read_teaches_as_targets_do(mixer: str) -> None:
    """A text that is sampled is read as it was trained on, whatever its length."""
    model, given = made(mixer), tokens(length=T + 1)
    wanted, _ = model(given[:, :-1], given[:, 1:])
    for length in (1, 4, 5, 12, T):
        with torch.no_grad():
            found, loss = model(given[:, :length])
        assert loss is None
        torch.testing.assert_close(found, wanted[:, :length].detach(), **CLOSE)
    assert not torch.allclose(wanted, model.extend(given[:, :-1])[0])


def test_teaching_hands_in_the_gradient_of_the_loss_at_the_levels_output() -> None:
    model, given = made(), tokens(length=4)
    targets = given.roll(-1, 1)
    _, _, taught = model.learn(given, targets)
    logits, state = model.extend(given)
    outputs = [layer.cms.output for layer in state.layers]
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")
    grads = torch.autograd.grad(total, outputs)
    for n, grad in enumerate(grads):
        cms = model.blocks[n].mixer.cms.teach(grad, state.layers[n].cms)
        for level, wanted in zip(cms.levels, taught.layers[n].cms.levels, strict=True):
            for mine, theirs in zip(level.weights, wanted.weights, strict=True):
                torch.testing.assert_close(mine, theirs, **CLOSE)


def test_a_step_size_of_zero_is_a_model_that_is_not_taught() -> None:
    model, given = made(cms={"step_max": 0.0}), tokens()
    torch.testing.assert_close(model.learn(given, given)[0], model.extend(given)[0], **CLOSE)


# ---- one layer against the equations ---------------------------------------------------------


@pytest.mark.equation("nl.v1:eq94", kind="oracle")
@pytest.mark.equation("nl.v1:eq95", kind="oracle")
@pytest.mark.equation("nl.v1:eq96", kind="oracle")
@pytest.mark.parametrize("memories", [("k", "v", "alpha", "eta"), ("v", "eta")], ids=str)
@pytest.mark.parametrize("conv", [4, 0])
@pytest.mark.parametrize("cuts", [[9], [4, 1, 4]], ids=str)
@pytest.mark.parametrize("momentum", [False, True])
def test_a_layer_is_its_equations(
    memories: tuple[str, ...], conv: int, cuts: list[int], momentum: bool
) -> None:
    """Convolution, maps and gates by hand, memories by the oracle."""
    torch.manual_seed(0)
    width = 5
    settings = HopeSettings(
        memories=memories, chunk=3, chunk_others=4, conv=conv, momentum=momentum
    )
    layer = SelfModifying(width, 1, settings).double()
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 if "gates" in name or parameter.dim() > 1 else 1)
    x = torch.randn(9, width, dtype=torch.float64)
    seen = x
    if layer.conv is not None:
        taps = layer.conv.taps.weight[:, 0]
        seen = torch.stack(
            [sum(taps[:, 3 - j] * x[t - j] for j in range(4) if t >= j) for t in range(9)]
        )
    maps = (seen @ layer.maps.weight.T).split(width, -1)
    given = dict(zip(layer.plain, maps[1:], strict=True))
    for name in ("alpha", "eta", *(("momentum",) if momentum else ())):
        if name not in memories:
            gate = layer.gates[name]
            given[name] = seen @ gate.maps[0].weight[0] + gate.offset[0]
    all_memories = {"main": Memory([w[0] for w in layer.main])}
    all_memories |= {
        name: Memory([w[0, p] for w in layer.others]) for p, name in enumerate(layer.how.names)
    }

    def readout(name: str, said: Tensor) -> Tensor:
        return layer.gates[name].weight[0] @ said + layer.gates[name].offset[0]

    o = self_modifying(layer.how, maps[0], given, readout, all_memories)
    o = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight
    wanted = (o * F.silu(x @ layer.open.weight.T)) @ layer.out.weight.T
    torch.testing.assert_close(in_calls(layer, x[None], cuts)[0], wanted, **CLOSE)


def in_calls(layer: Any, x: Tensor, cuts: list[int]) -> Tensor:
    """Outputs of calls of these lengths, each with the state behind the one before."""
    outputs, state, at = [], None, 0
    for cut in cuts:
        y, state = layer(
            x[:, at : at + cut], state, **({"start": at} if "cms" in dir(layer) else {})
        )
        outputs.append(y)
        at += cut
    return torch.cat(outputs, 1)


@pytest.mark.equation("nl.v1:eq97", kind="value")
@pytest.mark.parametrize("cuts", [[9], [4, 1, 4]], ids=str)
def test_the_levels_read_what_the_memory_says(cuts: list[int]) -> None:
    torch.manual_seed(0)
    hope = Hope(8, 2, HopeSettings(cms=LEARNING)).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    wanted, _ = hope.cms(hope.norm(hope.memory(x)[0]))
    torch.testing.assert_close(in_calls(hope, x, cuts), wanted, **CLOSE)


@pytest.mark.equation("nl.v1:eq97", kind="value")
@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("cuts", [[9], [4, 1, 4]], ids=str)
def test_the_levels_read_what_attention_finds(persistent: int, cuts: list[int]) -> None:
    torch.manual_seed(0)
    settings = HopeSettings(cms=LEARNING)
    hope = HopeAttention(8, 2, settings, persistent=persistent, window=4).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    prefix = hope.persistent.tokens if persistent else None
    wanted, _ = hope.cms(hope.norm(hope.attention(x, prefix_PC=prefix)[0]))
    torch.testing.assert_close(in_calls(hope, x, cuts), wanted, **CLOSE)


def test_bfloat16_around_memories_of_float32() -> None:
    torch.manual_seed(0)
    hope = Hope(8, 2, HopeSettings())
    with torch.autocast("cpu", torch.bfloat16):
        y, state = hope(torch.randn(2, 9, 8))
    assert state.fast.weights[0].dtype == state.cms.levels[0].weights[0].dtype == torch.float32
    assert y.isfinite().all()


def test_a_step_that_makes_memories_grow_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"2 times the step .* at most 0\.5"):
        HopeSettings(max_eta=0.6)
    assert HopeSettings(max_eta=1.0, loss="dot").max_eta == 1.0


def test_a_detached_state_asks_for_no_gradient() -> None:
    _, state = made().extend(tokens())
    found = state.detach()
    assert not any(v.requires_grad for v in found.state_dict().values() if isinstance(v, Tensor))
    assert found.layers[0].cms is not None
    assert found.layers[0].cms.output is not None
    assert not found.layers[0].cms.output.requires_grad


@pytest.mark.parametrize("chunk", [2, 16])
def test_flips_that_add_up_in_a_chunk_are_refused(chunk: int) -> None:
    with pytest.raises(ValidationError, match=r"they add up; set loss: dot, or chunk: 1"):
        HopeSettings(allow_neg_eigval=True, chunk=chunk)
    assert HopeSettings(allow_neg_eigval=True, chunk=1).loss == "l2"


def test_what_cannot_be_taught_or_told_apart_is_refused() -> None:
    with pytest.raises(UsageError, match="mixer lmm has no levels that targets teach"):
        memory_models.made("lmm").learn(tokens(), tokens())
    with pytest.raises(UsageError, match="give each document by itself"):
        made().documents(tokens(), tokens() == 0)


def test_a_model_can_be_pickled_with_its_named_memory() -> None:
    model = memory_models.made("lmm", memory={"kind": "gated-deltanet"})
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(tokens())[0], model(tokens())[0])
