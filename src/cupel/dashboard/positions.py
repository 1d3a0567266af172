"""Cursors into the record: how much of one key of one run somebody has seen.

A position says which row of which segment was the last, and proves it by a hash, so it holds after
a restart of the server, and one into a record that is another now is found out. `first_new` gives
the place of the first point that may have changed since; from there on all is sent again. That
covers steps that went back and came twice without a special case.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from cupel.record.series import STEP, TIME

if TYPE_CHECKING:
    from cupel.record.columns import Column
    from cupel.record.reader import SessionInfo
    from cupel.record.series import Logged


class Position(msgspec.Struct, array_like=True, frozen=True):
    """Session, segment (counted within it), rows of the key there, and a hash of the last row."""

    session: int
    segment: int
    rows: int
    mark: str


NOTHING = Position(0, 0, 0, "")


class Changed(Exception):
    """What was seen is not what the record says now, or more than its end has changed."""


def position(sessions: Sequence[SessionInfo], logged: Logged, key: str) -> Position:
    """How far a key goes now."""
    starts = [info.start_step for info in sessions]
    for info, (_, tables) in reversed(list(zip(sessions, logged.sessions, strict=True))):
        for segment in reversed(range(len(tables))):
            column = tables[segment].column(key)
            if column is not None and len(column.rows.steps):
                rows = len(column.rows.steps)
                return Position(info.number, segment, rows, _mark(column, rows, starts))
    return NOTHING


def first_new(
    seen: Position, sessions: Sequence[SessionInfo], logged: Logged, key: str, x: str
) -> float | None:
    """The least place of the points after a position; None when there are none.

    On the axes step and time; a time is in Unix seconds. Raises Changed when whoever has seen the
    position must begin anew: a session was added, a file was replaced, another axis is asked.
    """
    now = position(sessions, logged, key)
    if now == seen:
        return None
    if x not in (STEP, TIME) or seen.session == 0 or now.session != seen.session:
        raise Changed
    (tables,) = (
        tables
        for info, (_, tables) in zip(sessions, logged.sessions, strict=True)
        if info.number == seen.session
    )
    starts = [info.start_step for info in sessions]
    if x == TIME and not _ordered([table.column(key) for table in tables]):
        raise Changed  # a new point may have taken the place of one that lies far before
    least: list[float] = []
    for segment in range(seen.segment, len(tables)):
        column = tables[segment].column(key)
        before = seen.rows if segment == seen.segment else 0
        if column is None or len(column.rows.steps) < before:
            raise Changed
        if before and _mark(column, before, starts) != seen.mark:
            raise Changed
        if len(column.rows.steps) > before:
            least.append(_least(column, before, x))
    if not least:
        raise Changed
    return min(least)


def _ordered(columns: Sequence[Column | None]) -> bool:
    """Whether steps only increase, within each segment and from one to the next."""
    there = [column for column in columns if column is not None and len(column.rows.steps)]
    return all(column.rows.increasing for column in there) and all(
        one.rows.top < other.rows.steps.at(0) for one, other in pairwise(there)
    )


def _least(column: Column, start: int, x: str) -> float:
    import numpy as np

    places = column.rows.steps.array(start) if x == STEP else column.rows.times[start:]
    with np.errstate(invalid="ignore"):
        least = float(np.fmin.reduce(places))
    if least != least:  # no time at all
        raise Changed
    return least


def _mark(column: Column, rows: int, starts: Sequence[int | None]) -> str:
    """A hash of the last of so many rows, and of the steps that the sessions went on from."""
    row = struct.pack(
        "<qdd", column.rows.steps.at(rows - 1), column.rows.times[rows - 1], column.values[rows - 1]
    )
    return blake2b(row + repr(starts).encode(), digest_size=6).hexdigest()
