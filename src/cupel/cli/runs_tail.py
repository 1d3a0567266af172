"""`cupel runs tail RUN`: the last lines of a run's numbers or of what it printed, and what follows.

Following reads a run's metrics from their start once (about 1.2 s for a million lines), so that
no line is told twice; the last lines alone are read from the end.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Run, opened
from cupel.cli.streams import tell

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

POLL_S = 0.5
_AT_ONCE = 20_000  # lines of a poll
_BLOCK = 64 * 1024


def tail(
    run: Run,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many lines.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends, or Ctrl-C.")
    ] = False,
    console: Annotated[
        bool, typer.Option("--console", help="What it printed, instead of its numbers.")
    ] = False,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")] = False,
) -> None:
    """Show a run's last lines, and with -f those that come.

    \b
    cupel runs tail 20261121 -n 3
    cupel runs tail 20261121 --follow
    cupel runs tail 20261121 --console -f
    """
    record = opened(runs_root(root), run)
    say = _say_json if json else _say
    if console:
        _console(record, lines, follow=follow, say=say)
    elif follow:
        _follow(record, lines, say)
    else:
        for line in _last(record, lines):
            say(line)


def _say_json(line: dict[str, Any] | str) -> None:
    import json

    from cupel.record.codec import document

    value = document(line) if isinstance(line, dict) else {"text": line}
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _say(line: dict[str, Any] | str) -> None:
    from cupel.cli.tables import cell, printable

    if isinstance(line, str):
        print(printable(line), flush=True)
        return
    parts = [f"{key} {_brief(value)}" for key, value in line.items() if not key.startswith("_")]
    rank = f" rank {line['_rank']}" if line.get("_rank") else ""
    print(printable("  ".join([f"step {cell(line.get('_step'))}{rank}", *parts])), flush=True)


def _brief(value: Any) -> str:
    from cupel.cli.tables import cell

    return f"[{len(value)} values]" if isinstance(value, list) else cell(value)


def _last(record: RunRecord, most: int) -> list[dict[str, Any]]:
    """The last lines of rank 0, in the order in which they were written."""
    from cupel.record import layout

    found: list[dict[str, Any]] = []
    for session in reversed(record.sessions):
        for path in reversed(layout.segments(session.dir, "metrics")):
            if len(found) >= most:
                return found[len(found) - most :]
            found = [
                {**line, "_session": session.number} for line in _end_of(path, most - len(found))
            ] + found
    return found[max(0, len(found) - most) :]


def _end_of(path: Path, most: int) -> list[dict[str, Any]]:
    """The last whole lines of a file of metrics, at least `most` if there are so many."""
    from cupel.record.lines import decode

    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END)
            text = b""
            while left and text.count(b"\n") <= most + 1:
                size = min(left, max(_BLOCK, len(text)))  # doubled, or many lines cost a square
                left -= size
                file.seek(left)
                text = file.read(size) + text
    except OSError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    if left:
        whole = whole[whole.find(b"\n") + 1 :]
    return decode(whole, "_step", (int,))[0] if whole else []


def _follow(record: RunRecord, most: int, say: Callable[[dict[str, Any]], None]) -> None:
    from cupel.cli.working import Working
    from cupel.record.tail import Tail

    tail = Tail(record.run_dir)
    first: deque[dict[str, Any]] = deque(maxlen=most)
    with Working("reading") as working:
        while polled := list(_polled(tail)):
            first.extend(polled)
            working(f"step {polled[-1].get('_step')}")
    for line in first:
        say(line)
    for _ in _until_over(record):
        for line in _polled(tail):
            say(line)


def _polled(tail: Any) -> Iterator[dict[str, Any]]:
    for session, rank, line in tail.poll(most=_AT_ONCE):
        yield {**line, "_session": session, **({"_rank": rank} if rank else {})}


def _until_over(record: RunRecord) -> Iterator[None]:
    """A turn every half second, and one more after the run's end; says how it ended."""
    while (status := record.status) == "running" and record.run_dir.exists():
        yield
        time.sleep(POLL_S)
    yield
    if not record.run_dir.exists():
        tell(f"cupel: run {record.run_id} is gone from {record.run_dir.parent}")
    elif status == "silent":
        tell(f"cupel: run {record.run_id} is silent: nothing can be seen of its process from here")
    else:
        tell(f"cupel: run {record.run_id} is {status}")


def _console(record: RunRecord, most: int, *, follow: bool, say: Callable[[str], None]) -> None:
    """The last lines of console.log, and those that come, of sessions that come, too."""
    for line in record.console(last=most) if most else []:
        say(line)
    if not follow:
        return
    offsets = {session.dir: _size(session.dir) for session in record.sessions}
    for _ in _until_over(record):
        for session in record.sessions:
            for line in _new_lines(session.dir, offsets):
                say(line)


def _size(session: Path) -> int:
    """Up to where what was printed has been told: the end of the last whole line."""
    from cupel.record import layout

    try:
        with (session / layout.console_name()).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - _BLOCK)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
    except OSError:
        return 0


def _new_lines(session: Path, offsets: dict[Path, int]) -> list[str]:
    from cupel.record import console, layout

    try:
        with (session / layout.console_name()).open("rb") as file:
            file.seek(offsets.get(session, 0))
            text = file.read()
    except OSError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    offsets[session] = offsets.get(session, 0) + len(whole)
    return console.lines(whole) if whole else []
