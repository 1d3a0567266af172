"""Two models side by side: `compare`, a tree in which each module is paired with its counterpart.

Children are paired by name; of those that are left, ones of equal class are, in their order. What
can differ of a pair: name, class, what it prints of itself, the shapes of its tensors, the number
of parameters inside. Shapes of what it took and gave are not held against it: they follow the
batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from cupel.dashboard.model_folds import unfold
from cupel.dashboard.model_tree import Node, Tensor, is_number
from cupel.dashboard.model_view import ModelView

Status = Literal["same", "changed", "left", "right"]


class Change(msgspec.Struct, frozen=True):
    """What of a pair is not equal, as text of both sides."""

    what: Literal["name", "class", "settings", "shapes", "params"]
    left: str
    right: str


class Side(msgspec.Struct, frozen=True):
    """A module of one of the two."""

    path: str
    name: str
    kind: str = msgspec.field(name="class")
    params: int


class DiffNode(msgspec.Struct, omit_defaults=True):
    """A pair, or a module that only one side has; `folds` pairs alike in a row are one."""

    status: Status
    left: Side | None = None
    right: Side | None = None
    changes: list[Change] = []
    within: int = 0
    """How many of those inside are not the same; of a module of one side only, 0."""
    children: list[DiffNode] = []
    folds: int = 1
    lefts: list[str] = []
    """The paths of all that are folded."""
    rights: list[str] = []


class ModelDiff(msgspec.Struct):
    """`available` is false where one of the two cannot be shown, and `reason` says why."""

    available: bool
    reason: str
    same: bool
    left: ModelView
    right: ModelView
    root: DiffNode | None


def compare(left: ModelView, right: ModelView) -> ModelDiff:
    """The two aligned. Equal models give a tree in which all is the same."""
    if left.root is None or right.root is None:
        reasons = [("left", left), ("right", right)]
        told = "; ".join(f"{side}: {view.reason}" for side, view in reasons if view.root is None)
        return ModelDiff(False, told, False, left, right, None)
    root = _pair(unfold(left.root), unfold(right.root))
    same = root.status == "same" and not root.within
    return ModelDiff(True, "", same, left, right, _folded(root))


def _pair(left: Node, right: Node) -> DiffNode:
    children = [_one(a, b) for a, b in _aligned(left.children, right.children)]
    changes = [*_changes(left, right)]
    return DiffNode(
        "changed" if changes else "same",
        _side(left),
        _side(right),
        changes,
        sum(child.within + (child.status != "same") for child in children),
        children,
    )


def _one(left: Node | None, right: Node | None) -> DiffNode:
    if left is not None and right is not None:
        return _pair(left, right)
    if left is not None:
        inside = [_one(child, None) for child in left.children]
        return DiffNode("left", left=_side(left), children=inside)
    assert right is not None
    inside = [_one(None, child) for child in right.children]
    return DiffNode("right", right=_side(right), children=inside)


def _aligned(left: list[Node], right: list[Node]) -> Iterator[tuple[Node | None, Node | None]]:
    """Pairs, in the left one's order; what only the right one has stands after its neighbour."""
    named = {node.name: node for node in right}
    partner = {node.name: named[node.name] for node in left if node.name in named}
    free = [node for node in right if node.name not in partner]
    for node in left:
        if node.name not in partner:
            like = next((one for one in free if one.module == node.module), None)
            if like is not None and not is_number(node.name):
                partner[node.name] = like
                free.remove(like)
    after: dict[str | None, list[Node]] = {}
    before = None
    back = {one.name: name for name, one in partner.items()}
    for node in right:
        if node.name in back:
            before = back[node.name]
        else:
            after.setdefault(before, []).append(node)
    for only in after.get(None, ()):
        yield None, only
    for node in left:
        yield node, partner.get(node.name)
        for only in after.get(node.name, ()):
            yield None, only


def _changes(left: Node, right: Node) -> Iterator[Change]:
    if left.name != right.name:
        yield Change("name", left.name, right.name)
    if left.module != right.module:
        yield Change("class", left.module, right.module)
    if left.extra != right.extra:
        yield Change("settings", left.extra, right.extra)
    if (a := _shapes(left.tensors)) != (b := _shapes(right.tensors)):
        yield Change("shapes", a, b)
    if left.total != right.total:
        yield Change("params", str(left.total), str(right.total))


def _shapes(tensors: list[Tensor]) -> str:
    """`weight 3×4 float32, bias 3 float32 (tied to head.bias)`, in the order of names."""

    def told(tensor: Tensor) -> str:
        shape = "?" if tensor.shape is None else "×".join(map(str, tensor.shape)) or "1"
        tied = f" (tied to {tensor.tied_to})" if tensor.tied_to else ""
        frozen = "" if tensor.trained or tensor.buffer else " (not trained)"
        return (
            f"{tensor.name} {'?' if tensor.shape is None else shape} {tensor.dtype}{tied}{frozen}"
        )

    return ", ".join(sorted(map(told, tensors)))


def _side(node: Node) -> Side:
    return Side(node.path, node.name, node.kind, node.total)


def _folded(node: DiffNode) -> DiffNode:
    """The tree with equal neighbours of consecutive numbers as one."""
    children: list[DiffNode] = []
    alike: list[Any] = []
    for child in node.children:
        told, found = _told(child), _folded(child)
        last = children[-1] if children else None
        if last is not None and alike[-1] == told and _follows(last, child):
            children[-1] = replace(
                last,
                folds=last.folds + 1,
                lefts=[*last.lefts, *found.lefts],
                rights=[*last.rights, *found.rights],
            )
        else:
            children.append(found)
            alike.append(told)
    return replace(
        node,
        children=children,
        lefts=[node.left.path] if node.left else [],
        rights=[node.right.path] if node.right else [],
    )


def _follows(last: DiffNode, child: DiffNode) -> bool:
    for paths, side in ((last.lefts, child.left), (last.rights, child.right)):
        name = paths[-1].rpartition(".")[2] if paths else ""
        if side is None:
            continue
        if not (is_number(side.name) and is_number(name)) or int(side.name) != int(name) + 1:
            return False
    return True


def _told(node: DiffNode) -> Any:
    """What is shown of a pair besides where it stands."""
    return (
        node.status,
        [(side.kind, side.params) if side else None for side in (node.left, node.right)],
        [(one.what, one.left, one.right) for one in node.changes],
        [(_name(child), _told(child)) for child in node.children],
    )


def _name(node: DiffNode) -> tuple[str | None, str | None]:
    return node.left.name if node.left else None, node.right.name if node.right else None
