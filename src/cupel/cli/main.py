"""Where the command `cupel` begins: its three streams, Python's path, Ctrl-C at any moment.

Next to nothing is imported here, so that Ctrl-C ends in one line while the rest is imported, too
(about 0.1 s). The commands, and what becomes of errors, are in `cupel.cli.app`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # that of `typing`, which would be the first of what takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; what goes wrong becomes one line on stderr and an exit code.

    The current folder is on Python's path, as with `python -m`: a recipe may name a workload or
    monitor of a module that lies there.
    """
    try:
        _open_closed_streams()
        _look_here_last()
        obey = _imported()
        code = obey(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print("cupel: aborted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _imported() -> Callable[[list[str]], int]:
    """What obeys, imported. Ctrl-C ends the process at once meanwhile: raised in what Python calls
    back, such as a `__del__`, it would be printed and forgotten."""
    import signal

    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, lambda number, frame: _leave())
    from cupel.cli.app import obey

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return obey


def _leave() -> NoReturn:
    try:
        os.write(2, b"cupel: aborted\n")
    finally:
        os._exit(130)


def _open_closed_streams() -> None:
    """Give each closed stream a file: its number would go to the next file opened, as a record's.

    What is printed to a closed stdout fails, as on a full disk; to a closed stderr nobody listens.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = os.O_RDWR if name == "stderr" else os.O_RDONLY
            setattr(sys, name, os.fdopen(os.open(os.devnull, mode), "w" if number else "r"))


def _look_here_last() -> None:
    """Put the current folder last, so that a `queue.py` in it hides no module of Python's."""
    here = os.getcwd()  # noqa: PTH109 - pathlib is not imported yet
    sys.path[:] = [*(path for path in sys.path if path != here), here]
