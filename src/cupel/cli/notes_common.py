"""What the commands of `cupel notes` share: their arguments, and where a result goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PATH", help="Files of notes, or folders of *.context.md."),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write to a file instead of printing."),
]
Package = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Put all modules into src/NAME/, not where the notes say."),
]


def deliver(text: str, output: Path | None, *, json: bool, facts: dict[str, Any]) -> None:
    """Print a text, or write it and print where; as JSON with what else is known of it."""
    from cupel.cli.tables import print_json, printable

    if output is not None:
        write(output, text)
    if json:
        where = {"text": text} if output is None else {"path": str(output)}
        print_json({**facts, **where})
    elif output is None:
        print(printable(text), end="")
    else:
        print(f"wrote {output}")


def write(path: Path, text: str) -> None:
    """Replace a file at once, its folder made where it is missing. Raises UsageError."""
    from cupel.errors import UsageError
    from cupel.record.files import write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; give another file with -o"
        ) from error
