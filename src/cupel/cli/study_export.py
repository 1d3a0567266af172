"""`cupel study export STUDY`: a study as tables for statistics, with a data dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupel.cli.root import Root, runs_root


def export(
    study: Annotated[str, typer.Argument(help="A study's name, project/name, or its folder.")],
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to; else export/ in the study's folder."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--format", metavar="KIND", help="parquet, csv or both.")
    ] = "parquet",
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a study's runs, sessions and curves as tables.

    With a data dictionary. An older export of the same study is replaced at once.

    \b
    cupel study export quickstart
    cupel study export quickstart --to data/ --format both
    """
    from cupel.cli.tables import print_json, print_table
    from cupel.cli.working import Working
    from cupel.errors import UnknownName
    from cupel.studies.export import FORMATS, export_study
    from cupel.studies.manifest import find_study, load_manifest

    known = {name: name for name in FORMATS}
    if kind not in known:
        raise UnknownName("format", kind, known)
    manifest = load_manifest(find_study(runs_root(root), study))
    with Working("exporting") as working:
        exported = export_study(manifest, to, format=known[kind], tell=working)
    if json:
        facts = {"folder": str(exported.folder), "files": exported.files, "rows": exported.rows}
        print_json(facts)
        return
    print_table([{"table": name, "rows": rows} for name, rows in exported.rows.items()])
    print(
        f"\n{len(exported.files)} files in {exported.folder}; dictionary.md tells what is in them"
    )
