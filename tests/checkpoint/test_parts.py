"""Parts are registered once, by good names, and loaded all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cupel.checkpoint.codec import state_hash
from cupel.checkpoint.parts import Parts
from cupel.errors import CheckpointError, ResumeError, UsageError


class Counter:
    """A part of a user's own."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def of(**parts: Any) -> Parts:
    made = Parts()
    for name, part in parts.items():
        made.register(name, part)
    return made


def test_a_name_is_taken_once() -> None:
    parts = of(counter=Counter())
    with pytest.raises(UsageError, match="a part is called 'counter' already"):
        parts.register("counter", Counter())
    assert parts.names == ["counter"]


@given(st.text())
def test_only_plain_names_are_taken(name: str) -> None:
    plain = name != "" and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    parts = Parts()
    if plain:
        parts.register(name, Counter())
    else:
        with pytest.raises(UsageError, match="cannot name a part"):
            parts.register(name, Counter())
    assert parts.names == [name] * plain


def test_a_part_needs_both_methods() -> None:
    with pytest.raises(UsageError, match=r"'x' is a object.*state_dict\(\) and load_state_dict"):
        Parts().register("x", object())  # type: ignore[arg-type]


def test_hashes_are_those_of_the_states() -> None:
    parts = of(model=nn.Linear(2, 2), counter=Counter())
    states = parts.state()
    assert parts.hashes() == {name: state_hash(state) for name, state in states.items()}
    assert list(states) == parts.names == ["model", "counter"]


def test_loading_moves_every_state() -> None:
    source, target = of(m=nn.Linear(2, 2), c=Counter()), of(m=nn.Linear(2, 2), c=Counter())
    source._parts["c"].count = 7  # type: ignore[attr-defined]
    assert source.hashes() != target.hashes()
    target.load(source.state())
    assert source.hashes() == target.hashes()


@pytest.mark.parametrize(
    "saved, message",
    [
        (["model"], "the checkpoint has no 'ema', which this run registers; it has 'model'"),
        ([], "the checkpoint has no 'model', 'ema', which this run registers; it has nothing"),
        (["model", "ema", "old"], "the checkpoint has 'old', which this run does not register"),
    ],
)
def test_missing_and_left_over_parts_are_named_and_nothing_is_loaded(
    saved: list[str], message: str
) -> None:
    parts = of(model=nn.Linear(2, 2), ema=nn.Linear(2, 2))
    before = parts.hashes()
    with pytest.raises(CheckpointError, match=message):
        parts.load({name: nn.Linear(2, 2).state_dict() for name in saved})
    assert parts.hashes() == before


def test_a_changed_model_is_told_by_its_tensors_and_nothing_is_loaded() -> None:
    parts = of(counter=Counter(), model=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    before = parts.hashes()
    saved = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 1), nn.Linear(1, 1))
    with pytest.raises(ResumeError) as caught:
        parts.load({"counter": {"count": 5}, "model": saved.state_dict()})
    assert str(caught.value) == (
        "'model' is not what the checkpoint holds: "
        "0.weight: (4, 2) in the checkpoint, (3, 2) in this run; "
        "0.bias: absent in the checkpoint, (3,) in this run; "
        "1.weight: (1, 4) in the checkpoint, (1, 3) in this run; and 2 more; "
        "resume with the settings that wrote it, or start a new run"
    )
    assert parts.hashes() == before


def test_a_part_that_refuses_its_state_is_named_in_one_line() -> None:
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    saved = torch.optim.SGD(weights, lr=1.0).state_dict()
    with pytest.raises(ResumeError, match=r"^'optimizer' does not accept .*ValueError[^\n]*$"):
        of(optimizer=torch.optim.SGD(weights[:1], lr=1.0)).load({"optimizer": saved})


def test_a_part_that_is_still_empty_takes_what_was_saved() -> None:
    class Lazy:
        held: dict[str, torch.Tensor] = {}

        def state_dict(self) -> dict[str, torch.Tensor]:
            return self.held

        def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
            self.held = state

    lazy = Lazy()
    of(lazy=lazy).load({"lazy": {"x": torch.ones(1)}})
    assert torch.equal(lazy.held["x"], torch.ones(1))
