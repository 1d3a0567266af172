"""A corpus as two flat files of token ids, memory-mapped, in a cache that may be deleted any time.

`<cache>/tokens/<key>/` holds train.bin and val.bin (uint8, or uint16 above 256 ids), the
tokenizer, and tokens.json with their checksums, which every load verifies (12 MB: a few
milliseconds). Documents are joined as they are, with nothing between them. There is no lock:
whoever finds no valid cache writes it, each file whole or not at all, tokens.json last, and two
processes at once write the same bytes. Nothing is fsynced: a checksum finds what power loss tore.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cupel.data.corpus import Corpus, load_corpus
from cupel.data.settings import TextDataSettings
from cupel.data.tokenizer import BPETokenizer, ByteTokenizer, Ids, Tokenizer
from cupel.errors import DataError

# Raise it whenever the same corpus and settings would give other tokens or another split.
SCHEMA = 1
SIDE_FILE = "tokens.json"
TOKENIZER_FILE = "tokenizer.json"
_FILES = ("train.bin", "val.bin", TOKENIZER_FILE)


@dataclass(frozen=True, slots=True)
class TokenSet:
    """Both splits as read-only arrays of ids, and the tokenizer that made them.

    `corpus` is `Corpus.describe()`; `sha256` covers the ids of both splits and the tokenizer;
    `notes` are sentences that the user should see (a damaged cache, a vocabulary cut short).
    """

    train: Ids
    val: Ids
    tokenizer: Tokenizer
    corpus: dict[str, Any]
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        """The number of ids there are, which a short corpus may leave below what was asked for."""
        return self.tokenizer.vocabulary

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """For each split; divides a loss in nats a token to give nats a byte."""
        sizes = self.corpus["bytes"]
        return {"train": sizes["train"] / len(self.train), "val": sizes["val"] / len(self.val)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; what is not UTF-8 becomes U+FFFD."""
        return self.tokenizer.decode(ids)

    def tokenizer_state(self) -> dict[str, Any]:
        """What `Tokenizer.from_state` needs; kept in the run, so that sampling needs no corpus."""
        return self.tokenizer.state()

    def describe(self) -> dict[str, Any]:
        """What the record keeps: JSON-able, and enough to tell two data sets apart."""
        return {
            "corpus": self.corpus,
            "tokenizer": self.tokenizer_state()["kind"],
            "vocabulary": self.vocabulary,
            "tokens": {"train": len(self.train), "val": len(self.val)},
            "bytes_per_token": self.bytes_per_token,
            "sha256": self.sha256,
        }


def load_tokens(settings: TextDataSettings) -> TokenSet:
    """The tokens of the corpus that the settings name, from the cache where it holds them.

    Raises DataError (the corpus, or a cache folder that cannot be written), MissingDependency.
    """
    corpus = load_corpus(settings)
    folder = _cache_root(settings) / "tokens" / _key(corpus, settings)
    notes = []
    try:
        if not (folder / SIDE_FILE).exists():
            _build(folder, corpus, settings)
        elif damage := _damage(folder):
            notes.append(f"the token cache {folder} was damaged ({damage}) and was built anew")
            _build(folder, corpus, settings)
        tokenizer, train, val, sha256 = _open(folder)
    except OSError as error:
        raise DataError(
            f"data.cache: cannot use {folder} ({error.strerror}); set data.cache or CUPEL_CACHE "
            "to a folder that can be written, with room for the corpus"
        ) from error
    if settings.tokens == "bpe" and tokenizer.vocabulary < settings.vocabulary:
        notes.append(
            f"the vocabulary is {tokenizer.vocabulary}, not the {settings.vocabulary} asked for: "
            "the corpus has no more pairs to merge"
        )
    return TokenSet(train, val, tokenizer, corpus.describe(), sha256, tuple(notes))


def _cache_root(settings: TextDataSettings) -> Path:
    chosen = settings.cache or os.environ.get("CUPEL_CACHE") or "~/.cache/cupel"
    return Path(chosen).expanduser().absolute()


def _key(corpus: Corpus, settings: TextDataSettings) -> str:
    """A name made from all that the tokens depend on, and from nothing else."""
    parts = {
        "schema": SCHEMA,
        "corpus": corpus.sha256,
        "val_fraction": settings.val_fraction,
        "tokens": settings.tokens,
        "vocabulary": settings.vocabulary if settings.tokens == "bpe" else 256,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _build(folder: Path, corpus: Corpus, settings: TextDataSettings) -> None:
    if settings.tokens == "byte":
        tokenizer: Tokenizer = ByteTokenizer()
    else:
        tokenizer = BPETokenizer.train(corpus.train, vocabulary=settings.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TOKENIZER_FILE, [json.dumps(tokenizer.state()).encode()])
    for name, documents in (("train.bin", corpus.train), ("val.bin", corpus.val)):
        _write(folder / name, (ids.tobytes() for ids in tokenizer.encode_documents(documents)))
    side = {
        "schema": SCHEMA,
        "corpus": corpus.describe(),
        "dtype": np.dtype(tokenizer.dtype).name,
        "vocabulary": tokenizer.vocabulary,
        "sha256": {name: _sha256(folder / name) for name in _FILES},
    }
    _write(folder / SIDE_FILE, [json.dumps(side, indent=1).encode()])


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Put a file in its place when it is whole; a killed writer leaves only a *.tmp beside it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with temporary.open("wb") as file:
        file.writelines(parts)
    temporary.replace(path)


def _damage(folder: Path) -> str:
    """What is wrong with the files of a cache folder; an empty string when nothing is."""
    try:
        side = json.loads((folder / SIDE_FILE).read_bytes())
    except ValueError:
        return f"{SIDE_FILE} is not JSON"
    promised = side.get("sha256") if isinstance(side, dict) else None
    if not isinstance(promised, dict):
        return f"{SIDE_FILE} holds no checksums"
    for name in _FILES:
        if not (folder / name).exists():
            return f"{name} is missing"
        if promised.get(name) != _sha256(folder / name):
            return f"{name} does not match its checksum"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(folder: Path) -> tuple[Tokenizer, Ids, Ids, str]:
    """The tokenizer, both splits, and one hash over the three; they were verified before."""
    tokenizer = Tokenizer.from_state(json.loads((folder / TOKENIZER_FILE).read_bytes()))
    train, val = (
        np.memmap(folder / name, dtype=tokenizer.dtype, mode="r")
        for name in ("train.bin", "val.bin")
    )
    hashes = "".join(
        json.loads((folder / SIDE_FILE).read_bytes())["sha256"][name] for name in _FILES
    )
    return tokenizer, train, val, hashlib.sha256(hashes.encode()).hexdigest()
