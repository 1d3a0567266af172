"""The size and shape of a ResNet. Imports no torch, so that recipes are checked without it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cupel.config import Settings

_CHANNELS = 8  # every convolution's output is a multiple of it


class ResNetModelSettings(Settings):
    """A ResNet for small images; the defaults are a tiny one of 5,122 parameters, for a CPU.

    ResNet-18 in its form for CIFAR is `stages: [64, 128, 256, 512]`, `blocks: 2`.
    """

    kind: Literal["resnet"] = Field("resnet", description="which model")
    stages: tuple[Annotated[int, Field(ge=_CHANNELS)], ...] = Field(
        (8, 16),
        description="channels of each stage, multiples of 8; every stage after the first halves "
        "height and width",
    )
    blocks: int = Field(1, ge=1, description="residual blocks a stage, two convolutions each")
    norm: Literal["batch", "none"] = Field(
        "batch",
        description="batch: batch normalisation after every convolution; none: a bias instead",
    )
    width_multiplier: float = Field(
        1.0,
        gt=0,
        description="what the channels of all stages are multiplied with, then rounded to the "
        "nearest multiple of 8, and 8 at least",
    )
    channels_in: int | None = Field(
        None, ge=1, description="channels of an image; null for as many as the data has"
    )
    classes: int | None = Field(
        None, ge=2, description="number of classes; null for as many as the data has"
    )

    # A rule of its own rather than `multiple_of`, so that the nearest width can be told.
    @field_validator("stages")
    @classmethod
    def _are_multiples_of_8(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if not stages:
            raise ValueError("there are none; give one or more, as [8, 16]")
        for channels in stages:
            if channels % _CHANNELS:
                raise ValueError(
                    f"{channels} is not a multiple of {_CHANNELS}; the nearest that is: "
                    f"{_rounded(channels)}"
                )
        return stages

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage as they are built, the multiplier applied."""
        return tuple(_rounded(channels * self.width_multiplier) for channels in self.stages)


def _rounded(channels: float) -> int:
    """max(8, 8·⌊(c + 4) / 8⌋): the nearest multiple of 8, the larger of two that are as near."""
    return max(_CHANNELS, _CHANNELS * math.floor((channels + _CHANNELS / 2) / _CHANNELS))
