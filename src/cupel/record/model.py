"""`model.json`: a model's module tree with classes, shapes, sharing and the hash of its source.

Reads any object with `named_modules` and `named_parameters` as torch's have; torch itself is not
imported.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any


def describe_model(model: Any) -> dict[str, Any]:
    """The tree as plain data.

    `parameters` counts numbers, tied ones once; `shared` maps a tied parameter's further names to
    its first; `sources` holds the SHA-256 of each module class's source, where Python can show it.
    """
    parameters = {name: _tensor(p) for name, p in model.named_parameters()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    classes = {type(module) for _, module in model.named_modules()}
    return {
        "class": _class_name(type(model)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": trained,
        "modules": {name: _class_name(type(m)) for name, m in model.named_modules() if name},
        "tensors": parameters,
        "shared": _shared(model),
        "sources": {_class_name(c): _source_hash(c) for c in sorted(classes, key=_class_name)},
    }


def _tensor(parameter: Any) -> dict[str, Any]:
    return {
        "shape": list(parameter.shape),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "trained": bool(parameter.requires_grad),
    }


def _shared(model: Any) -> dict[str, str]:
    first: dict[int, str] = {}
    shared: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(parameter), name)
        if owner != name:
            shared[name] = owner
    return shared


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _source_hash(kind: type) -> str | None:
    try:
        return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
    except (OSError, TypeError):
        return None  # made at a prompt, or in C
