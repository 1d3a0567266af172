"""Ends the open runs truthfully when Python ends: by itself, by an exception, by `sys.exit`.

Python tells nobody how it ends, so `sys.excepthook`, `sys.exit`, `exit` and `quit` are wrapped,
once a process. An exit that the script caught is known for one by the next `log`. What is not
seen, outside of `with cupel.init(…)`: `raise SystemExit(1)`, an `exit` that was imported from `sys`
before; and `os._exit` anywhere. SIGTERM kills as ever, but not in the midst of a checkpoint.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, Protocol

_installed = False
_awaited: list[Callable[[], None]] = []  # before SIGTERM ends Python


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
            _end(run, "interrupted" if stopped else "failed", told)
        ordinary_hook(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            # Python dies of SIGINT, as a shell expects, if the last text that it ran as code was
            # interrupted; and whatever imports a module meanwhile may run some.
            with contextlib.suppress(KeyboardInterrupt):
                exec("raise KeyboardInterrupt")

    def ended() -> None:
        for run in open_runs():
            if run.left_with in (None, 0):
                _end(run, "finished")
            else:
                _end(run, "failed", f"sys.exit({run.left_with!r})")

    sys.excepthook = failed
    sys.exit = _Leave(sys.exit, open_runs)
    for name in ("exit", "quit"):  # they come with `site`, which python -S leaves out
        if hasattr(builtins, name):
            setattr(builtins, name, _Leave(getattr(builtins, name), open_runs))
    atexit.register(ended)


def _end(
    run: Ending, status: Literal["finished", "failed", "interrupted"], error: str | None = None
) -> None:
    """End one run; what goes wrong with it is told, and stands in the way of no other."""
    try:
        run.finish(status, error=error)
    except Exception as problem:  # of whatever was registered, too; Python is ending anyway
        traceback.print_exception(problem)


def finish_before_sigterm(wait: Callable[[], None]) -> None:
    """Have a SIGTERM that would end Python at once call `wait` first; a second one ends it.

    A handler of the script's own is left alone. Only the main thread can do this; elsewhere
    nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if wait not in _awaited:
        _awaited.append(wait)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def leave_sigterm(wait: Callable[[], None]) -> None:
    """Take that back."""
    if wait in _awaited:
        _awaited.remove(wait)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and not _awaited and signal.getsignal(signal.SIGTERM) == _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    for wait in _awaited:
        wait()
    os.kill(os.getpid(), number)


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
