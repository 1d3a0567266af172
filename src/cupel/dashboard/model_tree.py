"""The tree of a model as its page shows it: `tree`, from what model.json says.

Every module under every one of its paths, with its parameters (tied ones counted once, where they
come first), what its first training pass took and gave, and its newest norms. Pure: no file is
read here. A record of before there were calls, buffers or shared modules gives a tree without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cupel.dashboard.replies import Number

DEEPEST = 100

Norms = Mapping[str, tuple[int, float]]
Trainable = Literal["all", "some", "none"]


class TensorShape(msgspec.Struct):
    """What a module took or gave."""

    shape: list[int] | None
    """None where a tensor has no shape to tell."""
    dtype: str


class Tensor(msgspec.Struct, omit_defaults=True):
    """A parameter or a buffer that is a module's own."""

    name: str
    shape: list[int] | None
    dtype: str
    numbers: int
    """How many count; 0 of a buffer and of a parameter that is tied to one that was counted."""
    trained: bool = False
    buffer: bool = False
    tied_to: str | None = None
    """The first name of the same parameter."""


class Edge(msgspec.Struct, frozen=True):
    """From one child to another. The empty name is what the container is given, or gives back."""

    source: str
    target: str
    inferred: bool
    """Whether nothing is known but that one was called after the other."""


class Reading(msgspec.Struct, frozen=True):
    """A number of the record and its step."""

    step: int
    value: Number


class Node(msgspec.Struct, omit_defaults=True):
    """A module, or several alike in a row: then `folds` says how many, `members` has each of them,
    and the numbers of parameters are theirs together."""

    path: str
    name: str
    kind: str = msgspec.field(name="class")
    """The class in short."""
    module: str
    """The class in full, `package.module:Class`."""
    own: int
    """Numbers in parameters of its own, tied ones counted where they come first."""
    total: int
    """The same with all that is inside."""
    share: float
    """Of all of the model's, from 0 to 1."""
    trainable: Trainable | None = None
    """None of a module without parameters."""
    dtypes: list[str] = []
    """Of all parameters inside."""
    tensors: list[Tensor] = []
    extra: str = ""
    calls: int | None = None
    """How often the first training pass called it; None where that is not known."""
    order: int | None = None
    """Its place in the order of first calls."""
    inputs: list[TensorShape] | None = None
    outputs: list[TensorShape] | None = None
    varies: bool = False
    """Whether a later call had other shapes than the first, whose are told."""
    grad_norm: Reading | None = None
    weight_norm: Reading | None = None
    shared_with: str | None = None
    """The first path of this very module, if this is a further one."""
    also: list[str] = []
    """Further paths of it, if this is the first."""
    children: list[Node] = []
    edges: list[Edge] = []
    folds: int = 1
    paths: list[str] = []
    """Of all members."""
    members: list[Node] = []
    unfolded_edges: list[Edge] | None = None
    """The edges as they were before children were folded."""


class _Tensor(msgspec.Struct):
    shape: list[int] | None = None
    dtype: str = ""
    trained: bool = False


class _Size(msgspec.Struct):
    value: int | list[int]
    source: str


class _Called(msgspec.Struct):
    calls: int
    order: int
    inputs: list[TensorShape] = msgspec.field(name="in")
    outputs: list[TensorShape] = msgspec.field(name="out")
    varies: bool = False


class Calls(msgspec.Struct):
    """What the first training pass told."""

    complete: bool
    reason: str | None = None
    step: int | None = None
    modules: dict[str, _Called] = {}
    edges: dict[str, list[tuple[str, str, bool]]] = {}


class Described(msgspec.Struct):
    """model.json, of every version. Decoding raises msgspec.ValidationError."""

    kind: str = msgspec.field(name="class", default="")
    parameters: int = 0
    trained: int = 0
    modules: dict[str, str] = {}
    tensors: dict[str, _Tensor] = {}
    shared: dict[str, str] = {}
    shared_modules: dict[str, str] = {}
    buffers: dict[str, _Tensor] = {}
    sizes: dict[str, _Size] = {}
    extra: dict[str, str] = {}
    problems: dict[str, str] = {}
    calls: Calls | None = None


def layer_of(parameter: str) -> str:
    """The layer whose norm a parameter is part of, by the rule of the monitor `norms`:
    `blocks.3.attention.weight` → `blocks.3`; `head.weight` → `head`.
    """
    parts = parameter.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: position + 1])
    return parts[0]


def tree(described: Described, norms: Norms | None = None) -> Node:
    """The root, nothing folded. Raises ValueError for modules nested deeper than a hundred."""
    return _Builder(described, norms or {}).node("")


class _Builder:
    def __init__(self, described: Described, norms: Norms) -> None:
        self._described, self._norms = described, norms
        classes = {"": described.kind, **described.modules}
        for path, first in described.shared_modules.items():
            classes.setdefault(path, classes.get(first, ""))
        if any(path.count(".") >= DEEPEST for path in classes):
            raise ValueError(f"its modules are nested more than {DEEPEST} deep")
        self._classes = classes
        self._children: dict[str, list[str]] = {}
        for path in classes:
            if path:
                self._children.setdefault(self._above(path), []).append(path)
        self._tensors: dict[str, list[Tensor]] = {}
        for name, tensor in described.tensors.items():
            self._add(name, tensor, _numbers(tensor.shape))
        for name, first in described.shared.items():
            tensor = described.tensors.get(first, _Tensor())
            self._add(name, tensor, 0, tied_to=first)
        for name, tensor in described.buffers.items():
            self._add(name, tensor, 0, buffer=True)
        self._also: dict[str, list[str]] = {}
        for path, first in described.shared_modules.items():
            self._also.setdefault(first, []).append(path)

    def node(self, path: str, above: str = "") -> Node:
        children = [self.node(child, path) for child in self._ordered(path)]
        tensors = self._tensors.get(path, [])
        own = sum(tensor.numbers for tensor in tensors)
        total = own + sum(child.total for child in children)
        called, calls = None, self._described.calls
        if calls is not None:
            called = calls.modules.get(path)
        module = self._classes[path]
        extra = self._described.extra
        first = self._described.shared_modules.get(path)
        return Node(
            path=path,
            name=path[len(above) + 1 :] if above else path,
            kind=module.rpartition(":")[2].rpartition(".")[2],
            module=module,
            own=own,
            total=total,
            share=total / self._described.parameters if self._described.parameters else 0.0,
            trainable=_trainable(tensors, children),
            dtypes=sorted(
                {t.dtype for t in tensors if not t.buffer and t.dtype}.union(
                    *(child.dtypes for child in children)
                )
            ),
            tensors=tensors,
            extra=extra.get(path) or extra.get(first or path, ""),
            calls=called.calls if called else _uncalled(calls),
            order=called.order if called else None,
            inputs=called.inputs if called else None,
            outputs=called.outputs if called else None,
            varies=bool(called and called.varies),
            grad_norm=self._reading("grad_norm", path),
            weight_norm=self._reading("weight_norm", path),
            shared_with=first,
            also=self._also.get(path, []),
            children=children,
            edges=[Edge(*edge) for edge in calls.edges.get(path, [])] if calls else [],
        )

    def _above(self, path: str) -> str:
        """The nearest module above that is there."""
        while path:
            path = path.rpartition(".")[0]
            if path in self._classes:
                return path
        return ""

    def _ordered(self, path: str) -> list[str]:
        """The children; numbered ones by number, since further paths of shared ones come last."""
        children = self._children.get(path, [])
        names = [child.rpartition(".")[2] for child in children]
        if all(is_number(name) for name in names):
            return [child for _, child in sorted(zip(map(int, names), children, strict=True))]
        return children

    def _add(
        self,
        name: str,
        tensor: _Tensor,
        numbers: int,
        *,
        tied_to: str | None = None,
        buffer: bool = False,
    ) -> None:
        owner = self._above(name)
        self._tensors.setdefault(owner, []).append(
            Tensor(
                name[len(owner) + 1 :] if owner else name,
                tensor.shape,
                tensor.dtype,
                numbers,
                trained=tensor.trained,
                buffer=buffer,
                tied_to=tied_to,
            )
        )

    def _reading(self, norm: str, path: str) -> Reading | None:
        found = self._norms.get(f"{norm}/{path}") if path else self._norms.get(f"{norm}/total")
        return None if found is None else Reading(*found)


def is_number(name: str) -> bool:
    """Whether a child is called by a number, as those of lists are."""
    return name.isascii() and name.isdigit() and len(name) < 10


def _numbers(shape: list[int] | None) -> int:
    numbers = 0 if shape is None else 1
    for size in shape or ():
        numbers *= size
    return numbers


def _trainable(tensors: list[Tensor], children: list[Node]) -> Trainable | None:
    found: set[Trainable] = {"all" if t.trained else "none" for t in tensors if not t.buffer}
    found |= {child.trainable for child in children if child.trainable is not None}
    if len(found) > 1:
        return "some"
    return found.pop() if found else None


def _uncalled(calls: Calls | None) -> int | None:
    """Of a module that was not seen: never called, if all calls were."""
    return 0 if calls is not None and calls.complete else None
