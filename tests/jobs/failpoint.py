"""Dies of SIGKILL just before the n-th operation that changes anything in a folder: `arm`.

A kill just after the n-th one is a kill before the next one; nothing changes in between.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def arm(folder: Path, number: int) -> Callable[[], int]:
    """Count from here on; what it returns tells how many operations there were.

    Syncs and plain writes count wherever they go. Not counted is what comes again and again: the
    touches of heartbeats and of the probe that tells the disk's time.
    """
    count, within = 0, str(folder)

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES and event != "open":
            return
        paths = [os.fsdecode(one) for one in arguments[:2] if isinstance(one, str | bytes | Path)]
        if not any(path.startswith(within) for path in paths) or paths[0].endswith(".clock"):
            return
        if event != "open" or arguments[2] & _WRITES:
            step()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            step()
            return function(*given)

        return call

    sys.addaudithook(hook)
    os.fsync = counted(os.fsync)
    os.write = counted(os.write)
    return lambda: count
