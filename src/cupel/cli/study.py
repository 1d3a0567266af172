"""`cupel study …`: the list of what there is of it, a file for each."""

from __future__ import annotations

import typer

from cupel.cli.compare import compare
from cupel.cli.study_collect import collect
from cupel.cli.study_export import export
from cupel.cli.study_plan import plan
from cupel.cli.study_run import run, work
from cupel.cli.study_status import status
from cupel.cli.study_verify import verify

app = typer.Typer(
    help="Ask a question with many runs: arms × grid × seeds, planned before the first one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("plan")(plan)
app.command("run")(run)
app.command("work", hidden=True)(work)
app.command("status")(status)
app.command("compare")(compare)
app.command("verify")(verify)
app.command("export")(export)
app.command("collect")(collect)
