"""The GPT workload: a GPT that learns the next token of a text.

Composition only: the corpus is `cupel.data`, the model `cupel.models.gpt`. Importing this file
does not import torch; `build` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from cupel.errors import UsageError
from cupel.models.gpt.settings import GPTModelSettings
from cupel.randomness import Streams
from cupel.workloads.settings import GPTSettings, SampleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from cupel.data.batches import Batches
    from cupel.data.tokenizer import Tokenizer
    from cupel.data.tokens import TokenSet
    from cupel.models.gpt.model import GPT

Batch = tuple["Tensor", "Tensor"]
TOKENIZER = "tokenizer.json"


class GPTWorkload:
    """Next-token prediction. Batches are random windows, a pure function of (seed, step)."""

    Settings = GPTSettings
    unit = "tokens"

    def __init__(
        self, settings: GPTSettings, *, model: GPT, tokens: TokenSet, batches: Batches, seed: int
    ) -> None:
        self.settings, self.model, self.tokens, self._batches = settings, model, tokens, batches
        self._seed = seed
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
        from cupel.models.gpt.model import GPT

        tokens = load_tokens(settings.data)
        torch.default_generator.manual_seed(Streams(seed).key("init"))
        model = GPT(sized(settings.model, tokens.vocabulary))
        batches = Batches(tokens, block=settings.model.block, batch=settings.data.batch, seed=seed)
        return cls(settings, model=model, tokens=tokens, batches=batches, seed=seed)

    def stateful(self) -> dict[str, Any]:
        """Nothing besides the model changes while training."""
        return {}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """Inputs and targets, each (B, T) of int64."""
        import torch

        x_BT, y_BT = self._batches.batch(step, part=part)
        return torch.from_numpy(x_BT), torch.from_numpy(y_BT)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Mean cross-entropy in nats a token."""
        _, loss = self.model(*batch)
        return loss, {}

    def evaluate(self) -> dict[str, float]:
        """Mean cross-entropy over the fixed validation set, in nats a token."""
        import torch

        device = next(self.model.parameters()).device
        total = 0.0
        for x_BT, y_BT in self._fixed:
            batch = (torch.from_numpy(x_BT).to(device), torch.from_numpy(y_BT).to(device))
            total += float(self.loss(batch)[0])
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
    model: GPT,
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


def sized(settings: GPTModelSettings, tokens: int) -> GPTModelSettings:
    """The model's settings with the vocabulary filled in: as set, else as many as tokens."""
    asked = settings.vocabulary
    if asked is not None and asked < tokens:
        raise UsageError(
            f"model.vocabulary is {asked}, but the data has {tokens} tokens; leave it out, or "
            f"set it to {tokens} or more"
        )
    return settings.model_copy(update={"vocabulary": asked or tokens})
