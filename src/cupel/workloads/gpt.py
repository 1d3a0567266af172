"""The GPT workload: a model, standard or wave, that learns the next token of a text.

Composition only: the corpus is `cupel.data`, models and objectives are `cupel.models`. Importing
this file does not import torch; `build` does. Evaluations are cross-entropy whatever is minimised,
so that models with different objectives can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from cupel import registry
from cupel.errors import UsageError
from cupel.randomness import Streams
from cupel.workloads.settings import GPTSettings, SampleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from cupel.data.batches import Batches
    from cupel.data.tokenizer import Tokenizer
    from cupel.data.tokens import TokenSet
    from cupel.models.language import LanguageModel

Batch = tuple["Tensor", "Tensor"]
TOKENIZER = "tokenizer.json"


class GPTWorkload:
    """Next-token prediction. Batches are random windows, a pure function of (seed, step)."""

    Settings = GPTSettings
    unit = "tokens"

    def __init__(
        self, settings: GPTSettings, *, model: Any, tokens: TokenSet, batches: Batches, seed: int
    ) -> None:
        self.settings, self.model, self.tokens, self._batches = settings, model, tokens, batches
        self._seed = seed
        make_objective = registry.resolve("objective", settings.objective.kind)
        self._objective = make_objective(
            settings.objective,
            vocabulary=model.settings.vocabulary,
            key=Streams(seed).key("objective"),
        )
        # A wave model's share of the wave embedding moves by a schedule that counts updates.
        self._ratio = model.ratio_schedule() if hasattr(model, "ratio_schedule") else None
        self.units_per_step = settings.data.batch * settings.model.block
        data = settings.data
        self.val_name = f"val-{data.val_batches}x{data.val_batch}x{settings.model.block}"
        self._fixed = batches.fixed(self.val_name, count=data.val_batches, batch=data.val_batch)

    @classmethod
    def build(cls, settings: GPTSettings, *, seed: int) -> Self:
        """Corpus, tokens and a freshly initialised model, on the CPU."""
        import torch

        from cupel.data.batches import Batches
        from cupel.data.tokens import load_tokens

        tokens = load_tokens(settings.data)
        torch.default_generator.manual_seed(Streams(seed).key("init"))
        chosen = sized(settings.model, tokens.vocabulary)
        model = registry.resolve("model", chosen.kind)(chosen, **_beside(chosen, tokens))
        batches = Batches(tokens, block=settings.model.block, batch=settings.data.batch, seed=seed)
        return cls(settings, model=model, tokens=tokens, batches=batches, seed=seed)

    def stateful(self) -> dict[str, Any]:
        """What changes or was drawn besides the model, as far as this run has it."""
        parts: dict[str, Any] = {}
        if self._objective.state_dict():
            parts["objective"] = self._objective
        if self._ratio is not None:
            parts["wave_ratio"] = self._ratio
        return parts

    def after_update(self, *, steps: int) -> Mapping[str, Any]:
        """Move the wave ratio along its schedule, if the model has one."""
        return {} if self._ratio is None else {"wave_ratio": self._ratio.step(steps)}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """Inputs and targets, each (B, T) of int64."""
        import torch

        x_BT, y_BT = self._batches.batch(step, part=part)
        return torch.from_numpy(x_BT), torch.from_numpy(y_BT)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """The objective's mean in nats a token, and its parts."""
        loss, numbers = self._objective.to(batch[0].device)(self.model, *batch)
        return loss, numbers

    def evaluate(self) -> dict[str, float]:
        """Mean cross-entropy over the fixed validation set, in nats a token."""
        import torch

        device = next(self.model.parameters()).device
        total = 0.0
        for x_BT, y_BT in self._fixed:
            batch = (torch.from_numpy(x_BT).to(device), torch.from_numpy(y_BT).to(device))
            total += float(self.model(*batch)[1])
        return {"val_loss": total / len(self._fixed)}

    def describe(self) -> dict[str, Any]:
        """What the record keeps about the data: hashes, sizes, entropies, the validation set."""
        return {**self.tokens.describe(), "validation": self.val_name}

    def notes(self) -> tuple[str, ...]:
        """Sentences about the data that the user should see."""
        return self.tokens.notes

    def files(self) -> dict[str, dict[str, Any]]:
        """Files for the run folder: the tokenizer, so that a run can be sampled from alone."""
        return {TOKENIZER: self.tokens.tokenizer_state()}

    def references(self) -> dict[str, float]:
        """Lines to hold a loss against, in nats a token: entropies of the corpus."""
        from cupel.data.entropy import entropies

        return entropies(self.tokens.train, vocabulary=self.tokens.vocabulary)

    def samples(self) -> list[dict[str, str]]:
        """A text by the model and the prompt it continues; equal for equal weights and seed."""
        chosen = self.settings.sample
        ids = continue_text(self.model, self.tokens.tokenizer, chosen, seed=self._seed)
        return [{"prompt": chosen.prompt, "text": self.tokens.decode(ids)}]


def continue_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    chosen: SampleSettings,
    *,
    seed: int,
    on_token: Callable[[int], None] | None = None,
) -> list[int]:
    import torch

    from cupel.models.gpt.generate import generate

    return generate(
        model,
        torch.tensor(tokenizer.encode(chosen.prompt), dtype=torch.int64),
        tokens=chosen.tokens,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        key=Streams(seed).key("sample"),
        on_token=on_token,
    )


def _beside(chosen: Any, tokens: TokenSet) -> dict[str, Any]:
    """What a model is made with beside its settings, where they ask: its tokens' ranks."""
    if not getattr(chosen, "needs_ranks", False):
        return {}
    import numpy as np
    import torch

    counts_V = np.bincount(tokens.train, minlength=chosen.vocabulary)
    order_V = np.argsort(-counts_V, kind="stable")
    ranks_V = torch.empty(len(order_V), dtype=torch.int64)
    ranks_V[torch.from_numpy(order_V)] = torch.arange(len(order_V))
    return {"ranks_V": ranks_V}


def sized(settings: Any, tokens: int) -> Any:
    """The model's settings with the vocabulary filled in: as set, else as many as tokens."""
    asked = settings.vocabulary
    if asked is not None and asked < tokens:
        raise UsageError(
            f"model.vocabulary is {asked}, but the data has {tokens} tokens; leave it out, or "
            f"set it to {tokens} or more"
        )
    return settings.model_copy(update={"vocabulary": asked or tokens})
