"""`cupel notes diff` and `export`: two states of notes beside each other, and notes as data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupel.cli.notes_common import Json, Output, Paths

if TYPE_CHECKING:
    from cupel.notes.diff import Diff
    from cupel.notes.model import Paper


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A file of notes.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one of the same paper.")],
    json: Json = False,
) -> None:
    """Show what changed between two notes of one paper, and what that reaches.

    Equations are compared by number: LaTeX, form, shapes, what they require, tests. Affected is
    what changed in more than words, with everything that needs it.

    \b
    cupel notes diff notes/titans.context.md notes/titans-v2.context.md
    git show HEAD~1:notes/titans.context.md > old.md
    cupel notes diff old.md notes/titans.context.md
    """
    from cupel.cli.tables import print_json
    from cupel.notes.diff import as_data
    from cupel.notes.diff import diff as compared

    found = compared(_read(old), _read(new))
    if json:
        print_json(as_data(found))
    else:
        _show(found)


def _read(path: Path) -> Paper:
    """One paper. Refused when its form is not sound; it may be unfinished, and require anything."""
    from cupel.errors import UsageError
    from cupel.notes.load import read_file

    reading = read_file(path)
    if wrong := [fault for fault in reading.faults if fault.rule != "todo"]:
        more = f", the first of {len(wrong)} faults" if len(wrong) > 1 else ""
        raise UsageError(f"{wrong[0]}{more}; see: cupel notes lint {path}")
    return reading.paper


def _show(found: Diff) -> None:
    from cupel.cli.tables import print_table, printable

    if found.is_empty:
        print(f"{found.old} and {found.new} say the same")
        return
    if found.front:
        print(f"front matter: {', '.join(found.front)}")
    changes = (*found.changes, *found.ambiguities)
    print_table([{"id": one.part, "what": one.what, "name": one.name} for one in changes])
    if found.affected:
        print(f"\naffected: {', '.join(found.affected)}")
    for name, path in found.modules:
        print(printable(f"  module {name}  {path}"))
    for path in found.tests:
        print(f"  test   {path}")


def export(
    paths: Paths = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="json (all of it) or rubric.")
    ] = "json",
    output: Output = None,
    json: Json = False,
) -> None:
    """Write notes as JSON: all that they hold, or a rubric to judge an implementation by.

    A rubric is a tree in the form of PaperBench's: its leaves are code development (equations),
    code execution (test criteria) and result analysis (reported results). With --json and -o the
    file's name is printed as JSON, too.

    \b
    cupel notes export | jq '.papers[].equations[].id'
    cupel notes export --format rubric -o rubric.json
    """
    import json as to_json

    from cupel.cli.notes_common import deliver
    from cupel.errors import UnknownName
    from cupel.notes import export as exporting
    from cupel.notes.load import load_sound

    if format_ not in exporting.FORMATS:
        raise UnknownName("format", format_, exporting.FORMATS)
    papers = load_sound(paths or [])
    make = exporting.as_data if format_ == "json" else exporting.as_rubric
    text = to_json.dumps(make(papers), indent=2, ensure_ascii=False) + "\n"
    facts = {"format": format_, "papers": [paper.id for paper in papers]}
    # Without a file the text is JSON already.
    deliver(text, output, json=json and output is not None, facts=facts)
