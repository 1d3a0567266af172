"""What sampling and the GPT workload ask of a language model, standard or wave.

A model of your own that is named in a recipe as `model.kind: package.module:Object` gives it, too;
`Object(settings)` makes one, with every weight drawn from torch's global generator. Where its
settings have a true `needs_ranks`, one that is to be trained is made with `ranks_V=…` besides: each
id's rank by its count in the training text, 0 for the commonest, (V,) of int64. Ranks belong into a
buffer, since a model that only samples is made without them and loads its state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn


class LanguageModel(Protocol):
    """A causal model of tokens. `settings.block` is its longest context.

    A call takes ids (B, T) and perhaps targets (B, T), and returns logits (B, T, V) and the mean
    cross-entropy in nats, or None without targets. Where `caches` is true it also takes `cache`, a
    `models.gpt.model.KVCache`.
    """

    settings: Any
    caches: bool

    def __call__(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None, **given: Any
    ) -> tuple[Tensor, Tensor | None]: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def eval(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...
