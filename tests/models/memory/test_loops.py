"""Whole models: the same with a loop over tokens in place of the chunk form, gradients and all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memory_models
from cupel.models.memory import neural, selfmod
from cupel.models.memory.chunk import Fast, Gates, Rule
from cupel.models.memory.hope import HopeAttention
from cupel.models.memory.model import MemoryLM, mixer
from cupel.models.memory.oracles import sequential
from cupel.models.memory.oracles_hope import Levels, continuum
from cupel.models.memory.settings import HopeSettings
from memory_models import CLOSE

T = 17
WRITING = ("lmm", "mac", "mag", "mal", "hope")


def looped(
    rule: Rule, q_NTI: Tensor, k_NTI: Tensor, v_NTO: Tensor, gates: Gates, fast: Fast
) -> tuple[Tensor, Fast]:
    """`chunk.run` by the oracle, sequence for sequence."""
    outputs, states = [], []
    for n in range(len(q_NTI)):
        lists = (None if part is None else [one[n] for one in part] for part in fast[:4])
        own = Gates(*(None if gate is None else gate[n] for gate in gates))
        y, state = sequential(rule, q_NTI[n], k_NTI[n], v_NTO[n], own, Fast(*lists, fast.at))
        outputs.append(y)
        states.append(state)
    parts = [
        None if part[0] is None else [torch.stack(one) for one in zip(*part, strict=True)]
        for part in zip(*(state[:4] for state in states), strict=True)
    ]
    return torch.stack(outputs), Fast(*parts, states[0].at)


def small(kind: str, **changes: Any) -> MemoryLM:
    return memory_models.made(kind, layers=1, hidden=0, width=8, persistent=2, **changes)


def learned(model: MemoryLM, given: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Logits, the state's tensors, and the gradients of both."""
    model.zero_grad()
    logits, state = model.extend(given)
    tensors = [one for one in state.state_dict().values() if isinstance(one, Tensor)]
    torch.stack([one.sin().sum() for one in (logits, *tensors)]).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits, tensors, grads


@pytest.mark.equation("titans.v1:eq15", kind="oracle")
@pytest.mark.equation("titans.v1:eq16", kind="oracle")
@pytest.mark.equation("nl.v1:eq90", kind="oracle")
@pytest.mark.parametrize("chunk", [1, 3, 16, T])
@pytest.mark.parametrize("kind", WRITING)
@pytest.mark.slow
def test_a_model_is_the_rule_token_by_token(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With chunks of one token the oracle has no chunks at all: it is the online rule."""
    hope = {"chunk": chunk, "chunk_others": min(2 * chunk, T), "cms": {"chunk": 3}}
    model = small(kind, memory={"chunk": chunk, "depth": 2}, hope=hope)
    given = memory_models.tokens(1, T)
    found = learned(model, given)
    calls = []

    def counted(*parts: Any) -> tuple[Tensor, Fast]:
        calls.append(len(parts))
        return looped(*parts)

    for module in (neural, selfmod):
        monkeypatch.setattr(module, "run", counted)
    wanted = learned(model, given)
    assert calls
    torch.testing.assert_close(found[:2], wanted[:2], **CLOSE)
    assert found[2].keys() == wanted[2].keys()
    for name, grad in found[2].items():
        torch.testing.assert_close(
            grad, wanted[2][name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.equation("nl.v1:eq97", kind="oracle")
@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
def test_hope_attention_is_levels_behind_attention_token_by_token(variant: str) -> None:
    torch.manual_seed(0)
    cms = {"variant": variant, "chunk": 2, "frequencies": (1.0, 0.5), "signal": "local"}
    settings = HopeSettings.model_validate({"cms": {**cms, "step_max": 0.5}})
    layer = HopeAttention(8, 2, settings, persistent=2, window=4).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(1, 11, 8, dtype=torch.float64)
    o, _ = layer.attention(x, prefix_PC=layer.persistent.tokens)
    given = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight
    levels = layer.cms

    def step(n: int, one: Tensor) -> Tensor:
        return 0.5 * torch.sigmoid(levels.gates[str(n)](one[None, None]))[0, 0]

    shares = levels.shares if variant == "independent" else None
    wanted = continuum(
        settings.cms, given[0], step, Levels([list(one) for one in levels.first]), shares=shares
    )
    torch.testing.assert_close(layer(x)[0][0], wanted, **CLOSE)


EVERY = [
    *((kind, {}) for kind in memory_models.MIXERS),
    *(("hope", {"hope": changes}) for changes in memory_models.LEVELS),
    *(("hope-attention", {"hope": changes}) for changes in memory_models.LEVELS[:1]),
    *(("lmm", {"memory": {"kind": name}}) for name in memory_models.POINTS),
]


@pytest.mark.parametrize(("kind", "changes"), EVERY, ids=memory_models.named)
@pytest.mark.slow
def test_outer_gradients_are_slopes(kind: str, changes: dict[str, Any]) -> None:
    """Of a layer, with regard to its inputs and all weights, along directions drawn once."""
    torch.manual_seed(3)
    settings = small(kind, **changes).settings
    layer = mixer(settings).double()
    for name, parameter in layer.named_parameters():
        if "first" not in name:
            nn.init.normal_(parameter, std=0.5)
    own = {n: p for n, p in layer.named_parameters() if p.requires_grad and p.numel()}

    def outputs(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(own, weights, strict=True))
        found: Tensor = torch.func.functional_call(layer, given, (x,))[0]
        return found

    x = torch.randn(1, 7, settings.width, dtype=torch.float64)
    given = [one.detach().clone().requires_grad_() for one in (x, *own.values())]
    assert torch.autograd.gradcheck(outputs, given, fast_mode=True)
