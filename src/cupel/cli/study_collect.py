"""`cupel study collect STUDY FROM…`: runs from other disks and hosts into the study's root."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupel.cli.root import Root, runs_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cupel.studies.collect import Collected

_TOLD = ("conflict", "damaged", "other", "running")


def collect(
    study: Annotated[str, typer.Argument(help="A study's name, project/name, or its folder.")],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FROM", help="Record roots, or folders of the project."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken; write nothing.")
    ] = False,
    layout: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also make a view: ARM/POINT/sSEED, links to runs."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copies in the view, instead of links.")
    ] = False,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take a study's runs from other places.

    Each is checked, copied whole, and never put over an accepted one. Exit code 1 when copies
    contradict each other or are damaged; these are left as they are.

    \b
    cupel study collect quickstart /mnt/node1/runs /mnt/node2/runs
    cupel study collect quickstart scratch/ --dry-run
    cupel study collect quickstart --layout by-arm
    """
    from cupel.cli.tables import print_json, printable
    from cupel.cli.working import Working
    from cupel.errors import UsageError
    from cupel.studies.collect import WRONG
    from cupel.studies.collect import collect as collect_from
    from cupel.studies.manifest import find_study, load_manifest
    from cupel.studies.view import lay_out

    if not sources and layout is None:
        raise UsageError("say where to collect from: one or more FROM, or --layout FOLDER")
    if copy and layout is None:
        raise UsageError("--copy is of the view; give it a folder with --layout")
    manifest = load_manifest(find_study(runs_root(root), study))
    with Working("collecting") as working:
        found = collect_from(manifest, sources or [], dry_run=dry_run, tell=working)
        view = [] if layout is None or dry_run else lay_out(
            manifest, layout, copy=copy, tell=working
        )  # fmt: skip
    wrong = any(one.action in WRONG for one in found)
    if json:
        print_json(
            {
                "study": manifest.name,
                "dry_run": dry_run,
                "runs": [
                    {
                        "run_id": one.run_id,
                        "source": str(one.source),
                        "action": one.action,
                        "detail": one.detail,
                    }
                    for one in found
                ],
                "layout": [str(path) for path in view],
            }
        )
    else:
        for line in _lines(found, asked=bool(sources), dry_run=dry_run):
            print(printable(line))
        if layout is not None and not dry_run:
            print(f"{len(view)} runs in {layout}")
    if wrong:
        raise typer.Exit(1)


def _lines(found: Sequence[Collected], *, asked: bool, dry_run: bool) -> list[str]:
    if not asked:
        return []
    if not found:
        return ["no run of the study is there"]
    lines = [f"{one.action}: {one.source}: {one.detail}" for one in found if one.action in _TOLD]
    counts = Counter(one.action for one in found)
    told = ", ".join(f"{count} {action}" for action, count in counts.items())
    would = "would be: " if dry_run else ""
    return [
        *lines,
        f"{len(found)} copies of {len({one.run_id for one in found})} runs: {would}{told}",
    ]
