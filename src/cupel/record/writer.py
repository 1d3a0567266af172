"""One line, one `os.write`, straight into the file: a line that `append` took survives `kill -9`.

There is no queue, no buffer and no thread between the caller and the page cache (about 2 µs a
line). A power loss may cost what was not yet synced; `sync` is called every second or two by the
session's heartbeat, and `durability="sync"` does it within each `append` (a hundred times dearer).
`append` never raises for what the disk does: it counts what was lost, and goes on when it can.
A file that has grown past its size is sealed, and the next line opens the next one.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Literal

SEGMENT_BYTES = 64 * 1024 * 1024
MOST_KINDS = 64  # of lines, of which each one's last is kept

Durability = Literal["process", "sync"]

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class LineWriter:
    """Appends whole lines to a file that it creates. Raises OSError when it cannot be created.

    With `name_of`, the file is the one of `segment`, and others of these names follow it. With
    `folder`, an open folder, files are made in it wherever it was moved to.
    `lost` counts the lines that did not get there, `first_error` says why the first one did not.
    Only the process that made it writes: in a child made by fork, lines count as lost. `files` says
    what was written, by which a later change of any byte is found, and `ends` the last lines.
    """

    def __init__(
        self,
        path: Path,
        *,
        name_of: Callable[[int], str] | None = None,
        segment: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        durability: Durability = "process",
        folder: int | None = None,
    ) -> None:
        self.path = path
        self.lost = 0
        self.first_error: OSError | None = None
        self._name_of, self._segment, self._segment_bytes = name_of, segment, segment_bytes
        self._durable, self._folder = durability == "sync", folder
        self._pid = os.getpid()
        # A signal handler may log while its own thread is inside append: reentrant.
        self._lock = threading.RLock()
        # Held while descriptors are synced or closed, and never by append, which must not wait.
        self._closing = threading.Lock()
        self._sealed: list[int] = []  # segments that are full, and not yet synced
        self._untold: OSError | None = None
        self._written = self._synced = 0  # lines, ever
        self._fd = self._opened(path.name)
        self._size = os.fstat(self._fd).st_size
        self._torn = _ends_torn(path, self._size)
        # Of what stood there before, of pieces of lines, and of lines that a signal handler wrote
        # in the midst of another, the order or the bytes are not known: then there is no checksum.
        self._checksum, self._doubtful = 0, self._size > 0
        self._full: dict[str, dict[str, int]] = {}  # segments that are full
        # Of each kind of line the last one, and where it ends; None where that is not to be had.
        self._ends: dict[Hashable, tuple[int, int, bytes]] | None = {}
        self._at: float = -math.inf
        self._roll_at = segment_bytes

    def append(self, line: bytes, kind: Hashable = None, at: float = 0) -> bool:
        """Write one line, which ends in a newline; whether all of it was written.

        Of each `kind` the last line is kept for `ends`; `at` is its place in an order in which
        lines are expected.

        With `durability="sync"` True means that it also survives a power loss.
        """
        if os.getpid() != self._pid:
            return self._lose(OSError("a forked child does not write into its parent's record"))
        with self._lock:
            if self._size >= self._roll_at:
                self._roll()
            begin, torn, calls = self._size, self._torn, self._written + self.lost
            if torn:  # end the damaged line first, so that only one is lost
                line, self._doubtful = b"\n" + line, True
            self._torn = True  # for a signal handler that logs between here and the end
            try:
                written = os.write(self._fd, line)
                self._size += written
                if written != len(line):
                    self._write_rest(line, written)
                self._checksum = zlib.crc32(line, self._checksum)
                if kind is not None and self._ends is not None:
                    self._ends[kind] = self._segment, self._size, line
                    if at < self._at or len(self._ends) > MOST_KINDS:
                        self._ends = None
                    self._at = at
                self._torn = False
                self._written += 1
                if self._durable:
                    _sync(self._fd)
            except OSError as error:
                alone = calls == self._written + self.lost  # no signal handler wrote after us
                if self._torn and alone and self._took_back(begin):
                    self._torn = torn
                ended = OSError("the session is finished")
                return self._lose(error if self._fd >= 0 else ended)
        return True

    def files(self) -> dict[str, dict[str, int]]:
        """What was written: of each segment by name its `bytes`, and where it is known `crc32`.

        Of a file that is closed what it then had. Segments whose state is not known are left out.
        """
        with self._lock:
            return {**self._full, **(self._told() if self._fd >= 0 else {})}

    def ends(self) -> list[tuple[int, bytes]] | None:
        """The last line of each kind, in the order in which they stand in the files, each with the
        number of its kind as they came; None where that is not known, there are too many kinds, or
        a line came out of order."""
        with self._lock:
            if self._ends is None or self._torn or self._doubtful:
                return None
            found = list(self._ends.values())  # at once: a signal handler may log meanwhile
        placed = sorted(range(len(found)), key=lambda number: found[number][:2])
        return [(number, found[number][2]) for number in placed]

    def _told(self) -> dict[str, dict[str, int]]:
        """The same of the segment that is open."""
        if not (self._torn or self._doubtful):
            return {self.path.name: {"bytes": self._size, "crc32": self._checksum}}
        try:
            return {self.path.name: {"bytes": os.fstat(self._fd).st_size}}
        except OSError:
            return {}

    def sync(self) -> None:
        """Make all lines so far survive a power loss. Raises OSError when the disk refuses.

        Also raises when the file was deleted, which loses every line since the last sync, and once
        when a following segment could not be opened.
        """
        if os.getpid() != self._pid:
            return
        with self._closing:
            untold, self._untold = self._untold, None
            written = self._written
            if self._sealed and self._folder is not None:
                os.fsync(self._folder)  # or a power loss could take the new name, and all its lines
            while self._sealed:
                fd = self._sealed.pop(0)
                try:
                    _sync(fd)
                finally:
                    os.close(fd)
            if written != self._synced and self._fd >= 0:
                self._check_it_exists(written)
                self._synced = written  # a disk that refuses is told of once for these lines
                _sync(self._fd)
        if untold is not None:
            raise untold

    def close(self) -> None:
        """Close the file; later lines count as lost. Call `sync` before."""
        if os.getpid() != self._pid:
            return
        with self._closing, self._lock:
            if self._fd >= 0:
                self._full |= self._told()
            fd, self._fd = self._fd, -1
            open_ones, self._sealed = [*self._sealed, fd], []
            self._roll_at = 2**63  # nothing follows
            for fd in open_ones:
                if fd >= 0:
                    os.close(fd)

    def _opened(self, name: str) -> int:
        if self._folder is None:
            return os.open(self.path.with_name(name), _FLAGS, 0o666)
        return os.open(name, _FLAGS, 0o666, dir_fd=self._folder)

    def _roll(self) -> None:
        if self._name_of is None:
            self._roll_at = 2**63
            return
        segment = self._segment
        name = self._name_of(segment + 1)
        try:
            fd = self._opened(name)
            if self._durable and self._folder is not None:
                os.fsync(self._folder)  # else `sync` does it: lines are no safer than their name
        except OSError as error:  # this one may grow: better long than lost
            self._untold = error
            self._roll_at = self._size + self._segment_bytes // 8 + 1
            return
        path, size, told = self.path.with_name(name), os.fstat(fd).st_size, self._told()
        if self._segment != segment:  # a signal handler was faster
            os.close(fd)
            return
        if self._torn or self._doubtful:
            self._ends = None
        # Nothing is called until all of it is changed, so no handler sees a half of it.
        full, self._full = self._fd, {**self._full, **told}
        self._fd, self._segment, self.path = fd, segment + 1, path
        self._size, self._roll_at, self._checksum = size, self._segment_bytes, 0
        self._doubtful = self._torn or size > 0  # a handler may roll in the midst of a line
        self._torn = size > 0  # it was there: whatever it ends with, a blank line is harmless
        self._sealed.append(full)  # whoever syncs will close it

    def _write_rest(self, line: bytes, written: int) -> None:
        while written < len(line):
            more = os.write(self._fd, line[written:])
            if more == 0:
                raise OSError(f"{len(line) - written} bytes of a line were not taken")
            self._torn = True  # again, if a handler's line came between
            self._size += more
            written += more

    def _took_back(self, begin: int) -> bool:
        """Whether nothing stays of a line of which a full disk took a part.

        Else every try to write on would leave a damaged line.
        """
        try:
            size = os.fstat(self._fd).st_size
            if size == self._size > begin:
                os.ftruncate(self._fd, begin)
                self._size = size = begin
        except OSError:
            return False
        return size == begin

    def _check_it_exists(self, written: int) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            self.lost += written - self._synced
            self._synced = written
            error = FileNotFoundError(
                f"{self.path.name} was deleted, or moved to another disk: lines are lost"
            )
            self.first_error = self.first_error or error
            raise error

    def _lose(self, error: OSError) -> bool:
        self.lost += 1
        self.first_error = self.first_error or error
        return False


def _ends_torn(path: Path, size: int) -> bool:
    """Whether a file that stood here before ends within a line."""
    if size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
