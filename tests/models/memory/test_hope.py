"""Hope as a model: causal, equal over any split of calls, and taught by its own targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from cupel.models.memory.hope import Hope, HopeAttention, SelfModifying
from cupel.models.memory.model import MemoryLM
from cupel.models.memory.oracles_hope import Memory, self_modifying
from cupel.models.memory.settings import HopeSettings, MemoryModelSettings
from cupel.models.memory.state import State

V, T = 11, 23
# float64; the same sums in another order
CLOSE = {"rtol": 1e-10, "atol": 1e-11}
KINDS: list[dict[str, Any]] = [
    {},
    {"depth": 1},
    {"depth": 1, "loss": "dot", "max_eta": 1.0, "allow_neg_eigval": True},
    {"erase": "first"},
    {"erase": "none", "read": "snapshot"},
    {"memories": ("q", "k", "v", "alpha", "eta"), "targets": "value"},
    {"memories": ()},
    {"conv": 0, "chunk": 5, "chunk_others": 3},
    {"cms": {"variant": "nested"}},
    {"cms": {"variant": "independent"}},
    {"cms": {"frequencies": ()}},
]
# Levels that learn within a few tokens.
LEARNING: dict[str, Any] = {"frequencies": (1.0, 0.5), "chunk": 2, "signal": "local"}
each_kind = pytest.mark.parametrize("changes", KINDS, ids=lambda x: str(x)[:60])
each_mixer = pytest.mark.parametrize("mixer", ["hope", "hope-attention"])


def made(mixer: str = "hope", *, signal: str = "local", **changes: Any) -> MemoryLM:
    torch.manual_seed(1)
    cms = {"chunk": 4, "frequencies": (1.0, 0.5), "signal": signal, **changes.pop("cms", {})}
    hope = {"chunk": 4, "chunk_others": 8, **changes, "cms": cms}
    settings = MemoryModelSettings.model_validate(
        {
            "mixer": mixer, "hope": hope, "layers": 2, "heads": 2, "width": 12, "block": T,
            "vocabulary": V, "persistent": 3, "window": 6,
        }
    )  # fmt: skip
    model = MemoryLM(settings).double()
    for name, parameter in model.named_parameters():
        if "gates" in name:  # away from where they begin, so that every token has gates of its own
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def tokens(count: int = 2, length: int = T) -> Tensor:
    return torch.randint(0, V, (count, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.equation("nl.v1:eq97", kind="causal")
@each_mixer
@each_kind
def test_no_token_sees_a_later_one(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    before, _ = model(given)
    for at in (0, 4, 7, 8, T - 1):
        other = given.clone()
        other[:, at] = (other[:, at] + 1) % V
        after, _ = model(other)
        assert torch.equal(before[:, :at], after[:, :at]), at
        assert not torch.equal(before[:, at], after[:, at]), at


@pytest.mark.equation("nl.v1:eq97", kind="causal")
@each_mixer
@each_kind
@pytest.mark.parametrize("cuts", [[1] * T, [5, 1, 9, 8], [22, 1]], ids=str)
def test_any_split_into_calls_gives_the_same(
    mixer: str, changes: dict[str, Any], cuts: list[int]
) -> None:
    model, given = made(mixer, **changes), tokens()
    whole, last = model.extend(given)
    state, parts, at = None, [], 0
    for cut in cuts:
        found, state = model.extend(given[:, at : at + cut], state)
        parts.append(found)
        at += cut
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)
    assert state is not None
    assert_same_states(state, last)


@each_mixer
@each_kind
def test_a_state_saved_and_loaded_goes_on_as_it_was(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    _, state = model.extend(given[:, :13])
    again = State.from_state_dict(state.detach().state_dict())
    assert torch.equal(model.extend(given[:, 13:], state)[0], model.extend(given[:, 13:], again)[0])


@each_mixer
@each_kind
def test_a_sequence_has_a_memory_of_its_own(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens(3)
    together, state = model.extend(given)
    alone, own = model.extend(given[1:2])
    torch.testing.assert_close(together[1:2], alone, **CLOSE)
    assert_same_states(state.select(torch.tensor([1])), own)


@each_mixer
@each_kind
@pytest.mark.parametrize("signal", ["local", "teach"])
def test_every_parameter_has_a_gradient(mixer: str, changes: dict[str, Any], signal: str) -> None:
    """Step sizes and read-outs too: the loss is carried back through the updates."""
    model, given = made(mixer, signal=signal, **changes), tokens()
    _, loss = model(given, given.roll(-1, 1))
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


# ---- taught by targets -----------------------------------------------------------------------


@each_mixer
def test_a_target_is_seen_by_later_chunks_only(mixer: str) -> None:
    model, given = made(mixer, signal="teach"), tokens()
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
    model, given = made(mixer, signal="teach"), tokens()
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
    assert_same_states(state, last)


def test_teaching_hands_in_the_gradient_of_the_loss_at_the_levels_output() -> None:
    model, given = made(signal="teach"), tokens(length=4)
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
    model, given = made(signal="teach", cms={"step_max": 0.0}), tokens()
    torch.testing.assert_close(model.learn(given, given)[0], model.extend(given)[0], **CLOSE)


# ---- one layer against the equations ---------------------------------------------------------


@pytest.mark.equation("nl.v1:eq94", kind="oracle")
@pytest.mark.equation("nl.v1:eq95", kind="oracle")
@pytest.mark.equation("nl.v1:eq96", kind="oracle")
@pytest.mark.parametrize("memories", [("k", "v", "alpha", "eta"), ("v", "eta")], ids=str)
@pytest.mark.parametrize("conv", [4, 0])
@pytest.mark.parametrize("cuts", [[9], [4, 1, 4]], ids=str)
def test_a_layer_is_its_equations(memories: tuple[str, ...], conv: int, cuts: list[int]) -> None:
    """Convolution, maps and gates by hand, memories by the oracle."""
    torch.manual_seed(0)
    width = 5
    settings = HopeSettings(memories=memories, chunk=3, chunk_others=4, conv=conv)
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
    for name in ("alpha", "eta"):
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


def assert_same_states(one: State, other: State) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(
                value, theirs[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert value == theirs[name], name


def test_a_detached_state_asks_for_no_gradient() -> None:
    _, state = made(signal="teach").extend(tokens())
    found = state.detach()
    assert not any(v.requires_grad for v in found.state_dict().values() if isinstance(v, Tensor))
    assert found.layers[0].cms is not None
    assert found.layers[0].cms.output is not None
    assert not found.layers[0].cms.output.requires_grad
