"""`cupel notes new` and `scaffold`: files to begin with, none of them ever overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli.notes_common import Json, Package, Paths


def new(
    name: Annotated[str, typer.Argument(help="The paper's name in ids, as titans.")],
    arxiv: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Its number there, as 2501.00663.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The paper's title.")] = None,
    version: Annotated[
        str, typer.Option(metavar="VERSION", help="Which version of the paper is read.")
    ] = "v1",
    json: Json = False,
) -> None:
    """Write NAME.context.md with every section, and TODO where something is due.

    It goes into notes/ where there is such a folder, else here. What is there is not overwritten.

    \b
    cupel notes new titans --arxiv 2501.00663
    cupel notes new nested-learning --version neurips --title 'Nested Learning'
    """
    from cupel.cli.tables import print_json
    from cupel.notes.load import FOLDER
    from cupel.notes.template import write_template

    folder = FOLDER if FOLDER.is_dir() else Path()
    path = write_template(folder, name, arxiv=arxiv, title=title, version=version)
    if json:
        print_json({"path": str(path)})
    else:
        print(f"wrote {path}\nNext: fill in what says TODO, then cupel notes lint {path}")


def scaffold(
    into: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The project's folder; made where it is missing.")
    ],
    paths: Paths = None,
    package: Package = None,
    json: Json = False,
) -> None:
    """Make a project's skeleton: a file a module, and a failing test for each criterion.

    Files that exist are left as they are, and told of. Notes with faults are refused.

    \b
    cupel notes scaffold --into titans
    cupel notes scaffold notes/titans.context.md --into titans --package titans_memory
    """
    from cupel.cli.tables import print_json, printable
    from cupel.notes import scaffold as scaffolding
    from cupel.notes.load import load_sound

    made = scaffolding.scaffold(load_sound(paths or []), into, package=package)
    if json:
        print_json({"folder": str(into), "written": made.written, "kept": made.kept})
        return
    for path in made.written:
        print(printable(f"wrote  {path}"))
    for path in made.kept:
        print(printable(f"kept   {path}  (it was there)"))
    files = f"{len(made.written)} file{'s' * (len(made.written) != 1)}"
    print(f"{files} written into {into}, {len(made.kept)} left as they were")
