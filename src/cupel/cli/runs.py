"""`cupel runs ls` and `cupel runs show RUN`: what has been run, and how it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

app = typer.Typer(help="List runs, and show one.", no_args_is_help=True, rich_markup_mode=None)

Root = Annotated[
    Path | None, typer.Option(help="Where runs are kept (or CUPEL_ROOT; else ./runs).")
]
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
    from cupel.record.layout import record_root
    from cupel.record.reader import list_runs

    known = ("running", "finished", "failed", "interrupted", "crashed", "damaged")
    if status is not None and status not in known:
        raise UnknownName("status", status, known)
    where = record_root(root)
    rows = [_row(record) for record in list_runs(where, project=project)]
    rows = [row for row in rows if status in (None, row["status"])]
    if json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        print(f"no runs in {where}; start one with: cupel run quickstart")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or its folder.")],
    root: Root = None,
    json: Json = False,
) -> None:
    """Show one run: its sessions, its numbers, its files."""
    from cupel.cli.tables import print_json
    from cupel.record.layout import find_run, record_root
    from cupel.record.reader import RunRecord

    facts = _facts(RunRecord(find_run(record_root(root), run)))
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
                print(f"  {key:<28} {inner}")
        else:
            print(f"{name:<12} {value}")


def _row(record: RunRecord) -> dict[str, Any]:
    results = record.results if record.status == "finished" else None
    final = (results or {}).get("final", {})
    return {
        "run": record.run_id,
        "project": record.run_dir.parent.name,
        "status": record.status,
        "sessions": len(record.sessions),
        "step": (results or {}).get("step"),
        "val_loss": final.get("val_loss"),
        "about": record.problem or record.run.get("about") or record.run.get("notes") or None,
    }


def _facts(record: RunRecord) -> dict[str, Any]:
    """Everything worth knowing at a glance, as plain data."""
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
        "problem": record.problem or (record.sessions and record.sessions[-1].fields.get("error")),
        "about": record.run.get("about") or record.run.get("notes"),
        "sessions": sessions,
        "steps": last.get("_step", 0),
        "last": {key: value for key, value in last.items() if not key.startswith("_")},
        "results": {
            key: value
            for key, value in (record.results or {}).items()
            if key in ("final", "best", "last_session")
        },
        "checkpoints": record.checkpoints(),
        "figures": figures,
        "damaged lines": record.damaged_lines,
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [], {}, 0)}


def _seconds(session: Any) -> str:
    if session.started is None or session.ended is None:
        return "no end recorded"
    return f"{session.ended - session.started:.1f} s"
