"""Optimizers against references a few lines long, and which parameters decay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cupel.train import optim
from cupel.train.settings import AdamWSettings, SGDSettings


class Tied(nn.Module):
    """An embedding, a norm, and a head that shares the embedding's matrix; one part is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.tokens.weight


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def gradients(model: nn.Module, step: int) -> list[Tensor]:
    """Set gradients that depend on the step only, and return them."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_matrices_decay_vectors_do_not_and_a_tied_one_decays_once() -> None:
    model = Tied()
    decaying, still = optim.decay_groups(model, 0.3)
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.3, 0.0)
    assert [id(p) for p in decaying["params"]] == [id(model.tokens.weight)]
    vectors = (model.norm.weight, model.norm.bias, model.head.bias)
    assert [id(p) for p in still["params"]] == [id(p) for p in vectors]


def test_a_model_of_vectors_only_has_one_group() -> None:
    (group,) = optim.decay_groups(nn.LayerNorm(3), 0.1)
    assert group["weight_decay"] == 0.0


@settings(deadline=None, max_examples=20)
@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_sgd_follows_its_definition(momentum: float, nesterov: bool, decay: float) -> None:
    given = SGDSettings(
        lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=decay
    )
    model, reference = network(), [p.detach().double() for p in network().parameters()]
    optimizer, velocity = optim.sgd(model, given), [torch.zeros_like(p) for p in reference]
    for step in range(5):
        for i, g in enumerate(gradients(model, step)):
            g = g.double() + (decay if reference[i].dim() >= 2 else 0.0) * reference[i]
            velocity[i] = g if step == 0 else momentum * velocity[i] + g
            reference[i] = reference[i] - 0.1 * (
                g + momentum * velocity[i] if given.nesterov else velocity[i]
            )
        optimizer.step()
    for parameter, expected in zip(model.parameters(), reference, strict=True):
        # Five updates of float32 against float64: a few units in the last place of 1.
        torch.testing.assert_close(parameter.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fused", [True, False, None])
def test_adamw_follows_its_definition(fused: bool | None) -> None:
    given = AdamWSettings(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, fused=fused)
    model, reference = network(), [p.detach().double() for p in network().parameters()]
    optimizer = optim.adamw(model, given)
    m, v = ([torch.zeros_like(p) for p in reference] for _ in range(2))
    for step in range(1, 6):
        for i, g in enumerate(gradients(model, step)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.99 * v[i] + 0.01 * g.double() ** 2
            decay = 0.1 if reference[i].dim() >= 2 else 0.0
            moved = (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.99**step)).sqrt() + 1e-8)
            reference[i] = reference[i] * (1 - 0.1 * decay) - 0.1 * moved
        optimizer.step()
    for parameter, expected in zip(model.parameters(), reference, strict=True):
        # An update is at most about lr = 0.1, of which float32 keeps seven digits; five updates.
        torch.testing.assert_close(parameter.double(), expected, atol=1e-6, rtol=0)


def test_adamw_is_fused_where_torch_can_and_says_so_in_its_state() -> None:
    assert optim.fused_exists(network())
    state: dict[str, Any] = optim.adamw(network(), AdamWSettings()).state_dict()
    assert all(group["fused"] for group in state["param_groups"])
    assert not optim.fused_exists(nn.Linear(1, 1, device="meta"))


@given(st.floats(1e-6, 1e3))
@pytest.mark.slow
def test_the_rate_of_the_settings_is_the_rate_of_every_group(lr: float) -> None:
    groups = optim.adamw(network(), AdamWSettings(lr=lr)).param_groups
    assert all(math.isclose(group["lr"], lr, rel_tol=0) for group in groups)
