"""Hope's rules one token after the other, by automatic differentiation: slow, and plain to read.

What `selfmod` and `cms` are held against. Nothing is shared with them but the losses of `bias`:
networks are written again, gradients are `torch.func.grad` of the losses, the weights of each token
are made.

Legend: T tokens, D width, I and O a layer's input and output widths; one sequence, no batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.oracles import network
from cupel.models.memory.selfmod import How
from cupel.models.memory.settings import CMSSettings

Weights = list[Tensor]


@dataclass
class Memory:
    """One memory: its weights, those at its chunk's start, and how far into the chunk it is."""

    weights: Weights
    anchor: Weights = field(default_factory=list)
    momentum: Weights = field(default_factory=list)
    index: int = 0

    def __post_init__(self) -> None:
        self.anchor = self.anchor or list(self.weights)
        self.momentum = self.momentum or _zeros(self.weights)


def self_modifying(
    how: How,
    x_TD: Tensor,
    given: Mapping[str, Tensor],
    readout: Callable[[str, Tensor], Tensor],
    memories: dict[str, Memory],
) -> Tensor:
    """As `selfmod.modify` for one sequence; `memories` (with "main") are changed in place."""
    outputs = []
    for t, x in enumerate(x_TD):

        def says(name: str, about: Tensor) -> Tensor:
            return network(how.main, memories[name].anchor, about)

        found = {name: tensor[t] for name, tensor in given.items()}
        about = x if how.unit == "keys" else x / x.norm()
        found |= {name: says(name, about) for name in how.names}
        logits = {
            name: readout(name, found[name]) if name in how.names else found[name]
            for name in ("alpha", "eta")
        }
        alpha = torch.sigmoid(logits["alpha"])
        eta = how.max_eta * torch.sigmoid(logits["eta"]) * (1 + alpha if how.flips else 1)
        mu = torch.zeros(())
        if how.main.momentum:
            mu = torch.sigmoid(found["momentum"])
            eta = eta * (1 - mu)
        q, k = found["q"] / found["q"].norm(), found["k"] / found["k"].norm()
        v = found["v"] if how.unit == "keys" else found["v"] / found["v"].norm()
        source = memories["main"].weights if how.read == "token" else memories["main"].anchor
        outputs.append(network(how.main, source, q))
        targets = {name: says(name, v) if how.targets == "self" else v for name in memories}
        if how.unit == "all":
            targets = {name: target / target.norm() for name, target in targets.items()}
        for name, memory in memories.items():
            _write(how, memory, k, targets[name], alpha, eta, mu)
        for name, memory in memories.items():
            chunk = how.main.chunk if name == "main" else how.others.chunk
            memory.index = (memory.index + 1) % chunk
            if memory.index == 0:
                memory.anchor = list(memory.weights)
    return torch.stack(outputs)


def _write(
    how: How, memory: Memory, k: Tensor, target: Tensor, alpha: Tensor, eta: Tensor, mu: Tensor
) -> None:
    """Equation 88 with the gradient at the chunk's start, layer by layer; of what is written `mu`
    goes on to the next token.
    """
    rule = how.main

    def loss(weights: Weights) -> Tensor:
        return rule.bias.loss(network(rule, weights, k), target)

    grads: Weights = list(torch.func.grad(loss)(memory.anchor))
    x, activation = k, _activation(rule.net.activation)
    for n, (weight, grad) in enumerate(zip(list(memory.weights), grads, strict=True)):
        if n:
            x = activation(x @ memory.anchor[n - 1])
        # The gradient is x (x) delta: with an x of norm one it is as much smaller.
        size = x.norm() if rule.normalise else torch.ones(())
        unit, grad = x / size, grad / size
        erased = torch.outer(unit, unit) @ weight
        if rule.erase is None or (rule.erase_first and n):
            erased = torch.zeros_like(weight)
        memory.momentum[n] = mu * memory.momentum[n] - eta * erased - eta * grad
        memory.weights[n] = alpha * weight + memory.momentum[n]


@dataclass
class Levels:
    """A continuum memory system of one sequence, an entry a level."""

    weights: list[Weights]
    first: list[Weights] = field(default_factory=list)
    sums: list[Weights] = field(default_factory=list)
    above: list[Weights] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = [list(level) for level in self.weights]
        self.sums = [_zeros(level) for level in self.weights]
        self.above = [_zeros(level) for level in self.weights]


def continuum(
    settings: CMSSettings,
    x_TC: Tensor,
    step: Callable[[int, Tensor], Tensor],
    levels: Levels,
    *,
    shares: Tensor | None = None,
    grad_TC: Tensor | None = None,
) -> Tensor:
    """The same as `cms.CMS` without biases; `levels` are changed in place.

    With signal "teach" `grad_TC` is the gradient at each token's output.
    """
    periods, outputs = settings.periods(), []
    previous: list[Tensor] | None = None
    for t, x in enumerate(x_TC):
        inputs, y = _passed(settings, x, levels.weights, shares)
        outputs.append(y)
        etas = [step(n, given) for n, given in enumerate(inputs)]
        grads = [_zeros(level) for level in levels.weights]
        if grad_TC is not None:

            def told(weights: list[Weights], x: Tensor = x, g: Tensor = grad_TC[t]) -> Tensor:
                return _passed(settings, x, weights, shares)[1] @ g

            grads = torch.func.grad(told)(levels.weights)
        elif previous is not None:
            pairs = zip(levels.weights, previous, inputs, strict=True)
            grads = [_guessed(settings, *pair) for pair in pairs]
        previous = inputs
        for n, period in enumerate(periods):
            owner = _slower(periods, n)
            for layer, grad in enumerate(grads[n] if period else []):
                levels.sums[n][layer] = levels.sums[n][layer] + etas[n] * grad
                if owner is not None:
                    levels.above[n][layer] = levels.above[n][layer] + etas[owner] * grad
        for n, period in enumerate(periods):
            if period and (t + 1) % period == 0:
                levels.weights[n] = _less(levels.weights[n], levels.sums[n])
                levels.sums[n] = _zeros(levels.sums[n])
        for n in range(len(periods)) if settings.variant == "nested" else ():
            owner = _slower(periods, n)
            if owner is not None and (t + 1) % (periods[owner] or 1) == 0:
                levels.first[n] = _less(levels.first[n], levels.above[n])
                levels.weights[n] = list(levels.first[n])
                levels.above[n] = _zeros(levels.above[n])
    return torch.stack(outputs)


def _passed(
    settings: CMSSettings, x: Tensor, weights: list[Weights], shares: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """Each level's input, and the output."""
    inputs: list[Tensor] = []
    outs: list[Tensor] = []
    for level in weights:
        given = outs[-1] if outs and shares is None else x
        inputs.append(given)
        outs.append(_block(settings, given, level))
    if shares is None:
        return inputs, outs[-1]
    return inputs, torch.stack([share * out for share, out in zip(shares, outs, strict=True)]).sum(
        0
    )


def _block(settings: CMSSettings, x: Tensor, level: Weights) -> Tensor:
    out = _activation(settings.activation)(x @ level[0]) @ level[1]
    return x + out if settings.residual else out


def _guessed(settings: CMSSettings, level: Weights, before: Tensor, x: Tensor) -> Weights:
    def loss(weights: Weights) -> Tensor:
        return 0.5 * (_block(settings, before, weights) - x).square().mean()

    return list(torch.func.grad(loss)(level))


def _slower(periods: tuple[int | None, ...], n: int) -> int | None:
    """The level with the next longer period."""
    longer = [m for m, p in enumerate(periods) if p and periods[n] and p > (periods[n] or 0)]
    return min(longer, key=lambda m: periods[m] or 0, default=None)


def _less(weights: Weights, sums: Weights) -> Weights:
    return [weight - total for weight, total in zip(weights, sums, strict=True)]


def _zeros(weights: Weights) -> Weights:
    return [torch.zeros_like(weight) for weight in weights]


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "silu": F.silu, "gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh,
    }  # fmt: skip
    return found.get(name, lambda z: z)
