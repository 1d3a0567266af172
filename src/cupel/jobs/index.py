"""What has settled in a study, remembered between looks: `SettledIndex`, a table in the cache.

    root/.cache/settled/<project>/<study>.sqlite

It saves reading the records of runs that are done, and is the truth about nothing: it may be
deleted at any time, by anybody, and whatever is wrong with it, the records are read instead. A row
counts for one folder of a run only (its inode: a run that was removed and trained anew is another),
and what is not final counts for the sessions and the control lines that were seen. SQLite in WAL
mode needs shared memory, so network file systems, and those that we do not know, have no index.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.record import layout

if TYPE_CHECKING:  # a worker that finds no index loads no SQLite
    import sqlite3

FOLDER = "settled"
FINAL = "accepted"
LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "overlay",
     "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}
)  # fmt: skip
_TABLE = "settled_1"  # a new number where columns or what they mean change
_WAIT_S = 2.0  # for another process that writes


@dataclass(frozen=True, slots=True)
class Settled:
    """A run that has settled: as what, in which folder, after how many sessions and control lines.

    `told` is whatever the caller wants to have back.
    """

    run: str
    state: str
    inode: int
    sessions: int
    version: int
    told: bytes = b""

    def holds(self, inode: int | None, run_dir: Path, version: int) -> bool:
        """Whether that is still so, of a run whose folder has this inode now (None: it is gone).

        What is accepted stays so, which costs one stat. Anything else may have been tried again.
        """
        if inode != self.inode:
            return False
        if self.state == FINAL:  # while its results are there
            try:
                return (run_dir / layout.RESULTS).stat().st_size > 0
            except OSError:
                return False
        return self.version == version and self.sessions == len(layout.session_numbers(run_dir))


@dataclass(frozen=True, slots=True)
class SettledIndex:
    """The table of one study. Nothing here raises: what cannot be read or written is not there."""

    path: Path

    @classmethod
    def open(cls, root: Path, study_folder: Path) -> SettledIndex | None:
        """The index of a study below a record root; None where there can be none."""
        project, name = study_folder.absolute().parents[1].name, study_folder.name
        folder = root / layout.CACHE / FOLDER / project
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if filesystem_of(folder) not in LOCAL:
                return None
        except OSError:
            return None
        return cls(folder / f"{name}.sqlite")

    def load(self) -> list[Settled]:
        """Every row."""
        columns = "run, state, inode, sessions, version, told"
        found: list[tuple[Any, ...]] = []
        if self.path.exists():
            self._use(lambda table: found.extend(table.execute(f"SELECT {columns} FROM {_TABLE}")))
        kinds = (str, str, int, int, int, bytes)
        return [Settled(*row) for row in found if tuple(map(type, row)) == kinds]

    def add(self, rows: Iterable[Settled]) -> None:
        """Remember runs; the last word on one counts."""
        values = [
            (one.run, one.state, one.inode, one.sessions, one.version, one.told) for one in rows
        ]

        def insert(table: sqlite3.Connection) -> None:
            with table:  # all of them, or none
                table.executemany(
                    f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?)", values
                )

        if values:
            self._use(insert)

    def _use(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Open the table for one use; one that cannot be used is as if it were not there."""
        import sqlite3

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # it may have been deleted
            with contextlib.closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as table:
                table.execute("PRAGMA journal_mode=WAL")
                table.execute("PRAGMA synchronous=NORMAL")
                table.execute(
                    f"CREATE TABLE IF NOT EXISTS {_TABLE} (run TEXT PRIMARY KEY, state TEXT,"
                    " inode INTEGER, sessions INTEGER, version INTEGER, told BLOB) WITHOUT ROWID"
                )
                work(table)
        except sqlite3.OperationalError:  # busy, full, read-only, deleted under us
            return
        except (sqlite3.Error, OSError, OverflowError, UnicodeError):  # damaged: begun anew
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a folder lies on, as Linux calls it; "" where that is unknown.

    Raises OSError.
    """
    if not sys.platform.startswith("linux"):
        return ""
    place, longest, found = f"{path.resolve()}/", 0, ""
    for line in mounts.read_text(errors="replace").splitlines():  # see proc_pid_mountinfo(5)
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4:5]
        if not point or not after:
            continue
        inside = point[0].replace("\\040", " ").rstrip("/") + "/"
        if place.startswith(inside) and len(inside) >= longest:  # a later one lies on top
            longest, found = len(inside), after.split(" ")[0]
    return found
