"""Each optimizer's first steps by hand in float64, and its state saved and loaded in between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cupel.models.memory.dgd import proximal
from cupel.models.memory.optim import (
    DGD,
    DMGD,
    M3,
    DeltaMomentum,
    Inputs,
    _groups,
    delta_momentum,
    dgd,
    dmgd,
    m3,
    newton_schulz,
)
from cupel.models.memory.optim_settings import (
    DeltaMomentumSettings,
    DGDSettings,
    DMGDSettings,
    M3Settings,
)
from cupel.train.optim import decay_groups

# float64; two steps of a few sums
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(make: Callable[[list[Tensor]], Any], shape: tuple[int, ...], steps: int) -> Tensor:
    """A tensor behind steps with gradients drawn with seeds 1, 2, …"""
    weight = drawn(*shape).requires_grad_()
    optimizer = make([weight])
    for n in range(1, steps + 1):
        weight.grad = drawn(*shape, seed=n)
        optimizer.step()
    return weight.detach()


# ---- delta gradient descent ------------------------------------------------------------------


def linear(out: int = 3, width: int = 4) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, out).double()


@pytest.mark.equation("nl.v1:eq57", kind="value")
@pytest.mark.parametrize("form", ["proximal", "explicit", "unit"])
def test_two_steps_of_dgd_on_one_token(form: str) -> None:
    layer = linear()
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = DGD(layer.parameters(), Inputs(layer), lr=0.3, form=form)
    for n in range(2):
        x, goal = drawn(1, 4, seed=n), drawn(1, 3, seed=9)
        optimizer.zero_grad()
        (0.5 * (layer(x) - goal).square().sum()).backward()
        optimizer.step()
        g = (x @ w.T + b - goal)[0]
        x = x[0]
        if form == "unit":
            w = w @ (torch.eye(4, dtype=torch.float64) - torch.outer(x, x)) - 0.3 * torch.outer(
                g, x
            )
        else:
            eta = 0.3 / (1 + 0.3 * x @ x)
            w = w @ (torch.eye(4, dtype=torch.float64) - eta * torch.outer(x, x))
            w = w - eta * torch.outer(g, x)
        b = b - 0.3 * g
        torch.testing.assert_close(layer.weight.detach(), w, **CLOSE)
        torch.testing.assert_close(layer.bias.detach(), b, **CLOSE)


@pytest.mark.equation("nl.v1:eq56", kind="oracle")
def test_dgd_on_a_batch_is_the_minimiser_for_its_mean() -> None:
    layer, x, goal = linear(), drawn(2, 5, 4), drawn(2, 5, 3, seed=1)
    with torch.no_grad():
        grads = (layer(x) - goal).flatten(0, 1)
    # The mean of ten tokens' terms is their sum with a step a tenth as large.
    wanted = proximal(layer.weight.detach().T, x.flatten(0, 1), grads, 0.3 / 10).T
    optimizer = DGD(layer.parameters(), Inputs(layer), lr=0.3)
    layer.eval()
    layer(100 * x)  # nothing is seen outside of training
    layer.train()
    for n in range(2):  # gradients may be added up over several passes
        (0.5 * (layer(x[n]) - goal[n]).square().sum(-1).mean() / 2).backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), wanted, **CLOSE)
    assert optimizer.inputs.take(layer.weight) is None


# ---- delta momentum --------------------------------------------------------------------------


@pytest.mark.equation("nl.v1:eq48", kind="value")
@pytest.mark.equation("nl.v1:eq49", kind="value")
@pytest.mark.parametrize("keys", ["rows", "matrix"])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("precondition", ["none", "rms"])
def test_three_steps_of_delta_momentum(keys: str, normalised: bool, precondition: str) -> None:
    chosen = {"lr": 0.1, "momentum": 0.8, "keys": keys, "normalised": normalised, "beta2": 0.9}
    found = stepped(lambda p: DeltaMomentum(p, precondition=precondition, **chosen), (3, 4), 3)
    w, m, v = drawn(3, 4), torch.zeros(3, 4).double(), torch.zeros(3, 4).double()
    eye = torch.eye(4, dtype=torch.float64)
    for n in range(1, 4):
        g = drawn(3, 4, seed=n)
        v = 0.9 * v + 0.1 * g**2
        p = g / ((v / (1 - 0.9**n)).sqrt() + 1e-8) if precondition == "rms" else g
        if keys == "matrix":
            key = g / g.norm() if normalised else g
            m = m @ (0.8 * eye - key.T @ key) - 0.1 * p
        else:
            for r in range(3):
                key = g[r] / g[r].norm() if normalised else g[r]
                m[r] = m[r] @ (0.8 * eye - torch.outer(key, key)) - 0.1 * p[r]
        w = w + m
    torch.testing.assert_close(found, w, **CLOSE)


def test_delta_momentum_of_a_vector_is_that_of_one_row() -> None:
    vector = stepped(lambda p: DeltaMomentum(p, lr=0.1), (4,), 3)
    row = stepped(lambda p: DeltaMomentum(p, lr=0.1), (1, 4), 3)
    torch.testing.assert_close(vector, row[0], **CLOSE)


# ---- deep momentum ---------------------------------------------------------------------------


@pytest.mark.equation("nl.v1:eq50", kind="value")
@pytest.mark.parametrize("objective", ["dot", "l2"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("normalised", [False, True])
def test_three_steps_of_deep_momentum(objective: str, depth: int, normalised: bool) -> None:
    chosen: dict[str, Any] = {"depth": depth, "objective": objective, "normalised": normalised}
    weight = drawn(3, 4).requires_grad_()
    optimizer = DMGD([weight], lr=0.7, inner_lr=0.4, momentum=0.8, hidden=5, **chosen)
    w, layers, begun = drawn(3, 4), [], []
    for n in range(1, 4):
        g = drawn(3, 4, seed=n)
        weight.grad = g.clone()
        optimizer.step()
        if not layers:  # the first weights are the optimizer's own draw
            begun = [optimizer.state[weight][f"begun{k}"].clone() for k in range(depth)]
            layers = list(begun)
            assert not begun[-1].any()
        size = g.norm() / 3**0.5 if normalised else 1.0
        u = g / size

        def answer(all_layers: list[Tensor], u: Tensor = u) -> Tensor:
            return (
                u @ all_layers[0] if depth == 1 else torch.tanh(u @ all_layers[0]) @ all_layers[1]
            )

        def loss(all_layers: list[Tensor], u: Tensor = u) -> Tensor:
            if objective == "dot":
                return (answer(all_layers) * u).sum(-1).mean()
            return 0.5 * (answer(all_layers) + u).square().sum(-1).mean()

        grads = torch.func.grad(loss)(layers)
        layers = [b + 0.8 * (m - b) - 0.4 * d for m, b, d in zip(layers, begun, grads, strict=True)]
        w = w + 0.7 * size * answer(layers)
    torch.testing.assert_close(weight.detach(), w, **CLOSE)


def test_deep_momentum_goes_downhill_and_vectors_have_plain_momentum() -> None:
    vector = stepped(lambda p: DMGD(p, lr=0.1, momentum=0.5), (4,), 2)
    first, second = drawn(4, seed=1), drawn(4, seed=2)
    wanted = drawn(4) - 0.1 * first - 0.1 * (0.5 * first + second)
    torch.testing.assert_close(vector, wanted, **CLOSE)
    weight = drawn(3, 4).requires_grad_()
    weight.grad = drawn(3, 4, seed=1)
    before = weight.detach().clone()
    DMGD([weight]).step()
    assert ((weight.detach() - before) * weight.grad).sum() < 0


# ---- M3 --------------------------------------------------------------------------------------


@pytest.mark.equation("nl.v1:alg1", kind="value")
@pytest.mark.equation("nl.v1:eq75", kind="value")
@pytest.mark.parametrize("mode", ["paper", "ema"])
@pytest.mark.parametrize("scale", ["printed", "relative"])
@pytest.mark.parametrize("shape", [(3, 4), (4,)])
def test_five_steps_of_m3(mode: str, scale: str, shape: tuple[int, ...]) -> None:
    """With a slow momentum of every second step: steps 3 and 5 are the first to see each."""
    b1, b2, b3, lr, slow = 0.8, 0.9, 0.6, 0.1, 0.5
    chosen: dict[str, Any] = {"every": 2, "slow": slow, "mode": mode, "scale": scale}
    chosen["weight_decay"] = 0.3
    found = stepped(lambda p: M3(p, lr=lr, betas=(b1, b2, b3), **chosen), shape, 5)

    def ns(m: Tensor) -> Tensor:
        return newton_schulz(m) if m.dim() == 2 else m

    w, g = drawn(*shape), [drawn(*shape, seed=n) for n in range(1, 6)]
    m1, v, m2, o2 = (torch.zeros_like(w) for _ in range(4))
    for n in range(5):
        if mode == "paper":
            m1, v = m1 + b1 * g[n], v + b2 * g[n] ** 2
            fast, power = m1, v
        else:
            m1, v = b1 * m1 + (1 - b1) * g[n], b2 * v + (1 - b2) * g[n] ** 2
            fast, power = m1 / (1 - b1 ** (n + 1)), v / (1 - b2 ** (n + 1))
        if scale == "relative":
            power = power / power.mean()
        w = (1 - lr * 0.3) * w - lr * (ns(fast) + slow * o2) / (power.sqrt() + 1e-8)
        if n % 2 == 1:
            both = g[n - 1] + g[n]
            m2 = m2 + b3 * both if mode == "paper" else b3 * m2 + (1 - b3) * both / 2
            o2 = ns(m2)
    torch.testing.assert_close(found, w, **CLOSE)


def test_m3_as_printed_takes_ever_smaller_steps() -> None:
    weight = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = M3([weight], slow=0.0)
    moved = []
    for _ in range(100):
        before = weight.detach().clone()
        weight.grad = torch.ones(2, 2, dtype=torch.float64)
        optimizer.step()
        moved.append(float((weight.detach() - before).norm()))
    assert abs(moved[99] / moved[24] - 0.5) < 1e-6


@pytest.mark.equation("nl.v1:eq75", kind="oracle")
@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3)])
def test_newton_schulz_is_the_orthogonal_factor(shape: tuple[int, int]) -> None:
    g = drawn(*shape)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    exact = newton_schulz(g, steps=40, polynomial="cubic")
    torch.testing.assert_close(exact, u @ vh, rtol=1e-10, atol=1e-10)
    quick = torch.linalg.svdvals(newton_schulz(g))
    assert quick.min() > 0.65
    assert quick.max() < 1.2
    torch.testing.assert_close(newton_schulz(7 * g), newton_schulz(g), **CLOSE)
    assert torch.equal(newton_schulz(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.equation("nl.v1:eq75", kind="value")
def test_one_newton_schulz_iteration_by_hand() -> None:
    x = torch.diag(torch.tensor([0.6, 0.8], dtype=torch.float64))  # of Frobenius norm one
    for name, (a, b, c) in {"quintic": (3.4445, -4.775, 2.0315), "cubic": (1.5, -0.5, 0)}.items():
        wanted = torch.tensor([a * s + b * s**3 + c * s**5 for s in (0.6, 0.8)]).double().diag()
        found = newton_schulz(5 * x, steps=1, polynomial=name)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


# ---- all of them -----------------------------------------------------------------------------

ALL: list[tuple[Callable[..., Any], Any]] = [
    (dgd, DGDSettings(lr=0.05)),
    (delta_momentum, DeltaMomentumSettings(precondition="rms", weight_decay=0.1)),
    (dmgd, DMGDSettings(hidden=6)),
    (m3, M3Settings(every=3, weight_decay=0.1)),
    (m3, M3Settings(every=3, mode="ema", scale="relative")),
]
each = pytest.mark.parametrize(("make", "settings"), ALL, ids=lambda x: getattr(x, "__name__", ""))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for n in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(n))
        optimizer.zero_grad()
        (model(x) - x[:, :3].sin()).square().mean().backward()
        optimizer.step()


@each
def test_a_state_saved_and_loaded_goes_on_bit_for_bit(make: Any, settings: Any) -> None:
    whole = network()
    train(whole, make(whole, settings), range(7))
    first = network()
    optimizer = make(first, settings)
    train(first, optimizer, range(4))
    saved = copy.deepcopy(optimizer.state_dict())
    again = network()
    again.load_state_dict(first.state_dict())
    resumed = make(again, settings)
    resumed.load_state_dict(saved)
    train(again, resumed, range(4, 7))
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@each
def test_weights_without_a_gradient_stay_where_they_are(make: Any, settings: Any) -> None:
    model = network()
    optimizer = make(model, settings)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_groups_are_those_of_train() -> None:
    model = network()
    mine, theirs = _groups(model, 0.1), decay_groups(model, 0.1)
    assert [g["weight_decay"] for g in mine] == [g["weight_decay"] for g in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]


@pytest.mark.parametrize("form", ["proximal", "explicit", "unit"])
def test_dgd_keeps_weights_in_float32_beside_sixteen_bits(form: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    optimizer = dgd(layer, DGDSettings(form=form, lr=0.01))
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(torch.nn.functional.normalize(torch.randn(8, 6), dim=-1)).square().mean()
    loss.backward()
    optimizer.step()
    assert not torch.equal(layer.weight, layer.weight.bfloat16().float())
