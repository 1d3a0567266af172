"""LMM, MAC, MAG and MAL are what the equations say, written here once more, token by token."""

from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.attention import WindowAttention, rotated
from cupel.models.memory.chunk import Gates, begin
from cupel.models.memory.neural import MemoryLayer, Projections
from cupel.models.memory.oracles import network, sequential
from cupel.models.memory.settings import MemorySettings
from cupel.models.memory.titans import LMM, MAC, MAG, MAL, mask

CLOSE = {"rtol": 1e-10, "atol": 1e-11}
C, H, T, P = 8, 2, 13, 3


def made(kind: Any, **given: Any) -> Any:
    torch.manual_seed(2)
    settings = MemorySettings.model_validate({"chunk": 4, "depth": 2, **given.pop("memory", {})})
    layer = kind(C, H, settings, persistent=given.pop("persistent", P), **given).double()
    for name, parameter in layer.named_parameters():
        if "gating" in name or "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        else:
            torch.nn.init.normal_(parameter, std=0.4)
    return layer


def tokens(length: int = T) -> Tensor:
    made = torch.Generator().manual_seed(4)
    return torch.randn(2, length, C, generator=made, dtype=torch.float64)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turned(x_D: Tensor, at: int) -> Tensor:
    """A rotary position by complex numbers: pairs (d, d + D/2) turn by at · 10000^(-2d/D)."""
    x_D, half = x_D.detach(), len(x_D) // 2
    found = [
        complex(x_D[d], x_D[half + d]) * cmath.exp(1j * at * 10_000 ** (-d / half))
        for d in range(half)
    ]
    return torch.tensor([z.real for z in found] + [z.imag for z in found], dtype=torch.float64)


def attended(layer: WindowAttention, x_TC: Tensor, prefix_PC: Tensor, window: int) -> Tensor:
    """One sequence, by loops over heads, queries and keys."""
    D = C // H
    q, k, v = (x_TC @ layer.qkv.weight.T).chunk(3, -1)
    _, pk, pv = (prefix_PC @ layer.qkv.weight.T).chunk(3, -1)
    rows = []
    for i in range(len(x_TC)):
        heads = []
        for h in range(H):
            part = slice(h * D, (h + 1) * D)
            query = turned(q[i, part], i)
            first = max(0, i - window + 1)
            scores = [q[i, part] @ one[part] for one in pk]
            scores += [query @ turned(k[j, part], j) for j in range(first, i + 1)]
            weights = torch.softmax(torch.stack(scores) / math.sqrt(D), 0)
            values = [one[part] for one in pv] + [v[j, part] for j in range(first, i + 1)]
            heads.append(sum(w * value for w, value in zip(weights, values, strict=True)))
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ layer.out.weight.T


@pytest.mark.equation("titans.v1:eq2", kind="oracle")
@pytest.mark.parametrize("window", [1, 4, 6, 40])
@pytest.mark.parametrize("prefix", [0, 3])
def test_window_attention(window: int, prefix: int) -> None:
    torch.manual_seed(2)
    layer = WindowAttention(C, H, window).double()
    x, before = tokens(), tokens(prefix)[0]
    found, _ = layer(x, prefix_PC=before if prefix else None)
    for n in range(2):
        torch.testing.assert_close(found[n], attended(layer, x[n], before, window), **CLOSE)


def test_only_distances_count() -> None:
    x = tokens()[0]
    one = rotated(x[None, None], 0)[0, 0] @ rotated(x[None, None], 0)[0, 0].T
    other = rotated(x[None, None], 100)[0, 0] @ rotated(x[None, None], 100)[0, 0].T
    torch.testing.assert_close(one, other, **CLOSE)


def in_calls(layer: Any, x: Tensor, cuts: list[int]) -> Tensor:
    """Outputs of calls of these lengths, each with the state behind the one before."""
    outputs, state, at = [], None, 0
    for cut in cuts:
        y, state = layer(x[:, at : at + cut], state, at)
        outputs.append(y)
        at += cut
    return torch.cat(outputs, 1)


each_cut = pytest.mark.parametrize("cuts", [[T], [5, 1, 7], [3, 8, 2]], ids=str)


def joined(layer: Any, x: Tensor) -> Tensor:
    """Persistent tokens before each sequence (equation 19)."""
    return torch.cat((layer.persistent.tokens.expand(len(x), -1, -1), x), 1)


@pytest.mark.equation("titans.v1:eq19", kind="oracle")
@pytest.mark.equation("titans.v1:eq29", kind="oracle")
def test_the_memory_alone_reads_persistent_tokens_first() -> None:
    layer, x = made(LMM), tokens()
    whole, _ = layer.memory(joined(layer, x))
    torch.testing.assert_close(layer(x)[0], whole[:, P:], **CLOSE)
    assert not torch.allclose(layer.memory(x)[0], whole[:, P:])


@pytest.mark.equation("titans.v1:eq26", kind="oracle")
@pytest.mark.equation("titans.v1:eq27", kind="oracle")
@pytest.mark.equation("titans.v1:eq28", kind="oracle")
@pytest.mark.equation("titans.v1:eq25", kind="value")
@each_cut
def test_memory_as_a_gate(cuts: list[int]) -> None:
    layer, x = made(MAG, window=5), tokens()
    found = in_calls(layer, x, cuts)
    m = layer.memory(joined(layer, x))[0][:, P:]
    for n in range(2):
        y = attended(layer.attention, x[n], layer.persistent.tokens, 5)
        wanted = rms(y, layer.gating.one.weight) * F.silu(rms(m[n], layer.gating.other.weight))
        torch.testing.assert_close(found[n], wanted, **CLOSE)


@pytest.mark.equation("titans.v1:eq29", kind="oracle")
@pytest.mark.equation("titans.v1:eq30", kind="oracle")
@pytest.mark.equation("titans.v1:eq31", kind="oracle")
@each_cut
def test_memory_as_a_layer(cuts: list[int]) -> None:
    layer, x = made(MAL, window=5), tokens()
    found = in_calls(layer, x, cuts)
    y = rms(layer.memory(joined(layer, x))[0], layer.norm.weight)
    for n in range(2):
        wanted = attended(layer.attention, y[n, P:], y[n, :P], 5)
        torch.testing.assert_close(found[n], wanted, **CLOSE)


@pytest.mark.equation("titans.v1:eq21", kind="oracle")
@pytest.mark.equation("titans.v1:eq22", kind="oracle")
@pytest.mark.equation("titans.v1:eq23", kind="oracle")
@pytest.mark.equation("titans.v1:eq24", kind="oracle")
@pytest.mark.equation("titans.v1:eq25", kind="oracle")
@pytest.mark.parametrize("segment", [4, 6, 20])
@pytest.mark.parametrize("conv", [0, 3])
@each_cut
def test_memory_as_a_context(segment: int, conv: int, cuts: list[int]) -> None:
    layer, x = made(MAC, segment=segment, memory={"conv": conv}), tokens()
    found = in_calls(layer, x, cuts)
    for n in range(2):
        torch.testing.assert_close(found[n], as_context(layer, x[n : n + 1], segment), **CLOSE)


def as_context(layer: MAC, x: Tensor, segment: int) -> Tensor:
    """One sequence: each segment's recall, its attention row by row, then the memory's writes."""
    memory, D = layer.memory, C // H
    fast = [begin(memory.rule, [w[h : h + 1] for w in memory.first]) for h in range(H)]
    fast = [one._replace(**lists(one)) for one in fast]
    rows, before = [], torch.zeros(0, C, dtype=x.dtype)
    all_asked = convolved(layer.asking, x[0])
    for start in range(0, x.shape[1], segment):
        part = x[:, start : start + segment]
        asked = all_asked[start : start + segment]
        recalled = [
            network(
                memory.rule, fast[h].weights, F.normalize(asked[:, h * D : (h + 1) * D], dim=-1)
            )
            for h in range(H)
        ]
        h_TC = torch.cat([rms(one, memory.norm.weight) for one in recalled], -1)
        y = torch.stack([row(layer, h_TC, part[0], i) for i in range(part.shape[1])])
        before = torch.cat((before, y))
        k, v = convolved(memory.projections, before)[start:].chunk(2, -1)
        gates = memory.gate(y[None], torch.float64)
        outputs = []
        for h in range(H):
            own = slice(h * D, (h + 1) * D)
            gate = Gates(*(None if one is None else one[h] for one in gates))
            m, fast[h] = sequential(
                memory.rule, F.normalize(y[:, own], dim=-1), F.normalize(k[:, own], dim=-1),
                v[:, own], gate, fast[h],
            )  # fmt: skip
            outputs.append(rms(m, memory.norm.weight))
        m_TC = torch.cat(outputs, -1)
        rows.append(rms(y, layer.gating.one.weight) * F.silu(rms(m_TC, layer.gating.other.weight)))
    return torch.cat(rows)


def convolved(layer: Projections, x_TC: Tensor) -> Tensor:
    """Projections of a whole sequence, with the convolution as a loop, and SiLU."""
    found = x_TC @ layer.maps.weight.T
    if layer.kernel:
        taps = layer.conv.weight[:, 0].T
        found = torch.stack(
            [
                sum(
                    taps[layer.kernel - 1 - j] * found[t - j] for j in range(layer.kernel) if t >= j
                )
                for t in range(len(found))
            ]
        )
    return F.silu(found)


def lists(one: Any) -> dict[str, Any]:
    """Without the leading dimension."""
    return {
        name: None if getattr(one, name) is None else [w[0] for w in getattr(one, name)]
        for name in ("weights", "anchor", "momentum")
    }


def row(layer: MAC, h_TC: Tensor, x_TC: Tensor, i: int) -> Tensor:
    """Attention of token i of a segment: persistent tokens, recalled and own ones up to i."""
    D = C // H
    q, k, v = (x_TC @ layer.qkv.weight.T).chunk(3, -1)
    _, kh, vh = (h_TC @ layer.qkv.weight.T).chunk(3, -1)
    _, kp, vp = (layer.persistent.tokens @ layer.qkv.weight.T).chunk(3, -1)
    heads = []
    for head in range(H):
        own = slice(head * D, (head + 1) * D)
        query = turned(q[i, own], i)
        scores = [q[i, own] @ one[own] for one in kp]
        scores += [query @ turned(kh[j, own], j) for j in range(i + 1)]
        scores += [query @ turned(k[j, own], j) for j in range(i + 1)]
        values = [*vp[:, own], *vh[: i + 1, own], *v[: i + 1, own]]
        weights = torch.softmax(torch.stack(scores) / math.sqrt(D), 0)
        heads.append(sum(w * value for w, value in zip(weights, values, strict=True)))
    return torch.cat(heads) @ layer.out.weight.T


@pytest.mark.equation("titans.v1:eq23", kind="causal")
def test_the_printed_mask_shows_later_recall_and_ours_does_not() -> None:
    ours, printed = (mask(3, 3, persistent=1, literal=one) for one in (False, True))
    assert ours.int().tolist() == [[1, 1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1, 0], [1] * 7]
    assert printed.int().tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0], [1] * 7]


@pytest.mark.equation("titans.v1:eq19", kind="value")
def test_persistent_tokens_do_not_depend_on_the_input() -> None:
    layer = made(LMM)
    _, state = layer.persistent.before(layer.memory, 3)
    again = layer.persistent.before(layer.memory, 3)[1]
    assert state.fast is not None
    assert again.fast is not None
    for one, other in zip(state.fast.weights, again.fast.weights, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one[:H], one[H : 2 * H])


@pytest.mark.equation("titans.v1:eq19", kind="value")
def test_a_memory_of_no_persistent_tokens_begins_as_it_is() -> None:
    layer, x = made(LMM, persistent=0), tokens()
    assert isinstance(layer.memory, MemoryLayer)
    torch.testing.assert_close(layer(x)[0], layer.memory(x)[0], **CLOSE)
