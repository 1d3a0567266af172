"""Models with memories: causal, equal over any split of calls, each sequence by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from cupel.models.memory.model import MemoryLM
from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import MemoryModelSettings
from cupel.models.memory.state import State

V, T = 11, 23
MIXERS = ("lmm", "mac", "mag", "mal", "attention")
# float64; the same sums in another order. Two points magnify rounding: Memora's LayerNorm divides
# channels that are nearly equal, and Yaad's sign is ten times as steep as its error.
CLOSE = {"rtol": 1e-10, "atol": 1e-11}
STEEP = {"rtol": 1e-7, "atol": 1e-8}


def made(mixer: str = "lmm", **changes: Any) -> MemoryLM:
    torch.manual_seed(1)
    memory = {"chunk": 4, "depth": 2, **changes.pop("memory", {})}
    settings = MemoryModelSettings.model_validate(
        {
            "mixer": mixer, "memory": memory, "layers": 2, "heads": 2, "width": 12, "block": T,
            "vocabulary": V, "persistent": 3, "window": 6, "segment": 8, **changes,
        }
    )  # fmt: skip
    model = MemoryLM(settings).double()
    for name, parameter in model.named_parameters():
        if "gates" in name:  # away from where they begin, so that every token has gates of its own
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def tokens(count: int = 2, length: int = T) -> torch.Tensor:
    return torch.randint(0, V, (count, length), generator=torch.Generator().manual_seed(3))


KINDS: list[tuple[str, dict[str, Any]]] = [
    *((mixer, {}) for mixer in MIXERS),
    *(("lmm", {"memory": {"kind": name, "depth": POINTS[name]["depth"]}}) for name in POINTS),
    ("mag", {"memory": {"kind": "yaad"}}),
    ("lmm", {"memory": {"read": "before"}}),
    ("lmm", {"memory": {"decay": "channel", "step": "channel", "momentum": "channel"}}),
    ("mal", {"persistent": 0}),
    ("mac", {"persistent": 0, "memory": {"depth": 1}}),
]  # fmt: skip


def steep(changes: dict[str, Any]) -> bool:
    return changes.get("memory", {}).get("kind") in ("memora", "yaad")


each_kind = pytest.mark.parametrize(("mixer", "changes"), KINDS, ids=lambda x: str(x)[:60])


@each_kind
def test_no_token_sees_a_later_one(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    before, _ = model(given)
    for at in (0, 7, 8, T - 1):
        other = given.clone()
        other[:, at] = (other[:, at] + 1) % V
        after, _ = model(other)
        assert torch.equal(before[:, :at], after[:, :at]), at
        assert not torch.equal(before[:, at], after[:, at]), at


def test_the_literal_mask_leaks() -> None:
    model, given = made("mac", literal_mask=True), tokens()
    other = given.clone()
    other[:, 5] = (other[:, 5] + 1) % V
    assert not torch.equal(model(given)[0][:, :5], model(other)[0][:, :5])


@each_kind
@pytest.mark.parametrize("cuts", [[1] * T, [5, 1, 9, 8], [8, 8, 7], [22, 1]], ids=str)
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
    close = STEEP if steep(changes) else CLOSE
    torch.testing.assert_close(torch.cat(parts, 1), whole, **close)
    assert state is not None
    assert_equal_states(state, last, close)


@each_kind
def test_a_state_saved_and_loaded_goes_on_as_it_was(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    _, state = model.extend(given[:, :13])
    again = State.from_state_dict(state.detach().state_dict())
    assert torch.equal(model.extend(given[:, 13:], state)[0], model.extend(given[:, 13:], again)[0])


@each_kind
def test_a_sequence_has_a_memory_of_its_own(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens(3)
    together, state = model.extend(given)
    alone, own = model.extend(given[1:2])
    close = STEEP if steep(changes) else CLOSE
    torch.testing.assert_close(together[1:2], alone, **close)
    assert_equal_states(state.select(torch.tensor([1])), own, close)


@each_kind
def test_documents_of_a_row_know_nothing_of_each_other(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    first = torch.zeros_like(given, dtype=torch.bool)
    first[0, 9] = first[1, [4, 5, 20]] = True
    found = model.documents(given, first)
    close = STEEP if steep(changes) else CLOSE
    for row, cuts in enumerate(([0, 9, T], [0, 4, 5, 20, T])):
        for start, stop in pairwise(cuts):
            alone, _ = model.extend(given[row : row + 1, start:stop])
            torch.testing.assert_close(found[row, start:stop], alone[0], **close)
    assert not torch.allclose(found, model.extend(given)[0])


@each_kind
def test_every_parameter_has_a_gradient(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    _, loss = model(given, given.roll(-1, 1))
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def assert_equal_states(one: State, other: State, close: dict[str, float]) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(
                value, theirs[name], **close, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert value == theirs[name], name
