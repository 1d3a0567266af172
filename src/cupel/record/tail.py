"""Follows a run while it is written: every line once, in order, by a cursor that is plain JSON.

A poll looks at every file of the run (about 3 µs each) and reads what has been added. A line that
is not finished is left for the next poll. Lines come in the order of sessions, ranks and segments,
and of one rank of one session in the order in which they were written; where a session goes on
after another was begun, its later lines come later. Nothing is left out for a rewind: who follows
hears of it by the session's number and its event `begin`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec

from cupel.errors import UsageError
from cupel.record import files, layout
from cupel.record.lines import LineFile, decode

Kind = Literal["metrics", "events", "system"]

_REQUIRED: dict[str, tuple[str, tuple[type, ...]]] = {
    "metrics": ("_step", (int,)),
    "events": ("_event", (str,)),
    "system": ("_t", (int, float)),
}
_MARK_BYTES = 64
_BLOCK = 64 * 1024


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """How far a file has been read, and a hash of what stood before that."""

    offset: int
    mark: str


class _Cursor(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    files: dict[str, _Place]


class Tail:
    """Follows one kind of a run's lines, from where a cursor says; without one, from the start.

    After a poll `replaced` names the files (from the folder of sessions) that were not what had
    been read before: shorter, other, or gone. They are read from their start again, and whoever
    keeps what they said should forget it. `damaged` counts the lines that cannot be read.
    Raises UsageError for a cursor that is none, or of another kind.
    """

    def __init__(self, run_dir: Path, cursor: Any = None, *, kind: Kind = "metrics") -> None:
        self.run_dir, self.kind = run_dir, kind
        self.replaced: list[str] = []
        self.damaged = 0
        self._places = {} if cursor is None else _checked(cursor, kind)
        self._seen: dict[str, tuple[int, ...]] = {}
        self._name = re.compile(rf"{kind}\.r([0-9]{{1,9}})\.([0-9]{{3,9}})\.jsonl")

    @classmethod
    def at_end(
        cls, run_dir: Path, *, last: int, rank: int | None = None, kind: Kind = "metrics"
    ) -> tuple[Tail, list[tuple[int, int, dict[str, Any]]]]:
        """A tail that begins after all lines that are whole now, and so many of the last of these.

        Of one rank or (None) of all; each as `poll` gives it and in its order. No more of the
        files is read than that takes, and what lies before is not in `damaged`.
        """
        tail = cls(run_dir, kind=kind)
        found: list[tuple[int, int, dict[str, Any]]] = []
        for name, session, of_rank, path in reversed(tail._files()):
            missing = last - len(found) if rank in (None, of_rank) else 0
            with contextlib.suppress(FileNotFoundError):  # since it was listed
                lines = tail._skip(name, path, missing)
                found = [(session, of_rank, line) for line in lines] + found
        return tail, found

    @property
    def cursor(self) -> dict[str, Any]:
        """How far the polls have come, as plain JSON."""
        places = {name: [place.offset, place.mark] for name, place in self._places.items()}
        return {"kind": self.kind, "files": places}

    def poll(self, *, most: int | None = None) -> list[tuple[int, int, dict[str, Any]]]:
        """Session, rank and fields of every line that is new; with `most`, of about so many, the
        others the next time. Never waits."""
        found: list[tuple[int, int, dict[str, Any]]] = []
        self.replaced = []
        names: set[str] = set()
        for name, session, rank, path in self._files():
            names.add(name)
            if most is not None and len(found) >= most:
                continue
            try:
                for lines in self._new(name, path, most):
                    found += [(session, rank, line) for line in lines]
                    if most is not None and len(found) >= most:
                        break
            except FileNotFoundError:  # since it was listed
                names.discard(name)
        for name in self._places.keys() - names:
            self._forget(name)
        return found

    def _new(self, name: str, path: Path, most: int | None) -> Iterator[list[dict[str, Any]]]:
        stat = path.stat()
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if self._seen.get(name) == state:
            return
        place = self._places.get(name)
        if place and _mark(path, place.offset) != place.mark:  # so it is for a shorter one
            self._forget(name)
            place = None
        required, kinds = _REQUIRED[self.kind]
        file = LineFile(path, required, *kinds, offset=place.offset if place else 0)
        try:
            yield from file.read()
            self._seen[name] = state
        finally:
            self.damaged += file.damaged
            if file.offset:
                self._places[name] = _Place(file.offset, _mark(path, file.offset))

    def _skip(self, name: str, path: Path, last: int) -> list[dict[str, Any]]:
        """Take all whole lines of a file for read; so many of the last that can be decoded."""
        required, kinds = _REQUIRED[self.kind]
        lines: list[dict[str, Any]] = []
        with files.open_regular(path) as file:
            left = file.seek(0, os.SEEK_END)
            text = b""
            while left and (b"\n" not in text or len(lines) < last):
                size = min(left, max(_BLOCK, len(text)))  # doubled, or many lines cost a square
                left -= size
                file.seek(left)
                text = file.read(size) + text
                begin = text.find(b"\n") + 1 if left else 0
                whole = text[begin : text.rfind(b"\n") + 1]
                lines = decode(whole, required, kinds)[0] if whole and last > 0 else []
        if offset := left + text.rfind(b"\n") + 1 if b"\n" in text else 0:
            self._places[name] = _Place(offset, _mark(path, offset))
        return lines[len(lines) - last :] if 0 < last < len(lines) else lines

    def _files(self) -> list[tuple[str, int, int, Path]]:
        """Name, session, rank and path of every file there is, in the order of reading."""
        found = []
        for session in layout.session_numbers(self.run_dir):
            folder = layout.session_dir(self.run_dir, session)
            try:
                with os.scandir(folder) as entries:
                    matches = [self._name.fullmatch(e.name) for e in entries if e.is_file()]
            except FileNotFoundError:
                continue
            segments = sorted((int(m[1]), int(m[2]), m[0]) for m in matches if m)
            found += [
                (f"{folder.name}/{name}", session, rank, folder / name)
                for rank, _, name in segments
            ]
        return found

    def _forget(self, name: str) -> None:
        self.replaced.append(name)
        self._places.pop(name, None)
        self._seen.pop(name, None)


def _checked(cursor: Any, kind: Kind) -> dict[str, _Place]:
    expected = 'give back what Tail.cursor gave, such as {"kind": "metrics", "files": {}}'
    try:
        plain = dict(cursor) if isinstance(cursor, Mapping) else cursor
        found = msgspec.convert(plain, type=_Cursor)
    except (msgspec.ValidationError, RecursionError) as error:
        why = " ".join(str(error)[:200].split())
        raise UsageError(f"this is no cursor: {why}; {expected}") from error
    if found.kind != kind:
        raise UsageError(f"this is a cursor of {found.kind}, and {kind} are followed; {expected}")
    if any(place.offset < 0 for place in found.files.values()):
        raise UsageError(f"this is no cursor: a place before the start of a file; {expected}")
    return found.files


def _mark(path: Path, offset: int) -> str:
    """A hash of the start of a file and of what stands before an offset."""
    with files.open_regular(path) as file:
        head = file.read(min(_MARK_BYTES, offset))
        file.seek(max(0, offset - _MARK_BYTES))
        before = file.read(min(_MARK_BYTES, offset))
    return blake2b(head + before, digest_size=8).hexdigest()
