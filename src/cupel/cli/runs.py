"""`cupel runs ls` and `cupel runs show RUN`: what has been run, and how it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

app = typer.Typer(help="List runs, and show one.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("ls")
def list_(
    project: Annotated[str | None, typer.Option(help="Only this project's runs.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only running, finished, failed, interrupted or crashed.")
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List runs, newest first.

    \b
    cupel runs ls --status crashed
    cupel runs ls --json
    """
    from cupel.cli.tables import print_json, print_table
    from cupel.errors import UnknownName
    from cupel.record.reader import list_runs

    known = ("running", "finished", "failed", "interrupted", "crashed", "damaged")
    if status is not None and status not in known:
        raise UnknownName("status", status, known)
    where = runs_root(root)
    runs = list_runs(where, project=project)
    if project is not None and not runs:
        _require_project(where, project)
    rows = [_row(record) for record in runs]
    rows = [row for row in rows if status in (None, row["status"])]
    if json:
        print_json(rows)
    elif rows:
        print_table(rows)
    elif runs:
        print(f"none of {len(runs)} runs in {where} is {status}")
    else:
        print(f"no runs in {where}; start one with: cupel run gpt-tiny")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or its folder.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """Show one run: its sessions, its numbers, its files."""
    from cupel.cli.tables import print_json
    from cupel.record.layout import find_run
    from cupel.record.reader import RunRecord

    facts = _facts(RunRecord(find_run(runs_root(root), run)))
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, list):
            print(f"{name}")
            for item in value:
                print(f"  {item}")
        elif isinstance(value, dict):
            print(f"{name}")
            for key, inner in value.items():
                print(f"  {key:<28} {_brief(inner)}")
        else:
            print(f"{name:<12} {value}")


def _brief(value: Any) -> Any:
    """A number as it is; of a recorded array, what it holds (`--json` has all of it)."""
    return f"{len(value)} values" if isinstance(value, list) else value


def _require_project(root: Path, project: str) -> None:
    """Refuse a project without runs, unless there are no runs at all."""
    from cupel.errors import UnknownName
    from cupel.record.reader import list_runs

    known = {record.run_dir.parent.name for record in list_runs(root)}
    if known:
        raise UnknownName("project", project, known, hint=f"looked in {root}")


def _row(record: RunRecord) -> dict[str, Any]:
    results, problem = _results(record)
    return {
        "run": record.run_id,
        "project": record.run_dir.parent.name,
        "status": record.status,
        "sessions": len(record.sessions),
        "step": results.get("step"),
        "val_loss": results["final"].get("val_loss"),
        "about": problem or record.run.get("about") or record.run.get("notes") or None,
    }


def _results(record: RunRecord) -> tuple[dict[str, Any], str | None]:
    """The results, with a mapping as `final` whatever the file holds; and what is damaged."""
    from cupel.errors import RecordError

    problem = record.problem
    try:
        results = record.results or {}
    except RecordError as error:
        results, problem = {}, problem or str(error)
    final = results.get("final")
    return {**results, "final": final if isinstance(final, dict) else {}}, problem


def _facts(record: RunRecord) -> dict[str, Any]:
    """Everything worth knowing at a glance, as plain data."""
    results, problem = _results(record)
    rows = record.history()
    last: dict[str, Any] = {}
    for row in rows:
        last.update(row)
    sessions = [
        f"{s.number:04d}  {s.status:<12} after step {s.start_step}, {_seconds(s)}"
        for s in record.sessions
    ]
    figures = sorted(str(p) for p in (record.run_dir / "figures").glob("*.png"))
    facts: dict[str, Any] = {
        "run": record.run_id,
        "status": record.status,
        "folder": str(record.run_dir),
        "problem": problem or (record.sessions and record.sessions[-1].fields.get("error")),
        "about": record.run.get("about") or record.run.get("notes"),
        "sessions": sessions,
        "steps": last.get("_step", 0),
        "last": {key: value for key, value in last.items() if not key.startswith("_")},
        "results": {
            key: value
            for key, value in results.items()
            if key in ("final", "best", "last_session") and value
        },
        "checkpoints": record.checkpoints(),
        "figures": figures,
        "damaged lines": record.damaged_lines,
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [], {}, 0)}


def _seconds(session: Any) -> str:
    started, ended = session.started, session.ended
    if not isinstance(started, int | float) or not isinstance(ended, int | float):
        return "no end recorded"
    return f"{ended - started:.1f} s"
