"""Every named memory as a layer: its rule token by token, by hand, scaled, and at its ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.chunk import Fast, Gates, begin, run
from cupel.models.memory.neural import MemoryLayer, NeuralMemory, rule
from cupel.models.memory.oracles import sequential
from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import NAMED, MemorySettings
from memory_models import MAGNIFYING, STEEP

# float64; sums of some hundred terms of size one
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
C, H, T = 8, 2, 17
D = C // H
each_point = pytest.mark.parametrize("name", POINTS)


def named(name: str, **changes: Any) -> MemorySettings:
    return NAMED[name].model_validate(changes)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(name: str, **changes: Any) -> MemoryLayer:
    torch.manual_seed(2)
    made = MemoryLayer(C, H, named(name, **changes)).double()
    for path, parameter in made.named_parameters():
        # Gates are about what they begin with: Moneta's weights are large where little is retained.
        if parameter.requires_grad and "first" not in path and "offset" not in path:
            torch.nn.init.normal_(parameter, mean=float(path == "norm.weight"), std=0.5)
    return made


def one_by_one(made: MemoryLayer, x_BTC: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs and last weights of one sequence, each head by the oracle."""
    parts, _ = made.projections(x_BTC, None)
    gates, outputs, last = made.gate(x_BTC, torch.float64), [], []
    first = made.begin(1)
    for h in range(H):
        q, k, v = (part[0, :, h * D : (h + 1) * D] for part in parts)
        start = Fast(*(part if part is None else [w[h] for w in part] for part in first[:4]))
        own = Gates(*(None if gate is None else gate[h] for gate in gates))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y, state = sequential(made.rule, q, k, v, own, start)
        outputs.append(y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * made.norm.weight)
        last.append(state.weights)
    opened = F.silu(x_BTC[0] @ made.open.weight.T)
    weights = [torch.stack(heads) for heads in zip(*last, strict=True)]
    return (torch.cat(outputs, -1) * opened) @ made.out.weight.T, weights


@pytest.mark.equation("titans.v1:eq16", kind="oracle")
@each_point
@pytest.mark.parametrize("chunk", [1, 3, 16, T])
def test_a_layer_is_its_rule_token_by_token(name: str, chunk: int) -> None:
    """Outputs, weights behind the last token, and gradients of all that there is to train."""
    made = layer(name, chunk=chunk, step_max=0.2)
    x = drawn(1, T, C).requires_grad_()
    y, state = made(x)
    assert state.fast is not None
    wanted, weights = one_by_one(made, x)
    inputs = {"x": x} | {n: p for n, p in made.named_parameters() if p.requires_grad}
    results = []
    for tensors in ([y[0], *state.fast.weights], [wanted, *weights]):
        mixed = torch.stack([one.sin().sum() for one in tensors]).sum()
        grads = torch.autograd.grad(mixed, list(inputs.values()))
        results.append((tensors, dict(zip(inputs, grads, strict=True))))
    # Norms of a few channels, Yaad's sign and Moneta's powers magnify rounding.
    close = STEEP if name in MAGNIFYING else CLOSE
    for mine, theirs in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(mine, theirs, **close)
    for path, grad in results[0][1].items():
        torch.testing.assert_close(
            grad, results[1][1][path], **close, msg=lambda m, path=path: f"{path}: {m}"
        )


# ---- two tokens by hand ----------------------------------------------------------------------

# Keys (1, 0) and (0.6, 0.8), values (2, 4) and (1, -1). `M` as in the papers, values by keys.
KEYS = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]], dtype=torch.float64)
VALUES = torch.tensor([[[2.0, 4.0], [1.0, -1.0]]], dtype=torch.float64)
# Of each memory: decay, step, momentum, and M behind both tokens.
TWO_TOKENS = {
    # v k^T adds up: M_1 = [2 0; 4 0], and M_2 = M_1 + [.6 .8; -.6 -.8]
    "linear-attention": (1.0, 1.0, None, [[2.6, 0.8], [3.4, -0.8]]),
    # M_2 = M_1 / 2 + [.6 .8; -.6 -.8]
    "retnet": (0.5, 1.0, None, [[1.6, 0.8], [1.4, -0.8]]),
    # M_1 = [.5 0; 1 0] says (.3, .6) at k_2, so M_2 = M_1 + (.7, -1.6) k_2^T / 4
    "deltanet": (1.0, 0.25, None, [[0.605, 0.14], [0.76, -0.32]]),
    # M_1 / 2 = [.25 0; .5 0] says (.15, .3) at k_2, so M_2 = M_1 / 2 + (.85, -1.3) k_2^T / 4
    "gated-deltanet": (0.5, 0.25, None, [[0.3775, 0.17], [0.305, -0.26]]),
    # M_1 = 2 (2, 4) k_1^T / 4 = [1 0; 2 0] says (.6, 1.2), so M_2 = M_1 + 2 (.4, -2.2) k_2^T / 4
    "ttt": (1.0, 0.25, None, [[1.12, 0.16], [1.34, -0.88]]),
    # S_1 = M_1 as before; S_2 = S_1 / 4 + (.2, -1.1) k_2^T, and M_2 = M_1 / 2 + S_2
    "titans-linear": (0.5, 0.25, 0.25, [[0.87, 0.16], [0.84, -0.88]]),
}


def written(settings: MemorySettings, first: Tensor, *, tokens: int, **gate: float) -> Tensor:
    """M behind some of the two tokens, with the same gates for each."""
    found = rule(settings)
    one = torch.ones(1, tokens, dtype=torch.float64)
    gates = Gates((gate["keep"] * one).log(), gate["step"] * one)
    if found.momentum:
        gates = gates._replace(log_eta=(gate["momentum"] * one).log())
    if found.bias.needs_threshold:
        gates = gates._replace(threshold=one)
    k, v = KEYS[:, :tokens], VALUES[:, :tokens]
    _, last = run(found, k, k, v, gates, begin(found, [first[None]]))
    return last.weights[0][0].T


@pytest.mark.equation("titans.v1:eq13", kind="value")
@pytest.mark.equation("titans.v1:eq14", kind="value")
@pytest.mark.equation("titans.v1:eq34", kind="value")
@pytest.mark.equation("miras.v1:eq8", kind="value")
@pytest.mark.equation("miras.v1:eq9", kind="value")
@pytest.mark.parametrize("name", TWO_TOKENS)
def test_a_matrix_behind_two_tokens_by_hand(name: str) -> None:
    keep, step, momentum, wanted = TWO_TOKENS[name]
    settings, zero = named(name, chunk=1), torch.zeros(2, 2, dtype=torch.float64)
    found = written(settings, zero, tokens=2, keep=keep, step=step, momentum=momentum or 0.0)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), **CLOSE)


# Of matrices without residual and norm, behind the first token, with a step of 1/4 and no decay.
ONE_TOKEN = {
    # 3 |r|^2 makes a sum of 3 (2^2, 4^2) / 4 k_1^T, divided by its norm of order 4, squared
    "moneta": (0.0, [[3 / 20817**0.5, 0.0], [12 / 20817**0.5, 0.0]]),
    # the error is longer than the threshold of 1: its signs are written
    "yaad": (0.0, [[0.25, 0.0], [0.25, 0.0]]),
    # M says (1, 1); (1, 3) 2/4 is added to the logits of the first of each two inputs
    "memora": (1.0, [[2 / (1 + math.exp(-x)), 2 / (1 + math.exp(x))] for x in (0.5, 1.5)]),
}


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        # c Softmax of what is learned, with c the number of inputs, or what is set
        ({"kind": "memora"}, lambda learned: learned.shape[-2] * torch.softmax(learned, -2)),
        ({"kind": "memora", "retention": {"kind": "kl", "total": 3.0, "over": "all"}},
         lambda learned: 3 * torch.softmax(learned.flatten(-2), -1).view_as(learned)),
        ({"kind": "yaad", "retention": {"kind": "sigmoid"}}, torch.sigmoid),
        ({"kind": "yaad"}, lambda learned: learned),
    ],
    ids=["kl", "kl over all", "sigmoid", "l2"],
)  # fmt: skip
def test_weights_begin_in_the_domain_of_their_retention(
    changes: dict[str, Any], weights: Callable[[Tensor], Tensor]
) -> None:
    """Whatever numbers are learned, and each of them has a gradient."""
    torch.manual_seed(0)
    settings = NAMED[changes["kind"]].model_validate(changes)
    made = NeuralMemory(8, 2, settings).double()
    begun = made.begin(3)
    for learned, found in zip(made.first, begun.weights, strict=True):
        wanted = weights(learned).expand(3, *learned.shape).flatten(0, 1)
        torch.testing.assert_close(found, wanted, **CLOSE)
        (grad,) = torch.autograd.grad(found.square().sum(), learned, retain_graph=True)
        assert (grad != 0).all()


def test_the_largest_step_follows_the_chunk_unless_it_is_set() -> None:
    """The writes of a chunk add up."""
    for name in POINTS:
        steps = [named(name, chunk=chunk).largest_step * chunk for chunk in (1, 8, 64)]
        assert len(set(steps)) == 1 or "step_max" in POINTS[name], name
    assert named("moneta", chunk=8).largest_step == 0.03
    assert named("memora", chunk=8).largest_step == 1.0
    assert named("memora", chunk=8, step_max=0.5).largest_step == 0.5


@pytest.mark.equation("miras.v1:eq24", kind="value")
@pytest.mark.equation("miras.v1:eq25", kind="value")
@pytest.mark.equation("miras.v1:eq26", kind="value")
@pytest.mark.equation("miras.v1:eq27", kind="value")
@pytest.mark.parametrize("name", ONE_TOKEN)
def test_a_matrix_of_miras_behind_one_token_by_hand(name: str) -> None:
    begun, wanted = ONE_TOKEN[name]
    settings = named(name, chunk=1, depth=1, residual=False, norm=False, surprise_max=None)
    first = torch.full((2, 2), begun, dtype=torch.float64)
    found = written(settings, first, tokens=1, keep=1.0, step=0.25)
    # powers and signs are smoothed by a millionth
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )


# ---- what scaling does -----------------------------------------------------------------------

LINEAR = ("titans-linear", "linear-attention", "retnet", "deltanet", "gated-deltanet", "ttt")


def gated(name: str, *, chunk: int, seed: int = 0) -> tuple[Any, Tensor, Tensor, Tensor, Gates]:
    """A rule, queries, keys, values and gates of 13 tokens."""
    found = rule(named(name, chunk=chunk))
    q, k = (F.normalize(drawn(2, 13, D, seed=seed + n), dim=-1) for n in (1, 2))
    keep, step, eta = drawn(3, 2, 13, seed=seed + 4).sigmoid()
    gates = Gates(keep.log(), step / chunk, eta.log() if found.momentum else None)
    if found.bias.needs_threshold:
        gates = gates._replace(threshold=torch.ones_like(keep))
    return found, q, k, drawn(2, 13, D, seed=seed + 3), gates


@pytest.mark.equation("titans.v1:eq13", kind="claim")
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_memory_reads_as_much_as_it_was_given(name: str) -> None:
    """Values (and first weights) times 3 are reads times 3, and sums are sums of reads."""
    found, q, k, v, gates = gated(name, chunk=4)
    first, other = drawn(2, D, D, seed=8), drawn(2, 13, D, seed=9)

    def reads(v: Tensor, first: Tensor) -> Tensor:
        return run(found, q, k, v, gates, begin(found, [first]))[0]

    y = reads(v, first)
    torch.testing.assert_close(reads(3 * v, 3 * first), 3 * y, **CLOSE)
    apart = reads(v, 0 * first) + reads(other, first)
    torch.testing.assert_close(reads(v + other, first), apart, **CLOSE)


@pytest.mark.parametrize("name", ["titans", "moneta", "yaad", "memora", "ttt-mlp"])
def test_a_memory_that_is_not_linear_does_not(name: str) -> None:
    found, q, k, v, gates = gated(name, chunk=4)
    hidden = 2 * D
    first = [drawn(2, D, hidden, seed=8).sigmoid(), drawn(2, hidden, D, seed=9).sigmoid()]
    one, three = (run(found, q, k, c * v, gates, begin(found, first))[0] for c in (1, 3))
    assert not torch.allclose(three, 3 * one, rtol=1e-2)


@each_point
def test_queries_in_another_order_are_read_by_the_same_memory(name: str) -> None:
    """Behind the last token any order of queries reads the same: reads write nothing."""
    found, q, k, v, gates = gated(name, chunk=4)
    sizes = [D] if POINTS[name]["depth"] == 1 else [D, 2 * D]
    first = [drawn(2, i, o, seed=8).sigmoid() for i, o in zip(sizes, [*sizes[1:], D], strict=True)]
    state = begin(found, first)
    one = run(found, q, k, v, gates, state)[1]
    other = run(found, q.flip(1), k, v, gates, state)[1]
    for mine, theirs in zip(one.weights, other.weights, strict=True):
        assert torch.equal(mine, theirs)


# ---- the ends of its range -------------------------------------------------------------------


@pytest.mark.equation("titans.v1:eq13", kind="claim")
@each_point
@pytest.mark.slow
def test_gates_at_their_ends_over_8192_tokens(name: str) -> None:
    """Each gate at 0, 1e-8 and its largest, all of them together, one sequence each."""
    settings = named(name, chunk=64)
    found, ends = rule(settings), (0.0, 1e-8, 1.0)
    etas = ends if found.momentum else (0.0,)
    rows = [
        (keep, step * settings.largest_step, eta)
        for keep, step, eta in itertools.product(ends, ends, etas)
        # Momentum that never ends, of steps at an anchor 64 tokens old, is no descent.
        if not (eta == 1.0 and step == 1.0 and keep == 1.0)
    ]
    keep, step, eta = torch.tensor(rows, dtype=torch.float64).T[:, :, None].expand(-1, -1, 8192)
    step = step.clone().requires_grad_()
    gates = Gates(keep.log(), step, eta.log() if found.momentum else None)
    if found.bias.needs_threshold:
        gates = gates._replace(threshold=torch.ones_like(keep))
    q, k, v = (drawn(1, 8192, D, seed=n).expand(len(rows), -1, -1) for n in (1, 2, 3))
    sizes = [D] if settings.depth == 1 else [D, 2 * D]
    first = [drawn(i, o, seed=8) / i**0.5 for i, o in zip(sizes, [*sizes[1:], D], strict=True)]
    if settings.retention.kind == "kl":
        first = [one.sigmoid() for one in first]
    state = begin(found, [one.expand(len(rows), -1, -1) for one in first])
    y, last = run(found, F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, gates, state)
    y.square().mean().backward()
    for one in (y, *last.weights, step.grad):
        assert one is not None
        assert torch.isfinite(one).all(), [
            r for n, r in enumerate(rows) if not one[n].isfinite().all()
        ]
