"""`model.json`: a model's module tree with classes, shapes, sharing and the hash of its source.

Reads any object whose modules, parameters and buffers are found as torch's are; torch itself is
not imported. Nothing here raises: what an odd model refuses to tell is left out and named under
`problems`. A GPT of 12 layers takes about 10 ms. What its first training step adds is in `calls`.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

MOST_PATHS = 20_000  # shared modules inside of shared ones can have very many
_LONGEST_EXTRA = 200  # characters

# Where models keep their sizes, and under which names: cupel's own, nanoGPT's, Hugging Face's.
_HOLDERS = ("settings", "config", "cfg", "args", "")
_SIZES: Mapping[str, tuple[str, ...]] = {
    "vocabulary": ("vocab_size", "vocabulary", "n_vocab"),
    "layers": ("n_layer", "n_layers", "num_layers", "num_hidden_layers", "layers"),
    "heads": ("n_head", "n_heads", "num_heads", "num_attention_heads", "heads"),
    "width": ("n_embd", "hidden_size", "d_model", "width"),
    "context": ("block_size", "block", "max_position_embeddings", "n_positions", "context_length"),
    "stages": ("stages",),
    "blocks": ("blocks",),
    "classes": ("classes", "num_classes", "num_labels"),
    "channels": ("channels_in", "in_channels", "num_channels"),
}


def describe_model(model: Any) -> dict[str, Any]:
    """The tree as plain data.

    `parameters` counts numbers, tied ones once, and no buffers; `shared` maps a tied parameter's
    further names to its first, `shared_modules` a module's further paths. `sizes` has what the
    model itself says, with the name of the attribute that says it. `sources` holds the SHA-256 of
    each module class's source, where Python can show it.
    """
    problems: dict[str, str] = {}

    def told(part: str, of: Callable[[], T], otherwise: T) -> T:
        try:
            return of()
        except Exception as error:  # whatever the properties of an odd model raise
            problems[part] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return otherwise

    def numbers(name: str, parameter: Any) -> int:
        return told(f"tensors.{name}", lambda: int(parameter.numel()), 0)

    def tensor(name: str, parameter: Any) -> dict[str, Any]:
        return told(f"tensors.{name}", lambda: _tensor(parameter), {})

    nothing: dict[str, Any] = {}
    none: list[tuple[str, Any]] = []
    paths = told("modules", lambda: list(paths_of(model)), none)
    named = told("tensors", lambda: list(model.named_parameters()), none)
    first, further = _first_paths(paths)
    classes = {type(module) for _, module in first}
    count = sum(numbers(*one) for one in named)
    described: dict[str, Any] = {
        "class": _class_name(type(model)),
        "parameters": count,
        "trained": sum(numbers(name, p) for name, p in named if _trained(p)),
        "modules": {path: _class_name(type(module)) for path, module in first if path},
        "tensors": {name: tensor(name, p) for name, p in named},
        "shared": told("shared", lambda: _shared(paths, named), nothing),
        "shared_modules": further,
        "buffers": told("buffers", lambda: _buffers(first), nothing),
        "sizes": told("sizes", lambda: _sizes(model), nothing) | _counted(count),
        "extra": {path: extra for path, module in first if (extra := _extra(module))},
        "sources": {_class_name(c): _source_hash(c) for c in sorted(classes, key=_class_name)},
    }
    return {**described, "problems": problems} if problems else described


def paths_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Every module under each of its paths, a parent before its children; at most 20,000.

    As `named_modules(remove_duplicate=False)`, which would not end if a module held one above it.
    """
    waiting: list[tuple[str, Any, frozenset[int]]] = [("", model, frozenset())]
    for _ in range(MOST_PATHS):
        if not waiting:
            return
        path, module, above = waiting.pop()
        yield path, module
        above |= {id(module)}
        children = [(n, m) for n, m in module._modules.items() if m is not None]
        waiting += [
            (f"{path}.{name}" if path else name, child, above)
            for name, child in reversed(children)
            if id(child) not in above
        ]


def unwrapped(model: Any) -> tuple[str, Any]:
    """The model inside of what distributes it, and the path under which it lies there."""
    prefix = ""
    while type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
        model, prefix = model.module, f"{prefix}.module" if prefix else "module"
    return prefix, model


def dtype_name(tensor: Any) -> str:
    """`float32`, as the record has it."""
    return str(tensor.dtype).removeprefix("torch.")


def _first_paths(
    paths: list[tuple[str, Any]],
) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    """Each module once, by its first path; and further paths, with the first of the same one."""
    owner: dict[int, str] = {}
    first, further = [], {}
    for path, module in paths:
        if owner.setdefault(id(module), path) == path:
            first.append((path, module))
        else:
            further[path] = owner[id(module)]
    return first, further


def _tensor(parameter: Any) -> dict[str, Any]:
    return {
        "shape": [int(size) for size in parameter.shape],
        "dtype": dtype_name(parameter),
        "trained": _trained(parameter),
    }


def _trained(parameter: Any) -> bool:
    return bool(getattr(parameter, "requires_grad", False))


def _shared(paths: list[tuple[str, Any]], named: list[tuple[str, Any]]) -> dict[str, str]:
    first = {id(parameter): name for name, parameter in named}
    every = (
        (f"{path}.{name}" if path else name, parameter)
        for path, module in paths
        for name, parameter in module._parameters.items()
        if parameter is not None
    )
    return {name: first[id(p)] for name, p in every if first.get(id(p), name) != name}


def _buffers(first: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        f"{path}.{name}" if path else name: {
            "shape": [int(size) for size in buffer.shape],
            "dtype": dtype_name(buffer),
        }
        for path, module in first
        for name, buffer in module._buffers.items()
        if buffer is not None
    }


def _sizes(model: Any) -> dict[str, Any]:
    """What the model says of itself in whole numbers; the first holder and name that has it."""
    _, model = unwrapped(getattr(model, "_orig_mod", model))
    found: dict[str, Any] = {}
    for holder in _HOLDERS:
        held = getattr(model, holder, None) if holder else model
        for size, names in _SIZES.items():
            for name in names if held is not None and size not in found else ():
                value = held.get(name) if isinstance(held, Mapping) else getattr(held, name, None)
                if (value := _size(value)) is not None:
                    source = f"{holder}.{name}" if holder else name
                    found[size] = {"value": value, "source": source}
                    break
    return found


def _size(value: Any) -> int | list[int] | None:
    """A whole number above 0, or several, as the stages of a ResNet; None for all else."""
    if isinstance(value, tuple | list):
        sizes = [one for one in value if type(one) is int and one > 0]
        return sizes if 0 < len(sizes) == len(value) <= 32 else None
    return value if type(value) is int and value > 0 else None


def _counted(parameters: int) -> dict[str, Any]:
    return {"parameters": {"value": parameters, "source": "named_parameters()"}}


def _extra(module: Any) -> str:
    """What the module adds to its printed form, as `in_features=3, out_features=4`, if short."""
    try:
        extra = module.extra_repr()
    except Exception:  # of a lazy or half-built module; nothing to tell, and no fault of the run
        return ""
    return extra if isinstance(extra, str) and len(extra) <= _LONGEST_EXTRA else ""


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_hashes: WeakKeyDictionary[type, str | None] = WeakKeyDictionary()


def _source_hash(kind: type) -> str | None:
    if kind not in _hashes:
        try:
            source = _source(kind)
            _hashes[kind] = hashlib.sha256(source.encode()).hexdigest()
        except (OSError, TypeError, SyntaxError, UnicodeError):
            _hashes[kind] = None  # made at a prompt, or in C
    return _hashes[kind]


def _source(kind: type) -> str:
    """`inspect.getsource(kind)`, without parsing the whole file where the class's name occurs in
    one class statement only. Raises OSError, TypeError.
    """
    file = inspect.getsourcefile(kind)
    module = sys.modules.get(kind.__module__)
    if file is None or module is None or not kind.__qualname__.isidentifier():
        return inspect.getsource(kind)
    linecache.checkcache(file)
    lines = linecache.getlines(file, module.__dict__)
    statement = re.compile(rf"\s*class\s+{kind.__qualname__}\b")
    at = [number for number, line in enumerate(lines) if statement.match(line)]
    if len(at) != 1 or lines[at[0]][0].isspace() or (at[0] and lines[at[0] - 1].strip()):
        return inspect.getsource(kind)  # several, or perhaps with a decorator
    return "".join(inspect.getblock(lines[at[0] :]))
