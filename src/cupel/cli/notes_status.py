"""`cupel notes status`: how far each equation is proven, by code and tests that are run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.notes_common import Json, Paths

if TYPE_CHECKING:
    from cupel.notes.faults import Fault
    from cupel.notes.model import Paper
    from cupel.notes.status import Status


def status(
    paths: Paths = None,
    code: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where @implements is looked for; else src, or here."),
    ] = None,
    tests: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Where tests are; else tests.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Run what is not known, or tell what is.")
    ] = True,
    mutants: Annotated[
        bool, typer.Option("--mutants/--no-mutants", help="Try wrong versions of the code.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes at a time; else one a core.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Of this equation, as titans.v1:eq14.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List equations that are only context as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Show how far each equation is proven, from 0 (noted) to 5 (every mutant fails its tests).

    1 code is marked @implements("titans.v1:eq14"); 2 a test marked
    @pytest.mark.equation("titans.v1:eq14", kind="value") imports it; 3 its tests pass; 4 one of
    them is of kind value, gradient or oracle; 5 such a test fails on each small wrong version of
    the code. Tests run with pytest in processes of their own. What is known is kept in
    notes/.evidence.json and counts until notes, code, tests or PyTorch change.

    \b
    cupel notes status
    cupel notes status --no-mutants
    cupel notes status --only titans.v1:eq13 --only titans.v1:eq14
    cupel notes status --json | jq '.equations[] | select(.level < 5)'
    """
    from cupel.cli.tables import print_json
    from cupel.cli.working import Working
    from cupel.notes.code import evidence, python_files, unknown
    from cupel.notes.evidence import FILE
    from cupel.notes.load import load_sound
    from cupel.notes.status import Request
    from cupel.notes.status import status as found_status

    papers = load_sound(paths or [])
    places = code or [Path("src") if Path("src").is_dir() else Path()]
    found = evidence(places, tests or [Path("tests")])
    request = Request(
        papers, found, python_files([*places, *(tests or [Path("tests")])]), FILE,
        workers=workers or os.cpu_count() or 1, try_mutants=mutants, run=run,
        only=_known(only or [], papers),
    )  # fmt: skip
    with Working("running:") as at:
        told = found_status(request, at)
    faults = [*found.faults, *unknown(found, papers)]
    shown = [one for one in told if every or only or one.equation.is_main]
    if json:
        print_json(_facts(shown, told, faults))
        return
    _show(shown)
    for line in _summary(told):
        print(line)
    for fault in faults:
        print(f"  {fault}")


def _known(only: Sequence[str], papers: Sequence[Paper]) -> frozenset[str]:
    """Ids of equations that the notes have."""
    from cupel.errors import UnknownName

    ids = [one.id for paper in papers for one in paper.equations]
    for given in only:
        if given not in ids:
            raise UnknownName("equation", given, ids)
    return frozenset(only)


def _show(shown: Sequence[Status]) -> None:
    from cupel.cli.tables import print_table

    rows = [
        {
            "equation": one.equation.id,
            "name": one.equation.name,
            "level": one.level,
            "tests": len(one.tests) or "",
            "mutants": one.mutants or "",
            "missing": one.why,
        }
        for one in shown
    ]
    print_table(rows, drop=("name",), cut="missing")
    print()


def _summary(told: Sequence[Status]) -> list[str]:
    """A line a paper: of the equations to be implemented, how many stand at which level.

    Then the mutants that nobody noticed, and the lines of which there are none.
    """
    papers: dict[str, list[Status]] = {}
    for one in told:
        papers.setdefault(one.equation.id.partition(":")[0], []).append(one)
    lines = []
    for paper, every in papers.items():
        main = [one for one in every if one.equation.is_main]
        levels = [sum(one.level == level for one in main) for level in range(5, -1, -1)]
        rest = [f", {n} at {5 - below}" for below, n in enumerate(levels) if n and below]
        lines.append(
            f"{paper}: {levels[0]} of {len(main)} main equations at level 5{''.join(rest)}"
        )
    passed: dict[str, list[str]] = {}
    for one in told:
        for line in one.survived:
            passed.setdefault(line, []).append(one.equation.id)
    if passed:
        lines.append(f"mutants that pass the tests of an equation: {len(passed)}")
        lines += [f"  {line} ({', '.join(dict.fromkeys(ids))})" for line, ids in passed.items()]
    exempt = sorted({line for one in told for line in one.exempt})
    if exempt:
        lines.append(f"lines that have no mutants, with reasons: {len(exempt)}")
        lines += [f"  {line}" for line in exempt]
    return lines


def _facts(
    shown: Sequence[Status], told: Sequence[Status], faults: Sequence[Fault]
) -> dict[str, Any]:
    return {
        "equations": [
            {
                "id": one.equation.id,
                "level": one.level,
                "name": one.equation.name,
                "role": one.equation.role,
                "missing": one.why,
                "stale": one.stale,
                "code": [f"{mark.path}:{mark.line}" for mark in one.marks],
                "tests": {node: {"kind": k, "outcome": o} for node, (k, o) in one.tests.items()},
                "mutants": one.mutants,
                "survived": list(one.survived),
                "exempt": list(one.exempt),
            }
            for one in shown
        ],
        "summary": _summary(told),
        "faults": [str(fault) for fault in faults],
    }
