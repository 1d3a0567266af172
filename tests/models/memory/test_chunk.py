"""The chunk form is the rule itself: one token after the other gives the same numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cupel.models.memory import bias, recurrence, retention
from cupel.models.memory import chunk as form
from cupel.models.memory.chunk import Fast, Gates, Rule, begin, run
from cupel.models.memory.net import Net
from cupel.models.memory.oracles import sequential

# float64; sums of some hundred terms of size one
CLOSE = {"rtol": 1e-11, "atol": 1e-12}
N, D, HIDDEN = 2, 5, 7


def widths(depth: int) -> list[tuple[int, int]]:
    inner = [D, *[HIDDEN] * (depth - 1), D]
    return list(itertools.pairwise(inner))


def drawn(length: int, *, depth: int, seed: int = 0, channels: bool = False) -> dict[str, Any]:
    """Tokens, gates and first weights; every tensor asks for its gradient."""
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made, dtype=torch.float64)

    gate = (N, length, D) if channels else (N, length)
    k = torch.nn.functional.normalize(normal(N, length, D), dim=-1)
    q = torch.nn.functional.normalize(normal(N, length, D), dim=-1)
    found = {
        "q": q,
        "k": k,
        "v": normal(N, length, D),
        "log_keep": torch.nn.functional.logsigmoid(normal(*gate) + 2),
        "theta": 0.3 * torch.sigmoid(normal(*gate)),
        "log_eta": torch.nn.functional.logsigmoid(normal(*gate)),
        "threshold": 0.5 + torch.sigmoid(normal(N, length)),
        "weights": [normal(N, *shape) / shape[0] ** 0.5 for shape in widths(depth)],
    }
    for one in (*found["weights"], *(x for x in found.values() if isinstance(x, Tensor))):
        one.requires_grad_()
    return found


def positive(weights: list[Tensor]) -> list[Tensor]:
    """In (0, 0.9): what maps that take logarithms can begin with."""
    return [weight.detach().sigmoid().mul(0.9).requires_grad_() for weight in weights]


def gates(given: dict[str, Any], rule: Rule) -> Gates:
    threshold = given["threshold"] if rule.bias.needs_threshold else None
    log_eta = given["log_eta"] if rule.momentum else None
    return Gates(given["log_keep"], given["theta"], log_eta, threshold)


def chunked(rule: Rule, given: dict[str, Any]) -> tuple[Tensor, Fast]:
    fast = begin(rule, given["weights"])
    return run(rule, given["q"], given["k"], given["v"], gates(given, rule), fast)


def one_by_one(rule: Rule, given: dict[str, Any]) -> tuple[Tensor, Fast]:
    """Each sequence of the batch by the oracle, from the same beginning."""
    first = begin(rule, given["weights"])
    outputs, states = [], []
    for n in range(N):
        start = Fast(
            *(None if x is None else x if isinstance(x, int) else [w[n] for w in x] for x in first)
        )
        own = Gates(*(None if gate is None else gate[n] for gate in gates(given, rule)))
        out, state = sequential(rule, given["q"][n], given["k"][n], given["v"][n], own, start)
        outputs.append(out)
        states.append(state)
    together = [
        None
        if part[0] is None
        else part[0]
        if isinstance(part[0], int)
        else [torch.stack(layer) for layer in zip(*part, strict=True)]
        for part in zip(*states, strict=True)
    ]
    return torch.stack(outputs), Fast(*together)


def leaves(given: dict[str, Any], rule: Rule) -> dict[str, Tensor]:
    """All that a result depends on."""
    found = {name: given[name] for name in ("q", "k", "v", "log_keep", "theta")}
    if rule.momentum:
        found["log_eta"] = given["log_eta"]
    return found | {f"W{n}": weight for n, weight in enumerate(given["weights"])}


def assert_same(rule: Rule, given: dict[str, Any]) -> None:
    """Outputs, state, and the gradients of both with regard to all that went in."""
    found, wanted = chunked(rule, given), one_by_one(rule, given)
    assert found[1].at == wanted[1].at
    results = []
    for out, state in (found, wanted):
        parts = [out, *state.weights, *state.anchor, *(state.momentum or []), *(state.dual or [])]
        mixed = sum(
            (part * torch.cos(torch.arange(part.numel(), dtype=part.dtype)).view_as(part)).sum()
            for part in parts
        )
        inputs = leaves(given, rule)
        grads = torch.autograd.grad(mixed, list(inputs.values()), allow_unused=True)
        results.append((parts, dict(zip(inputs, grads, strict=True))))
    for mine, theirs in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    for name, grad in results[0][1].items():
        torch.testing.assert_close(
            grad,
            results[1][1][name],
            rtol=1e-10,
            atol=1e-11,
            msg=lambda m, name=name: f"{name}: {m}",
        )


PLAIN = Rule(Net(), bias.L2(), retention.L2Retention(), momentum=True)


@pytest.mark.equation("titans.v1:eq13", kind="oracle")
@pytest.mark.equation("titans.v1:eq14", kind="oracle")
@pytest.mark.equation("titans.v1:eq15", kind="oracle")
@pytest.mark.equation("titans.v1:eq16", kind="oracle")
@pytest.mark.equation("titans.v1:eq18", kind="oracle")
@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 3, 8, 20])
def test_titans_memory(chunk: int, depth: int, read: str) -> None:
    assert_same(replace(PLAIN, chunk=chunk, read=read), drawn(20, depth=depth))


SEQUENCES = {
    "momentum": replace(PLAIN, chunk=2),
    "before": replace(PLAIN, chunk=2, read="before"),
    "mirror": Rule(Net(), bias.L2(), retention.LqMirror(), chunk=2),
    "lag": Rule(Net(), bias.L2(), retention.KLRetention(), chunk=2),
    "erase": replace(PLAIN, momentum=False, erase="one", normalise=True, chunk=2),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.slow
def test_more_chunks_than_are_read_at_once(name: str) -> None:
    given = drawn(2 * form._MOST_PIECES + 7, depth=2)
    if name == "lag":  # of small steps, by which logarithms do not magnify rounding
        given["weights"] = positive(given["weights"])
        given["theta"] = given["theta"].detach().mul(0.1).requires_grad_()
    assert_same(SEQUENCES[name], given)


def test_more_chunks_than_are_read_at_once_in_two_calls() -> None:
    rule, tokens = replace(PLAIN, chunk=2), 2 * form._MOST_PIECES + 7
    given = drawn(tokens, depth=2)
    whole, last = chunked(rule, given)
    fast, outputs = begin(rule, given["weights"]), []
    for part in (slice(0, 3), slice(3, tokens)):
        own = Gates(*(None if gate is None else gate[:, part] for gate in gates(given, rule)))
        y, fast = run(rule, *(given[name][:, part] for name in "qkv"), own, fast)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, **CLOSE)
    for mine, theirs in zip(fast.weights, last.weights, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)


LIMITS = {"_MOST_PIECES": form, "_MOST_STATE": form, "_MOST_GATES": form, "_SHORT": recurrence}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("limit", [1, 300, 10**9])
def test_how_much_is_done_at_once_changes_nothing(
    name: str, limit: int, channels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS[name], name, limit)
    assert_same(replace(PLAIN, chunk=4), drawn(22, depth=2, channels=channels))


@pytest.mark.parametrize("of_channels", ["log_keep", "theta", "log_eta"])
@pytest.mark.parametrize("depth", [1, 2])
def test_gates_of_channels_beside_gates_of_tokens(of_channels: str, depth: int) -> None:
    given = drawn(10, depth=depth)
    given[of_channels] = drawn(10, depth=depth, seed=1, channels=True)[of_channels]
    assert_same(replace(PLAIN, chunk=4), given)


@pytest.mark.parametrize("gate", ["log_keep", "log_eta"])
@pytest.mark.parametrize("channels", [False, True])
def test_a_gate_that_is_shut(gate: str, channels: bool) -> None:
    """Its logarithm is −inf: what was before is gone, and nothing is not a number."""
    rule, given = replace(PLAIN, chunk=4), drawn(10, depth=2, channels=channels)
    shut = given[gate].detach().clone()
    shut[:, 2:9:3] = -torch.inf
    given[gate] = shut
    (out, state), (wanted, last) = chunked(rule, given), one_by_one(rule, given)
    torch.testing.assert_close(out, wanted, **CLOSE)
    for mine, theirs in zip(state.weights, last.weights, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    out.sum().backward()
    for name in ("q", "k", "v", "theta"):
        assert given[name].grad.isfinite().all(), name


@pytest.mark.parametrize("channels", [False, True])
def test_a_batch_of_no_sequences(channels: bool) -> None:
    given = drawn(10, depth=2, channels=channels)
    none = {
        name: [w[:0] for w in one] if isinstance(one, list) else one[:0]
        for name, one in given.items()
    }
    out, state = chunked(replace(PLAIN, chunk=4), none)
    assert out.shape == (0, 10, D)
    assert [len(weight) for weight in state.weights] == [0, 0]


@pytest.mark.equation("miras.v1:eq23c", kind="oracle")
@pytest.mark.equation("nl.v1:eq89", kind="oracle")
@pytest.mark.equation("titans.v1:eq12", kind="oracle")
@pytest.mark.parametrize("activation", ["silu", "gelu", "relu", "tanh", "identity"])
def test_every_activation_with_norm_and_residual(activation: str) -> None:
    net = Net(activation, residual=True, norm=True)
    assert_same(replace(PLAIN, net=net, chunk=4), drawn(10, depth=2))


@pytest.mark.equation("miras.v1:eq23c", kind="value")
@pytest.mark.equation("nl.v1:eq89", kind="value")
@pytest.mark.equation("nl.v1:eq91", kind="value")
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_the_end_of_the_network_by_hand(norm: bool, residual: bool) -> None:
    """x + LN(z) with either left out; without a residual z may be wider than x."""
    x = torch.tensor([[[5.0, 7.0]]], dtype=torch.float64)
    z = torch.tensor([[[1.0, 3.0]]] if residual else [[[1.0, 3.0, 2.0]]], dtype=torch.float64)
    variance = 1 if residual else 2 / 3
    wanted = (z - 2) / (variance + 1e-5) ** 0.5 if norm else z
    found = Net(norm=norm, residual=residual).finish(x, z)
    torch.testing.assert_close(found, x + wanted if residual else wanted, **CLOSE)


@pytest.mark.parametrize("most", [0.3, 3.0])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_gradients_of_at_most_a_norm(most: float, depth: int, chunk: int) -> None:
    """Of some tokens with the larger bound, of all with the smaller one."""
    assert_same(replace(PLAIN, chunk=chunk, most=most), drawn(11, depth=depth))


BIASES = [
    bias.L2(1.0),
    bias.Dot(),
    bias.Lp(3.0),
    bias.Lp(1.0),
    bias.Lp(2.5, smooth="exact"),
    bias.HuberCoordinate(),
    bias.HuberNorm(),
    bias.HuberMixture(),
    bias.ValueShift(0.3),
]


@pytest.mark.parametrize("found", BIASES, ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("depth", [1, 2])
def test_every_bias(found: bias.Bias, depth: int) -> None:
    assert_same(replace(PLAIN, bias=found, chunk=4, momentum=False), drawn(11, depth=depth))


RETENTIONS = [
    retention.LqPaper(4.0),
    retention.LqPaper(2.0),
    retention.LqMirror(1.5),
    retention.KLRetention(3.0),
    retention.KLRetention(2.0, over="all", lag=False),
    retention.ElasticNet(0.05),
    retention.SigmoidBregman(),
]


@pytest.mark.equation("miras.v1:eq29", kind="oracle")
@pytest.mark.equation("miras.v1:eq30", kind="oracle")
@pytest.mark.equation("miras.v1:eq31", kind="oracle")
@pytest.mark.equation("miras.v1:eq32", kind="oracle")
@pytest.mark.parametrize("found", RETENTIONS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_every_retention(found: retention.Retention, read: str, chunk: int) -> None:
    rule = replace(PLAIN, retention=found, chunk=chunk, momentum=False, read=read)
    given = drawn(11, depth=2)
    if isinstance(found, (retention.KLRetention, retention.SigmoidBregman)):
        given["weights"] = positive(given["weights"])
    assert_same(rule, given)


@pytest.mark.equation("nl.v1:eq57", kind="oracle")
@pytest.mark.equation("nl.v1:eq88", kind="oracle")
@pytest.mark.equation("nl.v1:eq90", kind="oracle")
@pytest.mark.equation("nl.v1:eq93", kind="oracle")
@pytest.mark.parametrize("erase", ["keep", "one"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("momentum", [False, True])
def test_delta_rules(erase: str, depth: int, read: str, momentum: bool) -> None:
    rule = replace(PLAIN, momentum=momentum, erase=erase, normalise=True, chunk=5, read=read)
    assert_same(rule, drawn(13, depth=depth))


@pytest.mark.parametrize("activation", ["silu", "gelu", "tanh", "identity"])
def test_a_delta_rule_behind_every_activation(activation: str) -> None:
    rule = replace(PLAIN, net=Net(activation), momentum=False, erase="one", normalise=True, chunk=5)
    assert_same(rule, drawn(13, depth=2))


@pytest.mark.equation("titans.v1:eq15", kind="oracle")
@pytest.mark.equation("miras.v1:eq28", kind="oracle")
@pytest.mark.parametrize("momentum", [True, False])
def test_gates_of_channels(momentum: bool) -> None:
    assert_same(replace(PLAIN, momentum=momentum, chunk=4), drawn(10, depth=2, channels=True))
