"""Settings of the built-in workloads. Importable without torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from cupel.config import Choice, Settings
from cupel.data.settings import ImageDataSettings, TextDataSettings
from cupel.data.tasks.settings import MqarSettings, TaskSettings
from cupel.models.gpt.settings import CrossEntropySettings, GPTModelSettings
from cupel.models.memory.settings import MemoryModelSettings
from cupel.models.resnet.settings import ResNetModelSettings


class GPTDataSettings(TextDataSettings):
    """The corpus, and how batches are cut from it."""

    batch: int = Field(12, ge=1, description="sequences an update, over all ranks and micro-steps")
    val_batches: int = Field(
        20, ge=1, description="batches of the fixed validation set, spread over the whole split"
    )
    val_batch: int = Field(32, ge=1, description="sequences in a validation batch")


class SampleSettings(Settings):
    """The text that a run writes at its end, and what `cupel sample` does by default."""

    prompt: str = Field("\n", description="what the text begins with")
    tokens: int = Field(300, ge=1, description="tokens to write")
    temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token always")
    top_k: int | None = Field(None, ge=1, description="draw from the k likeliest only; null: all")
    top_p: float | None = Field(
        None, gt=0, le=1, description="draw from the likeliest that hold this mass; null: all"
    )


class GPTSettings(Settings):
    """A GPT on text: the sections `data`, `model`, `objective` and `sample` of its recipes."""

    data: GPTDataSettings = Field(GPTDataSettings(), description="corpus, tokens and batches")
    model: Annotated[Any, Choice("model", default="gpt")] = Field(
        GPTModelSettings(), description="gpt, wave, or your own: its kind and size"
    )
    objective: Annotated[Any, Choice("objective")] = Field(
        CrossEntropySettings(),
        description="what is minimised; evaluations are cross-entropy always",
    )
    sample: SampleSettings = Field(SampleSettings(), description="text written by the model")

    @field_validator("model")
    @classmethod
    def _reads_tokens(cls, model: Any) -> Any:
        return _with(model, ("block", "vocabulary"), workload="gpt", reads="tokens", known="gpt")

    @field_validator("objective")
    @classmethod
    def _fits_the_model(cls, objective: Any, info: ValidationInfo) -> Any:
        """An objective's settings may refuse a model's: `check_model(model)` raises ValueError."""
        if hasattr(objective, "check_model") and "model" in info.data:
            objective.check_model(info.data["model"])
        return objective

    # What a dry run shrinks besides the loop's own intervals.
    dry_run: ClassVar[dict[str, Any]] = {
        "data.val_batches": 1,
        "data.val_batch": 2,
        "sample.tokens": 16,
    }


class ImagesDataSettings(ImageDataSettings):
    """The images, and how many of them a step sees."""

    batch: int = Field(64, ge=1, description="images an update, over all ranks and micro-steps")


class ImagesSettings(Settings):
    """A classifier of images: the sections `data` and `model` of its recipes."""

    data: ImagesDataSettings = Field(ImagesDataSettings(), description="images, split and batches")
    model: Annotated[Any, Choice("model", default="resnet")] = Field(
        ResNetModelSettings(), description="resnet, or your own: its kind and size"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a target that is spread over all classes, in training only; "
        "evaluations are plain cross-entropy always",
    )

    @field_validator("model")
    @classmethod
    def _sees_images(cls, model: Any) -> Any:
        needed = ("channels_in", "classes")
        return _with(model, needed, workload="images", reads="images", known="resnet")

    # Nothing to shrink besides the loop's own intervals: an evaluation takes milliseconds.
    dry_run: ClassVar[dict[str, Any]] = {}


class MemoryWorkloadSettings(Settings):
    """A synthetic task: the sections `data` and `model` of its recipes."""

    data: TaskSettings = Field(MqarSettings(), description="which task, and how hard it is")
    model: Annotated[Any, Choice("model", default="memory")] = Field(
        MemoryModelSettings(), description="memory, gpt, wave, or your own: its kind and size"
    )
    batch: int = Field(32, ge=1, description="sequences an update, over all ranks and micro-steps")
    val_batches: int = Field(4, ge=1, description="batches of each evaluation set")
    val_batch: int = Field(64, ge=1, description="sequences in such a batch")

    @field_validator("model")
    @classmethod
    def _reads_tokens(cls, model: Any) -> Any:
        needed = ("block", "vocabulary")
        found = _with(model, needed, workload="memory", reads="tokens", known="memory")
        if getattr(found, "taught", False):
            raise ValueError(
                "hope.cms.signal teach shows levels the answers of a task while it is evaluated; "
                "set hope.cms.signal: local, or hope.cms.frequencies: [] for no levels"
            )
        return found

    # What a dry run shrinks besides the loop's own intervals.
    dry_run: ClassVar[dict[str, Any]] = {"val_batches": 1, "val_batch": 2}


def _with(model: Any, needed: tuple[str, ...], *, workload: str, reads: str, known: str) -> Any:
    """The model's settings, if they have what this workload fills in from its data."""
    missing = [name for name in needed if not hasattr(model, name)]
    if missing:
        raise ValueError(
            f"kind: {model.kind} does not read {reads}, which workload {workload} gives (its "
            f"settings have no {' and no '.join(missing)}); set kind: {known}, or your own"
        )
    return model
