"""Sampling from a GPT: temperature, top-k, top-p, with a generator of its own.

A key gives the same tokens for the same logits on every device: they are drawn on the CPU in
float64. One sequence at a time. When the context is full, the last half of it is encoded anew
(learned positions cannot slide), so one token in `block / 2` costs a longer forward pass, and the
model sees between half a block and a block. A model without a cache encodes its window for every
token, and sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cupel.errors import TrainingFailed, UsageError
from cupel.models.gpt.model import KVCache
from cupel.models.language import LanguageModel


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt_T: Tensor,
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: int,
    on_token: Callable[[int], None] | None = None,
) -> list[int]:
    """Continue a prompt of ids by `tokens` ids; returns the new ones, and tells each as it comes.

    Temperature 0 takes the likeliest token. Of a prompt longer than the model's block only the end
    is seen. Dropout is off meanwhile; the modules' training flags and torch's global generator
    are left as they were.

    Raises UsageError for an empty prompt or a setting out of range, TrainingFailed for a model
    whose logits are not finite.
    """
    _check(prompt_T, temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(key)
    device = next(model.parameters()).device
    block, context = model.settings.block, prompt_T.tolist()
    window, new, made = context[-block:], context[-block:], []
    cache = KVCache() if model.caches else None
    with _evaluating(model):
        for _ in range(tokens):
            if len(window) > block:
                window = new = context[-max(1, block // 2) :]
                cache = KVCache() if model.caches else None
            if cache is None:
                logits_BTV, _ = model(torch.tensor([window], device=device))
            else:
                logits_BTV, _ = model(torch.tensor([new], device=device), cache=cache)
            logits_V = logits_BTV[0, -1].cpu()
            if not logits_V.isfinite().all():
                raise TrainingFailed("the model's logits are NaN or infinite")
            probabilities_V = token_probabilities(
                logits_V, temperature=temperature, top_k=top_k, top_p=top_p
            )
            token = int(torch.multinomial(probabilities_V, 1, generator=generator))
            new = [token]
            window = [*window, token]
            context.append(token)
            made.append(token)
            if on_token is not None:
                on_token(token)
    return made


def token_probabilities(
    logits_V: Tensor, *, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Probabilities (V) of the next token, float64 on the CPU, zero for what is cut off.

    In this order: temperature; the `top_k` likeliest; of these the smallest set whose share
    reaches `top_p` (Holtzman et al. 2020, §3.1). Among equal logits the lower id comes first.
    """
    logits_V = logits_V.double().cpu()
    if temperature == 0:
        temperature, top_k = 1.0, 1
    # Below the largest, so that no temperature, however low, makes an infinity of the likeliest.
    scaled_V = (logits_V - logits_V.max()) / temperature
    sorted_V, order_V = torch.sort(scaled_V, descending=True, stable=True)
    if top_k is not None:
        sorted_V[top_k:] = -torch.inf
    probabilities_V = torch.softmax(sorted_V, 0)
    if top_p is not None:
        before_V = probabilities_V.cumsum(0) - probabilities_V
        probabilities_V[before_V >= top_p] = 0
    probabilities_V = probabilities_V / probabilities_V.sum()
    return torch.empty_like(probabilities_V).scatter_(0, order_V, probabilities_V)


def _check(prompt_T: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> None:
    assert prompt_T.dim() == 1, prompt_T.shape
    if not len(prompt_T):
        raise UsageError("the prompt is empty; give at least one character to continue")
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"temperature is {temperature}; it must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k is {top_k}; it must be 1 or more (leave it out for no limit)")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p is {top_p}; it must be above 0 and at most 1")


@contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
