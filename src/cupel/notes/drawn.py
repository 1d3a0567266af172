"""A graph as text, Mermaid, DOT or plain data. `cupel.notes.svg` draws it.

What is needed stands before what needs it: arrows lead from a requirement to its users, in the
order in which things are built.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from cupel.notes import ids
from cupel.notes.graph import Graph

FORMATS = ("text", "mermaid", "dot", "json", "svg")


def as_text(graph: Graph) -> str:
    """Levels as lists, what each needs, and the longest chain, whose members have a star."""
    levels, chain = graph.levels(), graph.longest()
    width = max((len(name) for name in graph.nodes), default=0)
    label = max((len(node.label) for node in graph.nodes.values()), default=0)
    lines = [f"{_count(len(graph.nodes), graph.kind)} in {_count(len(levels), 'levels')}"]
    for number, level in enumerate(levels):
        lines += ["", f"level {number}"]
        for name in level:
            node = graph.nodes[name]
            needs = ", ".join(_short(other, name) for other in graph.needs[name])
            told = f"needs {needs}" if needs else ""
            if not node.main:
                told = f"context; {told}" if told else "context"
            star = "*" if name in chain else " "
            lines.append(f"{star} {name:<{width}}  {node.label:<{label}}  {told}".rstrip())
    if chain:
        lines += ["", f"longest chain, {len(chain)}: {' → '.join(chain)}"]
    return "\n".join(lines) + "\n"


def as_mermaid(graph: Graph) -> str:
    """A Mermaid diagram, a subgraph a level; the longest chain has thick lines."""
    chain = graph.longest()
    lines = ["graph TD"]
    for number, level in enumerate(graph.levels()):
        lines.append(f'    subgraph L{number}["level {number}"]')
        for name in level:
            node = graph.nodes[name]
            shape = ('["', '"]') if node.main else ('(["', '"])')
            lines.append(
                f"        {_key(name)}{shape[0]}{_entities(_title(graph, name))}{shape[1]}"
            )
        lines.append("    end")
    links = set(pairwise(chain))
    for name, needed in graph.needs.items():
        for other in needed:
            arrow = "==>" if (other, name) in links else "-->"
            lines.append(f"    {_key(other)} {arrow} {_key(name)}")
    if chain:
        lines.append("    classDef longest stroke-width:3px")
        lines.append(f"    class {','.join(map(_key, chain))} longest")
    return "\n".join(lines) + "\n"


def as_dot(graph: Graph) -> str:
    """A graph for Graphviz, a rank a level."""
    chain = graph.longest()
    links = set(pairwise(chain))
    lines = [f"digraph {graph.kind} {{", "    rankdir=LR;", "    node [shape=box];"]
    for level in graph.levels():
        lines.append("    { rank=same;")
        for name in level:
            style = ', style="bold"' if name in chain else ""
            if not graph.nodes[name].main:
                style += ', color="gray"'
            lines.append(f"        {_quoted(name)} [label={_quoted(_title(graph, name))}{style}];")
        lines.append("    }")
    for name, needed in graph.needs.items():
        for other in needed:
            bold = ' [style="bold"]' if (other, name) in links else ""
            lines.append(f"    {_quoted(other)} -> {_quoted(name)}{bold};")
    return "\n".join([*lines, "}"]) + "\n"


def as_data(graph: Graph) -> dict[str, Any]:
    """A graph as plain data."""
    chain, users = graph.longest(), graph.used_by()
    levels = graph.levels()
    place = {name: number for number, level in enumerate(levels) for name in level}
    return {
        "of": graph.kind,
        "nodes": [
            {
                "id": name,
                "label": node.label,
                "paper": node.group,
                "role": "main" if node.main else "context",
                "level": place[name],
                "needs": list(graph.needs[name]),
                "used_by": list(users[name]),
                "longest": name in chain,
            }
            for name, node in graph.nodes.items()
        ],
        "levels": levels,
        "longest": chain,
    }


def _title(graph: Graph, name: str) -> str:
    label = graph.nodes[name].label
    part = ids.split(name)[1] or name
    return part if label in (part, "") else f"{part} {label}"


def _short(name: str, beside: str) -> str:
    """`eq12` beside something of the same paper, else the whole id."""
    paper, part = ids.split(name)
    return part if part and paper == ids.split(beside)[0] else name


def _key(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


def _entities(text: str) -> str:
    """What Mermaid would take for its own signs, written as it wants them."""
    for sign, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(sign, entity)
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _count(number: int, what: str) -> str:
    return f"{number} {what.removesuffix('s') if number == 1 else what}"
