"""Jobs with children, and ways to see what is left of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

# A child, a grandchild that has lost its parent, and one that has left session and group, too. All
# of them ignore SIGTERM. Each writes its pid into the file $PIDS.
CHILD = "sh -c 'trap \"\" TERM; echo $$ >> $PIDS; sleep 600'"
FAMILY = f"touch $PIDS; {CHILD} & ({CHILD} &); (setsid {CHILD} > /dev/null 2>&1 < /dev/null &); "
ALL_THERE = "until [ $(wc -l < $PIDS) = 3 ]; do sleep 0.02; done; "


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


def pids_in(file: Path) -> list[int]:
    """The pids that a family has written."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def left_of(mark: Path | str) -> list[psutil.Process]:
    """Every living process that has $PIDS like this in its environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("PIDS") == str(
                mark
            ):
                left.append(process)
        except psutil.Error:
            continue
    return left


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
