"""The size and shape of a GPT. Imports no torch, so that recipes are checked without it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cupel.config import Settings


class GPTModelSettings(Settings):
    """A GPT-2-shaped model; the defaults are a tiny one of 0.8 M parameters, for a CPU."""

    kind: Literal["gpt"] = Field("gpt", description="which model")
    layers: int = Field(4, ge=1, description="transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads a block")
    width: int = Field(128, ge=1, description="size of the residual stream, a multiple of heads")
    hidden: int | None = Field(
        None, ge=1, description="width inside the MLP; null for four times the width"
    )
    block: int = Field(64, ge=1, description="longest context in tokens")
    vocabulary: int | None = Field(
        None, ge=1, description="number of token ids; null for as many as the data has"
    )
    bias: bool = Field(True, description="biases in linear layers and layer norms, as in GPT-2")
    tied: bool = Field(False, description="one matrix for token embedding and output head")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="on embeddings, attention weights and both residual branches"
    )
    activation_checkpointing: bool = Field(
        False,
        description="keep only each block's input and compute the rest again in the backward "
        "pass: less memory for about a third more compute",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GPTModelSettings:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; "
                f"the nearest that is: {self._nearest_width()}"
            )
        return self

    def _nearest_width(self) -> int:
        return max(1, round(self.width / self.heads)) * self.heads


class CrossEntropySettings(Settings):
    """Mean cross-entropy of the next token, in nats."""

    kind: Literal["cross_entropy"] = Field("cross_entropy", description="which objective")
