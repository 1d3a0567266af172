"""What a run's model looks like: `view`, from model.json and the newest norms, and as text.

`routes` serves it, and two of them side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cupel.dashboard.model_folds import fold
from cupel.dashboard.model_tree import (
    Described,
    Node,
    Norms,
    TensorShape,
    layer_of,
    tree,
)

MISSING = (
    "this run has no model.json: its script did not call run.watch(model), or it ended before its "
    "model was made"
)


class Size(msgspec.Struct):
    """One of the model's main sizes, and what says it."""

    name: str
    value: int | list[int]
    source: str


class Seen(msgspec.Struct):
    """Whether the first training pass was seen, in which step, and what is missing of it."""

    complete: bool
    reason: str | None
    step: int | None


class ModelView(msgspec.Struct):
    """`available` is false where there is no tree to show, and `reason` says why."""

    available: bool
    reason: str = ""
    kind: str = msgspec.field(name="class", default="")
    n_params: int = 0
    trained: int = 0
    sizes: list[Size] = []
    seen: Seen | None = None
    """None of a model whose first pass was not looked at, as in older records."""
    problems: dict[str, str] = {}
    root: Node | None = None


def view(model: Mapping[str, Any] | None, norms: Norms | None = None) -> ModelView:
    """What the page shows, with equal neighbours folded. `norms` are by key, as
    `grad_norm/blocks.3`, with their steps.
    """
    if model is None:
        return ModelView(False, MISSING)
    try:
        described = msgspec.convert(model, Described)
        root = fold(tree(described, norms))
    except (msgspec.ValidationError, ValueError) as error:
        return ModelView(False, f"model.json is not as cupel writes it: {error}")
    calls = described.calls
    return ModelView(
        True,
        kind=root.kind,
        n_params=described.parameters,
        trained=described.trained,
        sizes=[Size(name, size.value, size.source) for name, size in described.sizes.items()],
        seen=Seen(calls.complete, calls.reason, calls.step) if calls else None,
        problems=described.problems,
        root=root,
    )


def norm_keys(model: Mapping[str, Any] | None) -> list[str]:
    """The metric keys under which norms of this model's layers may be in the record."""
    tensors = model.get("tensors") if model else None
    layers = dict.fromkeys(map(layer_of, tensors)) if isinstance(tensors, Mapping) else {}
    return [f"{norm}/{of}" for of in ("total", *layers) for norm in ("grad_norm", "weight_norm")]


# ---- as text -----------------------------------------------------------------------------------


def as_text(view: ModelView) -> str:
    """The tree in lines, for terminals and screen readers."""
    if view.root is None:
        return view.reason
    return "\n".join(_lines(view.root, view.n_params, "", ""))


def _lines(node: Node, whole: int, before: str, further: str) -> Iterator[str]:
    yield f"{before}{_line(node, whole)}"
    children = node.members[0].children if node.members else node.children
    for child in children:
        last = child is children[-1]
        branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _lines(child, whole, f"{further}{branch}", f"{further}{below}")


def _line(node: Node, whole: int) -> str:
    """`blocks.0: Block ×12 · 85,054,464 parameters (52.3 %) · (2, 16, 768) → (2, 16, 768)`."""
    label = f"{node.name}: " if node.name else ""
    parts = [f"{label}{node.kind}{f'({node.extra})' if node.extra else ''}"]
    if node.folds > 1:
        parts[0] += f" ×{node.folds}"
    if node.total:
        share = f" ({100 * node.total / whole:.1f} %)" if whole and node.name else ""
        parts.append(f"{node.total:,} parameters{share}")
    if node.trainable in ("some", "none"):
        parts.append({"some": "partly trained", "none": "not trained"}[node.trainable])
    parts += [f"{t.name} tied to {t.tied_to}" for t in node.tensors if t.tied_to]
    if node.shared_with is not None:
        parts.append(f"the same module as {node.shared_with}")
    if node.inputs is not None and node.outputs is not None:
        parts.append(f"{_shapes(node.inputs)} → {_shapes(node.outputs)}")
    if node.calls == 0 and not node.children and not node.members and node.shared_with is None:
        parts.append("not called")
    if node.calls is not None and node.calls > 1:
        parts.append(f"called {node.calls} times")
    return " · ".join(parts)


def _shapes(tensors: list[TensorShape]) -> str:
    told = ["(?)" if t.shape is None else f"({', '.join(map(str, t.shape))})" for t in tensors]
    return ", ".join(told) or "nothing"
