"""`cupel notes …`: notes of papers, checked, drawn, planned, scaffolded, compared.

Each command is in a file of its own, `cupel.cli.notes_<what>`, and imports what it needs when it
runs.
"""

from __future__ import annotations

import typer

from cupel.cli import notes_compare, notes_graph, notes_lint, notes_new, notes_plan, notes_status

app = typer.Typer(
    help="Turn notes of papers into a dependency graph, a plan and tests to write.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("new")(notes_new.new)
app.command("lint")(notes_lint.lint)
app.command("graph")(notes_graph.graph)
app.command("plan")(notes_plan.plan)
app.command("equations")(notes_plan.equations)
app.command("scaffold")(notes_new.scaffold)
app.command("status")(notes_status.status)
app.command("diff")(notes_compare.diff)
app.command("export")(notes_compare.export)
