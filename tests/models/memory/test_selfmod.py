"""Self-modifying memories in chunks are the rule itself, token by token by autograd."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory import bias
from cupel.models.memory.chunk import Gates, Rule, begin, run
from cupel.models.memory.net import Net
from cupel.models.memory.oracles_hope import Memory, self_modifying
from cupel.models.memory.retention import L2Retention
from cupel.models.memory.selfmod import PARTS, How, Memories, modify, start, step

# float64; sums of some hundred terms of size one
CLOSE = {"rtol": 1e-11, "atol": 1e-12}
N, D, HIDDEN, T = 2, 4, 6, 17
KEYS = ("bias", "erase_first", "momentum")  # of a rule


def how(*, depth: int = 1, chunk: int = 3, chunk_others: int = 8, **changes: Any) -> How:
    rule_changes = {key: changes.pop(key) for key in KEYS if key in changes}
    rule = Rule(
        Net("gelu", residual=depth > 1),
        rule_changes.pop("bias", bias.L2(1.0)),
        L2Retention(),
        chunk=chunk,
        read="before",
        erase=changes.pop("erase", "one"),
        normalise=depth > 1 and not rule_changes.get("erase_first", False),
        **rule_changes,
    )
    return How(rule, replace(rule, chunk=chunk_others), **changes)


def drawn(made: How, *, depth: int = 1, length: int = T) -> dict[str, Any]:
    """Tokens, what is no memory, read-outs and first weights; all ask for their gradients."""
    draws = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    sizes = [D, *[HIDDEN] * (depth - 1), D]
    shapes = list(pairwise(sizes))
    shape = {"q": (N, length, D), "k": (N, length, D), "v": (N, length, D)}
    found: dict[str, Any] = {
        "x": normal(N, length, D),
        "given": {
            name: normal(*shape.get(name, (N, length))) for name in PARTS if name not in made.names
        },
        "readouts": {name: normal(N, D) for name in ("alpha", "eta") if name in made.names},
        # A matrix is near the identity, as an MLP is: norms near zero would magnify rounding.
        "main": [near(normal(N, *one), depth) for one in shapes],
        "others": [near(normal(N, len(made.names), *one), depth) for one in shapes],
    }
    if made.main.momentum:
        found["given"]["momentum"] = normal(N, length)
    for leaf in leaves(found).values():
        leaf.requires_grad_()
    return found


def near(drawn: Tensor, depth: int) -> Tensor:
    if depth > 1:
        return 0.5 * drawn
    return torch.eye(D, dtype=drawn.dtype) + 0.3 * drawn


def leaves(found: dict[str, Any]) -> dict[str, Tensor]:
    # With no memory but the main one there is nothing that x is shown to.
    flat = {"x": found["x"]} if found["others"][0].numel() else {}
    flat |= found["given"]
    flat |= {f"readout {name}": w for name, w in found["readouts"].items()}
    flat |= {f"main {n}": w for n, w in enumerate(found["main"])}
    return flat | {f"others {n}": w for n, w in enumerate(found["others"]) if w.numel()}


def first(made: How, found: dict[str, Any]) -> Memories:
    return start(made, found["main"], found["others"])


def chunked(
    made: How, found: dict[str, Any], part: slice = slice(None), state: Memories | None = None
) -> tuple[Tensor, Memories]:
    def readout(name: str, said_NTD: Tensor) -> Tensor:
        return 2 + torch.einsum("ntd,nd->nt", said_NTD, found["readouts"][name])

    own = {name: tensor[:, part] for name, tensor in found["given"].items()}
    return modify(made, found["x"][:, part], own, readout, state or first(made, found))


def one_by_one(made: How, found: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and all weights and anchors, by the oracle."""
    outputs, states = [], []
    for n in range(N):
        memories = {"main": Memory([w[n] for w in found["main"]])}
        memories |= {
            name: Memory([w[n, p] for w in found["others"]]) for p, name in enumerate(made.names)
        }

        def readout(name: str, said_D: Tensor, n: int = n) -> Tensor:
            return 2 + said_D @ found["readouts"][name][n]

        own = {name: tensor[n] for name, tensor in found["given"].items()}
        outputs.append(self_modifying(made, found["x"][n], own, readout, memories))
        states.append(memories)
    parts = [
        torch.stack([getattr(memories["main"], kind)[layer] for memories in states])
        for kind in ("weights", "anchor")
        for layer in range(len(found["main"]))
    ]
    for kind in ("weights", "anchor") if made.names else ():
        for layer in range(len(found["main"])):
            rows = [getattr(m[name], kind)[layer] for m in states for name in made.names]
            parts.append(torch.stack(rows))
    for names in (("main",), made.names) if made.main.momentum else ():
        layers = range(len(found["main"]) if names else 0)
        parts += [
            torch.stack([m[name].momentum[n] for m in states for name in names]) for n in layers
        ]
    return torch.stack(outputs), parts


def flat(state: Memories) -> list[Tensor]:
    rest = [*state.others.weights, *state.others.anchor] if state.others is not None else []
    carried = [] if state.others is None else state.others.momentum or []
    momentum = [*(state.main.momentum or []), *carried]
    return [*state.main.weights, *state.main.anchor, *rest, *momentum]


def assert_same(made: How, found: dict[str, Any]) -> None:
    """Outputs, state, and the gradients of both with regard to all that went in."""
    out, state = chunked(made, found)
    wanted, parts = one_by_one(made, found)
    results = []
    for tensors in ([out, *flat(state)], [wanted, *parts]):
        mixed = sum(
            (one * torch.cos(torch.arange(one.numel(), dtype=one.dtype)).view_as(one)).sum()
            for one in tensors
        )
        inputs = leaves(found)
        grads = torch.autograd.grad(mixed, list(inputs.values()))
        results.append((tensors, dict(zip(inputs, grads, strict=True))))
    for mine, theirs in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
    for name, grad in results[0][1].items():
        torch.testing.assert_close(
            grad, results[1][1][name], rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.equation("nl.v1:eq88", kind="oracle")
@pytest.mark.equation("nl.v1:eq90", kind="oracle")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "chunks", [(1, 1), (3, 3), (8, 8), (T, T), (3, 8), (8, 2), (5, 1)], ids=str
)
@pytest.mark.slow
def test_chunks_of_any_two_lengths(chunks: tuple[int, int], depth: int) -> None:
    made = how(depth=depth, chunk=chunks[0], chunk_others=chunks[1])
    assert_same(made, drawn(made, depth=depth))


SWITCHES: list[dict[str, Any]] = [
    {"bias": bias.Dot()},
    {"flips": True},
    {"read": "snapshot"},
    {"targets": "value"},
    {"erase": None},
    {"unit": "keys", "max_eta": 0.05},
    {"unit": "inputs"},
    {"names": ("q", "k", "v", "alpha", "eta")},
    {"names": ("v",)},
    {"names": ()},
    {"momentum": True},
    {"momentum": True, "erase": None, "read": "snapshot"},
    {"momentum": True, "names": ()},
]


@pytest.mark.equation("nl.v1:eq79", kind="oracle")
@pytest.mark.equation("nl.v1:eq80", kind="oracle")
@pytest.mark.equation("nl.v1:eq81", kind="oracle")
@pytest.mark.equation("nl.v1:eq82", kind="oracle")
@pytest.mark.equation("nl.v1:eq83", kind="oracle")
@pytest.mark.equation("nl.v1:eq84", kind="oracle")
@pytest.mark.equation("nl.v1:eq85", kind="oracle")
@pytest.mark.equation("nl.v1:eq86", kind="oracle")
@pytest.mark.equation("nl.v1:eq87", kind="oracle")
@pytest.mark.equation("nl.v1:eq88", kind="oracle")
@pytest.mark.equation("nl.v1:eq91", kind="oracle")
@pytest.mark.equation("nl.v1:eq92", kind="oracle")
@pytest.mark.parametrize(("depth", "chunk"), [(1, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize("changes", SWITCHES, ids=lambda one: "-".join(one))
@pytest.mark.slow
def test_every_switch(changes: dict[str, Any], depth: int, chunk: int) -> None:
    made = how(depth=depth, chunk=chunk, **changes)
    assert_same(made, drawn(made, depth=depth, length=11))


@pytest.mark.equation("nl.v1:eq89", kind="oracle")
@pytest.mark.slow
def test_erasing_in_the_first_layer_only() -> None:
    made = how(depth=2, erase_first=True)
    assert_same(made, drawn(made, depth=2))
    other = how(depth=2)
    found = drawn(made, depth=2)
    assert not torch.allclose(chunked(made, found)[0], chunked(other, found)[0])


@pytest.mark.equation("nl.v1:eq90", kind="causal")
@pytest.mark.parametrize("cuts", [[1] * T, [5, 1, 9, 2], [8, 9], [16, 1]], ids=str)
@pytest.mark.parametrize(("depth", "chunk"), [(1, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize("momentum", [False, True])
def test_any_split_into_calls_gives_the_same(
    depth: int, chunk: int, cuts: list[int], momentum: bool
) -> None:
    made = how(depth=depth, chunk=chunk, momentum=momentum)
    found = drawn(made, depth=depth)
    whole, last = chunked(made, found)
    state, parts, at = None, [], 0
    for cut in cuts:
        out, state = chunked(made, found, slice(at, at + cut), state)
        parts.append(out)
        at += cut
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)
    assert state is not None
    for mine, theirs in zip(flat(state), flat(last), strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)


@pytest.mark.equation("nl.v1:eq86", kind="causal")
@pytest.mark.parametrize("changes", [{}, {"read": "snapshot"}, {"depth": 2}], ids=str)
def test_no_token_sees_a_later_one(changes: dict[str, Any]) -> None:
    made, depth = how(**changes), changes.get("depth", 1)
    found = drawn(made, depth=depth)
    before, _ = chunked(made, found)
    for at in (0, 2, 3, 7, 8, T - 1):
        other = {**found, "x": found["x"].detach().clone()}
        other["x"][:, at] += 1
        after, _ = chunked(made, other)
        # A token's own write comes behind its read, and q is not made of x here.
        assert torch.equal(before[:, : at + 1], after[:, : at + 1]), at
        assert at == T - 1 or not torch.equal(before, after), at


def test_a_sequence_has_memories_of_its_own() -> None:
    made = how(depth=2)
    found = drawn(made, depth=2)
    before, state = chunked(made, found)
    other = {**found, "x": found["x"].detach().clone()}
    other["x"][1] += 1
    after, moved = chunked(made, other)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    for one, two in zip(flat(state), flat(moved), strict=True):
        half = len(one) // N
        assert torch.equal(one[:half], two[:half])
        assert not torch.equal(one[half:], two[half:])


@pytest.mark.equation("nl.v1:eq85", kind="claim")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.slow
def test_memories_stay_as_large_as_they_are_unless_only_keys_have_norm_one(depth: int) -> None:
    """What the paper prints, with step sizes near the bound and next to no decay."""
    for unit, bounded in (("all", True), ("keys", False)):
        made = how(depth=depth, chunk=1, chunk_others=1, unit=unit)
        found = drawn(made, depth=depth, length=300)
        found["x"] = 2 * found["x"]
        with torch.no_grad():
            out, state = modify(
                made, found["x"], found["given"],
                lambda _, said: torch.full(said.shape[:2], 3.0, dtype=said.dtype),
                first(made, found),
            )  # fmt: skip
        largest = max(float(one.abs().nan_to_num(nan=1e300).max()) for one in (out, *flat(state)))
        assert (largest < 10) == bounded, (unit, largest)


# ---- what is known of one matrix -------------------------------------------------------------


def unit(*shape: int, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=draws, dtype=torch.float64), dim=-1)


@pytest.mark.equation("nl.v1:eq92", kind="value")
@pytest.mark.equation("nl.v1:eq93", kind="value")
@pytest.mark.parametrize(("loss", "times"), [(bias.L2(1.0), 2), (bias.Dot(), 1)], ids=["l2", "dot"])
def test_the_loss_decides_how_often_a_key_is_erased(loss: bias.Bias, times: int) -> None:
    rule = how(chunk=1, bias=loss).main
    k, v = unit(1, 1, D, seed=1), unit(1, 1, D, seed=2)
    alpha, eta = (torch.tensor([[g]], dtype=torch.float64) for g in (0.9, 0.3))
    weight = unit(1, D, D, seed=3)
    _, found = run(rule, k, k, v, Gates(alpha.log(), eta), begin(rule, [weight]))
    M, k_D, v_D = weight[0].T, k[0, 0], v[0, 0]
    wanted = M @ (0.9 * torch.eye(D, dtype=torch.float64) - times * 0.3 * torch.outer(k_D, k_D))
    wanted = wanted + 0.3 * torch.outer(v_D, k_D)
    torch.testing.assert_close(found.weights[0][0].T, wanted, **CLOSE)


def carried(made: How, alpha: float, eta: float, *, tokens: int) -> Tensor:
    """The map of a matrix memory's weights by `tokens` writes at one key, at value zero: (D, D)."""
    k = unit(1, 1, D, seed=1).expand(1, tokens, D)
    log_keep = torch.full((1, tokens), alpha, dtype=torch.float64).log()
    gates = Gates(log_keep, torch.full((1, tokens), eta, dtype=torch.float64))
    first = begin(made.main, [torch.eye(D, dtype=torch.float64)[None]])
    _, found = run(made.main, k, k, torch.zeros_like(k), gates, first)
    return found.weights[0][0]


@pytest.mark.equation("nl.v1:eq93", kind="claim")
@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("flips", [False, True])
def test_no_step_that_is_allowed_makes_a_memory_grow(chunk: int, flips: bool) -> None:
    made = how(chunk=chunk, flips=flips)
    for alpha in (1e-3, 0.5, 0.999, 1.0):
        largest = step(made, torch.tensor(1e9), torch.tensor(alpha).log())
        for share in (0.0, 0.5, 1.0):
            moved = carried(made, alpha, share * float(largest), tokens=chunk)
            assert torch.linalg.eigvals(moved).abs().max() <= 1 + 1e-6, (alpha, share)


@pytest.mark.parametrize("loss", [bias.L2(1.0), bias.Dot()], ids=["l2", "dot"])
@pytest.mark.slow
def test_what_is_carried_on_does_in_the_end_as_much_and_makes_no_memory_grow(
    loss: bias.Bias,
) -> None:
    """Written again and again at one key, online, with the largest step and next to no decay."""
    made = how(chunk=1, momentum=True, names=(), targets="value", bias=loss)
    k = unit(1, 1, D, seed=1).expand(1, 1000, D)
    first = start(made, [torch.eye(D, dtype=torch.float64)[None]], [])
    full = torch.full((1, 1000), 20.0, dtype=torch.float64)
    for logit in (-3.0, 0.0, 3.0):
        given = {"q": k, "k": k, "v": k, "alpha": full, "eta": full, "momentum": 0 * full + logit}
        read, _ = modify(made, k, given, lambda _, said: said[..., 0], first)
        along = (read * k).sum(-1)[0]
        assert along.abs().max() < 1.6, logit
        # Of l2 a write takes the value of a key twice and gives its target once; of dot once.
        rests = 0.5 if isinstance(loss, bias.L2) else 1.0
        assert float(along[-1]) == pytest.approx(rests, abs=1e-6), logit


@pytest.mark.equation("titans.v1:eq13", kind="value")
@pytest.mark.equation("titans.v1:eq14", kind="value")
def test_two_tokens_with_momentum_by_hand() -> None:
    made = how(chunk=1, chunk_others=1, momentum=True, names=(), targets="value", unit="keys")
    k = unit(1, 2, D, seed=1)
    v = 2 * unit(1, 2, D, seed=2)
    alpha, eta, mu = (torch.tensor([pair], dtype=torch.float64) for pair in ((0.9, 0.8),) * 3)
    given = {"q": k, "k": k, "v": v}
    given |= {"alpha": alpha.logit(), "eta": eta.logit(), "momentum": mu.logit()}
    W = unit(1, D, D, seed=3)
    _, state = modify(made, k, given, lambda _, said: said[..., 0], start(made, [W], []))
    W, S = W[0], torch.zeros(D, D, dtype=torch.float64)
    for t in range(2):
        key, step = k[0, t], 0.5 * eta[0, t] * (1 - mu[0, t])
        told = 2 * (key @ W) - v[0, t]  # erased, and erased again by the gradient of the loss
        S = mu[0, t] * S - step * torch.outer(key, told)
        W = alpha[0, t] * W + S
    torch.testing.assert_close(state.main.weights[0][0], W, **CLOSE)
    assert state.main.momentum is not None
    torch.testing.assert_close(state.main.momentum[0][0], S, **CLOSE)


def test_a_step_beyond_the_bound_makes_it_grow() -> None:
    moved = carried(how(chunk=1), 1.0, 1.05, tokens=1)
    assert torch.linalg.eigvals(moved).abs().max() > 1.05


@pytest.mark.parametrize(
    ("loss", "max_eta", "chunk"),
    [(bias.L2(1.0), 0.5, 1), (bias.Dot(), 1.0, 8)],
    ids=["l2", "dot"],
)
def test_a_value_can_be_turned_into_its_negative_only_where_it_is_allowed(
    loss: bias.Bias, max_eta: float, chunk: int
) -> None:
    """What parity needs: an eigenvalue of -1 at a decay of one."""
    for flips in (False, True):
        made = how(chunk=chunk, bias=loss, max_eta=max_eta, flips=flips)
        eta = float(step(made, torch.tensor(1e9), torch.tensor(0.0)))
        smallest = torch.linalg.eigvals(carried(made, 1.0, eta, tokens=1)).real.min()
        assert (abs(float(smallest) + 1) < 1e-6) == flips
        thrice = torch.linalg.eigvals(carried(made, 1.0, eta, tokens=3)).real.min()
        assert (abs(float(thrice) + 1) < 1e-6) == flips


@pytest.mark.equation("nl.v1:eq93", kind="claim")
def test_without_being_allowed_to_a_value_is_turned_where_all_else_is_forgotten() -> None:
    """Erased twice, `alpha - 2 eta` of it is left: parity can be had at a decay of zero."""
    eigenvalues = torch.linalg.eigvals(carried(how(chunk=1), 1e-9, 0.5, tokens=1)).real
    assert float(eigenvalues.min()) == pytest.approx(-1, abs=1e-6)
    assert float(eigenvalues.abs().sort().values[-2]) < 1e-6


@pytest.mark.equation("nl.v1:eq85", kind="claim")
@pytest.mark.parametrize("targets", ["self", "value"])
def test_a_memory_that_makes_its_own_target_can_turn_its_value(targets: str) -> None:
    """Asked for the value of a key at the key's negative, it answers with that, and writes it."""
    made = how(chunk=1, names=(), targets=targets)
    k = unit(1, 1, D, seed=1).expand(1, 6, D)
    open_gate = torch.full((1, 6), 40.0, dtype=torch.float64)
    given = {"q": k, "k": k, "v": -k, "alpha": open_gate, "eta": open_gate}
    memories = start(made, [torch.eye(D, dtype=torch.float64)[None]], [])
    read, _ = modify(made, k, given, lambda _, said: said[..., 0], memories)
    along = (read * k).sum(-1)[0]
    wanted = [1.0, -0.5, 0.5, -0.5, 0.5, -0.5] if targets == "self" else [1.0] + [-0.5] * 5
    torch.testing.assert_close(along, torch.tensor(wanted, dtype=torch.float64), **CLOSE)
