"""Levels that learn while they are read are equation 71, token by token by autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.models.memory.cms import CMS
from cupel.models.memory.oracles_hope import Levels, continuum
from cupel.models.memory.settings import CMSSettings
from cupel.models.memory.state import CMSState, LayerState, State

# float64; sums of some hundred terms of size one
CLOSE = {"rtol": 1e-11, "atol": 1e-12}
B, C, T = 2, 4, 19
VARIANTS = ("sequential", "nested", "independent")
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def made(variant: str = "sequential", *, biases: bool = False, **changes: Any) -> CMS:
    """Three levels, of which the middle one is the slowest; none begins like another."""
    torch.manual_seed(0)
    given = {
        "variant": variant, "frequencies": (1.0, 0.25, 0.5), "chunk": 2, "expansion": 1.5,
        "signal": "local", "step_max": 0.8, **changes,
    }  # fmt: skip
    found = CMS(C, CMSSettings.model_validate(given), biases=biases).double()
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.5)
    return found


def drawn(seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, C, generator=draws, dtype=torch.float64, requires_grad=True)


def taught(cms: CMS, x: Tensor, grad: Tensor, cuts: list[int]) -> tuple[Tensor, CMSState]:
    """Calls of these lengths, each taught behind it."""
    state, outputs, at = None, [], 0
    for cut in cuts:
        y, state = cms(x[:, at : at + cut], state)
        state = cms.teach(grad[:, at : at + cut], state)
        outputs.append(y)
        at += cut
    assert state is not None
    return torch.cat(outputs, 1), state


def whole(cms: CMS, x: Tensor, grad: Tensor) -> tuple[Tensor, CMSState]:
    if cms.settings.signal == "local":
        return cms(x)
    return taught(cms, x, grad, [2] * (T // 2) + [T % 2])


def by_oracle(cms: CMS, x: Tensor, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and weights of every layer of every level."""
    outputs, states = [], []
    for b in range(B):
        levels = Levels([list(level) for level in cms.first])

        def step(n: int, given: Tensor) -> Tensor:
            return cms.settings.step_max * torch.sigmoid(cms.gates[str(n)](given[None, None]))[0, 0]

        independent = cms.settings.variant == "independent"
        out = continuum(
            cms.settings, x[b], step, levels,
            shares=cms.shares if independent else None,
            grad_TC=grad[b] if cms.settings.signal == "teach" else None,
        )  # fmt: skip
        outputs.append(out)
        states.append([layer for level in levels.weights for layer in level])
    return torch.stack(outputs), [torch.stack(layers) for layers in zip(*states, strict=True)]


def flat(state: CMSState) -> list[Tensor]:
    return [layer for level in state.levels for layer in level.weights]


@pytest.mark.equation("nl.v1:eq71", kind="oracle")
@pytest.mark.equation("nl.v1:eq72", kind="oracle")
@pytest.mark.equation("nl.v1:eq73", kind="oracle")
@pytest.mark.equation("nl.v1:eq74", kind="oracle")
@each_variant
@pytest.mark.parametrize("signal", ["local", "teach"])
@pytest.mark.parametrize("residual", [True, False])
def test_levels_learn_as_printed(variant: str, signal: str, residual: bool) -> None:
    # A gradient that is handed in does not get smaller as weights follow it: steps must be small.
    step = 0.8 if signal == "local" else 0.1
    cms = made(variant, signal=signal, residual=residual, step_max=step)
    x, grad = drawn(), drawn(1).detach()
    found, wanted = whole(cms, x, grad), by_oracle(cms, x, grad)
    inputs = {"x": x, **dict(cms.named_parameters())}
    results = []
    for tensors in ([found[0], *flat(found[1])], [wanted[0], *wanted[1]]):
        mixed = sum(
            (one * torch.cos(torch.arange(one.numel(), dtype=one.dtype)).view_as(one)).sum()
            for one in tensors
        )
        grads = torch.autograd.grad(mixed, list(inputs.values()))
        results.append((tensors, dict(zip(inputs, grads, strict=True))))
    for mine, theirs in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    for name, one in results[0][1].items():
        torch.testing.assert_close(
            one, results[1][1][name], rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.equation("nl.v1:eq71", kind="gradient")
@pytest.mark.parametrize("biases", [False, True])
def test_an_update_is_the_sum_of_exactly_a_chunk_of_steps(biases: bool) -> None:
    """With a mean squared error, and with a step size of its own for each token."""
    cms = made(frequencies=(1.0,), chunk=3, signal="teach", biases=biases)
    x, goal = drawn().detach(), drawn(1).detach()
    y, state = cms(x[:, :3])
    after = cms.teach(y.detach() - goal[:, :3], state)
    eta = 0.8 * torch.sigmoid(cms.gates["0"](x[:, :3]))
    for b in range(B):
        weights = [w.detach().clone().requires_grad_() for w in cms.first[0]]
        extra = torch.ones(3, int(biases), dtype=torch.float64)
        hidden = torch.nn.functional.gelu(torch.cat((x[b, :3], extra), 1) @ weights[0])
        out = x[b, :3] + torch.cat((hidden, extra), 1) @ weights[1]
        loss = 0.5 * ((out - goal[b, :3]).square().sum(-1) * eta[b].detach()).sum()
        for layer, (weight, step) in enumerate(
            zip(weights, torch.autograd.grad(loss, weights), strict=True)
        ):
            torch.testing.assert_close(after.levels[0].weights[layer][b], weight - step, **CLOSE)
    # One more token is of the next chunk, and leaves the weights alone.
    y, state = cms(x[:, 3:4], after)
    later = cms.teach(torch.ones_like(y), state)
    assert all(torch.equal(a, b) for a, b in zip(flat(later), flat(after), strict=True))


@pytest.mark.equation("nl.v1:eq70", kind="value")
@each_variant
@pytest.mark.parametrize("changes", [{"step_max": 0.0}, {"frequencies": (0.0, 0.0, 0.0)}], ids=str)
def test_without_learning_it_is_the_plain_mlps(variant: str, changes: dict[str, Any]) -> None:
    cms, x = made(variant, **changes), drawn()
    outs: list[Tensor] = []
    for first, second in cms.first:
        given = outs[-1] if outs and variant != "independent" else x
        outs.append(given + torch.nn.functional.gelu(given @ first) @ second)
    wanted = outs[-1]
    if variant == "independent":
        wanted = sum(share * out for share, out in zip(cms.shares, outs, strict=True))  # type: ignore[assignment]
    torch.testing.assert_close(cms(x)[0], wanted, **CLOSE)


@pytest.mark.equation("nl.v1:eq71", kind="oracle")
@each_variant
@pytest.mark.parametrize("cuts", [[1] * T, [5, 1, 9, 4], [8, 8, 3], [18, 1]], ids=str)
def test_any_split_into_calls_gives_the_same(variant: str, cuts: list[int]) -> None:
    cms, x = made(variant), drawn()
    wanted, last = cms(x)
    state, parts, at = None, [], 0
    for cut in cuts:
        y, state = cms(x[:, at : at + cut], state)
        parts.append(y)
        at += cut
    torch.testing.assert_close(torch.cat(parts, 1), wanted, **CLOSE)
    assert state is not None
    assert_same_states(state, last)


@pytest.mark.equation("nl.v1:eq71", kind="oracle")
@each_variant
def test_any_split_within_chunks_is_taught_the_same(variant: str) -> None:
    cms, x, grad = made(variant, signal="teach", chunk=4), drawn(), drawn(1).detach()
    one = taught(cms, x, grad, [4, 4, 4, 4, 3])
    other = taught(cms, x, grad, [1, 3, 2, 2, 4, 1, 1, 1, 1, 3])
    torch.testing.assert_close(one[0], other[0], **CLOSE)
    assert_same_states(one[1], other[1])


def assert_same_states(one: CMSState, other: CMSState) -> None:
    mine, theirs = (State((LayerState(cms=cms),), B).state_dict() for cms in (one, other))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, theirs[name], **CLOSE)
        else:
            assert value == theirs[name], name


@pytest.mark.equation("nl.v1:eq71", kind="causal")
@each_variant
def test_no_token_sees_a_later_one_and_no_sequence_another(variant: str) -> None:
    cms, x = made(variant), drawn().detach()
    before, _ = cms(x)
    for at in (0, 1, 2, 7, 8, T - 1):
        other = x.clone()
        other[0, at] += 1
        after, _ = cms(other)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.equal(before[0, at], after[0, at])
        assert torch.equal(before[1], after[1])


@pytest.mark.equation("nl.v1:eq71", kind="causal")
def test_an_update_is_seen_by_later_chunks_only() -> None:
    cms, x = made(signal="teach", frequencies=(1.0,), chunk=4), drawn().detach()
    one = taught(cms, x, torch.zeros(B, T, C), [4, 4, 4, 4, 3])[0]
    grad = torch.zeros(B, T, C)
    grad[:, 5] = 1.0
    other = taught(cms, x, grad, [4, 4, 4, 4, 3])[0]
    assert torch.equal(one[:, :8], other[:, :8])
    assert not torch.equal(one[:, 8], other[:, 8])


@each_variant
def test_finish_learns_what_there_is_of_a_chunk(variant: str) -> None:
    cms, x = made(variant), drawn()
    _, state = cms(x[:, :7])
    finished = cms.finish(state)
    assert (finished.seen, finished.tails) == (0, None)
    for n, (level, old) in enumerate(zip(finished.levels, state.levels, strict=True)):
        begun, sums = old.weights, old.sums
        if variant == "nested" and n in cms.owners:
            assert old.first is not None
            assert old.above is not None
            begun, sums = old.first, old.above
        for layer, weight in enumerate(level.weights):
            torch.testing.assert_close(weight, begun[layer] - sums[layer], **CLOSE)
        assert not any(total.any() for total in level.sums)
    again = cms.finish(finished)
    assert all(torch.equal(a, b) for a, b in zip(flat(again), flat(finished), strict=True))


@pytest.mark.equation("nl.v1:eq73", kind="claim")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("signal", ["teach", "local"])
def test_trained_mlps_are_recovered_without_learning(bias: bool, signal: str) -> None:
    mlps = [
        (nn.Linear(C, 6, bias=bias).double(), nn.Linear(6, C, bias=bias).double()) for _ in "ab"
    ]
    frozen = CMSSettings(frequencies=(1.0, 0.5), chunk=2, residual=False, signal=signal, step_max=0)
    x = drawn()
    wanted = x
    for up, down in mlps:
        wanted = down(torch.nn.functional.gelu(up(wanted)))
    found, _ = CMS.from_mlps(mlps, frozen).double()(x)
    torch.testing.assert_close(found, wanted, **CLOSE)
    learning = CMS.from_mlps(mlps, frozen.model_copy(update={"step_max": 0.5, "signal": "local"}))
    assert not torch.allclose(learning.double()(x)[0][:, 2:], wanted[:, 2:])
    with pytest.raises(UsageError, match=r"1 MLPs .* 2 frequencies"):
        CMS.from_mlps(mlps[:1], frozen)


def test_what_cannot_be_taught_says_so() -> None:
    cms, x = made(signal="teach"), drawn()
    with pytest.raises(UsageError, match="signal: teach"):
        made().teach(x, made().begin(B))
    _, state = cms(x[:, :3])
    with pytest.raises(UsageError, match="at most 2 tokens"):
        cms.teach(x[:, :3], state)
    _, state = cms(x[:, :2])
    state = cms.teach(x[:, :2], state)
    with pytest.raises(UsageError, match="they have been"):
        cms.teach(x[:, :2], state)


def test_tokens_that_are_not_taught_leave_no_trace() -> None:
    cms, x = made(signal="teach"), drawn()
    y, state = cms(x)
    assert all(torch.equal(a, b) for a, b in zip(flat(state), flat(cms.begin(B)), strict=True))
    outs = x
    for first, second in cms.first:
        outs = outs + torch.nn.functional.gelu(outs @ first) @ second
    torch.testing.assert_close(y, outs, **CLOSE)


@each_variant
def test_no_levels_are_the_identity(variant: str) -> None:
    cms, x = made(variant, frequencies=()), drawn()
    assert torch.equal(cms(x)[0], x)


def test_periods_are_whole_numbers_of_tokens() -> None:
    assert CMSSettings(frequencies=(4.0, 1.0, 0.0), chunk=3).periods() == (3, 12, None)
    with pytest.raises(ValidationError, match=r"no whole number; the nearest .*: 0.3"):
        CMSSettings(frequencies=(1.0, 0.35), chunk=3)
    with pytest.raises(ValidationError, match="multiple of the one before"):
        CMSSettings(frequencies=(1.0, 0.5, 1 / 3), chunk=1, variant="nested")


def test_mlps_that_do_not_fit_together_are_refused_and_their_precision_is_kept() -> None:
    settings = CMSSettings(frequencies=(1.0,), chunk=2)
    for up, down in (((4, 8), (8, 5)), ((4, 8), (7, 4))):
        with pytest.raises(UsageError, match="give one MLP for each, all of one width"):
            CMS.from_mlps([(nn.Linear(*up), nn.Linear(*down))], settings)
    kept = CMS.from_mlps([(nn.Linear(4, 8).double(), nn.Linear(8, 4).double())], settings)
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.float64}
