"""Keeps the columns of finished segments in files, where they are mapped instead of read.

    root/.cache/columns/<project>/<run_id>/0001-metrics.r0.000.jsonl.json    what lies where
    root/.cache/columns/<project>/<run_id>/0001-metrics.r0.000.jsonl.bin     the columns

The first question is answered by reading the keys that it asks for, and these are kept; the next
one that asks for others has all keys read and kept. All of it is derived: without these files
everything is the same, only slower, and where they cannot be written (a disk that is read-only or
full) the columns are made in memory, again for every process. A pair belongs to its source as it
was, by size, time and inode; one that is stale or damaged is made anew without a word. Files are
whole or not there, also after a power loss; bits that rot inside the .bin later are not looked for.
About 10 bytes a number (8 for the number, half a byte for its pyramid, 8 or 16 for the step and
time of each line).
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cupel.names import refusal
from cupel.record import files, layout, pyramid
from cupel.record.columns import Column, Kind, Rows, Steps, Table, covers
from cupel.record.growing import Growing

if TYPE_CHECKING:
    from cupel.record.columns import Floats, Ints

SMALLEST = 256 * 1024  # what is shorter is read faster than it is looked up
FORMAT = 2
FOLDER = "columns"  # in the root's cache

_later: ContextVar[Callable[[Callable[[], object]], object] | None] = ContextVar(
    "_later", default=None
)
_HEAD = 32  # bytes of the token, at the head of the .bin

Signature = tuple[int, int, int]


class _RowsEntry(msgspec.Struct, array_like=True):
    count: int
    runs: list[tuple[int, int, int]] | None
    steps: int  # offsets into the .bin; -1 where runs say it all
    times: int
    increasing: bool
    timely: bool
    top: int


class _KeyEntry(msgspec.Struct, array_like=True):
    kind: Kind
    rows: int = -1  # -1: no line holds a number under this key
    values: int = -1
    ascending: bool = False
    levels: int = -1
    holes: bool = False  # whether there are NaN
    last: float | int | bool | str | None = None


class _Index(msgspec.Struct):
    format: int
    source: Signature
    bytes: int
    token: str
    lines: int
    damaged: int
    whole: bool
    rows: list[_RowsEntry]
    keys: dict[str, _KeyEntry]
    wanted: list[str] | None  # the only keys that were looked for; None: all


class _Checked(msgspec.Struct):
    check: str
    index: msgspec.Raw


def signature(path: Path) -> Signature:
    """What tells one state of a file from another. Raises OSError."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def cache_folder(run_dir: Path, run: dict[str, Any]) -> Path | None:
    """Where the columns of a run belong; None for a run that stands anywhere but in its project.

    Without that rule, reading a copy in ~/Downloads would leave a cache in the home.
    """
    run_dir = run_dir.absolute()
    if (run.get("project"), run.get("run_id")) != (run_dir.parent.name, run_dir.name):
        return None
    root = run_dir.parent.parent
    return root / layout.CACHE / FOLDER / run_dir.parent.name / run_dir.name


def discard(root: Path, project: str, run_id: str) -> None:
    """Delete the columns of a run that is no longer there; never raises."""
    if refusal(project) is None and refusal(run_id) is None:
        folder = root / layout.CACHE / FOLDER / project / run_id
        shutil.rmtree(folder, ignore_errors=True)


def load(
    path: Path,
    *,
    cache: Path | None,
    sealed: bool,
    before: Table | None = None,
    keys: Collection[str] | None = None,
) -> Table:
    """A segment's columns, by the cheapest way there is; `before` is what an earlier call gave.

    At least those of `keys` (None: of all keys). With `sealed`, nobody writes into the segment any
    more. Raises OSError when it cannot be read.
    """
    now = signature(path)
    if isinstance(before, Mapped) and before.source == now and before.covers(keys):
        return before
    worth = sealed and cache is not None and now[0] >= SMALLEST
    name = f"{path.parent.name}-{path.name}"
    mapped = Mapped.open(cache, name, now) if worth and cache is not None else None
    if mapped and mapped.covers(keys):
        return mapped
    growing = before if isinstance(before, Growing) and before.covers(keys) else None
    if growing is None:
        # Who asks for one key and then for another goes on to ask: now all keys are read.
        growing = Growing(path, None if mapped or before else keys)
    growing.refresh()
    if not growing.covers(keys):  # what was added has keys that were not looked for
        growing = Growing(path)
        growing.refresh()
    if worth and cache is not None and not growing.refused and signature(path) == now:
        growing.refused = True  # until it has been taken; a full disk is asked once
        if (later := _later.get()) is not None:
            later(functools.partial(_kept, growing, cache, name, now))
        else:
            return _kept(growing, cache, name, now) or growing
    return growing


def is_kept(path: Path, table: Table, cache: Path | None) -> bool:
    """Whether what a table has in memory is in files, too."""
    if cache is None or not isinstance(table, Growing):
        return False
    try:
        mapped = Mapped.open(cache, f"{path.parent.name}-{path.name}", signature(path))
    except OSError:
        return False
    return mapped is not None and mapped.covers(table.wanted)


@contextlib.contextmanager
def put_off(later: Callable[[Callable[[], object]], object]) -> Iterator[None]:
    """Within it nobody waits for files to be written: `later` is given what writes each pair.

    That may be called by any thread, and never raises.
    """
    token = _later.set(later)
    try:
        yield
    finally:
        _later.reset(token)


def _kept(growing: Growing, cache: Path, name: str, source: Signature) -> Mapped | None:
    """Keep a table's columns in files; None where they cannot be written."""
    with contextlib.suppress(OSError):
        if signature(growing.path) != source:  # the run was moved to the trash meanwhile
            return None
        there = Mapped.open(cache, name, source)
        if there is not None and there.covers(growing.wanted):  # somebody else wrote as much
            return there
        _write(growing, cache, name, source)
        return Mapped.open(cache, name, source)
    return None


class Mapped:
    """The table (`cupel.record.columns.Table`) that a pair of files holds."""

    def __init__(self, index: _Index, data: mmap.mmap) -> None:
        self.version = 0
        self.source = index.source
        self.lines, self.damaged, self.whole = index.lines, index.damaged, index.whole
        self.kinds: dict[str, Kind] = {key: entry.kind for key, entry in index.keys.items()}
        self._index, self._data = index, data
        self._rows: dict[int, Rows] = {}
        self._columns: dict[str, Column] = {}

    @classmethod
    def open(cls, folder: Path, name: str, source: Signature) -> Mapped | None:
        """The pair of that name; None when there is none, or none of this state of the source."""
        try:
            checked = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=_Checked)
            if checked.check != _digest(bytes(checked.index)):
                return None
            index = msgspec.json.decode(checked.index, type=_Index)
            if index.format != FORMAT or index.source != source:
                return None
            with (folder / f"{name}.bin").open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, RecursionError):
            return None
        if len(data) != index.bytes or data[:_HEAD] != index.token.encode():
            return None
        return cls(index, data)

    def covers(self, keys: Collection[str] | None) -> bool:
        """See `Table.covers`."""
        return covers(self._index.wanted, keys)

    def column(self, key: str) -> Column | None:
        """A key's column; None when no line holds a number under that key."""
        entry = self._index.keys.get(key)
        if entry is None or entry.rows < 0:
            return None
        if key not in self._columns:
            count = self._index.rows[entry.rows].count
            self._columns[key] = Column(
                self._rows_at(entry.rows),
                self._floats(entry.values, count),
                entry.kind,
                entry.ascending,
                self._levels(entry, count),
            )
        return self._columns[key]

    def ends(self, key: str) -> tuple[int, bool, Any] | None:
        """See `Table.ends`."""
        entry = self._index.keys.get(key)
        if entry is None or entry.rows < 0:
            return None
        rows, last = self._index.rows[entry.rows], entry.last
        return rows.top, rows.increasing, float(last) if isinstance(last, str) else last

    def _rows_at(self, number: int) -> Rows:
        if number not in self._rows:
            entry = self._index.rows[number]
            steps = Steps(None, entry.runs)
            if entry.runs is None:
                steps = Steps(self._ints(entry.steps, entry.count))
            times = self._floats(entry.times, entry.count)
            self._rows[number] = Rows(steps, times, entry.increasing, entry.timely, entry.top)
        return self._rows[number]

    def _levels(self, entry: _KeyEntry, count: int) -> list[pyramid.Level]:
        levels, offset = [], entry.levels
        for _ in range(pyramid.LEVELS):
            count //= pyramid.RATIO
            arrays = [self._floats(offset + 8 * count * n, count) for n in range(3 + entry.holes)]
            offset += 8 * count * len(arrays)
            least, greatest, sums, *nan = arrays
            levels.append(pyramid.Level(least, greatest, sums, nan[0] if nan else None))
        return levels

    def _floats(self, offset: int, count: int) -> Floats:
        import numpy as np

        return np.frombuffer(self._data, np.float64, count, offset)

    def _ints(self, offset: int, count: int) -> Ints:
        import numpy as np

        return np.frombuffer(self._data, np.int64, count, offset)


def _write(table: Growing, folder: Path, name: str, source: Signature) -> None:
    """Write a table's pair of files, the .bin first. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    bin_ = _Bin()
    rows: list[_RowsEntry] = []
    numbers: dict[int, int] = {}
    held: list[Column] = []  # or another's rows might come to lie where some have lain
    keys: dict[str, _KeyEntry] = {}
    for key, kind in table.kinds.items():
        column = table.column(key)
        if column is None:
            keys[key] = _KeyEntry(kind)
            continue
        held.append(column)
        number = numbers.setdefault(id(column.rows), len(rows))
        if number == len(rows):
            rows.append(_rows_entry(column.rows, bin_))
        levels = column.levels
        ends = table.ends(key)
        keys[key] = _KeyEntry(
            kind,
            number,
            bin_.offset_of(column.values),
            column.ascending,
            bin_.offset_of(*(array for level in levels for array in level.arrays())),
            levels[0].nan is not None,
            _plain(ends[2] if ends else None),
        )
    token = bin_.token()
    index = _Index(
        FORMAT, source, bin_.size, token, table.lines, table.damaged, table.whole, rows, keys,
        None if table.wanted is None else sorted(table.wanted),
    )  # fmt: skip
    body = msgspec.json.encode(index)
    _replace(folder / f"{name}.bin", [token.encode(), *bin_.arrays])
    _replace(
        folder / f"{name}.json", [msgspec.json.encode(_Checked(_digest(body), msgspec.Raw(body)))]
    )


def _rows_entry(rows: Rows, bin_: _Bin) -> _RowsEntry:
    runs = None if rows.steps.runs is None else list(rows.steps.runs)
    return _RowsEntry(
        len(rows.steps),
        runs,
        -1 if runs is not None else bin_.offset_of(rows.steps.array()),
        bin_.offset_of(rows.times),
        rows.increasing,
        rows.timely,
        rows.top,
    )


class _Bin:
    """The arrays of a .bin in their order; one that comes again is kept once."""

    def __init__(self) -> None:
        self.size = _HEAD
        self.arrays: list[Any] = []
        self._known: dict[int, int] = {}

    def offset_of(self, *arrays: Any) -> int:
        """Where these arrays lie, one after the other."""
        if len(arrays) == 1 and id(arrays[0]) in self._known:
            return self._known[id(arrays[0])]
        offset = self.size
        for array in arrays:
            self._known.setdefault(id(array), self.size)
            self.arrays.append(array)
            self.size += array.nbytes
        return offset

    def token(self) -> str:
        """A hash of all that is in it, so that two who write the same do not disturb each other."""
        digest = blake2b(digest_size=_HEAD // 2)
        for array in self.arrays:
            digest.update(array)
        return digest.hexdigest()


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """A number as JSON can hold it; None for what it cannot."""
    if isinstance(value, float) and value - value != 0.0:  # NaN or infinite
        return str(value)
    return value if isinstance(value, float) or -(2**63) <= (value or 0) < 2**64 else None


def _replace(path: Path, parts: list[Any]) -> None:
    temporary = path.with_name(files.temporary_name(path.name))
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
