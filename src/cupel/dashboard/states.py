"""What is told of a run, a study or the table besides its curves, as plain data with a name.

A state is sent when it is another than the one that the page has; its name is a hash of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from hashlib import blake2b
from typing import Any

import msgspec

from cupel.dashboard import standing
from cupel.dashboard.queries import (
    MetricsQuery,
    Query,
    QueueQuery,
    RunQuery,
    RunsQuery,
    StudyQuery,
)
from cupel.dashboard.replies import encode
from cupel.dashboard.store import Store, key_of


def state(store: Store, query: Query) -> tuple[bytes, str]:
    """The data of a state as JSON, and its name. Raises CupelError."""
    if isinstance(query, RunQuery):
        data: Any = standing.of_run(store, query.run)
    elif isinstance(query, MetricsQuery):
        data = standing.metrics(store, query.runs)
    elif isinstance(query, RunsQuery):
        data = _runs(store)
    elif isinstance(query, StudyQuery):
        from cupel.dashboard import studies

        data = studies.standing(store, query.study)
    else:
        assert isinstance(query, QueueQuery)
        from cupel.dashboard import studies

        data = studies.queue(store)
    text = encode(data)
    return text, blake2b(text, digest_size=8).hexdigest()


class Recent:
    """States as they were a moment ago, for many pages that ask the same."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._lock = threading.Lock()
        self._found: dict[bytes, tuple[float, tuple[bytes, str]]] = {}

    def state(self, query: Query) -> tuple[bytes, str]:
        """As `state`, at most so many seconds old. Raises CupelError."""
        key, now = msgspec.json.encode(query), time.monotonic()
        with self._lock:
            self._found = {k: v for k, v in self._found.items() if now - v[0] < self._seconds}
            if key in self._found:
                return self._found[key][1]
        found = state(self._store, query)
        with self._lock:
            self._found[key] = now, found
        return found


class RunsState(msgspec.Struct):
    """The table of runs in short: how many in all and by status, and a name of its contents."""

    total: int
    by_status: dict[str, int]
    projects: dict[str, int]
    newest: str | None
    content: str
    """Equal as long as no row has changed."""


def _runs(store: Store) -> RunsState:
    rows = store.rows()
    seen = blake2b(digest_size=8)
    for row in rows:
        # The index keeps the row of an ended run as it is until the run changes.
        content = row["summary"] if row["status"] == "running" else id(row)
        told = (key_of(row), row["status"], row["step"], row["tags"], row["notes"], content)
        seen.update(repr(told).encode(errors="replace"))
    return RunsState(
        total=len(rows),
        by_status=dict(Counter(row["status"] for row in rows)),
        projects=dict(Counter(row["project"] for row in rows)),
        newest=key_of(rows[0]) if rows else None,
        content=seen.hexdigest(),
    )
