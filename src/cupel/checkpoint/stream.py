"""Writes tensors as one safetensors file, hashing its bytes on their way to the disk.

The file is the one that safetensors itself would write, byte for byte. It is written in pieces,
so that no second copy of the tensors exists, and that writing can be given up in between. Every
byte passes SHA-256 twice, at about 1.4 GB/s each on a processor with instructions for it: once
for the file, once for its tensor. The second is done by a thread of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cupel.checkpoint.codec import content, stored
from cupel.errors import CheckpointError

# In the order in which safetensors puts them into a file, so that each is aligned.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    getattr(torch, "float8_e8m0fnu", None): "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    getattr(torch, "float4_e2m1fn_x2", None): "F4",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}

# Large, because each piece costs the writer a wait for the interpreter's lock while training runs.
_PIECE = 16 * 2**20

METADATA = {"format": "pt"}  # without it the transformers library refuses a file


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the file's size and SHA-256, and the SHA-256 of each tensor's bytes."""

    bytes: int
    sha256: str
    digests: dict[str, str]

    @property
    def entry(self) -> dict[str, Any]:
        """What a manifest says of the file."""
        return {"bytes": self.bytes, "sha256": self.sha256}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, check: Callable[[], None] = lambda: None
) -> Written:
    """Write a new file and wait until it is on the disk.

    `check()` is called before each piece; what it raises ends the writing. Raises OSError, and
    CheckpointError for the one thing that safetensors cannot hold.
    """
    order = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name.encode()))
    with _File(path, check) as file, _Hasher() as hasher:
        file.write(_header(order, tensors))
        for name in order:
            data = content(stored(tensors[name]))
            hasher.add(name, data)
            file.write(data)
    return Written(file.size, file.digest.hexdigest(), hasher.digests)


def write_bytes(path: Path, data: bytes) -> Written:
    """Write a new file of these bytes and wait until it is on the disk. Raises OSError."""
    with _File(path) as file:
        file.write(data)
    return Written(file.size, file.digest.hexdigest(), {})


def _header(order: Iterable[str], tensors: Mapping[str, Tensor]) -> bytes:
    """Eight bytes of length, then JSON: https://github.com/huggingface/safetensors#format."""
    fields: dict[str, Any] = {"__metadata__": METADATA}
    at = 0
    for name in order:
        tensor = tensors[name]
        fields[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": _shape(tensor),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(padded)) + padded


def _shape(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    if _NAMES[tensor.dtype] == "F4":  # torch counts pairs of these
        if not shape:
            raise CheckpointError(f"safetensors holds no {tensor.dtype} without dimensions")
        shape[-1] *= 2
    return shape


class _File:
    """A new file; its size and SHA-256 so far. Leaving the context syncs it."""

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.size, self.digest = 0, hashlib.sha256()
        self._check = check
        self._file = path.open("xb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self._check()
            piece = view[start : start + _PIECE]
            written = 0
            while written < len(piece):  # a full disk takes a part, and refuses the next
                written += self._file.write(piece[written:])
            self._begin_sync(written)
            self.digest.update(piece)

    def _begin_sync(self, written: int) -> None:
        """Have the last bytes written back while the next are hashed: a third off the whole."""
        if hasattr(os, "posix_fadvise"):  # Linux begins to write, and drops what is written only
            os.posix_fadvise(self._file.fileno(), self.size, written, os.POSIX_FADV_DONTNEED)
        self.size += written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())


class _Hasher:
    """The SHA-256 of each tensor, taken in a thread while the file is written.

    OpenSSL and the disk both work without the interpreter's lock. The queue is short, because
    what was copied from an accelerator lives until it is hashed.
    """

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self._queue: queue.Queue[tuple[str, memoryview] | None] = queue.Queue(maxsize=2)
        self._thread = threading.Thread(target=self._run, name="cupel-hash")

    def add(self, name: str, data: memoryview) -> None:
        self._queue.put((name, data))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            name, data = item
            self.digests[name] = hashlib.sha256(data).hexdigest()

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(f"no thread to hash in: {error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.put(None)
        self._thread.join()
