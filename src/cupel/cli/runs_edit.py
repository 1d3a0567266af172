"""`cupel runs note` and `cupel runs tag`: what people say of runs, also while these run."""

from __future__ import annotations

from typing import Annotated

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Run, Runs, called, found, opened


def note(
    run: Run,
    text: Annotated[
        str | None, typer.Argument(help="What to note; without it the notes are shown.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of the notes that there are.")
    ] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Add a line to a run's notes, or show them.

    \b
    cupel runs note 20261121 'the loss jumps at step 300: look at the data there'
    cupel runs note 20261121 'a better word' --replace
    cupel runs note 20261121
    """
    from cupel.cli.tables import print_json, printable
    from cupel.errors import UsageError
    from cupel.record import editing, files, layout

    folder = opened(runs_root(root), run).run_dir
    if text is None:
        if replace:
            raise UsageError("--replace needs a text; an empty one, '', deletes the notes")
        notes = editing.notes_of(files.read_json(folder / layout.RUN))
    elif not text.strip() and not replace:
        raise UsageError("an empty note adds nothing; to delete the notes add --replace")
    else:
        notes = editing.add_note(folder, text, replace=replace)
    if json:
        print_json({"run": called(folder), "notes": notes})
    elif notes:
        print(printable(notes))


def tag(
    runs: Runs,
    add: Annotated[
        list[str] | None, typer.Option("--add", "-a", metavar="TAG", help="Give this tag.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", metavar="TAG", help="Take this tag away.")
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Give runs tags and take them away, or show them.

    \b
    cupel runs tag 20261121 --add baseline --add slow --remove draft
    cupel runs tag 20261121-1 20261121-2 -a keep
    cupel runs ls tags=keep
    """
    from cupel.cli.tables import print_json, printable
    from cupel.record import editing, files, layout

    folders = found(runs_root(root), runs)
    tags = {}
    for folder in folders:
        if add or remove:
            tags[called(folder)] = editing.change_tags(folder, add=add or (), remove=remove or ())
        else:
            tags[called(folder)] = editing.tags_of(files.read_json(folder / layout.RUN))
    if json:
        print_json([{"run": run, "tags": its} for run, its in tags.items()])
        return
    for run, its in tags.items():
        print(printable(f"{run}  {', '.join(its) or 'no tags'}"))
