"""`cupel notes lint`: everything that is wrong with notes, by file and line."""

from __future__ import annotations

from typing import Any

import typer

from cupel.cli.notes_common import Json, Paths


def lint(paths: Paths = None, json: Json = False) -> None:
    """Check notes: headings, symbols, shapes, dependencies, counts, tests.

    Without a path it is notes/. Each line names file, line and rule, and ends with what to type.
    Warnings refuse nothing; with faults the exit code is 2. docs/notes.md lists the rules.

    \b
    cupel notes lint
    cupel notes lint notes/titans.context.md
    cupel notes lint --json | jq '.faults[].rule'
    """
    from cupel.cli.tables import print_json, printable
    from cupel.notes.load import load

    notes = load(paths or [])
    equations = sum(len(paper.equations) for paper in notes.papers)
    serious, warnings = len(notes.serious), len(notes.faults) - len(notes.serious)
    if json:
        print_json(
            {
                "papers": len(notes.papers),
                "equations": equations,
                "errors": serious,
                "warnings": warnings,
                "faults": [_facts(fault) for fault in notes.faults],
            }
        )
    else:
        path = ""
        for fault in notes.faults:
            if fault.at.path != path:
                path = fault.at.path
                print(printable(path))
            print(printable(f"  {fault}"))
        parts = [_count(len(notes.papers), "paper"), _count(equations, "equation")]
        parts.append(_count(serious, "fault"))
        if warnings:
            parts.append(_count(warnings, "warning"))
        print(", ".join(parts))
    if serious:
        raise typer.Exit(2)


def _facts(fault: Any) -> dict[str, Any]:
    return {
        "rule": fault.rule,
        "severity": "error" if fault.serious else "warning",
        "path": fault.at.path,
        "line": fault.at.line,
        "text": fault.text,
        "hint": fault.hint,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
