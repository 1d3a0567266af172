"""`cupel notes plan` and `equations`: pages that are made from notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.notes_common import Json, Output, Package, Paths, deliver

if TYPE_CHECKING:
    from cupel.notes.code import Evidence
    from cupel.notes.model import Paper
    from cupel.notes.plan_scope import Scope


def plan(
    paths: Paths = None,
    intent: Annotated[
        str,
        typer.Option(metavar="INTENT", help="full, validate, component, extend or benchmark."),
    ] = "full",
    component: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="With --intent component: a module; may be repeated."),
    ] = None,
    environment: Annotated[
        str,
        typer.Option(metavar="MACHINE", help="local-cpu, local-gpu, colab-free or colab-pro."),
    ] = "local-cpu",
    name: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="The project's name; else the papers'.")
    ] = None,
    package: Package = None,
    date: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="A date to print; else there is none.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Write an implementation plan: phases in the order of what depends on what.

    Equal notes give equal bytes, in whatever order they are given. Effort is told in counts. Notes
    with faults are refused.

    \b
    cupel notes plan -o IMPLEMENTATION_PLAN.md --date 2026-11-22
    cupel notes plan --intent validate
    cupel notes plan --intent component --component memory --environment local-gpu
    """
    from cupel.notes.load import load_sound
    from cupel.notes.plan import plan as planned
    from cupel.notes.plan_scope import scope_of

    _check_date(date)
    scope = scope_of(
        load_sound(paths or []),
        intent=intent,
        environment=environment,
        components=component or (),
        name=name,
        package=package,
        date=date,
    )
    deliver(planned(scope), output, json=json, facts=_facts(scope))


def _check_date(date: str | None) -> None:
    from datetime import date as calendar

    from cupel.errors import UsageError

    try:
        good = date is None or str(calendar.fromisoformat(date)) == date
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--date '{date}' is no day; expected one as 2026-11-22")


def _facts(scope: Scope) -> dict[str, Any]:
    return {
        "project": scope.project.name,
        "package": scope.project.package,
        "intent": scope.intent,
        "environment": scope.environment.title,
        "date": scope.date,
        "papers": [paper.id for paper in scope.papers],
        "entries": [entry.id for entry in scope.entries],
        "levels": [[module.id for module in level] for level in scope.module_levels],
        "criteria": scope.criteria,
    }


def equations(
    paths: Paths = None,
    output: Output = None,
    code: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Where code is marked; src/ unless given."),
    ] = None,
    tests: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Where tests are marked; tests/ unless given."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page of all equations, with links to their code and tests.

    Code is found by @implements("titans.v1:eq14") of cupel.tags, tests by
    @pytest.mark.equation("titans.v1:eq14", kind="value"). Nothing is imported. Marks that name no
    equation of the notes are told of.

    \b
    cupel notes equations -o docs/equations.md
    cupel notes equations --code src/titans --tests tests/titans
    """
    from cupel.cli.streams import tell
    from cupel.notes import code as marks
    from cupel.notes.equations import page
    from cupel.notes.load import load_sound

    papers = load_sound(paths or [])
    found = marks.evidence(_or_usual(code, "src"), _or_usual(tests, "tests"))
    for fault in (*found.faults, *marks.unknown(found, papers)):
        tell(f"cupel: {fault}")
    beside = output.parent if output else Path()
    deliver(page(papers, found, beside=beside), output, json=json, facts=_found(papers, found))


def _or_usual(given: list[Path] | None, usual: str) -> list[Path]:
    """The folders that were given, else the usual one where it is there."""
    return given or [path for path in [Path(usual)] if path.is_dir()]


def _found(papers: Sequence[Paper], evidence: Evidence) -> dict[str, Any]:
    return {
        "equations": [
            {
                "id": equation.id,
                "name": equation.name,
                "role": equation.role,
                "code": [f"{m.path}:{m.line}" for m in evidence.marks if m.id == equation.id],
                "tests": [
                    {"test": m.node, "kind": m.kind} for m in evidence.tests if m.id == equation.id
                ],
            }
            for paper in papers
            for equation in paper.equations
        ]
    }
