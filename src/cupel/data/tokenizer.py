"""Text to token ids and back: bytes, or a byte-level BPE trained here on the corpus's own text.

Both are lossless, and both are restored from a small dict, so that sampling needs the run folder
and nothing else. BPE wants UTF-8; training it on 12 MB takes seconds, encoding as much about ten.
The package `tokenizers` is imported only where BPE is used.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cupel.data.corpus import Document
from cupel.errors import DataError, MissingDependency

Ids = NDArray[np.integer[Any]]

# `tokenizers` keeps about 100 bytes for each token that it encodes: 2 MB of text at once is enough.
_PIECE = 2**18
_PIECES_AT_ONCE = 8


class Tokenizer(ABC):
    """What both kinds offer. `vocabulary` is the number of ids; ids are 0 … vocabulary − 1."""

    vocabulary: int

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The narrowest type that holds every id."""
        return np.uint8 if self.vocabulary <= 256 else np.uint16

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 come out as U+FFFD."""

    @abstractmethod
    def encode_documents(self, documents: Iterable[Document]) -> Iterator[Ids]:
        """The ids of all documents, in order, as arrays to be joined."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """A JSON-able dict that `Tokenizer.from_state` turns into an equal tokenizer."""

    @staticmethod
    def from_state(state: dict[str, Any]) -> Tokenizer:
        """The tokenizer that `state()` described. Raises DataError for anything else."""
        kind = state.get("kind") if isinstance(state, dict) else None
        if kind == "byte":
            return ByteTokenizer()
        if kind == "bpe":
            return BPETokenizer.from_json(state.get("json", ""))
        raise DataError(
            f"a tokenizer of kind {kind!r} is unknown (there are: bpe, byte); "
            "it was written by a newer cupel, or the file is damaged"
        )


class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8: nothing to train, and bits per byte are exact."""

    vocabulary = 256

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of a text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes."""
        return bytes(ids).decode(errors="replace")

    def encode_documents(self, documents: Iterable[Document]) -> Iterator[Ids]:
        """The documents themselves, not copied."""
        for document in documents:
            yield np.frombuffer(document.content, dtype=np.uint8)

    def state(self) -> dict[str, Any]:
        """Only the kind."""
        return {"kind": "byte"}


class BPETokenizer(Tokenizer):
    """Byte-level BPE by Hugging Face's `tokenizers`, split as in GPT-2, without special tokens."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.vocabulary = inner.get_vocab_size()

    @classmethod
    def train(cls, documents: Iterable[Document], *, vocabulary: int) -> BPETokenizer:
        """Learn merges from documents.

        A short text may have fewer pairs to merge than asked for; `.vocabulary` is what came out.
        Raises MissingDependency, and DataError for a document that is not UTF-8.
        """
        tokenizers = _tokenizers()
        inner = tokenizers.Tokenizer(tokenizers.models.BPE())
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_pieces(documents), trainer)
        return cls(inner)

    @classmethod
    def from_json(cls, text: str) -> BPETokenizer:
        """From the JSON in `state()`. Raises MissingDependency, and DataError for garbage."""
        tokenizers = _tokenizers()
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the package raises nothing more precise
            raise DataError(f"the BPE tokenizer's JSON is damaged ({error}); restore it") from error

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._inner.encode(text).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def encode_documents(self, documents: Iterable[Document]) -> Iterator[Ids]:
        """The ids of documents, some pieces at a time; pieces are encoded in parallel."""
        pieces = _pieces(documents)
        while group := list(itertools.islice(pieces, _PIECES_AT_ONCE)):
            for encoding in self._inner.encode_batch_fast(group):
                yield np.array(encoding.ids, dtype=self.dtype)

    def state(self) -> dict[str, Any]:
        """The kind, and the JSON of `tokenizers`."""
        return {"kind": "bpe", "json": self._inner.to_str()}


def _pieces(documents: Iterable[Document]) -> Iterator[str]:
    """Documents as text, long ones cut after a newline; a cut may cost a merge across it."""
    for document in documents:
        try:
            text = document.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"data.tokens: bpe reads UTF-8, and {document.name} is not that at byte "
                f"{error.start}; use tokens: byte, or take that file out"
            ) from error
        start = 0
        while start < len(text):
            end = start + _PIECE
            if end < len(text):
                end = text.rfind("\n", start, end) + 1 or end
            yield text[start:end]
            start = end


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as missing:
        raise MissingDependency("tokenizers", extra="data", purpose="data.tokens: bpe") from missing
    return tokenizers
