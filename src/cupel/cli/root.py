"""The option --root of every command that reads or writes runs, and the folder that it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

# Text and not a Path, which would make "." of an empty one.
Root = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where runs are kept (or CUPEL_ROOT; else ./runs)."),
]


def runs_root(given: str | None) -> Path:
    """The folder that `--root` or CUPEL_ROOT names; it need not exist yet.

    Raises RecordError when it is no folder, or may not be read.
    """
    from cupel.errors import RecordError
    from cupel.record.layout import record_root

    if given == "":
        raise RecordError("--root is empty; give a folder, or leave it out for ./runs")
    root = record_root(given)
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        pass  # the first run makes it
    except OSError as error:
        raise RecordError(
            f"cannot look for runs in {root}: {error.strerror}; give another folder with --root "
            "or CUPEL_ROOT"
        ) from error
    return root
