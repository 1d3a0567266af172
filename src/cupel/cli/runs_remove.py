"""`cupel runs rm`, `restore`, `gc` and `du`: what runs cost, and how to be rid of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Runs, called, found, moment, size

if TYPE_CHECKING:
    from cupel.record.usage import Usage


def rm(
    runs: Runs,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also runs that live, or belong to a study.")
    ] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Take runs into the trash, from which they can be restored.

    Their room on the disk is free once `cupel runs gc` has emptied the trash.

    \b
    cupel runs rm 20261121-1 20261121-2
    cupel runs restore 20261121-1
    """
    from cupel.cli.tables import print_json
    from cupel.cli.working import Working
    from cupel.errors import UsageError
    from cupel.record import trash
    from cupel.record.usage import usage_of

    where = runs_root(root)
    folders = found(where, runs)
    if not force:
        for folder in folders:
            if why := trash.why_not(folder):
                raise UsageError(f"{called(folder)} stays: {why}; to take it away add --force")
    with Working("measuring") as working:
        total = 0
        for folder in folders:
            working(folder.name)
            total += usage_of(folder).total
    if not yes:
        listed = ", ".join(map(called, folders[:5])) + (", …" if len(folders) > 5 else "")
        many = "1 run" if len(folders) == 1 else f"{len(folders)} runs"
        if not typer.confirm(f"take {many} ({listed}; {size(total)}) into the trash?", err=True):
            print("nothing is taken")
            raise typer.Exit(1)
    taken: dict[str, str] = {}
    with Working("taking") as working:
        for folder in folders:
            working(folder.name)
            name = called(folder)
            taken[name] = str(trash.remove(where, folder))
            if not json:
                print(f"took {name}; back with: cupel runs restore {name}")
    if json:
        print_json(taken)


def restore(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Ids in the trash; without any they are listed."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Bring runs back from the trash, or list what is in it.

    \b
    cupel runs restore
    cupel runs restore 20261121-1
    """
    from cupel.cli.tables import print_json, print_table
    from cupel.record import trash

    where = runs_root(root)
    if not runs:
        rows = [
            {"run": f"{one.project}/{one.run_id}", "removed": moment(one.removed)}
            for one in trash.trashed(where)
        ]
        if json:
            print_json(rows)
        elif rows:
            print_table(rows)
        else:
            print(f"the trash of {where} is empty")
        return
    taken = list(
        {str(one): one for run in runs if (one := trash.find_trashed(where, run))}.values()
    )
    back = [trash.restore(where, one) for one in taken]
    if json:
        print_json([str(path) for path in back])
        return
    for path in back:
        print(f"restored {path}")


def gc(
    days: Annotated[
        float, typer.Option(min=0, help="Runs removed so many days ago or earlier.")
    ] = 7.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Empty the trash, and sweep up what was left over.

    By processes that were killed, and by runs that are gone.

    \b
    cupel runs gc --dry-run
    cupel runs gc --days 0
    """
    from cupel.cli.tables import print_json
    from cupel.cli.working import Working
    from cupel.record import trash

    where = runs_root(root)
    with Working("deleting") as working:
        freed = trash.gc(
            where,
            older_than_days=days,
            dry_run=dry_run,
            tell=lambda one: working(str(one.path)),
        )
    total = sum(one.bytes for one in freed)
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "bytes": total,
                "freed": [
                    {"path": str(one.path), "why": one.why, "bytes": one.bytes} for one in freed
                ],
            }
        )
        return
    for one in freed:
        print(f"{_relative(one.path, where)}  {size(one.bytes)}  {one.why}")
    if not freed:
        rest = len(trash.trashed(where))
        younger = f"; in the trash: {rest}, removed less than {days:g} days ago" if rest else ""
        print(f"nothing to delete in {where}{younger}")
    else:
        print(f"{size(total)} {'would be' if dry_run else 'are'} free")


def du(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Only these; else all.")
    ] = None,
    projects: Annotated[bool, typer.Option("--projects", help="A line a project.")] = False,
    project: Annotated[str | None, typer.Option(help="Only this project's runs.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Say how much of the disk runs take; the largest first.

    \b
    cupel runs du
    cupel runs du --projects
    """
    from dataclasses import asdict

    from cupel.cli.tables import print_json, print_table
    from cupel.cli.working import Working
    from cupel.record import layout
    from cupel.record.reader import list_runs
    from cupel.record.usage import Usage, bytes_of, usage_of

    where = runs_root(root)
    if runs:
        folders = found(where, runs)
    else:
        folders = [record.run_dir for record in list_runs(where, project=project)]
        if project is not None and not folders:
            from cupel.cli.runs_ls import require_project

            require_project(where, project)
    usages: dict[str, Usage] = {}
    with Working("measuring") as working:
        for folder in folders:
            working(folder.name)
            name = folder.absolute().parent.name if projects else called(folder)
            usages[name] = usages.get(name, Usage()) + usage_of(folder)
        trashed = 0 if runs or project else bytes_of(where / layout.TRASHED)
    ordered = sorted(usages.items(), key=lambda item: -item[1].total)
    if json:
        print_json(
            {
                "project" if projects else "run": {
                    name: {**asdict(usage), "total": usage.total} for name, usage in ordered
                },
                "trash": trashed,
                "total": sum(usage.total for usage in usages.values()) + trashed,
            }
        )
        return
    if not usages:
        print(f"no runs in {where}")
    elif len(usages) > 1:
        ordered.append(("all", sum(usages.values(), Usage())))
    print_table([_du_row("project" if projects else "run", *item) for item in ordered])
    if trashed:
        print(f"in the trash: {size(trashed)}; empty it with: cupel runs gc --days 0")


def _du_row(head: str, name: str, usage: Usage) -> dict[str, str]:
    from dataclasses import asdict

    parts = {part: size(count) if count else "–" for part, count in asdict(usage).items()}
    return {head: name, "total": size(usage.total), **parts}


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
