"""Text from the folder of a finished or unfinished run, without its corpus: `write_text`.

Importing this file does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cupel import registry
from cupel.checkpoint.settings import CheckpointSettings
from cupel.config import from_config
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    RecordError,
    TrainingFailed,
    UsageError,
)
from cupel.record import checkpoints
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.wording import worded
from cupel.workloads.gpt import TOKENIZER, continue_text, sized
from cupel.workloads.settings import GPTSettings, SampleSettings


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
    from cupel.models.language import LanguageModel

    record = RunRecord(run_dir)
    recipe = from_config(record.config, where=str(run_dir / "config.json"))
    settings = recipe.workload_settings
    if not isinstance(settings, GPTSettings):
        raise UsageError(f"run {run_dir.name} trained '{recipe.workload}', which writes no text")
    chosen = _changed(settings.sample, changes)
    tokenizer = Tokenizer.from_state(read_json(run_dir / TOKENIZER))
    chosen_model = sized(settings.model, tokenizer.vocabulary)
    model: LanguageModel = registry.resolve("model", chosen_model.kind)(chosen_model)
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
        continue_text(model, tokenizer, chosen, seed=seed, on_token=on_token)
    except TrainingFailed as failure:
        raise TrainingFailed(f"run {run_dir.name}, step {loaded}: {failure}") from failure


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
