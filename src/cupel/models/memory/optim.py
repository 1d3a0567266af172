"""Nested Learning's optimizers: DGD, delta momentum, deep momentum, M3 (arXiv 2512.24695).

Costs a step and matrix of R rows and C columns: DGD a C x C system, and in every forward pass the
products of a layer's inputs; delta momentum nothing to speak of with keys of rows; deep momentum
three products with its network, whose first and last layers are C wide; M3 two Newton-Schulz
iterations of `steps` times three products, the slow one in every `every`-th step only.

Vectors (fewer than two dimensions) have no rows: each class says what it does with them.

Legend: R rows, C columns (all dimensions but the first, flattened).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cupel.errors import UsageError
from cupel.models.memory.net import Net
from cupel.models.memory.optim_settings import (
    DeltaMomentumSettings,
    DGDSettings,
    DMGDSettings,
    M3Settings,
)
from cupel.tags import implements


def dgd(model: nn.Module, settings: DGDSettings) -> Optimizer:
    """DGD that watches the model's linear layers.

    Raises UsageError where several processes share the work: each would erase by its own inputs.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise UsageError("dgd erases by the inputs of one process; run it with one, or take adamw")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return DGD(weights, Inputs(model), lr=settings.lr, form=settings.form)


def delta_momentum(model: nn.Module, settings: DeltaMomentumSettings) -> Optimizer:
    """DeltaMomentum with decay on matrices."""
    return DeltaMomentum(
        _groups(model, settings.weight_decay),
        lr=settings.lr,
        momentum=settings.momentum,
        keys=settings.keys,
        normalised=settings.normalised,
        precondition=settings.precondition,
        beta2=settings.beta2,
        eps=settings.eps,
    )


def dmgd(model: nn.Module, settings: DMGDSettings) -> Optimizer:
    """DMGD."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return DMGD(weights, **settings.model_dump(exclude={"kind"}))


def m3(model: nn.Module, settings: M3Settings) -> Optimizer:
    """M3 with decay on matrices."""
    chosen = settings.model_dump(exclude={"kind", "weight_decay"})
    return M3(_groups(model, settings.weight_decay), **chosen)


class _Base(Optimizer):
    """An optimizer of one tensor at a time."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for number, weight in enumerate(group["params"]):
                if weight.grad is not None:
                    self._move(weight, weight.grad, group, number)
        return loss

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any], number: int) -> None:
        raise NotImplementedError


class Inputs:
    """The mean `x x^T` of what each linear layer of a model is given while it trains, (C, C).

    Counts every forward pass that can be differentiated, and that of a module in training mode
    only, until `take`. Gradients must be of a mean over the same tokens.
    """

    def __init__(self, model: nn.Module) -> None:
        self._sums: dict[Tensor, Tensor] = {}
        self._counts: dict[Tensor, int] = {}
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        weight = module.weight
        assert isinstance(weight, Tensor)
        x_NC = args[0].detach().flatten(0, -2)
        x_NC = x_NC.to(torch.promote_types(weight.dtype, torch.float32))
        with torch.autocast(x_NC.device.type, enabled=False):  # sums of squares need bits
            gram_CC = x_NC.T @ x_NC
        self._sums[weight] = self._sums[weight] + gram_CC if weight in self._sums else gram_CC
        self._counts[weight] = self._counts.get(weight, 0) + len(x_NC)

    def take(self, weight: Tensor) -> Tensor | None:
        """The mean since the last call, or None of weights that no layer had."""
        count = self._counts.pop(weight, 0)
        total = self._sums.pop(weight, None)
        return None if total is None else total / count


class DGD(_Base):
    """Delta gradient descent on linear layers.

    A step is to `argmin E 1/2 ||W x - u||^2 + ||W - W_t||^2 / (2 lr)`, where u is minus a token's
    gradient at the layer's output, so that with A the mean of `x x^T` over the
    tokens of a step and G the gradient of their mean loss:

        proximal    (W - lr G) (I + lr A)^-1, the minimiser
        explicit    W - eta' (W A + G) with eta' = lr / (1 + lr tr A), equation 57 with means
        unit        W - W A - lr G, equation 28 of the NeurIPS version

    For one token the first two are equation 57. What no linear layer holds (vectors, embeddings,
    convolutions) takes a step of gradient descent.
    """

    def __init__(
        self, params: Any, inputs: Inputs, *, lr: float = 0.1, form: str = "proximal"
    ) -> None:
        assert form in ("proximal", "explicit", "unit"), form
        self.inputs = inputs
        super().__init__(params, {"lr": lr, "form": form})

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any], number: int) -> None:
        lr, moment_CC = group["lr"], self.inputs.take(weight)
        if moment_CC is None:
            weight.add_(grad, alpha=-lr)
            return
        forms = {"proximal": _proximal, "explicit": _explicit, "unit": _unit}
        w_RC, g_RC = weight.to(moment_CC.dtype), grad.to(moment_CC.dtype)
        weight.copy_(forms[group["form"]](w_RC, g_RC, moment_CC, lr))


@implements("nl.v1:eq56", "nl.v1:eq57")
def _proximal(w_RC: Tensor, g_RC: Tensor, moment_CC: Tensor, lr: float) -> Tensor:
    eye = torch.eye(len(moment_CC), dtype=moment_CC.dtype, device=moment_CC.device)
    found: Tensor = torch.linalg.solve(eye + lr * moment_CC, (w_RC - lr * g_RC).T).T
    return found


@implements("nl.v1:eq57")
def _explicit(w_RC: Tensor, g_RC: Tensor, moment_CC: Tensor, lr: float) -> Tensor:
    step = lr / (1 + lr * moment_CC.trace())
    return w_RC - step * (w_RC @ moment_CC + g_RC)


@implements("nl.v1:eq57")
def _unit(w_RC: Tensor, g_RC: Tensor, moment_CC: Tensor, lr: float) -> Tensor:
    return w_RC - w_RC @ moment_CC - lr * g_RC


class DeltaMomentum(_Base):
    """`m <- m (alpha I - g g^T) - lr P g`, `W <- W + m`: equations 48 and 49.

    As printed, `(alpha I - grad^T grad) m`, shapes do not close. Here m has the gradient's shape,
    and keys of "rows" are: `m_r <- alpha m_r - (m_r . g_r) g_r - lr (P g)_r` for each row r by
    itself, (C) each; of "matrix": `m <- m (alpha I - G^T G) - lr P G`, in which each row forgets
    along all rows of the gradient. A vector is one row. `normalised` divides `g g^T` by its squared
    norm.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        keys: str = "rows",
        normalised: bool = False,
        precondition: str = "none",
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        assert keys in ("rows", "matrix"), keys
        assert precondition in ("none", "rms"), precondition
        defaults = {
            "lr": lr, "momentum": momentum, "keys": keys, "normalised": normalised,
            "precondition": precondition, "beta2": beta2, "eps": eps, "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[weight]
        if not state:
            state |= {"updates": 0, "momentum": torch.zeros_like(weight)}
            if group["precondition"] == "rms":
                state["power"] = torch.zeros_like(weight)
        state["updates"] += 1
        step = grad
        if group["precondition"] == "rms":
            power, beta2 = state["power"], group["beta2"]
            power.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            step = grad / ((power / _unbiased(beta2, state["updates"])).sqrt() + group["eps"])
        m_RC, g_RC = _rows(state["momentum"]), _rows(grad)
        m_RC = _pushed(m_RC, g_RC, group) - group["lr"] * _rows(step)
        state["momentum"] = m_RC.view(weight.shape)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(state["momentum"])


@implements("nl.v1:eq48", "nl.v1:eq49")
def _pushed(m_RC: Tensor, g_RC: Tensor, group: dict[str, Any]) -> Tensor:
    """`m (alpha I - g g^T)`."""
    rows = group["keys"] == "rows"
    if group["normalised"]:
        size = g_RC.norm(dim=-1, keepdim=True) if rows else g_RC.norm()
        g_RC = g_RC / size.clamp_min(torch.finfo(g_RC.dtype).tiny)
    said = (m_RC * g_RC).sum(-1, keepdim=True) * g_RC if rows else (m_RC @ g_RC.T) @ g_RC
    alpha: float = group["momentum"]
    return alpha * m_RC - said


class DMGD(_Base):
    """`W <- W + lr m(u)`, `m <- alpha m - inner_lr grad L(m; u, I)`: deep momentum, equation 50.

    The paper leaves open what m maps and what I is. Here m is a network of `depth` layers from a
    row of the gradient, (C), to a row of the update, (C), one for each matrix and shared by its
    rows; I is the identity, which the answer is held against: `dot`, mean over rows of `<m(u_r),
    u_r>`, or `l2`, of `1/2 ||m(u_r) + u_r||^2`. What is left of its weights is alpha of how far
    they are from where they began: zero for the last layer, so that the first answer is none, and
    N(0, 1 / C) before it. With one layer that is alpha m. The printed rule has no lr (or 1).

    Vectors take momentum by the inner product, `m <- alpha m - u`.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.1,
        inner_lr: float = 0.1,
        momentum: float = 0.9,
        depth: int = 2,
        hidden: int = 64,
        activation: str = "tanh",
        objective: str = "dot",
        normalised: bool = True,
        seed: int = 0,
    ) -> None:
        assert objective in ("dot", "l2"), objective
        defaults = {
            "lr": lr, "inner_lr": inner_lr, "momentum": momentum, "depth": depth,
            "hidden": hidden, "activation": activation, "objective": objective,
            "normalised": normalised, "seed": seed,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[weight]
        if weight.dim() < 2:
            momentum = state.setdefault("momentum", torch.zeros_like(weight))
            momentum.mul_(group["momentum"]).sub_(grad)
            weight.add_(momentum, alpha=group["lr"])
            return
        u_RC = grad.flatten(1)
        if not state:
            for n, layer in enumerate(_first(u_RC, group, number)):
                state |= {f"layer{n}": layer, f"begun{n}": layer.clone()}
        layers, first = (
            [state[f"{name}{n}"] for n in range(group["depth"])] for name in ("layer", "begun")
        )
        size = torch.ones((), dtype=u_RC.dtype, device=u_RC.device)
        if group["normalised"]:
            size = (u_RC.norm() / math.sqrt(len(u_RC))).clamp_min(torch.finfo(u_RC.dtype).tiny)
        u_RC = u_RC / size
        for layer, begun, moved in zip(layers, first, _inner(u_RC, layers, group), strict=True):
            layer.sub_(begun).mul_(group["momentum"]).add_(begun)
            layer.sub_(moved, alpha=group["inner_lr"])
        answer, _ = Net(group["activation"]).forward(u_RC[None], [layer[None] for layer in layers])
        weight.add_((group["lr"] * size * answer[0]).view(weight.shape))


@implements("nl.v1:eq50")
def _inner(u_RC: Tensor, layers: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """The gradient of deep momentum's own loss, a layer each."""
    net, weights = Net(group["activation"]), [layer[None] for layer in layers]
    out, tape = net.forward(u_RC[None], weights)
    delta = u_RC[None] if group["objective"] == "dot" else out + u_RC[None]
    deltas = net.deltas(delta / len(u_RC), tape, weights)
    return [(given.mT @ one)[0] for given, one in zip(tape.inputs, deltas, strict=True)]


def _first(u_RC: Tensor, group: dict[str, Any], number: int) -> list[Tensor]:
    """Deep momentum's first weights: the same for the same seed and parameter, on any device."""
    draws = torch.Generator().manual_seed(group["seed"] * 1_000_003 + number)
    sizes = [u_RC.shape[1], *[group["hidden"]] * (group["depth"] - 1), u_RC.shape[1]]
    shapes = list(pairwise(sizes))
    found = [torch.randn(*one, generator=draws) / math.sqrt(one[0]) for one in shapes[:-1]]
    return [layer.to(u_RC) for layer in (*found, torch.zeros(*shapes[-1]))]


class M3(_Base):
    """Multi-scale momentum Muon (algorithm 1, equation 75).

        M1 += b1 g,  V += b2 g^2,  O1 = NS(M1)
        W <- W - lr (O1 + alpha O2) / (sqrt(V) + eps)
        every f steps:  M2 += b3 (sum of the last f g),  O2 = NS(M2)

    O2 is that of the chunk of f steps before, so the slow momentum counts from the next chunk on.
    As printed (mode "paper") nothing is ever forgotten: V grows without bound, and steps shrink as
    one over the root of their number. Mode "ema" has means: `M1 <- b1 M1 + (1 - b1) g`, V and M2
    (of the mean of the last f gradients) likewise, M1 and V without their bias. Vectors have no O:
    their M stands there.

    The printed update is as large as one over the gradient; see `scale`.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9),
        every: int = 10,
        slow: float = 1.0,
        mode: str = "paper",
        scale: str = "printed",
        steps: int = 5,
        polynomial: str = "quintic",
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        assert mode in ("paper", "ema"), mode
        assert scale in ("printed", "relative"), scale
        defaults = {
            "lr": lr, "betas": tuple(betas), "every": every, "slow": slow, "mode": mode,
            "scale": scale, "steps": steps, "polynomial": polynomial, "eps": eps,
            "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    @implements("nl.v1:eq75", "nl.v1:alg1")
    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[weight]
        if not state:
            names = ("fast", "power", "slow", "gathered", "held")
            zero = torch.zeros_like(weight)  # no mutant: a gradient has the shape of its weight
            state |= {"updates": 0, **{name: zero.clone() for name in names}}
        state["updates"] += 1
        b1, b2, b3 = group["betas"]
        old1, new1, old2, new2 = (1.0, b1, 1.0, b2)
        if group["mode"] == "ema":
            old1, new1, old2, new2 = b1, 1 - b1, b2, 1 - b2
        state["fast"].mul_(old1).add_(grad, alpha=new1)
        state["power"].mul_(old2).addcmul_(grad, grad, value=new2)
        state["gathered"].add_(grad)
        fast, power = state["fast"], state["power"]
        if group["mode"] == "ema":
            fast = fast / _unbiased(b1, state["updates"])
            power = power / _unbiased(b2, state["updates"])
        update = _orthogonal(fast, group) + group["slow"] * state["held"]
        if group["scale"] == "relative":
            power = power / power.mean().clamp_min(torch.finfo(power.dtype).tiny)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(update, power.sqrt().add_(group["eps"]), value=-group["lr"])
        if state["updates"] % group["every"] == 0:
            old3, new3 = (1.0, b3) if group["mode"] == "paper" else (b3, (1 - b3) / group["every"])
            state["slow"].mul_(old3).add_(state["gathered"], alpha=new3)
            state["held"] = _orthogonal(state["slow"], group)
            state["gathered"].zero_()


def _orthogonal(moment: Tensor, group: dict[str, Any]) -> Tensor:
    if moment.dim() < 2:
        return moment.clone()
    found = newton_schulz(moment.flatten(1), steps=group["steps"], polynomial=group["polynomial"])
    return found.view(moment.shape)


# X <- a X + b (X X^T) X + c (X X^T)^2 X. Muon's (Jordan et al. 2024) are chosen for speed: singular
# values above about 0.01 are in 0.68 to 1.14 after 5 steps and never settle. The cubic ones,
# Newton's, are those of which the fixed point is one.
POLYNOMIALS = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0)}


def newton_schulz(g_RC: Tensor, *, steps: int = 5, polynomial: str = "quintic") -> Tensor:
    """Near the orthogonal U V^T of g's singular vectors, by products alone; zero stays zero."""
    a, b, c = POLYNOMIALS[polynomial]
    tall = g_RC.shape[0] > g_RC.shape[1]
    x: Tensor = g_RC.mT if tall else g_RC
    # By the Frobenius norm, which is at least the spectral one: singular values begin below one.
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def _rows(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.dim() >= 2 else tensor.reshape(1, -1)


def _unbiased(beta: float, updates: int) -> float:
    return 1.0 - beta**updates


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and vectors, which do not: the groups of cupel.train.optim."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert weights, "the model has no parameter that requires a gradient"
    return list(_halves(weights, weight_decay))


def _halves(weights: list[nn.Parameter], weight_decay: float) -> Iterator[dict[str, Any]]:
    matrices = [weight for weight in weights if weight.dim() >= 2]
    vectors = [weight for weight in weights if weight.dim() < 2]
    for held, decay in ((matrices, weight_decay), (vectors, 0.0)):
        if held:
            yield {"params": held, "weight_decay": decay}
