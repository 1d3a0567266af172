"""The size, shape and readings of a wave GPT, its optimizers and its losses. Imports no torch.

Where the original project's code and prose differ, both readings have a name here; docs/wave.md
says which is which. A value that nothing reads beside the others is refused, unless it is the
default; a weight, share or strength of 0 may leave others idle.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cupel.config import Settings
from cupel.models.gpt.settings import GPTModelSettings

Below1 = Annotated[float, Field(ge=0.0, lt=1.0)]


class PureWaveSettings(Settings):
    """What `attention: pure` is made of: a kernel on sines, with no softmax."""

    kernel: Literal["elu", "sigmoid", "exp"] = Field(
        "elu", description="feature map on the sines: elu(x) + 1, sigmoid(x) or exp(x)"
    )
    form: Literal["linear", "quadratic"] = Field(
        "linear", description="linear in time and memory, or by the full matrix of weights"
    )
    normaliser: Literal["sqrt", "sum"] = Field(
        "sqrt",
        description="what weights are divided by: the root of the number of visible positions, or "
        "their own sum",
    )


class WaveModelSettings(Settings):
    """A wave GPT: wave-packet embedding, attention by interference."""

    kind: Literal["wave"] = Field("wave", description="which model")
    layers: int = Field(4, ge=1, description="blocks")
    heads: int = Field(4, ge=1, description="attention heads a block")
    width: int = Field(128, ge=1, description="size of the residual stream, a multiple of heads")
    waves: int = Field(
        32, ge=1, description="waves of a token's packet, and of a head's queries and keys (W)"
    )
    harmonics: int = Field(
        4,
        ge=1,
        description="integer multiples of each wave's frequency (H), for embedding: packet only; "
        "physics has half of width",
    )
    block: int = Field(64, ge=1, description="longest context in tokens")
    vocabulary: int | None = Field(
        None, ge=1, description="number of token ids; null for as many as the data has"
    )
    bias: bool = Field(True, description="biases in linear layers and layer norms")
    head_bias: bool = Field(False, description="a bias in the output head")
    input_norm: bool = Field(
        False, description="one more layer norm between the embedding and the first block"
    )
    dropout: Below1 = Field(
        0.0,
        description="on embeddings, attention weights and both residual branches; the linear form "
        "of attention: pure never builds its weights, so there it is on the other three",
    )
    embedding: Literal["packet", "physics"] = Field(
        "packet",
        description="packet: learned frequencies, phases, amplitudes; physics: frequencies from "
        "the token's rank, amplitudes 1/n, learned phases only",
    )
    attention: Literal["interference", "pure", "physics"] = Field(
        "interference",
        description="interference: softmax of cosines over a learned temperature; pure: a kernel "
        "of sines without softmax; physics: intensity of two superposed waves",
    )
    pure: PureWaveSettings = Field(PureWaveSettings(), description="for attention: pure only")
    mlp: Literal["gelu_sine", "sine", "gelu"] = Field(
        "gelu_sine",
        description="activation: gelu(x) + 0.1·sin(x), as the original's code has it; "
        "sin(x) + 0.1·x, as its prose has it; or plain gelu(x)",
    )
    ratio: Literal["scheduled", "free", "decay"] = Field(
        "scheduled",
        description="r, the share of the wave embedding (for embedding: physics, of the lookup "
        "table): pulled from its start towards 0.9; left to the optimizer; or falling from 1 to 0",
    )
    ratio_steps: int = Field(3000, ge=1, description="for ratio: decay, steps until it is 0")

    @property
    def needs_ranks(self) -> bool:
        """Whether the model is made with its tokens' ranks: see cupel.models.language."""
        return self.embedding == "physics"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            nearest = max(1, round(self.width / self.heads)) * self.heads
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; "
                f"the nearest that is: {nearest}"
            )
        if self.embedding == "physics" and self.width % 2:
            raise ValueError(
                f"width {self.width} is odd; embedding: physics has a sine and a cosine for each "
                "harmonic, so it needs an even width"
            )
        if self.embedding == "physics" and self.harmonics != 4:
            raise ValueError(
                f"harmonics is {self.harmonics}, but embedding is physics, whose harmonics are "
                "half of width; set harmonics: 4 (the default), or embedding: packet"
            )
        if self.attention != "pure" and self.pure != PureWaveSettings():
            raise ValueError(
                f"pure is set, but attention is {self.attention}; remove it, or set attention: pure"
            )
        if self.ratio != "decay" and self.ratio_steps != 3000:
            raise ValueError(
                f"ratio_steps is set, but ratio is {self.ratio}; remove it, or set ratio: decay"
            )
        return self


class RGDSettings(Settings):
    """Resonant gradient descent: AdamW whose update is damped where weights do not resonate."""

    kind: Literal["rgd"] = Field("rgd", description="which optimizer")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[Below1, Below1] = Field((0.9, 0.999), description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(
        0.01, ge=0, description="decoupled decay, on tensors of two or more dimensions only"
    )
    strength: float = Field(
        0.3, ge=0, le=1, description="how much of the update is filtered; 0 is AdamW, bit for bit"
    )
    warmup: int = Field(500, ge=0, description="updates over which the strength grows from 0")
    resonance_eps: float = Field(1e-8, gt=0, description="added under the root of the resonance")
    fused: bool | None = Field(
        None, description="AdamW's fused kernel; null takes it where it exists"
    )


class WaveNativeSettings(Settings):
    """Wave-native optimizer: damped momentum on gradients projected onto the weights' modes."""

    kind: Literal["wave_native"] = Field("wave_native", description="which optimizer")
    lr: float = Field(1e-2, gt=0, description="peak learning rate")
    damping: float = Field(0.1, ge=0, le=1, description="share of the momentum lost a step (γ)")
    projected: float = Field(
        0.7, ge=0, le=1, description="share of the gradient that is projected onto the modes"
    )
    modes: float = Field(
        0.25, gt=0, le=1, description="share of a matrix's singular vectors that are its modes"
    )
    every: int = Field(50, ge=1, description="updates between computations of the modes")
    weight_decay: float = Field(
        0.0, ge=0, description="decoupled decay, on tensors of two or more dimensions only"
    )


class QFESettings(Settings):
    """Cross-entropy plus `weight` times the loss of phase coherence along the sequence."""

    kind: Literal["qfe"] = Field("qfe", description="which objective")
    weight: float = Field(0.05, ge=0, description="λ; 0 is cross-entropy, bit for bit")
    temperature: float = Field(1.0, gt=0, description="of the softmax inside the coherence")
    threshold: float = Field(
        0.01, ge=0, description="frequencies count where both amplitudes are above this (τ)"
    )
    projection: int = Field(
        256, ge=1, description="vocabularies above this are projected to as many dimensions"
    )


class CoherenceSettings(Settings):
    """Cross-entropy plus penalties on a wave model's phases, norms and amplitudes."""

    kind: Literal["coherence"] = Field("coherence", description="which objective")
    phase_variance: float = Field(0.01, ge=0, description="weight of the phases' variance")
    norm_drift: float = Field(
        0.01, ge=0, description="weight of the drift of the residual stream's norm over layers"
    )
    harmonic_deviation: float = Field(
        0.01,
        ge=0,
        description="weight of the amplitudes' deviation from 1/n, for learned amplitudes: "
        "those of embedding: packet",
    )

    def check_model(self, model: Any) -> None:
        """Raise ValueError when the model of these settings leaves a penalty nothing to act on.

        Of a model of one's own, whatever it derives from, nothing is known here: the loss refuses
        it at its first call if it has no waves.
        """
        if type(model) is GPTModelSettings:
            raise ValueError(
                "kind: coherence measures waves, and model.kind=gpt has none; type "
                "model=wave-tiny or objective.kind=cross_entropy"
            )
        if type(model) is WaveModelSettings:
            for name, reason in _without_effect(model).items():
                value = getattr(self, name)
                if value not in (0, CoherenceSettings.model_fields[name].default):
                    raise ValueError(
                        f"{name} is {value}, but {reason}; set {name}: 0, or leave it out"
                    )


def _without_effect(model: WaveModelSettings) -> dict[str, str]:
    """The penalties that move nothing of this model, each with the reason."""
    reasons = {}
    if model.embedding == "physics":
        reasons["harmonic_deviation"] = "amplitudes of embedding: physics are 1/n and not learned"
        if model.width == 2:
            reasons["phase_variance"] = "each token has one phase (half of model.width, 2)"
    else:
        if model.harmonics == 1:
            reasons["harmonic_deviation"] = "model.harmonics is 1, with nothing to deviate"
        if model.waves == 1:
            reasons["phase_variance"] = "each token has one phase (model.waves is 1)"
    return reasons
