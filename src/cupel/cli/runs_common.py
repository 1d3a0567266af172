"""What the commands of `cupel runs` share: their arguments, and how sizes and times are written."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or its folder.")]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Ids of runs, beginnings of ids, or folders.")
]


def opened(root: Path, run: str) -> RunRecord:
    """The record of the run that was typed."""
    from cupel.record.layout import find_run
    from cupel.record.reader import RunRecord

    return RunRecord(find_run(root, run))


def found(root: Path, runs: Sequence[str]) -> list[Path]:
    """The folders of the runs that were typed, each once; all are looked for before any is used."""
    from cupel.record.layout import find_run

    return list({path.resolve(): path for run in runs if (path := find_run(root, run))}.values())


def called(run_dir: Path) -> str:
    """A run as it is shown and may be typed: project/id."""
    absolute = run_dir.absolute()
    return f"{absolute.parent.name}/{absolute.name}"


def ranks_of(record: RunRecord) -> list[int]:
    """The ranks that logged something, in any session."""
    names = [path.name for session in record.sessions for path in session.dir.glob("metrics.r*")]
    found = (re.match(r"metrics\.r([0-9]{1,9})\.", name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def size(count: int) -> str:
    """Bytes as people read them, in powers of 1,000."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB" if amount < 1000 else f"{amount:,.0f} TB"


def moment(seconds: float | None) -> str | None:
    """A time in UTC, to the minute; None for none, and for what no calendar knows."""
    if seconds is None:
        return None
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return None
