"""Models with memories: causal, equal over any split of calls, each sequence by itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from cupel.models.memory.state import State
from memory_models import KINDS, T, V, assert_equal_states, close, made, named, tokens

each_kind = pytest.mark.parametrize(("mixer", "changes"), KINDS, ids=named)


@pytest.mark.equation("nl.v1:eq97", kind="causal")
@each_kind
@pytest.mark.slow
def test_no_token_sees_a_later_one(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    before, _ = model(given)
    for at in (0, 4, 7, 8, T - 1):
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


@pytest.mark.equation("nl.v1:eq97", kind="causal")
@each_kind
@pytest.mark.parametrize("cuts", [[1] * T, [5, 1, 9, 8], [8, 8, 7], [22, 1]], ids=str)
@pytest.mark.slow
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
    torch.testing.assert_close(torch.cat(parts, 1), whole, **close(changes))
    assert state is not None
    assert_equal_states(state, last, close(changes))


@each_kind
@pytest.mark.slow
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
    torch.testing.assert_close(together[1:2], alone, **close(changes))
    assert_equal_states(state.select(torch.tensor([1])), own, close(changes))


@each_kind
@pytest.mark.slow
def test_documents_of_a_row_know_nothing_of_each_other(mixer: str, changes: dict[str, Any]) -> None:
    model, given = made(mixer, **changes), tokens()
    first = torch.zeros_like(given, dtype=torch.bool)
    first[0, 9] = first[1, [4, 5, 20]] = True
    found = model.documents(given, first)
    for row, cuts in enumerate(([0, 9, T], [0, 4, 5, 20, T])):
        for start, stop in pairwise(cuts):
            alone, _ = model.extend(given[row : row + 1, start:stop])
            torch.testing.assert_close(found[row, start:stop], alone[0], **close(changes))
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
