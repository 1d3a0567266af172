"""Ends the open runs truthfully when Python ends: by itself, by an exception, by `sys.exit`.

Python tells nobody how it ends, so `sys.excepthook`, `sys.exit`, `exit` and `quit` are wrapped,
once a process. An exit that the script caught is known for one by the next `log`. What is not
seen, outside of `with cupel.init(…)`: `raise SystemExit(1)`, an `exit` that was imported from `sys`
before; and `os._exit` anywhere.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, NoReturn, Protocol

_installed = False


class Ending(Protocol):
    """What is ended: a `Run`. `left_with` is the status that the script left Python with."""

    left_with: Any

    def finish(
        self, status: Literal["finished", "failed", "interrupted"] = ..., *, error: str | None = ...
    ) -> None: ...


def end_with_python(open_runs: Callable[[], Iterable[Ending]]) -> None:
    """From now on, end the runs that are open when Python ends; a second call does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    ordinary_hook = sys.excepthook

    def failed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        for run in open_runs():
            told = "".join(traceback.format_exception(kind, error, trace))
            stopped = issubclass(kind, KeyboardInterrupt)
            run.finish("interrupted" if stopped else "failed", error=told)
        ordinary_hook(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            # Python dies of SIGINT, as a shell expects, if the last text that it ran as code was
            # interrupted; and whatever imports a module meanwhile may run some.
            with contextlib.suppress(KeyboardInterrupt):
                exec("raise KeyboardInterrupt")

    def ended() -> None:
        for run in open_runs():
            if run.left_with in (None, 0):
                run.finish()
            else:
                run.finish("failed", error=f"sys.exit({run.left_with!r})")

    sys.excepthook = failed
    sys.exit = _Leave(sys.exit, open_runs)
    for name in ("exit", "quit"):  # they come with `site`, which python -S leaves out
        if hasattr(builtins, name):
            setattr(builtins, name, _Leave(getattr(builtins, name), open_runs))
    atexit.register(ended)


def goes_on() -> bool:
    """Whether the script goes on: it is neither on its way out of an exit nor in `atexit`.

    Only the main thread can know; elsewhere this is False.
    """
    main = threading.main_thread()
    return threading.current_thread() is main and main.is_alive() and sys.exception() is None


class _Leave:
    """Leaves Python as the ordinary function does, and notes the status on the open runs."""

    def __init__(
        self, ordinary: Callable[..., NoReturn], open_runs: Callable[[], Iterable[Ending]]
    ) -> None:
        self._ordinary, self._open_runs = ordinary, open_runs

    def __call__(self, *arguments: Any, **named: Any) -> NoReturn:
        try:
            self._ordinary(*arguments, **named)
        except SystemExit as left:
            for run in self._open_runs():
                run.left_with = left.code
            raise

    def __repr__(self) -> str:
        return repr(self._ordinary)  # at a prompt, the hint how to leave
