"""Why a run ended or could not begin, in one line, from what its process left behind."""

from __future__ import annotations

import re
from pathlib import Path

from cupel.record.reader import RunRecord

_TRACEBACK = re.compile(r"(?:\w+ ){0,2}Traceback \(most recent call last\):")
_OF_A_GROUP = re.compile(r"^\s*[|+] ")  # before each line of an exception group's traceback


def failure_of(run_dir: Path) -> str:
    """Why the run's last session ended, in one line; empty when nothing is said."""
    sessions = RunRecord(run_dir).sessions
    error = sessions[-1].fields.get("error") if sessions else None
    return in_a_line(error) if isinstance(error, str) else ""


def refusal_in(line: str) -> str | None:
    """Why a process was refused, from the last line that it printed, which says all there is to
    say; None when it ended, or goes on, otherwise."""
    return line.removeprefix("cupel: ") if line.startswith("cupel: ") else None


def in_a_line(text: str) -> str:
    """The first line that says what went wrong: of a traceback, that of the last exception.

    A line that announces others, such as `2 mistakes:`, is followed by the first of them.
    """
    lines = [_OF_A_GROUP.sub("", line).rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    starts = [number for number, line in enumerate(lines) if _TRACEBACK.fullmatch(line)]
    if starts and starts[0] == 0:
        after = range(starts[-1] + 1, len(lines))  # its frames are indented, the exception is not
        lines = lines[next((n for n in after if not lines[n][0].isspace()), -1) :]
    shown = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join(line.strip() for line in shown)
