"""Persistent tokens, of every mixer that has them: seen by all, without a place, and fixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cupel.models.memory.model import mixer
from memory_models import CLOSE, T, made, tokens

KINDS = ("lmm", "mac", "mag", "mal", "attention", "hope-attention")
ATTENDING = tuple(kind for kind in KINDS if kind != "lmm")
# What is in a window is two tokens, in a segment three, so that nothing else reaches far.
NEAR: dict[str, Any] = {"window": 2, "segment": 3}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.equation("titans.v1:eq19", kind="claim")
@each_kind
def test_every_token_sees_them_behind_any_window(kind: str) -> None:
    # Where there is attention it must be attention that sees them: the memory writes nothing.
    memory = {"depth": 2, "decay": "none"} | ({} if kind == "lmm" else {"step_max": 1e-30})
    model, given = made(kind, memory=memory, **NEAR), tokens()
    before, _ = model.extend(given)
    model.blocks[-1].mixer.persistent.tokens.data[0, 0] += 1
    after, _ = model.extend(given)
    assert ((before - after).abs().amax(-1) > 1e-6).all()


@pytest.mark.equation("titans.v1:eq19", kind="claim")
@each_kind
def test_reading_and_learning_leave_them_as_they_are(kind: str) -> None:
    """Another text before changes nothing of what a new one meets; they are no part of a state."""
    model, given = made(kind), tokens()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    before, _ = model.extend(given)
    _, state = model.extend(given.flip(1))
    model.extend(given, state)
    assert torch.equal(model.extend(given)[0], before)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any("persistent" in name for name in state.state_dict())


@each_kind
def test_each_of_them_is_trained(kind: str) -> None:
    model, given = made(kind), tokens()
    model(given, given.roll(-1, 1))[1].backward()
    for block in model.blocks:
        grad = block.mixer.persistent.tokens.grad
        assert grad is not None
        assert (grad.abs().sum(1) > 0).all()


@pytest.mark.equation("titans.v1:eq27", kind="claim")
@pytest.mark.parametrize("kind", ATTENDING)
def test_attention_meets_them_at_no_place(kind: str) -> None:
    """A text that begins at another position meets them as it would at the first."""
    layer = mixer(made(kind).settings).double()
    x = torch.randn(2, T, 12, dtype=torch.float64)
    torch.testing.assert_close(layer(x, None, 0)[0], layer(x, None, 1000)[0], **CLOSE)


@each_kind
def test_without_any_nothing_is_there_to_be_trained_or_seen(kind: str) -> None:
    model, given = made(kind, persistent=0), tokens()
    logits, loss = model(given, given.roll(-1, 1))
    loss.backward()
    assert logits.isfinite().all()
    assert not any(p.numel() for name, p in model.named_parameters() if "persistent" in name)
    assert not torch.allclose(logits, made(kind)(given)[0])


@pytest.mark.equation("titans.v1:eq19", kind="value")
@pytest.mark.parametrize("kind", ["lmm", "mag", "mal"])
def test_a_memory_is_written_with_them_once(kind: str) -> None:
    """The state behind a first call goes on without them: as if they stood before all tokens."""
    layer = made(kind, layers=1).blocks[0].mixer
    x = torch.randn(2, T, 12, dtype=torch.float64)
    whole = torch.cat((layer.persistent.tokens.expand(2, -1, -1), x), 1)
    _, wanted = layer.memory(whole)
    _, first = layer(x[:, :5])
    _, found = layer(x[:, 5:], first, 5)
    for mine, theirs in zip(found.fast.weights, wanted.fast.weights, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)
