"""The GPT workload: a GPT that learns the next token of a text.

Composition only: the corpus is `cupel.data`, the model `cupel.models.gpt`. Importing this file
does not import torch; `build` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cupel.checkpoint.settings import CheckpointSettings
from cupel.config import from_config
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    RecordError,
    TrainingFailed,
    UsageError,
)
from cupel.models.gpt.settings import GPTModelSettings
from cupel.randomness import Streams
from cupel.record import checkpoints
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.wording import worded
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
        model = GPT(_sized(settings.model, tokens.vocabulary))
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
        ids = _continue(self.model, self.tokens.tokenizer, chosen, seed=self._seed)
        return [{"prompt": chosen.prompt, "text": self.tokens.decode(ids)}]


def write_text(
    run_dir: Path,
    changes: Mapping[str, Any],
    *,
    seed: int,
    step: int | None = None,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Write text with the model of a run, telling each piece as it comes, the prompt first.

    Uses the run folder alone, not the corpus: the checkpoint of `step`, else the best one, else
    the newest; one that is damaged is passed over with a warning, unless it is that of `step`.
    `changes` are fields of `SampleSettings` that replace the recipe's.
    Raises UsageError for a run of another workload or a change that does not fit, CheckpointError
    without a checkpoint, TrainingFailed when the model gives no probabilities.
    """
    from cupel.data.tokenizer import Tokenizer
    from cupel.models.gpt.model import GPT

    record = RunRecord(run_dir)
    recipe = from_config(record.config, where=str(run_dir / "config.json"))
    settings = recipe.workload_settings
    if not isinstance(settings, GPTSettings):
        raise UsageError(f"run {run_dir.name} trained '{recipe.workload}', which writes no text")
    chosen = _changed(settings.sample, changes)
    tokenizer = Tokenizer.from_state(read_json(run_dir / TOKENIZER))
    model = GPT(_sized(settings.model, tokenizer.vocabulary))
    rule = recipe.section("checkpoint", CheckpointSettings).best
    loaded, state = _model_state(run_dir, step, rule, warn)
    model.load_state_dict(state)
    written: list[int] = []
    shown = ""

    def on_token(token: int) -> None:
        nonlocal shown
        written.append(token)
        text = tokenizer.decode(written).rstrip("\ufffd")  # a character's bytes may be incomplete
        tell((chosen.prompt if len(written) == 1 else "") + text[len(shown) :])
        shown = text

    try:
        _continue(model, tokenizer, chosen, seed=seed, on_token=on_token)
    except TrainingFailed as failure:
        raise TrainingFailed(f"run {run_dir.name}, step {loaded}: {failure}") from failure


def _continue(
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


def _sized(settings: GPTModelSettings, tokens: int) -> GPTModelSettings:
    """The model's settings with the vocabulary filled in: as set, else as many as tokens."""
    asked = settings.vocabulary
    if asked is not None and asked < tokens:
        raise UsageError(
            f"model.vocabulary is {asked}, but the data has {tokens} tokens; leave it out, or "
            f"set it to {tokens} or more"
        )
    return settings.model_copy(update={"vocabulary": asked or tokens})


def _changed(settings: SampleSettings, changes: Mapping[str, Any]) -> SampleSettings:
    """The settings with changes. Raises UsageError that says in one line what does not fit."""
    from pydantic import ValidationError

    prompt = str(changes.get("prompt", ""))
    if not prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise UsageError(f"prompt: {prompt!r} is not UTF-8 text")  # bytes that the shell gave
    try:
        return SampleSettings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        wrong = [worded(one, str(one["loc"][0])) for one in error.errors(include_url=False)]
        raise UsageError("; ".join(wrong)) from None


def _model_state(
    run_dir: Path, step: int | None, rule: str | None, warn: Callable[[str], None]
) -> tuple[int, dict[str, Any]]:
    """Step and state of the model in the checkpoint of a step; else in the best by the metric
    `rule` that is intact, else in the newest that is."""
    from cupel.checkpoint import folder

    def load(step: int) -> dict[str, Any]:
        state: dict[str, Any] = folder.load_part(checkpoints.step_dir(run_dir, step), "model")
        return state

    known = checkpoints.list_steps(run_dir)
    listed = f"there are: {', '.join(map(str, known))}"
    if not known:
        raise CheckpointError(f"run {run_dir.name} has no checkpoint yet")
    if step is not None and step not in known:
        raise UsageError(f"run {run_dir.name} has no checkpoint of step {step} ({listed})")
    if step is not None:
        try:
            return step, load(step)
        except CheckpointDamaged as damage:
            raise UsageError(f"{damage}; take another step ({listed})") from damage
    for candidate in _by_preference(run_dir, known, rule, warn):
        try:
            return candidate, load(candidate)
        except CheckpointDamaged as damage:
            warn(f"the checkpoint of step {candidate} is passed over: {damage}")
    raise CheckpointDamaged(f"run {run_dir.name} has no intact checkpoint ({listed})")


def _by_preference(
    run_dir: Path, known: list[int], rule: str | None, warn: Callable[[str], None]
) -> list[int]:
    """The steps that there are, the best first, then the newest."""
    newest = known[::-1]
    try:
        best = checkpoints.read_pointer(run_dir, f"best-{rule}") if rule is not None else None
    except RecordError as damage:
        warn(str(damage))
        return newest
    if best is None:
        return newest
    if best["step"] not in known:
        warn(f"the best checkpoint, of step {best['step']}, is gone; taking the newest")
        return newest
    return [best["step"], *(step for step in newest if step != best["step"])]
