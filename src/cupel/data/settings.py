"""What text to train on, and how it becomes tokens. Imports no numpy and no torch."""

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
