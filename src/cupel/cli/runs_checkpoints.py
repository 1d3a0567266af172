"""`cupel runs checkpoints RUN`: list them, check their bytes, keep some, take a model along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Run, called, moment, opened, size

if TYPE_CHECKING:
    from cupel.record.inventory import Kept

_MOST_METRICS = 3  # columns; --json has all


def checkpoints(
    run: Run,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every byte with what was written.")
    ] = False,
    pin: Annotated[
        list[int] | None, typer.Option(metavar="STEP", help="Keep it, whatever retention says.")
    ] = None,
    unpin: Annotated[
        list[int] | None, typer.Option(metavar="STEP", help="Leave it to retention again.")
    ] = None,
    export: Annotated[
        tuple[int, str] | None,
        typer.Option(metavar="STEP PATH", help="Write its model alone as a safetensors file."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List a run's checkpoints; check, pin or export them.

    "intact" is by size; --verify compares every byte, and exits with 1 when one is damaged.

    \b
    cupel runs checkpoints 20261121
    cupel runs checkpoints 20261121 --verify
    cupel runs checkpoints 20261121 --pin 300 --unpin 200
    cupel runs checkpoints 20261121 --export 300 model.safetensors
    """
    from cupel.cli.tables import print_json
    from cupel.errors import RecordError
    from cupel.record import checkpoints as kept
    from cupel.record import inventory

    folder = opened(runs_root(root), run).run_dir
    try:
        for step in pin or ():
            kept.pin(folder, step)
        for step in unpin or ():
            kept.unpin(folder, step)
    except OSError as error:
        raise RecordError(f"cannot pin in {folder}: {error.strerror or error}") from error
    if export is not None:
        written = inventory.export_model(folder, export[0], Path(export[1]))
        if json:
            print_json({"run": called(folder), "step": export[0], "path": str(written)})
        else:
            print(f"wrote the model of step {export[0]} to {written}")
        return
    found = inventory.inventory(folder)
    wrong = {one.step: one.problem for one in found}
    if verify:
        wrong = _verified(folder, found)
    if json:
        print_json([_facts(one, wrong[one.step]) for one in found])
    else:
        _print(called(folder), folder, found, wrong, verified=verify)
    if verify and any(wrong.values()):
        raise typer.Exit(1)


def _verified(folder: Path, found: Sequence[Kept]) -> dict[int, str | None]:
    from cupel.cli.working import Working
    from cupel.record import inventory

    wrong: dict[int, str | None] = {}
    with Working("verifying") as working:
        for one in found:
            working(f"step {one.step}")
            wrong |= inventory.verify(folder, [one.step])
    return wrong


def _facts(one: Kept, problem: str | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "path": str(one.path), "problem": problem}


def _print(
    name: str,
    folder: Path,
    found: Sequence[Kept],
    wrong: dict[int, str | None],
    *,
    verified: bool,
) -> None:
    from cupel.cli.tables import print_table, printable

    if not found:
        print(f"{name} has no checkpoints")
        return
    keys = list(dict.fromkeys(key for one in found for key in one.metrics))[:_MOST_METRICS]
    rows = []
    for one in found:
        marks = [*(["latest"] if one.latest else []), *(f"best {m}" for m in one.best_of)]
        rows.append(
            {
                "step": one.step,
                "time": moment(one.time),
                "size": size(one.bytes),
                **{key: one.metrics.get(key) for key in keys},
                "marks": ", ".join([*marks, *(["pinned"] if one.pinned else [])]) or None,
                "state": "damaged" if wrong[one.step] else "verified" if verified else "intact",
            }
        )
    print_table(rows)
    for step, problem in wrong.items():
        if problem:
            print(printable(f"step {step}: {problem.replace(f'{folder}/', '')}"))
