"""The records of one root as the server sees them: `Store`.

Nothing is kept that the record does not say. Of runs that are asked for, the last 64 stay open, so
that of one that lives only what is new is read. Reading is done in a few threads, of each run by
one at a time, and never by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cupel.dashboard.names import Names
from cupel.errors import CupelError, RecordError, UnknownName, UsageError
from cupel.names import refusal
from cupel.record import compaction, layout
from cupel.record.index import Index, Row
from cupel.record.lines import watched
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.series import STEP, TIME, Logged

T = TypeVar("T")

_logger = logging.getLogger(__name__)

MOST_OPEN = 64
ROWS_S = 1.0  # how old the table of runs may be
RESTS = 10  # times what a look at all runs takes pass until the next one
SESSIONS_S = 30.0  # how old the word that a session lives may be
THREADS = 4
PAUSE_S = 0.5  # before columns are written to files: answers come first


@dataclass(slots=True)
class OpenRun:
    """A record that is asked often, and its sessions, which are read when they have changed."""

    record: RunRecord
    lock: threading.Lock = field(default_factory=threading.Lock)
    read: tuple[int, int] | None = None
    """While lines of it are read: how many bytes of how many."""
    _names: Names = field(default_factory=Names)
    _sessions: list[SessionInfo] = field(default_factory=list)
    _state: tuple[int, ...] | None = None
    _told: tuple[int, ...] | None = ()
    _references: tuple[tuple[int, ...] | None, dict[str, float]] = (None, {})

    def sessions(self) -> list[SessionInfo]:
        """All sessions, oldest first; whether one lives may be half a minute old."""
        state = self._state_now()
        if state != self._state or state is None:
            self._sessions, self._state = self.record.sessions, state
        return self._sessions

    def renew(self) -> None:
        """Read run.json again if it is another: a run may be asked for before it has one."""
        try:
            stat = (self.record.run_dir / layout.RUN).stat()
            told: tuple[int, ...] | None = (stat.st_ino, stat.st_mtime_ns)
        except OSError:
            told = None
        if told != self._told:
            if self._told != ():
                self.record.renew()
            self._told = told

    def names(self) -> list[str]:
        """The names of its metrics, in the order in which they came."""
        return self._names.of(self.sessions())

    def names_are_all(self) -> bool:
        """Whether `names` has looked at every line."""
        return not self._names.skipped

    def references(self) -> dict[str, float]:
        """What the losses of the newest session may be held against, by name: a corpus' entropies.

        A session notes them in its env.json when it has its data.
        """
        sessions = self.sessions()
        if not sessions:
            return {}
        path = sessions[-1].dir / layout.ENVIRONMENT
        try:
            stat = path.stat()
            state = stat.st_ino, stat.st_mtime_ns
            if state != self._references[0]:
                found = sessions[-1].environment.get("references")
                self._references = state, _numbers(found)
        except (OSError, RecordError):
            return {}
        return self._references[1]

    def logged(self, *keys: str) -> tuple[list[SessionInfo], Logged]:
        """The sessions and the columns of some keys; step and time are none."""
        sessions = self.sessions()
        return sessions, self.record.logged({*keys} - {STEP, TIME}, sessions)

    def _state_now(self) -> tuple[int, ...] | None:
        try:
            run_dir = self.record.run_dir
            found = (run_dir / layout.SESSIONS).stat()
            number = self._sessions[-1].number if self._sessions else 1
            written = (layout.session_dir(run_dir, number) / layout.SESSION).stat()
        except OSError:
            return None
        age = int(time.monotonic() / SESSIONS_S)
        return found.st_mtime_ns, written.st_mtime_ns, written.st_ino, age


class Store:
    """What is under a root. A run's key is "<project>/<run id>", as in all messages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index = Index(root)
        self._index_lock = threading.Lock()
        self._rows: list[Row] = []
        self._by_key: dict[str, Row] = {}
        self._rows_at = -math.inf
        self._took = 0.0  # seconds of the last look at all runs
        self._open: OrderedDict[str, OpenRun] = OrderedDict()
        self._open_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "cupel-read")
        self._after = ThreadPoolExecutor(1, "cupel-keep")
        self._works: deque[tuple[OpenRun, Callable[[], object]]] = deque()
        self._works_lock = threading.Lock()
        self._keeping = self._closed = False

    def rows(self, *, no_older: float = ROWS_S) -> list[Row]:
        """The rows of all runs, newest first, about so many seconds old. Not to be changed."""
        # While somebody reads them anew, others are given those from before: a second old is fine.
        # With 0 they are read now, whatever it takes.
        if not self._index_lock.acquire(blocking=not self._rows or not no_older):
            return self._rows
        try:
            began = time.monotonic()
            rest = RESTS * self._took if no_older else 0.0
            if began - self._rows_at > max(no_older, rest) or not no_older:
                self._rows = self._index.rows()
                self._by_key = {key_of(row): row for row in self._rows}
                self._rows_at = time.monotonic()
                self._took = self._rows_at - began
            return self._rows
        finally:
            self._index_lock.release()

    def known_row(self, key: str) -> Row | None:
        """The row of a run, if the table has been read; waits for nothing."""
        return self._by_key.get(key)

    def row(self, key: str) -> Row:
        """The row of one run. Raises UnknownName."""
        self.rows()
        if key not in self._by_key:
            raise UnknownName("run", key[:200], list(self._by_key)[:12])
        return self._by_key[key]

    def find(self, run_id: str, project: str | None = None) -> str:
        """The key of a run. Raises UnknownName, and UsageError where several are meant."""
        if project is not None:
            return self._checked(f"{project}/{run_id}")
        found = [d for d in layout.run_dirs(self.root) if d.name == run_id]
        if len(found) > 1:
            projects = ", ".join(sorted(folder.parent.name for folder in found))
            raise UsageError(
                f"run {run_id} is in several projects ({projects}); add ?project=… to the address"
            )
        if not found:
            raise UnknownName("run", run_id, [d.name for d in layout.run_dirs(self.root)][-12:])
        return f"{found[0].parent.name}/{run_id}"

    def folder(self, key: str) -> Path:
        """The folder of a run. Raises UnknownName for what is no run of this root."""
        project, _, run_id = key.partition("/")
        try:
            layout.check_name("project", project)
            layout.check_name("run", run_id)
        except UsageError as error:
            raise UnknownName("run", key[:200], []) from error
        if not self.is_run(key):
            raise UnknownName("run", key[:200], [])
        return self.root / project / run_id

    def is_run(self, key: str) -> bool:
        """Whether there is a folder of that key, a well-formed one."""
        project, _, run_id = key.partition("/")
        if refusal(project) or refusal(run_id):
            return False
        try:
            return (self.root / project / run_id).is_dir()
        except OSError:  # a disk that fails, a folder of somebody else's
            return False

    @contextlib.contextmanager
    def reading(self, key: str) -> Iterator[OpenRun]:
        """A run's record, for one thread at a time. Raises UnknownName."""
        folder = self.folder(key)
        with self._open_lock:
            if key not in self._open:
                self._open[key] = OpenRun(RunRecord(folder))
            opened = self._open[key]
            self._open.move_to_end(key)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)  # who reads it now keeps it until then

        def told(read: int, of: int) -> None:
            opened.read = read, of

        later = functools.partial(self._put_off, opened)
        with opened.lock, watched(told), compaction.put_off(later):
            try:
                opened.renew()
                yield opened
            finally:
                opened.read = None

    def _put_off(self, opened: OpenRun, work: Callable[[], object]) -> None:
        """Have columns written when those who wait have been answered."""
        with self._works_lock:
            if self._closed:
                return
            self._works.append((opened, work))
            begun, self._keeping = self._keeping, True
        if not begun:
            with contextlib.suppress(RuntimeError):  # the server ends
                self._after.submit(self._keep)

    def _keep(self) -> None:
        """Write what is to be written; what is in files then stays no longer in memory."""
        time.sleep(PAUSE_S)
        while True:
            with self._works_lock:
                if not self._works:
                    self._keeping = False
                    return
                opened, work = self._works.popleft()
            try:
                if work() is not None:
                    with opened.lock:
                        opened.record.let_go()
            except Exception as error:  # without files all is as before, only slower
                _logger.warning("columns cannot be kept: %r", error)

    def being_read(self, keys: Sequence[str]) -> tuple[int, int] | None:
        """Of the first of some runs whose lines are being read: how many bytes of how many."""
        for key in keys:
            opened = self._open.get(key)
            if opened is not None and (found := opened.read) is not None:
                return found
        return None

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """What a function that reads says, computed outside of the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def begin(self, function: Callable[..., object], *args: Any) -> None:
        """Have something read that nobody waits for; what goes wrong is told to who asks for it."""

        def read() -> None:
            with contextlib.suppress(CupelError, OSError):
                function(*args)

        with contextlib.suppress(RuntimeError):  # the server ends
            self._pool.submit(read)

    def close(self) -> None:
        """End the threads; what they are at is not waited for, and what waits is not begun."""
        with self._works_lock:
            self._closed = True
            self._works.clear()
        for pool in (self._pool, self._after):
            pool.shutdown(wait=False, cancel_futures=True)

    def _checked(self, key: str) -> str:
        self.folder(key)
        return key


def _numbers(found: Any) -> dict[str, float]:
    """The finite numbers of a mapping that somebody else wrote."""
    if not isinstance(found, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def key_of(row: Row) -> str:
    """The key of a row of the table."""
    return f"{row['project']}/{row['id']}"
