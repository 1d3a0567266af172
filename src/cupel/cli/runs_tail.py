"""`cupel runs tail RUN`: the last lines of a run's numbers or of what it printed, and what follows.

Both are read from the end, and no more than is shown, however long the run is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Run, opened, ranks_of
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
    rank: Annotated[
        int | None, typer.Option(min=0, help="Of this rank; else of 0, and with -f of all.")
    ] = None,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, a line each.")] = False,
) -> None:
    """Show a run's last lines, and with -f those that come.

    \b
    cupel runs tail 20261121 -n 3
    cupel runs tail 20261121 --follow
    cupel runs tail 20261121 --rank 1
    cupel runs tail 20261121 --console -f
    """
    from cupel.errors import UsageError

    record = opened(runs_root(root), run)
    say = _say_json if json else _say
    if console:
        if rank:
            raise UsageError("--console shows rank 0 alone; leave out --rank or --console")
        _console(record, lines, follow=follow, say=say)
    else:
        if rank is not None and not follow and rank not in (there := ranks_of(record)):
            ranks = ", ".join(map(str, there)) or "none"
            raise UsageError(
                f"{record.run_id} has no lines of rank {rank}; it has those of: {ranks}"
            )
        _numbers(record, lines, rank=rank, follow=follow, say=say)


def _say_json(line: dict[str, Any] | str) -> None:
    import json

    from cupel.record.codec import document

    value = document(line) if isinstance(line, dict) else {"text": line}
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _say(line: dict[str, Any] | str) -> None:
    from cupel.cli.tables import cell, named, packed, printable, terminal_width

    if isinstance(line, str):
        print(printable(line), flush=True)
        return
    numbers = {key: value for key, value in line.items() if not key.startswith("_")}
    parts = [f"{named(key)} {_brief(value)}" for key, value in numbers.items()]
    rank = f" rank {line['_rank']}" if line.get("_rank") else ""
    first = f"step {cell(line.get('_step'))}{rank}"
    for shown in packed([first, *parts], terminal_width()):
        print(shown, flush=True)


def _brief(value: Any) -> str:
    from cupel.cli.tables import cell

    return f"[{len(value)} values]" if isinstance(value, list) else cell(value)


def _numbers(
    record: RunRecord,
    most: int,
    *,
    rank: int | None,
    follow: bool,
    say: Callable[[dict[str, Any]], None],
) -> None:
    """The last lines of a rank, and those that come; without one those of 0, then those of all."""
    from cupel.record.tail import Tail

    tail, last = Tail.at_end(record.run_dir, last=most, rank=rank or 0)
    for line in _named(last):
        say(line)
    for _ in _until_over(record) if follow else ():
        more = True
        while more:
            lines = _named(tail.poll(most=_AT_ONCE))
            for line in lines:
                if rank in (None, line.get("_rank", 0)):
                    say(line)
            more = len(lines) >= _AT_ONCE  # also at the run's end nothing is left out


def _named(lines: Sequence[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {**line, "_session": session, **({"_rank": rank} if rank else {})}
        for session, rank, line in lines
    ]


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
    told = {session.dir: _Printed(session.dir) for session in record.sessions}
    for printed in told.values():
        printed.skip()
    for _ in _until_over(record):
        for session in record.sessions:
            for line in told.setdefault(session.dir, _Printed(session.dir)).new_lines():
                say(line)


class _Printed:
    """What a session printed, one text in a file or several, and up to where it has been told."""

    def __init__(self, session: Path) -> None:
        self._session = session
        self._segment = self._offset = 0

    def skip(self) -> None:
        """Take all whole lines for told, without reading them."""
        from cupel.record import layout

        for (rank, segment), path in reversed(layout.consoles(self._session).items()):
            if rank:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, size - _BLOCK)
                file.seek(start)
                self._segment = segment
                self._offset = start + file.read(size - start).rfind(b"\n") + 1
                return

    def new_lines(self) -> list[str]:
        """The whole lines that have come since."""
        from cupel.record import console, layout

        pieces: list[tuple[int, int, bytes]] = []
        for (rank, segment), path in layout.consoles(self._session).items():
            if rank or segment < self._segment:
                continue
            start = self._offset if segment == self._segment else 0
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(start)
                pieces.append((segment, start, file.read()))
        text = b"".join(piece for *_, piece in pieces)
        whole = left = text.rfind(b"\n") + 1
        for segment, start, piece in pieces if whole else ():
            if left <= len(piece):
                self._segment, self._offset = segment, start + left
                break
            left -= len(piece)
        return console.lines(text[:whole]) if whole else []
