"""Settings of the training loop. Importable without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cupel.config import Choice, Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Below1 = Annotated[float, Field(ge=0.0, lt=1.0)]


class AdamWSettings(Settings):
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101 v3, algorithm 2)."""

    kind: Literal["adamw"] = Field("adamw", description="which optimizer")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Below1, Below1] = Field((0.9, 0.99), description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(
        0.1, ge=0, description="decoupled decay, on tensors of two or more dimensions only"
    )
    fused: bool | None = Field(None, description="one fused kernel; null takes it where it exists")


class SGDSettings(Settings):
    """Stochastic gradient descent with (Nesterov) momentum."""

    kind: Literal["sgd"] = Field("sgd", description="which optimizer")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    momentum: Below1 = Field(0.9, description="momentum")
    nesterov: bool = Field(False, description="Nesterov's form of momentum")
    weight_decay: float = Field(
        0.0, ge=0, description="L2 decay, on tensors of two or more dimensions only"
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class CosineSettings(Settings):
    """Linear warm-up, then half a cosine down to `floor` times the peak at the last step."""

    kind: Literal["cosine"] = Field("cosine", description="which schedule")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    floor: Fraction = Field(0.0, description="learning rate at the end, as a part of the peak")


class LinearSettings(Settings):
    """Linear warm-up, then a straight line down to `floor` times the peak at the last step."""

    kind: Literal["linear"] = Field("linear", description="which schedule")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    floor: Fraction = Field(0.0, description="learning rate at the end, as a part of the peak")


class StepSettings(Settings):
    """Linear warm-up, then the learning rate times `factor` at every milestone."""

    kind: Literal["step"] = Field("step", description="which schedule")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    milestones: tuple[int, ...] = Field((), description="steps at which the rate drops")
    factor: Fraction = Field(0.1, description="what the rate is multiplied with at a milestone")


class ConstantSettings(Settings):
    """Linear warm-up, then no change."""

    kind: Literal["constant"] = Field("constant", description="which schedule")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")


class StoppingSettings(Settings):
    """Stop when the validation metric no longer improves."""

    patience: int = Field(8, ge=1, description="evaluations without improvement before stopping")
    min_delta: float = Field(0.0, ge=0, description="what counts as an improvement, in nats")


class TrainSettings(Settings):
    """One training: how many updates, how each is made, when it is evaluated."""

    steps: int = Field(1000, ge=1, description="updates of the parameters")
    accumulate: int = Field(
        1, ge=1, description="micro-batches a step; they share the global batch evenly"
    )
    optimizer: Annotated[Any, Choice("optimizer")] = Field(
        AdamWSettings(), description="adamw, sgd or your own package.module:Object"
    )
    schedule: Annotated[Any, Choice("schedule")] = Field(
        CosineSettings(), description="cosine, linear, step, constant or your own"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: any")
    ema: Below1 | None = Field(
        None, description="decay of an exponential moving average of the weights; null: none"
    )
    stopping: StoppingSettings | None = Field(None, description="early stopping; null: none")
    evaluate_every: int = Field(100, ge=1, description="steps between evaluations")
    log_every: int = Field(1, ge=1, description="steps between lines of metrics in the record")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of forward and backward; parameters stay fp32"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …; auto takes a GPU if any")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; null leaves PyTorch's own choice"
    )
    nonfinite: Literal["stop", "continue"] = Field(
        "stop", description="what to do when a loss that is logged is NaN or infinite"
    )
    deterministic: bool = Field(
        False, description="ask torch for deterministic algorithms only (slower on a GPU)"
    )
