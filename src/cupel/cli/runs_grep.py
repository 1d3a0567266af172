"""`cupel runs grep PATTERN`: which run printed, noted or set something, with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json

_LONGEST_LINE = 64 * 1024  # bytes; more of one is not looked at
_SHOWN = 500  # characters of a line that are shown to people


def grep(
    pattern: Annotated[str, typer.Argument(help="A regular expression, as Python reads it.")],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Only in these; else in all.")
    ] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Letters of either case are the same.")
    ] = False,
    project: Annotated[str | None, typer.Option(help="Only in this project's runs.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Search what runs printed, noted and were set to.

    That is console.log, training.log, notes and config.json. Prints run:file:line: text.
    Exit code 1 when nothing was found.

    \b
    cupel runs grep 'CUDA out of memory'
    cupel runs grep -i warning 20261121
    cupel runs grep '"lr": 0.01' --project demo
    """
    from cupel.cli.runs_common import called, found
    from cupel.cli.streams import tell
    from cupel.cli.tables import print_json, printable
    from cupel.cli.working import Working
    from cupel.errors import UsageError
    from cupel.record.reader import list_runs

    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"'{pattern[:80]}' is no regular expression: {error}; put a \\ before a sign that is "
            "meant as it is"
        ) from error
    where = runs_root(root)
    if runs:
        folders = found(where, runs)
    else:
        folders = [record.run_dir for record in list_runs(where, project=project)]
        if project is not None and not folders:
            from cupel.cli.runs_ls import require_project

            require_project(where, project)
    hits: list[dict[str, Any]] = []
    count = 0
    with Working("searching") as working:
        for folder in folders:
            working(folder.name)
            for file, number, line in _lines(folder):
                if not wanted.search(line):
                    continue
                count += 1
                if json:
                    hits.append({"run": called(folder), "file": file, "line": number, "text": line})
                else:
                    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
                    print(printable(f"{called(folder)}:{file}:{number}: {shown.strip()}"))
    if json:
        print_json(hits)
    if not count:
        tell(f"cupel: nothing in {len(folders)} runs matches '{printable(pattern[:80])}'")
        raise typer.Exit(1)


def _lines(run_dir: Path) -> Iterator[tuple[str, int, str]]:
    """File (from the run's folder), line and text of everything that is searched."""
    from cupel.errors import RecordError
    from cupel.record import files, layout

    try:
        run = files.read_json(run_dir / layout.RUN)
    except RecordError:
        run = {}
    for name in ("notes", "about"):
        if isinstance(text := run.get(name), str):
            for number, line in enumerate(text.splitlines(), 1):
                yield f"{layout.RUN} ({name})", number, line
    yield from _of_file(run_dir, run_dir / layout.CONFIG)
    for session in layout.session_numbers(run_dir):
        folder = layout.session_dir(run_dir, session)
        yield from _of_file(run_dir, folder / layout.TRAINING_LOG)
        for path in layout.consoles(folder).values():
            yield from _of_file(run_dir, path)


def _of_file(run_dir: Path, path: Path) -> Iterator[tuple[str, int, str]]:
    name = path.relative_to(run_dir).as_posix()
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline():
                number += 1
                # Of a progress bar the last state: those before it end in a carriage return.
                text = line[:_LONGEST_LINE].rstrip(b"\r\n").rsplit(b"\r", 1)[-1]
                yield name, number, text.decode(errors="replace")
    except OSError:
        return
