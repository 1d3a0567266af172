"""All metrics of one run, by the cheapest way that gives what the lines say: `Metrics`.

Small logs are read line by line, without numpy. A run that has a segment of 256 KB or more is read
as columns, mapped from the cache where the segment is sealed (`cupel.record.compaction`); of one
that is still written only what is new is read again, as long as the same `Metrics` is asked. Who
asks for few keys first waits for these alone (about 1.5 s for a million lines of ten numbers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.record import history, layout
from cupel.record.history import Row, View
from cupel.record.lines import LineFile

if TYPE_CHECKING:
    from cupel.record.columns import Table
    from cupel.record.reader import SessionInfo
    from cupel.record.series import Logged

LARGE = 256 * 1024


class Metrics:
    """The metrics of the run whose columns may be kept in `cache` (None: in memory only).

    `damaged` counts the lines of each file that the last reading of it could not read.
    """

    def __init__(self, cache: Path | None) -> None:
        self.damaged: dict[Path, int] = {}
        self._cache = cache
        self._tables: dict[Path, Table] = {}
        self._logged: dict[tuple[Any, ...], Logged] = {}

    def history(
        self, sessions: Sequence[SessionInfo], keys: Collection[str] | None, view: View, rank: int
    ) -> list[Row]:
        """The rows of some sessions that hold one of the keys, as the view wants them."""
        if keys is not None and self.is_large(sessions, rank):
            logged = self.logged(sessions, rank, {*keys, view.key})
            rows = history.from_columns(logged, keys, view)
            if rows is not None:
                return rows
        lines = ((session.start_step, self._lines(session, rank)) for session in sessions)
        return history.selected(history.from_lines(lines), keys, view)

    def is_large(self, sessions: Sequence[SessionInfo], rank: int) -> bool:
        """Whether columns are worth their making."""
        return any(
            path.stat().st_size >= LARGE
            for session in sessions
            for path in layout.segments(session.dir, "metrics", rank)
        )

    def logged(
        self, sessions: Sequence[SessionInfo], rank: int, keys: Collection[str] | None = None
    ) -> Logged:
        """The columns of some sessions, at least those of `keys` (None: of all keys)."""
        from cupel.record.series import Logged

        wanted = None if keys is None else frozenset(filter(_is_text, keys)) - {"_step", "_t"}
        found = [
            (session.start_step, self._tables_of(session, rank, wanted)) for session in sessions
        ]
        state = tuple(
            (start, *((id(table), table.version) for table in tables)) for start, tables in found
        )
        if state not in self._logged:
            self._logged = {state: Logged(found)}
        return self._logged[state]

    def let_go(self) -> None:
        """Let go of columns in memory that the cache has in files, too; these are mapped when they
        are asked for. Of a segment that grows, or is in no file, nothing is read again."""
        from cupel.record import compaction

        for path, table in [*self._tables.items()]:
            if compaction.is_kept(path, table, self._cache):
                del self._tables[path]
        self._logged.clear()

    def _tables_of(
        self, session: SessionInfo, rank: int, keys: frozenset[str] | None
    ) -> list[Table]:
        from cupel.record import compaction

        segments = layout.segments(session.dir, "metrics", rank)
        tables = []
        for path in segments:
            table = self._tables[path] = compaction.load(
                path,
                cache=self._cache,
                sealed=session.is_over or path != segments[-1],
                before=self._tables.get(path),
                keys=keys,
            )
            self.damaged[path] = table.damaged
            tables.append(table)
        return tables

    def _lines(self, session: SessionInfo, rank: int) -> Iterator[Row]:
        for path in layout.segments(session.dir, "metrics", rank):
            file = LineFile(path, "_step", int)
            for lines in file.read():
                yield from lines
            self.damaged[path] = file.damaged + file.unfinished


def _is_text(key: str) -> bool:
    """Whether a line can hold a key: half of a surrogate pair is no UTF-8."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
