"""`cupel runs verify RUN…`: whether a record is, byte for byte, what was written."""

from __future__ import annotations

from typing import Annotated

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, called, found, size


def verify(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Which runs; or give --all.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of the root.")] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Check every line and every hash of runs.

    Metrics, events, checkpoints, media, artifacts, results, and what they say of each other.
    Exit code 0 when all is sound, 1 when something is not.

    \b
    cupel runs verify 20261121
    cupel runs verify --all
    """
    from dataclasses import asdict

    from cupel.cli.tables import print_json, printable
    from cupel.cli.working import Working
    from cupel.errors import UsageError
    from cupel.record.reader import list_runs
    from cupel.record.verifying import check_run

    where = runs_root(root)
    if bool(runs) == every:
        raise UsageError("say which runs to verify, or --all for all of them")
    folders = found(where, runs) if runs else [record.run_dir for record in list_runs(where)]
    checked = []
    with Working("verifying") as working:
        for folder in folders:
            name = called(folder)

            def tell(place: str, name: str = name) -> None:
                working(f"{name}: {place}")

            checked.append(check_run(folder, tell=tell))
    sound = all(one.sound for one in checked)
    if json:
        print_json(
            [
                {
                    "run": called(one.run_dir),
                    "sound": one.sound,
                    **asdict(one),
                    "run_dir": str(one.run_dir),
                }
                for one in checked
            ]
        )
    for one in checked if not json else ():
        name = called(one.run_dir)
        told = f"{one.lines:,} lines, {one.files:,} files, {size(one.bytes)}"
        wrong = len(one.problems)
        state = "sound" if one.sound else f"{wrong} problem{'s' if wrong > 1 else ''}"
        print(printable(f"{name}: {state} ({told})"))
        for problem in one.problems:
            print(printable(f"  {problem}"))
        for note in one.notes:
            print(printable(f"  note: {note}"))
    if not checked and not json:
        print(f"no runs in {where}")
    if not sound:
        raise typer.Exit(1)
