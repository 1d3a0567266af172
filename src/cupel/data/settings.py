"""What to train on: text and how it becomes tokens, or images. Imports no numpy, no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cupel.config import INERT, Settings

DEFAULT_VOCABULARY = 512


class TextDataSettings(Settings):
    """A corpus and its tokens: the `data` section of a recipe for text."""

    path: str | None = Field(
        None,
        min_length=1,
        description="a text file, or a folder whose text files are read recursively; "
        "null for the source of Python's own standard library (12 MB, nothing to download)",
    )
    tokens: Literal["byte", "bpe"] = Field(
        "byte",
        description="byte: one token a byte; bpe: byte-level BPE trained on the training split",
    )
    vocabulary: int = Field(
        DEFAULT_VOCABULARY,
        ge=257,
        le=65536,
        description="how many tokens to train, for bpe only (byte tokens are always 256)",
    )
    val_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the bytes to validate on: whole files (of a single file: its end)",
    )
    cache: str | None = Field(
        None,
        description="folder for token files; null for $CUPEL_CACHE, else ~/.cache/cupel",
        json_schema_extra=INERT,
    )
    max_bytes: int | None = Field(
        None,
        ge=1,
        description="keep whole files up to this size (of one file: its first bytes), "
        "for quick runs; null for all",
    )

    @model_validator(mode="after")
    def _vocabulary_is_for_bpe(self) -> TextDataSettings:
        if self.tokens == "byte" and self.vocabulary != DEFAULT_VOCABULARY:
            raise ValueError(
                f"vocabulary is {self.vocabulary}, but byte tokens are always 256; "
                "remove it, or set tokens: bpe"
            )
        return self


class ImageDataSettings(Settings):
    """A set of labelled images, and which of them are for validation."""

    name: Literal["digits"] = Field(
        "digits", description="digits: 1,797 handwritten ones of 8 × 8, from scikit-learn's files"
    )
    folds: int | None = Field(
        None, ge=2, description="parts for cross-validation; null for the fixed split, 4 to 1"
    )
    fold: int | None = Field(
        None, ge=0, description="which part is for validation, 0 to folds - 1; null with null folds"
    )
    augment: Literal["none"] = Field("none", description="how training images are varied")

    @model_validator(mode="after")
    def _fold_and_folds_go_together(self) -> ImageDataSettings:
        if self.folds is None and self.fold is not None:
            raise ValueError(
                f"fold is {self.fold}, but there are no folds; set folds: {max(5, self.fold + 1)}, "
                "or leave fold out for the fixed split"
            )
        if self.folds is not None and self.fold is None:
            raise ValueError(
                f"folds is {self.folds}, but no fold is chosen; set fold: 0 (to "
                f"{self.folds - 1}), or leave folds out for the fixed split"
            )
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError(
                f"fold is {self.fold}, but the {self.folds} folds are 0 to {self.folds - 1}"
            )
        return self
