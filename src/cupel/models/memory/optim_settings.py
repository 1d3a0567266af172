"""What can be set of Nested Learning's optimizers. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cupel.config import Settings

Below1 = Annotated[float, Field(ge=0, lt=1)]


class DGDSettings(Settings):
    """Delta gradient descent: each step also takes out what weights said of its inputs before."""

    kind: Literal["dgd"] = Field("dgd", description="which optimizer")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    form: Literal["proximal", "explicit", "unit"] = Field(
        "proximal",
        description="proximal: the exact minimiser of equation 56 for a batch; explicit: one "
        "step with eta' for the mean squared norm of the inputs; unit: erases without a step size "
        "(equation 28 of the NeurIPS version), for inputs of norm one",
    )


class DeltaMomentumSettings(Settings):
    """Momentum that forgets along the gradient, as the delta rule does."""

    kind: Literal["delta_momentum"] = Field("delta_momentum", description="which optimizer")
    lr: float = Field(0.01, gt=0, description="peak learning rate")
    momentum: float = Field(0.9, ge=0, le=1, description="alpha: what is left of the momentum")
    keys: Literal["rows", "matrix"] = Field(
        "rows",
        description="along what a row of the momentum forgets: its own row of the gradient, or all",
    )
    normalised: bool = Field(
        False, description="gradients have norm one where they erase; the paper has none of that"
    )
    precondition: Literal["none", "rms"] = Field(
        "none", description="P: the identity, or one over the root of the mean squared gradient"
    )
    beta2: Below1 = Field(0.999, description="decay of that mean")
    eps: float = Field(1e-8, gt=0, description="added to that root")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay, on matrices only")


class DMGDSettings(Settings):
    """Deep momentum: a small network that is trained to answer gradients with descent."""

    kind: Literal["dmgd"] = Field("dmgd", description="which optimizer")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    inner_lr: float = Field(0.1, gt=0, description="the step size of the momentum's own weights")
    momentum: float = Field(0.9, ge=0, le=1, description="alpha: what is left of those weights")
    depth: int = Field(2, ge=1, le=4, description="layers of the momentum; 1 is a matrix")
    hidden: int = Field(64, ge=1, description="width of its hidden layers")
    activation: Literal["silu", "gelu", "relu", "tanh", "identity"] = Field(
        "tanh", description="between its layers"
    )
    objective: Literal["dot", "l2"] = Field(
        "dot",
        description="what its answer to a gradient u is trained to: dot, against u; l2, to be -u",
    )
    normalised: bool = Field(
        True,
        description="gradients are shown with rows of norm one on average, and answers scaled back",
    )
    seed: int = Field(0, ge=0, description="of its first weights")


class M3Settings(Settings):
    """Multi-scale momentum with orthogonal updates."""

    kind: Literal["m3"] = Field("m3", description="which optimizer")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Below1, Below1, Below1] = Field(
        (0.9, 0.999, 0.9),
        description="of the fast momentum, the second moment, the slow momentum: weights of what "
        "is new with mode paper, of what was with mode ema",
    )
    every: int = Field(10, ge=1, description="updates between two of the slow momentum")
    slow: float = Field(1.0, ge=0, description="alpha: how much the slow momentum counts")
    mode: Literal["paper", "ema"] = Field(
        "paper",
        description="paper: moments are running sums without any decay, as printed; ema: means "
        "that forget, without bias",
    )
    scale: Literal["printed", "relative"] = Field(
        "printed",
        description="printed: updates are divided by the root of the second moment; relative: of "
        "that over its mean in the tensor, so that a loss times two makes the same update",
    )
    steps: int = Field(5, ge=1, description="Newton-Schulz iterations")
    polynomial: Literal["quintic", "cubic"] = Field(
        "quintic",
        description="quintic: Muon's, singular values near one in 5 steps; cubic: to one "
        "exactly, slowly",
    )
    eps: float = Field(1e-8, gt=0, description="added to the root")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay, on matrices only")
