"""What a model with a memory carries from one call to the next, as one object.

A state belongs to sequences, one a row of the batch: nothing is shared between rows. It can be
detached (truncated backpropagation), saved and loaded as named tensors, and given to the next call
at any token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cupel.errors import CheckpointError
from cupel.models.memory.chunk import Fast

VERSION = 1


class Level(NamedTuple):
    """One level of a continuum memory system; an entry a layer, (B, I, O) each."""

    weights: list[Tensor]
    sums: list[Tensor]  # what the tokens of its chunk will take from them
    first: list[Tensor] | None = None  # nested: weights from which it begins anew
    above: list[Tensor] | None = None  # nested: what the slower level's chunk will take from those


class CMSState(NamedTuple):
    """Of a continuum memory system."""

    levels: tuple[Level, ...]
    seen: int = 0  # tokens since chunks began
    tails: list[Tensor] | None = None  # each level's last input, (B, 1, C)
    pending: list[Tensor] | None = None  # each level's inputs of the last call, to be taught
    output: Tensor | None = None  # what the last call gave, of which gradients are asked for


@dataclass(frozen=True)
class LayerState:
    """Of one layer; a part that the layer does not have is None."""

    fast: Fast | None = None  # the memory's weights
    others: Fast | None = None  # those of the memories of keys, values and gates
    cms: CMSState | None = None  # levels behind the memory
    conv: Tensor | None = None  # the last inputs of the convolution, (B, kernel - 1, channels)
    keys: Tensor | None = None  # of the attention's window or segment, (B, H, S, D)
    values: Tensor | None = None
    base: Fast | None = None  # the memory at the segment's start
    index: int = 0  # tokens of the current segment


@dataclass(frozen=True)
class State:
    """Of a whole model: a layer each, and how many tokens it has seen."""

    layers: tuple[LayerState, ...]
    batch: int
    seen: int = 0

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The same with every tensor changed."""
        return replace(self, layers=tuple(_mapped(layer, change) for layer in self.layers))

    def detach(self) -> State:
        """Without the graph that made it."""
        return self.map(lambda tensor: tensor.detach())

    def select(self, rows: Tensor) -> State:
        """Of some sequences of the batch. Memories have a row for each head of each sequence."""

        def chosen(tensor: Tensor) -> Tensor:
            found: Tensor = torch.unflatten(tensor, 0, (self.batch, -1))[rows].flatten(0, 1)
            return found

        return replace(self.map(chosen), batch=len(rows))

    def state_dict(self) -> dict[str, Any]:
        """Named tensors and numbers, with the version of this layout."""
        found: dict[str, Any] = {
            "version": VERSION, "seen": self.seen, "batch": self.batch, "layers": len(self.layers)
        }  # fmt: skip
        for n, layer in enumerate(self.layers):
            found.update({f"{n}.{name}": value for name, value in _named(layer)})
        return found

    @classmethod
    def from_state_dict(cls, found: Mapping[str, Any]) -> State:
        """Raises CheckpointError for a layout of another version."""
        if found.get("version") != VERSION:
            raise CheckpointError(
                f"the memory's state has version {found.get('version')}, and this code reads "
                f"version {VERSION}"
            )
        layers = []
        for n in range(found["layers"]):
            own = {
                name.partition(".")[2]: value
                for name, value in found.items()
                if name.partition(".")[0] == str(n)
            }
            layers.append(_restored(own))
        return cls(tuple(layers), found["batch"], found["seen"])


_LISTS = ("weights", "anchor", "momentum", "dual")


def _mapped(layer: LayerState, change: Callable[[Tensor], Tensor]) -> LayerState:
    new: dict[str, Any] = {}
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, Tensor):
            new[field.name] = change(value)
        elif isinstance(value, Fast):
            new[field.name] = _fast_mapped(value, change)
        elif isinstance(value, CMSState):
            new[field.name] = _cms_mapped(value, change)
    return replace(layer, **new)


def _fast_mapped(fast: Fast, change: Callable[[Tensor], Tensor]) -> Fast:
    weights = [change(tensor) for tensor in fast.weights]
    # Where both are the same they stay the same: a chunk has just begun.
    same = fast.anchor is fast.weights
    rest = {
        name: None if (part := getattr(fast, name)) is None else [change(one) for one in part]
        for name in ("momentum", "dual")
    }
    anchor = weights if same else [change(tensor) for tensor in fast.anchor]
    return Fast(weights, anchor, rest["momentum"], rest["dual"], fast.at)


def _cms_mapped(cms: CMSState, change: Callable[[Tensor], Tensor]) -> CMSState:
    def each(part: list[Tensor] | None) -> list[Tensor] | None:
        return None if part is None else [change(one) for one in part]

    levels = tuple(Level(*(each(part) for part in level)) for level in cms.levels)  # type: ignore[arg-type]
    output = None if cms.output is None else change(cms.output)
    return CMSState(levels, cms.seen, each(cms.tails), each(cms.pending), output)


def _named(layer: LayerState) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("index", layer.index)]
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, Tensor):
            found.append((field.name, value))
        elif isinstance(value, Fast):
            found.append((f"{field.name}.at", value.at))
            for part in _LISTS:
                for n, tensor in enumerate(getattr(value, part) or ()):
                    found.append((f"{field.name}.{part}.{n}", tensor))
        elif isinstance(value, CMSState):
            found += _cms_named(value)
    return found


def _cms_named(cms: CMSState) -> list[tuple[str, Any]]:
    """All but the output, whose gradient nobody can ask for any more."""
    lists: dict[str, list[Tensor] | None] = {"cms.tails": cms.tails, "cms.pending": cms.pending}
    for n, level in enumerate(cms.levels):
        lists |= {f"cms.{n}.{name}": part for name, part in level._asdict().items()}
    found: list[tuple[str, Any]] = [("cms.seen", cms.seen), ("cms.levels", len(cms.levels))]
    for name, part in lists.items():
        found += [(f"{name}.{n}", one) for n, one in enumerate(part or ())]
    return found


def _cms_restored(own: Mapping[str, Any]) -> CMSState:
    def part(name: str) -> list[Tensor]:
        return [own[key] for key in _in_order(own, f"cms.{name}.")]

    levels = []
    for n in range(own["cms.levels"]):
        nested = [part(f"{n}.{name}") or None for name in ("first", "above")]
        levels.append(Level(part(f"{n}.weights"), part(f"{n}.sums"), *nested))
    tails, pending = (part(name) or None for name in ("tails", "pending"))
    return CMSState(tuple(levels), own["cms.seen"], tails, pending)


def _restored(own: Mapping[str, Any]) -> LayerState:
    new: dict[str, Any] = {"index": own["index"]}
    for name in ("conv", "keys", "values"):
        if name in own:
            new[name] = own[name]
    if "cms.seen" in own:
        new["cms"] = _cms_restored(own)
    for name in ("fast", "others", "base"):
        if f"{name}.at" in own:
            parts: dict[str, Any] = {}
            for part in _LISTS:
                found = [own[key] for key in _in_order(own, f"{name}.{part}.")]
                parts[part] = found or None
            new[name] = Fast(**parts, at=own[f"{name}.at"])
    return LayerState(**new)


def _in_order(own: Mapping[str, Any], prefix: str) -> list[str]:
    return sorted(
        (key for key in own if key.startswith(prefix)), key=lambda k: int(k[len(prefix) :])
    )
