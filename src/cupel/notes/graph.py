"""What depends on what: levels, cycles, the longest chain, and what a change reaches.

A graph is of equations (with algorithms), of papers or of modules. An edge leads from what needs to
what is needed. Everything is in the order of ids, whatever order the notes came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cupel.notes import ids
from cupel.notes.model import Algorithm, Equation, Paper

KINDS = ("equations", "papers", "modules")


@dataclass(frozen=True, slots=True)
class Node:
    """One thing of a graph; `group` is its paper, `main` whether it is to be implemented."""

    id: str
    label: str
    group: str
    main: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and, by node, what it needs; both in the order of ids."""

    kind: str
    nodes: Mapping[str, Node]
    needs: Mapping[str, tuple[str, ...]]

    def only(self, names: Iterable[str]) -> Graph:
        """The part of the graph that these nodes and what leads between them make."""
        kept = set(names)
        return Graph(
            self.kind,
            {name: node for name, node in self.nodes.items() if name in kept},
            {
                n: tuple(o for o in needs if o in kept)
                for n, needs in self.needs.items()
                if n in kept
            },
        )

    def used_by(self) -> dict[str, tuple[str, ...]]:
        """By node, what needs it."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, needed in self.needs.items():
            for other in needed:
                found[other].append(name)
        return {name: tuple(users) for name, users in found.items()}

    def cycles(self) -> list[list[str]]:
        """One cycle of each set of nodes that need each other, first node repeated at its end."""
        return [
            self._cycle(group)
            for group in self.groups()
            if len(group) > 1 or group[0] in self.needs[group[0]]
        ]

    def _cycle(self, group: Sequence[str]) -> list[str]:
        inside = set(group)
        first = group[0]
        # The shortest way from the first node back to it.
        ways: list[list[str]] = [[first]]
        seen: set[str] = set()
        for way in ways:
            for other in self.needs[way[-1]]:
                if other == first:
                    return [*way, first]
                if other in inside and other not in seen:
                    seen.add(other)
                    ways.append([*way, other])
        raise AssertionError(group)

    def groups(self) -> list[list[str]]:
        """Sets of nodes that need each other, most of them of one node, what is needed first."""
        return _components(self.nodes, self.needs)

    def levels(self) -> list[list[str]]:
        """Nodes by level: 0 needs nothing, each other one something of the level below.

        Nodes that need each other share a level.
        """
        level: dict[str, int] = {}
        for group in self.groups():
            inside = set(group)
            below = [level[o] for n in group for o in self.needs[n] if o not in inside]
            level |= dict.fromkeys(group, max(below, default=-1) + 1)
        found: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
        for name in self.nodes:
            found[level[name]].append(name)
        return found

    def longest(self) -> list[str]:
        """The longest chain, from what needs nothing upwards; of equals the first by id."""
        best: dict[str, list[str]] = {}
        for group in self.groups():
            inside = set(group)
            for name in group:
                below = [best[o] for o in self.needs[name] if o not in inside]
                # `max` takes the first of equals, and needs are in order.
                best[name] = [*max(below, key=len, default=[]), name]
        return max((best[name] for name in self.nodes), key=len, default=[])

    def reached(self, names: Iterable[str]) -> list[str]:
        """These nodes and everything that needs them, on whatever way."""
        return _closure(names, self.used_by(), self.nodes)

    def required(self, names: Iterable[str]) -> list[str]:
        """These nodes and everything that they need, on whatever way."""
        return _closure(names, self.needs, self.nodes)


def graph_of(papers: Sequence[Paper], kind: str = "equations") -> Graph:
    """The graph of some notes. What is required and not there is left out: `lint` tells of it."""
    assert kind in KINDS, kind
    build = {"equations": _equations, "papers": _papers, "modules": _modules}[kind]
    nodes, needs = build(papers)
    order = sorted(nodes, key=ids.order)
    return Graph(
        kind,
        {name: nodes[name] for name in order},
        {
            name: tuple(ids.ordered({o for o in needs.get(name, ()) if o in nodes}))
            for name in order
        },
    )


_Built = tuple[dict[str, Node], dict[str, set[str]]]


def entries(papers: Iterable[Paper]) -> dict[str, Equation | Algorithm]:
    """Equations and algorithms by id; of two with one id the first."""
    found: dict[str, Equation | Algorithm] = {}
    for paper in papers:
        for entry in paper.entries:
            found.setdefault(entry.id, entry)
    return found


def needs_of(entry: Equation | Algorithm) -> set[str]:
    """What an entry needs: what it requires, and for an algorithm what its lines are."""
    steps = entry.steps if isinstance(entry, Algorithm) else ()
    return {*entry.requires, *(identity for step in steps for identity in step.equations)}


def _equations(papers: Sequence[Paper]) -> _Built:
    found = entries(papers)
    nodes = {
        name: Node(name, entry.name, ids.split(name)[0], getattr(entry, "is_main", True))
        for name, entry in found.items()
    }
    return nodes, {name: needs_of(entry) for name, entry in found.items()}


def _papers(papers: Sequence[Paper]) -> _Built:
    nodes = {paper.id: Node(paper.id, paper.title, paper.id) for paper in papers}
    needs = {paper.id: set(paper.builds_on) for paper in papers}
    for name, entry in entries(papers).items():
        own = ids.split(name)[0]
        needs[own] |= {ids.split(other)[0] for other in needs_of(entry)} - {own}
    return nodes, needs


def _modules(papers: Sequence[Paper]) -> _Built:
    nodes = {
        module.id: Node(module.id, module.description or module.name, paper.id)
        for paper in papers
        for module in paper.modules
    }
    needs: dict[str, set[str]] = {name: set() for name in nodes}
    found = entries(papers)
    for entry in found.values():
        own = module_of(entry)
        if own in needs:
            others = {module_of(found[o]) for o in needs_of(entry) if o in found}
            needs[own] |= others - {own, ""}
    return nodes, needs


def module_of(entry: Equation | Algorithm) -> str:
    """The id of an entry's module, "" for none."""
    return f"{ids.split(entry.id)[0]}:{entry.module}" if entry.module else ""


def _closure(
    names: Iterable[str], edges: Mapping[str, Sequence[str]], known: Iterable[str]
) -> list[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges.get(name, ())
    return [name for name in known if name in found]


def _components(nodes: Iterable[str], needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Tarjan's strongly connected components, without recursion: notes may hold any chain."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in nodes:
        if root in index:
            continue
        work: list[tuple[str, int]] = [(root, 0)]
        while work:
            name, at = work.pop()
            if at == 0:
                index[name] = low[name] = len(index)
                stack.append(name)
                on_stack.add(name)
            elif (done := needs[name][at - 1]) in on_stack:
                low[name] = min(low[name], low[done])
            for place in range(at, len(needs[name])):
                other = needs[name][place]
                if other not in index:
                    work += [(name, place + 1), (other, 0)]
                    break
                if other in on_stack:
                    low[name] = min(low[name], index[other])
            else:
                if low[name] == index[name]:
                    group = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        group.append(member)
                        if member == name:
                            break
                    found.append(ids.ordered(group))
    return found
