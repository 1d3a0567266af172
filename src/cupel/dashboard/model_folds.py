"""Twelve blocks alike are one `Block ×12`: `fold`, and `unfold`, which takes it back exactly.

Neighbours with consecutive numbers for names are folded when everything in them is equal: classes,
what they print of themselves, tensors and ties, how they were called, and the edges inside. What
may differ is what tells them apart: paths, the order of calls, norms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from cupel.dashboard.model_tree import Edge, Node, is_number


def fold(node: Node) -> Node:
    """The tree with equal neighbours folded, on every level."""
    groups = [*_runs(node.children)]
    children = [fold(run[0]) if len(run) == 1 else _group(run) for run in groups]
    if len(children) == len(node.children):
        return replace(node, children=children)
    names = {
        one.name: child.name for run, child in zip(groups, children, strict=True) for one in run
    }
    return replace(
        node, children=children, edges=[*_lifted(node.edges, names)], unfolded_edges=node.edges
    )


def unfold(node: Node) -> Node:
    """The tree that was folded."""
    children = [unfold(one) for child in node.children for one in (child.members or [child])]
    edges = node.edges if node.unfolded_edges is None else node.unfolded_edges
    return replace(node, children=children, edges=edges, unfolded_edges=None)


def _runs(children: list[Node]) -> Iterator[list[Node]]:
    """Neighbours that belong together, in order."""
    run: list[Node] = []
    alike: Any = None
    for child in children:
        signature = _signature(child, child.path)
        follows = (
            run
            and is_number(child.name)
            and is_number(run[-1].name)
            and int(child.name) == int(run[-1].name) + 1
            and signature == alike
        )
        if follows:
            run.append(child)
        else:
            if run:
                yield run
            run, alike = [child], signature
    if run:
        yield run


def _group(run: list[Node]) -> Node:
    first, last = run[0], run[-1]
    return replace(
        first,
        name=f"{first.name}–{last.name}",
        own=sum(one.own for one in run),
        total=sum(one.total for one in run),
        share=sum(one.share for one in run),
        outputs=last.outputs,
        grad_norm=None,
        weight_norm=None,
        also=[],
        children=[],
        edges=[],
        folds=len(run),
        paths=[one.path for one in run],
        members=[fold(one) for one in run],
    )


def _lifted(edges: Iterable[Edge], names: dict[str, str]) -> Iterator[Edge]:
    """Edges between what is shown; one that stands for several is inferred if all of them are.

    Edges within a group go; one from a module to itself, as of a cell in a loop, stays.
    """
    lifted: dict[tuple[str, str], bool] = {}
    for edge in edges:
        ends = names.get(edge.source, edge.source), names.get(edge.target, edge.target)
        if ends[0] != ends[1] or ends == (edge.source, edge.target):
            lifted[ends] = lifted.get(ends, True) and edge.inferred
    for (source, target), inferred in lifted.items():
        yield Edge(source, target, inferred)


def _signature(node: Node, base: str) -> Any:
    """What must be equal; names of ties are taken as seen from `base`."""
    return (
        node.module,
        node.extra,
        node.total,
        [
            (t.name, t.shape, t.dtype, t.numbers, t.trained, t.buffer, _seen_from(base, t.tied_to))
            for t in node.tensors
        ],
        node.calls,
        node.varies,
        node.inputs,
        node.outputs,
        _seen_from(base, node.shared_with),
        [_seen_from(base, path) for path in node.also],
        node.edges,
        [(child.name, _signature(child, base)) for child in node.children],
    )


def _seen_from(base: str, path: str | None) -> tuple[bool, str] | None:
    if path is None:
        return None
    inside = path.startswith(f"{base}.")
    return inside, path[len(base) + 1 :] if inside else path
