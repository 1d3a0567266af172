"""Text to train on, split into training and validation, with a hash that says which text it was.

Three sources: the source of Python's standard library (there on every machine, so that the first
run downloads nothing), a text file, a folder of text files. The whole corpus is held in memory;
reading the standard library's 12 MB takes a quarter of a second. Nothing is decoded or cleaned:
a document is bytes. The standard library differs between patch versions of Python, so a number
measured on it belongs to its hash.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.data.settings import TextDataSettings
from cupel.errors import DataError

# Tests are more than half of the library's bytes and full of tables; the other two are not its own.
_NOT_STDLIB = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Document:
    """One file, or one split's part of it: its path below the corpus's folder, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents of both splits. `sha256` is over all names and bytes, however they are split."""

    source: str
    train: tuple[Document, ...]
    val: tuple[Document, ...]
    files: int
    sha256: str

    def size(self, split: str) -> int:
        """Bytes in one split, `train` or `val`."""
        return sum(len(document.content) for document in getattr(self, split))

    def describe(self) -> dict[str, Any]:
        """What the record keeps of it: source, hash, files, bytes of each split."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "files": self.files,
            "bytes": {"train": self.size("train"), "val": self.size("val")},
        }


def load_corpus(settings: TextDataSettings) -> Corpus:
    """Read and split the corpus that the settings name.

    Several files are split by file: in an order by hash of their relative paths, files go to
    validation while they fit in `val_fraction` of the bytes (the smallest one, where none fits).
    A corpus of one file is split by position: its last `val_fraction` validates.

    Raises DataError when nothing is there, or nothing in it is text.
    """
    source, files = _find(settings.path)
    if settings.max_bytes is not None and len(files) > 1:
        files = _cut(files, settings.max_bytes)
    documents = [Document(name, _read(path)) for name, path in files]
    if len(documents) == 1:
        documents = [_beginning(documents[0], settings.max_bytes)]
        train, val = _split_by_position(documents[0], settings.val_fraction)
    else:
        train, val = _split_by_file(documents, settings.val_fraction)
    return Corpus(source, tuple(train), tuple(val), len(documents), _sha256(documents))


def _find(path: str | None) -> tuple[str, list[tuple[str, Path]]]:
    """Where the text comes from, in words, and its files, in order of name."""
    if path is None:
        root = Path(sysconfig.get_paths()["stdlib"])
        found = [
            file
            for file in _walk(root, leave_out=_NOT_STDLIB.__contains__)
            if file[0].endswith(".py")
        ]
        if not found:
            raise DataError(
                f"data.path: this Python has no library source in {root}; give a text file"
            )
        return f"the standard library of Python {platform.python_version()}", found
    root = Path(path).expanduser().absolute()
    if root.is_file():
        return str(root), [(root.name, root)]
    if not root.is_dir():
        raise DataError(
            f"data.path: no file or folder at {root}; give a text file, a folder of them, "
            "or null for the source of Python's standard library"
        )
    found = [file for file in _walk(root, leave_out=_is_hidden) if _is_text(file[1])]
    if not found:
        raise DataError(f"data.path: no text file in {root} (empty, hidden and binary ones aside)")
    return str(root), found


def _walk(root: Path, *, leave_out: Callable[[str], bool]) -> list[tuple[str, Path]]:
    """The files below a folder that are not empty; what is left out by name is not entered."""
    paths: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not leave_out(name)]
        paths += [Path(folder, name) for name in files if not leave_out(name)]
    return sorted(
        (path.relative_to(root).as_posix(), path)
        for path in paths
        if path.is_file() and path.stat().st_size > 0
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_text(path: Path) -> bool:
    """A file without a NUL among its first 8,000 bytes: git's rule (buffer_is_binary)."""
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(8000)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"data.path: cannot read {path}: {error.strerror}; mend or move that file")


def _cut(files: list[tuple[str, Path]], max_bytes: int) -> list[tuple[str, Path]]:
    """Files of at most `max_bytes` together, chosen by hash so that they sample the corpus."""
    kept = _fitting({name: path.stat().st_size for name, path in files}, max_bytes, salt="cut")
    if not kept:
        raise DataError(
            f"data.max_bytes: {max_bytes} is less than each of the {len(files)} files; raise it"
        )
    return [(name, path) for name, path in files if name in kept]


def _split_by_file(
    documents: list[Document], val_fraction: float
) -> tuple[list[Document], list[Document]]:
    sizes = {document.name: len(document.content) for document in documents}
    chosen = _fitting(sizes, val_fraction * sum(sizes.values()), salt="split")
    chosen = chosen or {min(sizes, key=sizes.__getitem__)}
    train = [document for document in documents if document.name not in chosen]
    return train, [document for document in documents if document.name in chosen]


def _fitting(sizes: Mapping[str, int], limit: float, *, salt: str) -> set[str]:
    """Names tried in an order by hash, and kept while their sizes stay within the limit."""
    kept, used = set(), 0
    for name in sorted(sizes, key=lambda name: hashlib.sha256(_utf8(salt + name)).digest()):
        if used + sizes[name] <= limit:
            kept.add(name)
            used += sizes[name]
    return kept


def _beginning(document: Document, max_bytes: int | None) -> Document:
    if max_bytes is None or len(document.content) <= max_bytes:
        return document
    end = _character_start(document.content, max_bytes)
    return Document(document.name, document.content[:end])


def _split_by_position(
    document: Document, val_fraction: float
) -> tuple[list[Document], list[Document]]:
    content = document.content
    if not content:
        raise DataError(
            f"data.path: {document.name} is empty; give a text (or a folder of texts) to train on"
        )
    if len(content) < 2:
        raise DataError(
            f"data: {document.name} gives {len(content)} bytes, and each split needs one; "
            "give a longer text in data.path (and no data.max_bytes below it)"
        )
    wanted = round(len(content) * (1 - val_fraction))
    at = _character_start(content, min(max(wanted, 1), len(content) - 1)) or 1
    return [Document(document.name, content[:at])], [Document(document.name, content[at:])]


def _character_start(content: bytes, at: int) -> int:
    """The start of the UTF-8 character that holds byte `at`; `at` itself in what is not UTF-8."""
    for start in range(at, max(at - 4, -1), -1):
        if content[start] & 0xC0 != 0x80:  # not a continuation byte
            return start
    return at


def _utf8(name: str) -> bytes:
    return name.encode(errors="surrogateescape")  # a file's name need not be UTF-8


def _sha256(documents: Iterable[Document]) -> str:
    """Over names and contents with their lengths, so that moving a byte between files shows."""
    digest = hashlib.sha256()
    for document in documents:
        name = _utf8(document.name)
        digest.update(b"%d %d\n" % (len(name), len(document.content)))
        digest.update(name)
        digest.update(document.content)
    return digest.hexdigest()
