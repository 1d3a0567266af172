"""Hope's memories and levels at the ends of their range: gates at 0 and 1, 8,192 tokens."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from cupel.models.memory.cms import CMS
from cupel.models.memory.hope import how
from cupel.models.memory.selfmod import modify, start
from cupel.models.memory.settings import CMSSettings, HopeSettings

D, LONG = 4, 8192
# Logits at which a gate is exactly 0 and 1, or 1e-8.
ENDS = (-1e4, -18.42, 1e4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.equation("nl.v1:eq88", kind="claim")
@pytest.mark.equation("nl.v1:eq90", kind="claim")
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.slow
def test_gates_at_their_ends_over_8192_tokens(depth: int) -> None:
    """Decay and step at all ends together, a sequence each.

    But for the largest step of a deep memory that forgets nothing: the bound is that of a matrix.
    """
    made = how(HopeSettings.model_validate({"depth": depth, "chunk": 128, "chunk_others": 128}))
    ends = [pair for pair in product(ENDS, ENDS) if depth == 1 or pair != (1e4, 1e4)]
    rows = torch.tensor(ends, dtype=torch.float64)
    x = drawn(1, LONG, D).expand(len(rows), -1, -1).clone().requires_grad_()
    sizes = [D] if depth == 1 else [D, 2 * D]
    shapes = list(zip(sizes, [*sizes[1:], D], strict=True))
    main = [drawn(1, *one, seed=n).expand(len(rows), -1, -1) for n, one in enumerate(shapes)]
    rest = [
        drawn(1, 4, *one, seed=9 + n).expand(len(rows), -1, -1, -1) for n, one in enumerate(shapes)
    ]

    def readout(name: str, said_NTD: Tensor) -> Tensor:
        end = rows[:, 0 if name == "alpha" else 1, None]
        return end + 0 * said_NTD.sum(-1)

    y, state = modify(made, x, {"q": x}, readout, start(made, main, rest))
    y.square().mean().backward()
    assert state.others is not None
    for one in (y, *state.main.weights, *state.others.weights, x.grad):
        assert one is not None
        assert one.isfinite().all()
    # Where nothing is kept and nothing is written there is nothing left to say.
    if depth == 1:
        assert not y[0, 128:].any()


@pytest.mark.equation("nl.v1:eq71", kind="claim")
@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.slow
def test_levels_stay_finite_over_8192_tokens(variant: str, logit: float) -> None:
    torch.manual_seed(0)
    given = {"variant": variant, "frequencies": (1.0, 0.25), "chunk": 32, "signal": "local"}
    levels = CMS(16, CMSSettings.model_validate(given)).double()
    for gate in levels.gates.values():
        nn.init.constant_(gate.offset, logit)
    # As an RMSNorm gives it, which stands before them.
    x = 4 * nn.functional.normalize(drawn(1, LONG, 16), dim=-1)
    y, state = levels(x.requires_grad_())
    y.square().mean().backward()
    assert x.grad is not None
    for one in (y, x.grad, *(w for level in state.levels for w in level.weights)):
        assert one.isfinite().all()
    moved = any(
        not torch.equal(mine, first)
        for level, begun in zip(state.levels, levels.begin(1).levels, strict=True)
        for mine, first in zip(level.weights, begun.weights, strict=True)
    )
    assert moved == (logit > -1e4)
