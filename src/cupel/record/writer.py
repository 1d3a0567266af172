"""One line, one `os.write`, straight into the file: a line that `append` took survives `kill -9`.

There is no queue, no buffer and no thread between the caller and the page cache (about 2 µs a
line). A power loss may cost what was not yet synced; `sync` is called every second or two by the
session's heartbeat. `append` never raises for what the disk does: it counts what was lost.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class LineWriter:
    """Appends whole lines to a file that it creates. Raises OSError when it cannot be created.

    `lost` counts the lines that did not get there, `first_error` says why the first one did not.
    Only the process that made it writes: in a child made by fork, lines count as lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self.first_error: OSError | None = None
        self._pid = os.getpid()
        # A signal handler may log while its own thread is inside append: reentrant.
        self._lock = threading.RLock()
        self._torn = False
        self._unsynced = False
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, line: bytes) -> bool:
        """Write one line, which ends in a newline; whether all of it was written."""
        if os.getpid() != self._pid:
            return self._lose(OSError("a forked child does not write into its parent's record"))
        with self._lock:
            if self._fd < 0:
                return self._lose(OSError("the session is finished"))
            if self._torn:  # end the damaged line first, so that only one is lost
                line = b"\n" + line
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                return self._lose(error)
            self._unsynced = True
            self._torn = written < len(line) and (written > 0 or self._torn)
            if written < len(line):
                return self._lose(OSError(f"only {written} of {len(line)} bytes were written"))
        return True

    def sync(self) -> None:
        """Make all lines so far survive a power loss. Raises OSError when the disk refuses."""
        if self._unsynced and self._fd >= 0 and os.getpid() == self._pid:
            self._unsynced = False
            _sync(self._fd)

    def close(self) -> None:
        """Close the file; later lines count as lost. No `sync` may be under way."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _lose(self, error: OSError) -> bool:
        self.lost += 1
        self.first_error = self.first_error or error
        return False
