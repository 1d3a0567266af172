"""One copy of a run's tensors in memory that is used again, so that training may go on at once.

The copy is as large as a checkpoint and stays allocated: memory that is new costs the kernel more
than copying into it (1.2 GB: 1 s against 0.12 s), so it is also got and touched beforehand, in a
thread. With tensors on a CUDA device it is pinned; torch rounds pinned memory up to a power of two.
That path has not been run on a GPU yet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

# The skeleton and the tensors of each part; see `codec.collect`.
Packed = Mapping[str, tuple[Any, Mapping[str, Tensor]]]

_ALIGNED = 64  # bytes, so that every dtype may begin anywhere
_PAGE = 4096


class Buffers:
    """Memory for the tensors of one checkpoint; the next copy overwrites the one before."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._reserving: threading.Thread | None = None

    def reserve(self, packed: Packed) -> None:
        """Get the memory that a copy will need, in a thread."""
        size, pinned = _size(packed), _pinned(packed)

        def touch() -> None:
            with suppress(RuntimeError, MemoryError):  # `copy` will tell
                self._grow(size, pinned=pinned)[::_PAGE].zero_()

        thread = threading.Thread(target=touch, name="cupel-buffers")
        with suppress(RuntimeError):  # the system has no more threads
            thread.start()
            self._reserving = thread

    def copy(self, packed: Packed) -> dict[str, tuple[Any, dict[str, Tensor]]]:
        """The same parts with copies of their tensors: contiguous, on the CPU, overlapping nowhere.

        Raises RuntimeError or MemoryError when there is no memory.
        """
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None
        memory, at = self._grow(_size(packed), pinned=_pinned(packed)), 0
        copied: dict[str, tuple[Any, dict[str, Tensor]]] = {}
        for part, (skeleton, tensors) in packed.items():
            copies = {}
            for name, tensor in tensors.items():
                copies[name] = _copied(tensor, memory[at : at + tensor.nbytes])
                at += _slot(tensor)
            copied[part] = skeleton, copies
        for device in {tensor.device for tensor in _tensors(packed) if tensor.is_cuda}:
            torch.cuda.synchronize(device)  # copies into pinned memory return before they are made
        return copied

    def _grow(self, size: int, *, pinned: bool) -> Tensor:
        enough = self._memory is not None and self._memory.nbytes >= size
        if self._memory is None or not enough or (pinned and not self._memory.is_pinned()):
            self._memory = None  # first let go of the old
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        return self._memory


def _copied(tensor: Tensor, place: Tensor) -> Tensor:
    """The tensor's values in a stretch of bytes, as a tensor of its dtype and shape."""
    there = place.view(tensor.dtype).view(tensor.shape)
    if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
        # As bytes, for torch cannot copy every dtype that safetensors holds.
        place.copy_(tensor.reshape(-1).view(torch.uint8), non_blocking=tensor.is_cuda)
    else:
        there.copy_(tensor, non_blocking=tensor.is_cuda)
    return there


def _size(packed: Packed) -> int:
    return sum(_slot(tensor) for tensor in _tensors(packed))


def _slot(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


def _pinned(packed: Packed) -> bool:
    return any(tensor.is_cuda for tensor in _tensors(packed))


def _tensors(packed: Packed) -> Iterator[Tensor]:
    return (tensor for _, tensors in packed.values() for tensor in tensors.values())
