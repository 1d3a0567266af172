"""`cupel runs …`: what has been run, how it stands, and everything that is done with runs.

Each command is in a file of its own, `cupel.cli.runs_<what>`, and imports what it needs when it
runs.
"""

from __future__ import annotations

import typer

from cupel.cli import (
    runs_checkpoints,
    runs_compare,
    runs_diff,
    runs_edit,
    runs_exchange,
    runs_grep,
    runs_ls,
    runs_remove,
    runs_show,
    runs_tail,
    runs_verify,
)

app = typer.Typer(
    help="Find runs, look at them, compare them, keep them in order.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("ls")(runs_ls.list_)
app.command("show")(runs_show.show)
app.command("compare")(runs_compare.compare)
app.command("diff")(runs_diff.diff)
app.command("tail")(runs_tail.tail)
app.command("grep")(runs_grep.grep)
app.command("note")(runs_edit.note)
app.command("tag")(runs_edit.tag)
app.command("checkpoints")(runs_checkpoints.checkpoints)
app.command("verify")(runs_verify.verify)
app.command("export")(runs_exchange.export)
app.command("import")(runs_exchange.import_)
app.command("rm")(runs_remove.rm)
app.command("restore")(runs_remove.restore)
app.command("gc")(runs_remove.gc)
app.command("du")(runs_remove.du)
