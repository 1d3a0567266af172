"""`cupel report STUDY`: writes a study's report and tells where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupel.cli.root import Root, runs_root

if TYPE_CHECKING:
    from cupel.studies.manifest import Manifest


def report(
    study: Annotated[str, typer.Argument(help="A study's name, project/name, or its folder.")],
    root: Root = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write; else report/ in the study's folder."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a study's report: Markdown, one HTML page, every number with its source.

    \b
    cupel report quickstart
    cupel report quickstart --output paper/
    """
    from cupel.studies.manifest import find_study, load_manifest

    manifest = load_manifest(find_study(runs_root(root), study))
    folder = manifest.folder / "report" if output is None else output
    write_report(manifest, folder, json=json)


def write_report(manifest: Manifest, folder: Path, *, json: bool = False) -> None:
    """Write the report into a folder and print where its files are."""
    from cupel.cli.tables import print_json
    from cupel.report.build import build_report

    files = build_report(manifest, folder)
    if json:
        print_json({"folder": str(folder), "files": [str(path) for path in files]})
        return
    for path in files[:3]:
        print(f"{path.suffix.removeprefix('.'):<8} {path}")
    print(f"{'figures':<8} {len(files) - 3} in {folder / 'figures'}")
