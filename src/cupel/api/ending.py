"""Ends the current run truthfully when Python ends: by itself, by an exception, by `sys.exit`.

Python tells nobody how it ends, so `sys.excepthook` and `sys.exit` are wrapped, once a process.
What is not seen: `raise SystemExit(1)` outside of `with cupel.init(…)`, and `os._exit`.
"""

from __future__ import annotations

import atexit
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from cupel.api.run import Run

_installed = False


def end_with_python(current: Callable[[], Run | None]) -> None:
    """From now on, end the run that is current when Python ends; a second call does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    ordinary_hook, ordinary_exit = sys.excepthook, sys.exit
    left_with: Any = None

    def failed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        run = current()
        if run is not None:
            told = "".join(traceback.format_exception(kind, error, trace))
            stopped = issubclass(kind, KeyboardInterrupt)
            run.finish("interrupted" if stopped else "failed", error=told)
        ordinary_hook(kind, error, trace)

    def leave(status: Any = None, /) -> NoReturn:
        nonlocal left_with
        left_with = status
        ordinary_exit(status)

    def ended() -> None:
        run = current()
        if run is not None and left_with in (None, 0):
            run.finish()
        elif run is not None:
            run.finish("failed", error=f"sys.exit({left_with!r})")

    sys.excepthook, sys.exit = failed, leave
    atexit.register(ended)
