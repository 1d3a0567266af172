"""A page as the protocol describes it, for tests: holds charts by frames and cursors alone."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from cupel.dashboard import frames


class Chart:
    """What a page holds of a chart: of every stretch and curve last, least, greatest value."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.cursor: Any = None
        self.rows: dict[int, list[tuple[float, float, float]]] = {}
        self.grid: Any = None
        self.curves = 0

    def take(self, frame: bytes) -> bool:
        """Whether a frame was taken; False asks for all of it anew. As web/src/core/series.ts."""
        header, arrays = frames.unpack(frame)
        if header["type"] == "append":
            if self.name is None or header["from"] != self.name:
                return bool(header["to"] == self.name)
            if len(header["curves"]) != self.curves:
                return False
            self.rows = {row: held for row, held in self.rows.items() if row < header["cut"]}
        else:
            self.rows = {}
        numbers, blocks = arrays[0], list(arrays[1:])
        columns = []
        for facts in header["curves"]:
            last = blocks.pop(0)
            low, high = (blocks.pop(0), blocks.pop(0)) if facts["band"] else (last, last)
            if facts["smooth"]:
                blocks.pop(0)
            columns.append((last, low, high))
        for at, row in enumerate(numbers.tolist()):
            self.rows[row] = [tuple(float(c[at]) for c in three) for three in columns]  # type: ignore[misc]
        self.grid, self.curves = header["grid"], len(header["curves"])
        self.cursor, self.name = msgspec.json.encode(header["cursor"]), header["to"]
        return True

    @property
    def plain_cursor(self) -> Any:
        """The cursor as a page gives it back."""
        return None if self.cursor is None else msgspec.json.decode(self.cursor)

    def same_as(self, other: Chart) -> bool:
        """Whether both show the same, bit for bit."""
        if (self.grid, self.curves) != (other.grid, other.curves):
            return False
        if self.rows.keys() != other.rows.keys():
            return False
        return all(
            np.array_equal(np.array(held), np.array(other.rows[row]), equal_nan=True)
            for row, held in self.rows.items()
        )
