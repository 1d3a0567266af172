"""A nest of dicts, lists, numbers and tensors as a JSON skeleton plus named tensors, and back.

Nothing is pickled, so reading a checkpoint runs nobody's code. What comes back is equal bit for
bit: integers of any size, NaN with its bits, -0.0, the order of dicts, keys that are not strings,
the memory layout of dense tensors (channels_last), and tensors that were one tensor (tied) are
one again. What does not come back: subclasses of dict (OrderedDict, Counter) return as dict, views
that merely overlap return as separate tensors, and everything returns detached. Numpy arrays and
objects of other classes are refused with the place where they sit.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cupel.errors import CheckpointDamaged

# What safetensors can hold; complex128 and quantized types it cannot.
_NEWER_TORCH = ("float8_e8m0fnu", "float4_e2m1fn_x2")  # since 2.7 and 2.8
DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool}
    | {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
    | {torch.int64, torch.int32, torch.int16, torch.int8}
    | {torch.uint64, torch.uint32, torch.uint16, torch.uint8}
    | {getattr(torch, name) for name in _NEWER_TORCH if hasattr(torch, name)}
)

# JSON readers other than Python's keep integers exact up to here only.
_EXACT_IN_JSON = 2**53

_Path = tuple[str, ...]
_Leaf = Callable[[Tensor, _Path], Any]


def collect(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a state into a JSON-able skeleton and its tensors, which are the state's own.

    A tensor is named by its path in the state (`exp_avg` of parameter 0 in an optimizer is
    `state/0/exp_avg`; those of a module keep their names). A tensor that occurs twice is returned
    once, and the skeleton names it twice. Raises TypeError, with the path, for what a checkpoint
    cannot hold.
    """
    collected = _Collected()
    skeleton = _pack(state, (), collected.add)
    return skeleton, collected.tensors


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """What `collect` gives, with tensors that are `stored` and of which no two overlap.

    Not a copy: contiguous CPU tensors share the state's memory.
    """
    skeleton, found = collect(state)
    storages: set[int] = set()
    apart = {}
    for name, tensor in found.items():
        kept = stored(tensor)
        pointer = kept.untyped_storage().data_ptr()
        # safetensors refuses tensors that overlap, so every storage is handed over once.
        apart[name] = kept.clone() if pointer in storages else kept
        storages.add(pointer)
    return skeleton, apart


def stored(tensor: Tensor) -> Tensor:
    """The tensor as its bytes go into a file: contiguous, on the CPU; perhaps itself."""
    # A conjugate view is "contiguous" while its memory holds the values not yet conjugated.
    return tensor.resolve_conj().resolve_neg().cpu().contiguous()


def content(tensor: Tensor) -> memoryview:
    """The bytes of a `stored` tensor, in place."""
    view: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return view


def unflatten(
    skeleton: Any, tensors: Mapping[str, Tensor], *, map_location: torch.device | str = "cpu"
) -> Any:
    """Put together what `flatten` took apart.

    Tensors that were on an accelerator go to `map_location`; those that were on the CPU stay
    there, since random states and the step counts of optimizers must. Raises CheckpointDamaged
    when the skeleton is not one that `flatten` writes, or names other tensors than the given.
    """
    placed: dict[str, Tensor] = {}

    def place(node: Mapping[str, Any]) -> Tensor:
        name = node["tensor"]
        if name not in placed:
            device = map_location if "device" in node else "cpu"
            placed[name] = _laid_out(tensors[name].to(device), node.get("stride"))
        return placed[name]

    try:
        state = _unpack(skeleton, place)
    except (KeyError, TypeError, ValueError, RuntimeError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointDamaged(f"the structure of the state cannot be read: {reason}") from error
    if placed.keys() != tensors.keys():
        left_over = sorted(tensors.keys() - placed.keys())
        raise CheckpointDamaged(f"the structure of the state has no place for {left_over}")
    return state


def state_hash(state: Any) -> str:
    """SHA-256 (hex) over a state's structure and its tensors' dtypes, shapes and bytes.

    Equal exactly when two states are equal bit for bit; devices, memory layout, tying and the
    order of dicts' keys do not count. Costs about a second for each gigabyte.
    """

    skeleton, tensors = collect(state)
    digests = {
        name: hashlib.sha256(content(stored(tensor))).hexdigest()
        for name, tensor in tensors.items()
    }
    return skeleton_hash(skeleton, tensors, digests)


def skeleton_hash(skeleton: Any, tensors: Mapping[str, Tensor], digests: Mapping[str, str]) -> str:
    """The `state_hash` of what was collected, when the SHA-256 of each tensor is known already."""
    prints = {
        name: {"tensor": [str(tensor.dtype), list(tensor.shape), digests[name]]}
        for name, tensor in tensors.items()
    }
    return hashlib.sha256(_text(_canonical(skeleton, prints))).hexdigest()


@dataclass(slots=True)
class _Collected:
    """The tensors that one walk over a state has met."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    _nodes: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def add(self, tensor: Tensor, path: _Path) -> dict[str, Any]:
        """Keep a tensor, unless it is one that is kept already, and return its node."""
        identity = _identity(tensor)
        if tensor.numel() == 0 or identity not in self._nodes:
            name = self._free_name(path)
            self.tensors[name] = tensor
            device = {} if tensor.is_cpu else {"device": tensor.device.type}
            self._nodes[identity] = {"tensor": name} | device | _layout(tensor)
        return self._nodes[identity]

    def _free_name(self, path: _Path) -> str:
        plain = "/".join(path).encode("utf-8", "backslashreplace").decode() or "value"
        name, number = plain, 1
        # safetensors keeps "__metadata__" for itself; {0: …, "0": …} gives the same path twice.
        while name in self.tensors or name == "__metadata__":
            number += 1
            name = f"{plain}#{number}"
        return name


def _pack(value: Any, path: _Path, leaf: _Leaf) -> Any:
    """The skeleton of a value; `leaf(tensor, path)` gives the node of a tensor."""
    if isinstance(value, Tensor):
        return leaf(_plain(value, path), path)
    if isinstance(value, dict):
        pairs = [
            [_pack_scalar(key, path), _pack(held, (*path, str(key)), leaf)]
            for key, held in value.items()
        ]
        return {"dict": pairs}
    # Exact types: a namedtuple or torch.Size would not come back as what it was.
    if type(value) in (list, tuple):
        items = [_pack(held, (*path, str(i)), leaf) for i, held in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    return _pack_scalar(value, path)


def _pack_scalar(value: Any, path: _Path) -> Any:
    # Exact types again: numpy's float64 is a float, and an IntEnum an int, but only by inheritance.
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) <= _EXACT_IN_JSON else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if kind is str:
        return (
            value if _is_unicode(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}
        )
    if kind is bytes:
        return {"bytes": value.hex()}
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} at '{'/'.join(path)}' cannot be checkpointed; "
        "use dict, list, tuple, None, bool, int, float, str, bytes or a tensor "
        "(for numpy: torch.from_numpy(array) or scalar.item())"
    )


def _unpack(node: Any, place: Callable[[Mapping[str, Any]], Tensor]) -> Any:
    match node:
        case None | bool() | int() | float() | str():
            return node
        case list():
            return [_unpack(item, place) for item in node]
        case {"dict": list(pairs)}:
            return {_unpack(key, place): _unpack(item, place) for key, item in pairs}
        case {"tuple": list(items)}:
            return tuple(_unpack(item, place) for item in items)
        case {"tensor": str()}:
            return place(node)
        case {"int": str(digits)}:
            return int(digits, 16)
        case {"float": str(bits)}:
            return struct.unpack(">d", bytes.fromhex(bits))[0]
        case {"str": str(raw)}:
            return bytes.fromhex(raw).decode("utf-8", "surrogatepass")
        case {"bytes": str(raw)}:
            return bytes.fromhex(raw)
    raise ValueError(f"{str(node)[:60]} is not a node")


def _plain(value: Tensor, path: _Path) -> Tensor:
    tensor = value.detach()
    dense = tensor.layout == torch.strided and tensor.device.type != "meta"
    if type(tensor) is Tensor and dense and tensor.dtype in DTYPES:
        return tensor
    raise TypeError(
        f"the {type(tensor).__name__} at '{'/'.join(path)}' ({tensor.dtype}, {tensor.layout}, on "
        f"{tensor.device}) cannot be checkpointed; it must be a plain dense tensor with its data, "
        "of a dtype that safetensors holds"
    )


def _identity(tensor: Tensor) -> Any:
    place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    meaning = (tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return place + meaning


def _layout(tensor: Tensor) -> dict[str, Any]:
    """The strides that `clone()` would keep, when they are not the contiguous ones.

    They matter: torch's fused optimizers walk a parameter and its moments as flat memory, so that
    moments that come back in another layout would silently be applied to other weights.
    """
    dense = torch.empty_like(tensor, device="meta").stride()
    contiguous = torch.empty(tensor.shape, device="meta").stride()
    return {} if dense == contiguous else {"stride": list(dense)}


def _laid_out(tensor: Tensor, stride: list[int] | None) -> Tensor:
    if stride is None:
        return tensor
    empty = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device)
    return empty.copy_(tensor)


def _canonical(node: Any, prints: Mapping[str, Any]) -> Any:
    """A skeleton with its dicts in order of key, and fingerprints where it names tensors."""
    match node:
        case list():
            return [_canonical(item, prints) for item in node]
        case {"dict": list(pairs)}:
            ordered = sorted(pairs, key=lambda pair: _text(pair[0]))
            return {"dict": [[key, _canonical(item, prints)] for key, item in ordered]}
        case {"tuple": list(items)}:
            return {"tuple": [_canonical(item, prints) for item in items]}
        case {"tensor": str(name)}:
            return prints[name]
    return node


def _text(node: Any) -> bytes:
    return json.dumps(node).encode()


def _is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates (file names that were not UTF-8 have)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
