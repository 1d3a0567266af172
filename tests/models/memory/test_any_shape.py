"""Mixers of any shape, chunks, segments and windows, in any split: one causal function."""

from __future__ import annotations

from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from cupel.models.memory.model import MemoryLM
from cupel.models.memory.settings import MemoryModelSettings
from memory_models import KINDS, MIXERS, assert_equal_states, close, made, named, tokens

V = 7
# float64. Norms of two channels and weights near zero magnify rounding; a fault is of order one.
LOOSE = {"rtol": 1e-6, "atol": 1e-7}
each_mixer = pytest.mark.parametrize("mixer", MIXERS)


@st.composite
def sizes(draw: st.DrawFn, mixer: str) -> dict[str, Any]:
    """Settings of one small layer."""
    small, heads = st.integers(1, 6), draw(st.integers(1, 3))
    fastest = draw(st.integers(1, 5))
    variant = draw(st.sampled_from(["sequential", "nested", "independent"]))
    levels = draw(st.sampled_from([(), (1.0,), (0.5, 1.0), (1.0, 0.0, 0.25)]))
    return {
        "mixer": mixer, "layers": 1, "hidden": 0, "vocabulary": V, "heads": heads,
        "width": 4 * heads * draw(st.integers(1, 2)), "persistent": draw(st.integers(0, 2)),
        "window": draw(small), "segment": draw(small),
        "memory": {
            "kind": draw(st.sampled_from(["titans", "gated-deltanet", "ttt", "retnet"])),
            # Steps are small, so that what a drawn network learns does not grow without bound.
            "step_max": 0.05,
            "chunk": draw(small), "conv": draw(st.integers(0, 3)),
            "read": draw(st.sampled_from(["after", "before"])),
        },
        "hope": {
            "depth": draw(st.integers(1, 2)), "chunk": draw(small), "chunk_others": draw(small),
            "conv": draw(st.integers(0, 3)),
            "cms": {
                "variant": variant, "frequencies": levels, "chunk": fastest, "signal": "local",
                "step_max": 0.01,
            },
        },
    }  # fmt: skip


class Case(NamedTuple):
    """A model, tokens, and where calls begin."""

    sizes: dict[str, Any]
    seed: int
    batch: int
    length: int
    cuts: list[int]

    def model(self) -> MemoryLM:
        torch.manual_seed(self.seed)
        model = MemoryLM(MemoryModelSettings.model_validate(self.sizes)).double()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "offset" not in name:
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        return model.requires_grad_(False)

    def tokens(self) -> Tensor:
        made = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, V, (self.batch, self.length), generator=made)


@st.composite
def cases(draw: st.DrawFn, mixer: str) -> Case:
    length = draw(st.integers(2, 14))
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=4)))
    seed, batch = draw(st.integers(0, 100)), draw(st.integers(1, 3))
    return Case(draw(sizes(mixer)), seed, batch, length, cuts)


@pytest.mark.equation("titans.v1:eq15", kind="shape")
@pytest.mark.equation("nl.v1:eq97", kind="shape")
@each_mixer
@pytest.mark.slow
def test_calls_of_any_lengths_give_what_one_gives(mixer: str) -> None:
    @settings(max_examples=15)
    @given(cases(mixer))
    def holds(case: Case) -> None:
        model, tokens_BT = case.model(), case.tokens()
        wanted, last = model.extend(tokens_BT)
        assert wanted.shape == (*tokens_BT.shape, V)
        state, parts = None, []
        for part in tokens_BT.tensor_split(case.cuts, 1):
            found, state = model.extend(part, state)
            parts.append(found)
        torch.testing.assert_close(torch.cat(parts, 1), wanted, **LOOSE)
        assert state is not None
        assert_equal_states(state, last, LOOSE)

    holds()


@pytest.mark.equation("titans.v1:eq15", kind="causal")
@pytest.mark.equation("nl.v1:eq97", kind="causal")
@each_mixer
@pytest.mark.slow
def test_no_token_of_any_shape_sees_a_later_one(mixer: str) -> None:
    @settings(max_examples=15)
    @given(cases(mixer), st.data())
    def holds(case: Case, data: st.DataObject) -> None:
        model, tokens_BT = case.model(), case.tokens()
        at = data.draw(st.integers(0, tokens_BT.shape[1] - 1), label="at")
        row = data.draw(st.integers(0, len(tokens_BT) - 1), label="row")
        other = tokens_BT.clone()
        other[row, at] = (other[row, at] + 1) % V
        before, after = model(tokens_BT)[0], model(other)[0]
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.equal(before[row, at], after[row, at])
        others = torch.arange(len(tokens_BT)) != row
        assert torch.equal(before[others], after[others])

    holds()


@pytest.mark.parametrize(("mixer", "changes"), KINDS, ids=named)
@pytest.mark.slow
def test_sequences_in_another_order_give_the_same_in_that_order(
    mixer: str, changes: dict[str, Any]
) -> None:
    model, given, order = made(mixer, **changes), tokens(4), torch.tensor([2, 0, 3, 1])
    y, state = model.extend(given)
    moved, after = model.extend(given[order])
    torch.testing.assert_close(moved, y[order], **close(changes))
    assert_equal_states(after, state.select(order), close(changes))
