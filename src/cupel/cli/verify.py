"""`cupel verify resume|monitors`: proves the promises on a recipe or a script of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Prove, on a recipe or a script of your own, that resuming is exact and that monitors "
    "do not disturb.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Target = Annotated[str, typer.Argument(metavar="RECIPE|SCRIPT.py", help="What to run.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[A.B=VALUE]...", help="Settings, for a recipe.")
]
Steps = Annotated[int, typer.Option(min=4, help="Steps to train a recipe for.")]
Keep = Annotated[
    Path | None, typer.Option(help="Keep the runs in this folder instead of a temporary one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")]


@app.command()
def resume(
    target: Target,
    overrides: Overrides = None,
    steps: Steps = 40,
    kill_at: Annotated[
        int | None, typer.Option(min=1, help="Kill after this step; without it a random one.")
    ] = None,
    keep: Keep = None,
    json: Json = False,
) -> None:
    """Kill a real run with SIGKILL, go on in a new process, and compare with one left alone.

    Every later number of the record and a hash of every stateful part must be equal, bit for bit.
    Names the first step and the parts that differ; exit code 1 if any does.

    \b
    cupel verify resume gpt-tiny train.ema=0.99 model.dropout=0.1
    cupel verify resume train.py
    """
    from cupel.cli.drill import Drill, verify_resume

    with Drill.prepare(target, overrides or [], steps=steps, keep=keep) as drill:
        _tell(verify_resume(drill, kill_at=kill_at), as_json=json)


@app.command()
def monitors(
    target: Target,
    overrides: Overrides = None,
    steps: Steps = 40,
    keep: Keep = None,
    json: Json = False,
) -> None:
    """Train with all monitors on and with all off: the state must be equal, bit for bit.

    Prints what each monitor costs. Exit code 1 if a monitor disturbs.
    """
    from cupel.cli.drill import Drill, verify_monitors

    with Drill.prepare(target, overrides or [], steps=steps, keep=keep) as drill:
        _tell(verify_monitors(drill), as_json=json)


def _tell(verdict: object, *, as_json: bool) -> None:
    from dataclasses import asdict

    from cupel.cli.drill import Verdict
    from cupel.cli.tables import print_json

    assert isinstance(verdict, Verdict)
    if as_json:
        print_json(asdict(verdict))
    else:
        for line in verdict.lines:
            print(line)
    raise typer.Exit(0 if verdict.equal else 1)
