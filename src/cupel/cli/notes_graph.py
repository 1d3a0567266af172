"""`cupel notes graph`: what depends on what, as text, a diagram or an image."""

from __future__ import annotations

from typing import Annotated

import typer

from cupel.cli.notes_common import Json, Output, Paths


def graph(
    paths: Paths = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, mermaid, dot, json or svg.")
    ] = "text",
    of: Annotated[
        str, typer.Option("--of", metavar="WHAT", help="equations, papers or modules.")
    ] = "equations",
    output: Output = None,
    json: Json = False,
) -> None:
    """Show levels of dependency, and the longest chain.

    Level 0 needs nothing; what stands on a level needs something of the one below. The longest
    chain is marked: it cannot be worked on side by side. Notes with faults are drawn as far as
    they go.

    \b
    cupel notes graph
    cupel notes graph --of modules --format mermaid
    cupel notes graph --format svg -o docs/equations.svg
    """
    import json as to_json

    from cupel.cli.notes_common import deliver
    from cupel.cli.streams import tell
    from cupel.errors import UnknownName
    from cupel.notes import drawn, svg
    from cupel.notes.graph import KINDS, graph_of
    from cupel.notes.load import load

    if format_ not in drawn.FORMATS:
        raise UnknownName("format", format_, drawn.FORMATS)
    if of not in KINDS:
        raise UnknownName("graph", of, KINDS)
    notes = load(paths or [])
    if notes.serious:
        tell(f"cupel: the notes have faults ({len(notes.serious)}); see: cupel notes lint")
    found = graph_of(notes.papers, of)
    data = drawn.as_data(found)
    if json and output is None:
        format_ = "json"
    if format_ == "json":
        text = to_json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    else:
        draw = {
            "text": drawn.as_text, "mermaid": drawn.as_mermaid, "dot": drawn.as_dot,
            "svg": svg.as_svg,
        }  # fmt: skip
        text = draw[format_](found)
    facts = {"of": of, "format": format_, "nodes": len(found.nodes), "levels": len(data["levels"])}
    deliver(text, output, json=json and output is not None, facts=facts)
