"""A session's folder while it is open: the files of one rank, wherever the run is moved meanwhile.

The folder is held open, so that a new segment, the heartbeat and the last word go where it lies
now, not where it lay. (What was moved to another disk is a copy, and what is written here is lost:
that is told.) Once the folder is open nothing here raises: what fails goes to `on_problem`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cupel.record import files, layout, writer
from cupel.record.writer import Durability, LineWriter

_NAMES = {
    "metrics": layout.metrics_name,
    "events": layout.events_name,
    "system": layout.system_name,
}


class OpenFolder:
    """Opens `path`, which exists. Raises OSError.

    `on_problem(name, error)` hears of every failure, also of the thousandth.
    """

    def __init__(
        self,
        path: Path,
        rank: int,
        durability: Durability,
        on_problem: Callable[[str, Exception], object],
    ) -> None:
        self._path, self._rank, self._durability = path, rank, durability
        self._on_problem = on_problem
        self._pid = os.getpid()
        self._writers: list[LineWriter] = []
        self._changes = 0
        self._renamed = False  # since the names in the folder were last synced
        self.fd = files.open_folder(path)

    @property
    def path(self) -> Path:
        """Where it lies now, or lay when it was closed."""
        if self.fd >= 0:
            self._path = files.place_of(self.fd, self._path)
        return self._path

    @property
    def lost(self) -> int:
        """How many lines did not reach their file."""
        return sum(one.lost for one in self._writers)

    def lines(self, kind: str) -> LineWriter:
        """The file for lines of a kind (`metrics`), and those that follow when it is full.

        As durable as was asked for, but for measurements of the machine. A rank that begins anew
        in the same session gets a new one: the last line of the old one may be torn. Raises
        OSError.
        """
        name_of = _NAMES[kind]
        segment = layout.next_segment(self._path, kind, self._rank)
        return self.file(
            name_of(self._rank, segment),
            segment=segment,
            name_of=partial(name_of, self._rank),
            durability="process" if kind == "system" else self._durability,
        )

    def printed(self) -> LineWriter:
        """The file for what is printed, and those that follow when it is full. Raises OSError.

        It is text, of which a line may go on in the next file: who joins anew goes on in the last.
        """
        there = [segment for rank, segment in layout.consoles(self._path) if rank == self._rank]
        segment = max(there, default=0)
        return self.file(
            layout.console_name(self._rank, segment),
            segment=segment,
            name_of=partial(layout.console_name, self._rank),
        )

    def file(self, name: str, **more: Any) -> LineWriter:
        """A file of lines for people. Raises OSError."""
        made = LineWriter(
            self._path / name,
            segment_bytes=writer.SEGMENT_BYTES,
            folder=self.fd,
            **more,
        )
        self._writers.append(made)
        return made

    def append(self, to: LineWriter, line: bytes) -> None:
        """Write a line into a file that was made here."""
        if not to.append(line):
            self.tell_lost(to)

    def tell_lost(self, by: LineWriter) -> None:
        """Tell why lines of a file are lost."""
        assert by.first_error is not None
        self._on_problem(f"writing {by.path.name}", by.first_error)

    def sync(self) -> None:
        """Make all lines survive a power loss, and what was published."""
        for one in list(self._writers):
            try:
                one.sync()
            except OSError as error:
                self._on_problem(f"syncing {one.path.name}", error)
        self._sync_names()

    def _sync_names(self) -> None:
        if not self._renamed or self.fd < 0 or os.getpid() != self._pid:
            return
        self._renamed = False
        try:
            os.fsync(self.fd)
        except OSError as error:
            self._on_problem("syncing the session's folder", error)

    def sync_parents(self) -> None:
        """Make the folder itself survive one: it and those above may have been made just now."""
        for folder in (self.path, *self.path.parents[:4]):
            try:
                files.sync_folder(folder)
            except OSError:  # a root that we may not read; only what is read can be synced
                continue

    def publish(self, name: str, fields: Mapping[str, Any], *, named: bool = False) -> None:
        """Write a JSON file of something that changes, as it stands now. Unless it is `named` at
        once, it may be the one before after a power loss that comes before the next `sync`.

        Without a lock, since a signal may end the session in the midst of this: whoever finds that
        something was to be published since it looked writes again, so the newest is written last.
        """
        if os.getpid() != self._pid:
            return
        self._changes += 1
        try:
            while True:
                changes = self._changes
                now = {"schema": layout.SCHEMA, **fields}
                files.write_json(self.path / name, now, named=named)
                self._renamed |= not named
                if changes == self._changes:
                    return
        except Exception as error:  # of the disk, or of a value that is asked what it is
            self._on_problem(f"writing {name}", error)

    def written(self) -> dict[str, dict[str, int]]:
        """What was written into each file of lines of JSON, by name; see `LineWriter.files`."""
        found = (one.files() for one in list(self._writers))
        return {name: told for files in found for name, told in files.items() if _is_json(name)}

    def seal(self) -> None:
        """Close every file; what is appended later counts as lost."""
        for one in self._writers:
            one.close()

    def close(self) -> None:
        """Close everything."""
        last = self.path
        self._sync_names()
        self.seal()
        fd, self.fd, self._path = self.fd, -1, last
        if fd >= 0:
            os.close(fd)


def _is_json(name: str) -> bool:
    """Whether a file is one of lines; texts are for people, who may shorten them."""
    return name.endswith(".jsonl")
