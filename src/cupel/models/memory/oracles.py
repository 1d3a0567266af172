"""Every rule one token after the other, by automatic differentiation: slow, and plain to read.

What the chunk forms are held against, and what `benchmarks/memory` measures them by. Nothing here
is shared with them but the losses of `bias` and the maps of `retention`; gradients are
`torch.func.grad` of those losses, weights of each token are made.

Legend: T tokens, I and O a layer's input and output widths; one sequence, no batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cupel.models.memory.chunk import Fast, Gates, Rule

_PRINTED = ("HuberMixture", "Lp")  # whose printed gradient is that of no loss


def network(rule: Rule, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """The memory's answer to x (…, I), by torch's own layers."""
    activation, z = _activation(rule), x
    for n, weight in enumerate(weights):
        z = (activation(z) if n else z) @ weight
    if rule.net.norm:
        z = F.layer_norm(z, z.shape[-1:])
    return x + z if rule.net.residual else z


def _activation(rule: Rule) -> Any:
    return {
        "silu": F.silu,
        "gelu": F.gelu,
        "relu": F.relu,
        "tanh": torch.tanh,
        "identity": lambda z: z,
    }[rule.net.activation]


def surprise(
    rule: Rule, weights: Sequence[Tensor], k: Tensor, v: Tensor, threshold: Tensor | None
) -> list[Tensor]:
    """The gradient of one token's loss with regard to each layer's weights."""
    limit = None if threshold is None else threshold[None, None]
    if type(rule.bias).__name__ in _PRINTED and getattr(rule.bias, "smooth", "paper") == "paper":
        # The printed gradient with regard to the output, carried on by the chain rule.
        made = torch.func.vjp(lambda w: network(rule, w, k[None, None]), list(weights))
        out, back = made[0], made[1]
        return list(back(rule.bias.gradient(out, v[None, None], limit))[0])

    def loss(found: list[Tensor]) -> Tensor:
        return rule.bias.loss(network(rule, found, k[None, None]), v[None, None], limit).sum()

    return list(torch.func.grad(loss)(list(weights)))


def sequential(
    rule: Rule, q_TI: Tensor, k_TI: Tensor, v_TO: Tensor, gates: Gates, fast: Fast
) -> tuple[Tensor, Fast]:
    """The same as `chunk.run` for one sequence without a leading dimension."""
    weights, anchor = list(fast.weights), list(fast.anchor)
    momentum = None if fast.momentum is None else list(fast.momentum)
    dual = None if fast.dual is None else list(fast.dual)
    index, outputs = fast.at, []
    for t in range(len(k_TI)):
        if rule.read == "before":
            outputs.append(network(rule, weights, q_TI[t]))
        threshold = None if gates.threshold is None else gates.threshold[t]
        grads = _grads(rule, anchor, k_TI[t], v_TO[t], threshold)
        for n, grad in enumerate(grads):
            theta = _gate(gates.theta[t], grad)
            keep = _gate(gates.log_keep[t], grad).exp()
            step = -theta * grad
            if rule.erase is not None:
                key = _key(rule, anchor, k_TI[t], n)
                scale = keep if rule.erase == "keep" else 1.0
                step = step - theta * scale * torch.outer(key, key @ weights[n])
            if momentum is not None:
                assert gates.log_eta is not None
                momentum[n] = _gate(gates.log_eta[t], grad).exp() * momentum[n] + step
                step = momentum[n]
            weights[n] = keep * weights[n] + step
            if dual is not None:
                dual[n] = keep * dual[n] + step
        index += 1
        if index == rule.chunk or (rule.retention.lag and index == 1):
            if dual is not None:
                weights = [rule.retention.primal(found[None])[0] for found in dual]
            anchor = list(weights)
        index %= rule.chunk
        if rule.read == "after":
            outputs.append(network(rule, weights, q_TI[t]))
    return torch.stack(outputs), Fast(weights, anchor, momentum, dual, index)


def _grads(
    rule: Rule, anchor: Sequence[Tensor], k: Tensor, v: Tensor, threshold: Tensor | None
) -> list[Tensor]:
    grads = surprise(rule, anchor, k, v, threshold)
    if rule.most is not None:
        norm = torch.cat([grad.flatten() for grad in grads]).norm()
        grads = [grad if norm <= rule.most else grad * rule.most / norm for grad in grads]
    if not rule.normalise:
        return grads
    # The gradient of a layer is the outer product of its input and its delta; with the input of
    # norm one.
    return [grad / _input(rule, anchor, k, n).norm() for n, grad in enumerate(grads)]


def _input(rule: Rule, anchor: Sequence[Tensor], k: Tensor, n: int) -> Tensor:
    """What layer n is given."""
    if n == 0:
        return k
    activation, x = _activation(rule), k
    for weight in anchor[:n]:
        x = activation(x @ weight)
    return x


def _key(rule: Rule, anchor: Sequence[Tensor], k: Tensor, n: int) -> Tensor:
    x = _input(rule, anchor, k, n)
    return x / x.norm() if rule.normalise else x


def _gate(gate: Tensor, grad: Tensor) -> Tensor:
    """Of a token, or of the channels of a layer so wide; else the mean over channels."""
    if gate.dim() == 0 or gate.shape[-1] == grad.shape[-1]:
        return gate
    return gate.mean()
