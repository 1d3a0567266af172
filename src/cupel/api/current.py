"""The run of this process: `cupel.init`, `cupel.log`, `cupel.finish`.

One run at a time is *current*; `init` makes it so. A script that ends without `finish` leaves a
finished run behind, one that dies of an exception a failed one with its traceback; a script that
is killed leaves a run that reads as crashed.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cupel.api.run import Run
from cupel.errors import ResumeError, UsageError
from cupel.record.layout import find_run, record_root
from cupel.record.reader import RunRecord, find_unfinished
from cupel.record.session import Session

_current: Run | None = None


def init(
    project: str = "default",
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    tags: Sequence[str] = (),
    notes: str = "",
    resume: str = "never",
    root: str | Path | None = None,
) -> Run:
    """Start a run, or a new session of one, and make it the current run.

    `config` is plain data (what json can hold). `resume="auto"` goes on with the newest unfinished
    run of the same project, name and config; a run's id goes on with that run; "never" starts a
    new one. The record goes to `root`, else $CUPEL_ROOT, else ./runs. $CUPEL_RESUME overrules
    `resume`, so that a scheduler can restart a script without editing it.

    Raises ResumeError when the run cannot be resumed, RecordError when nothing can be written.
    """
    global _current
    if _current is not None and not _current.finished:
        raise UsageError(
            f"run {_current.id} is still open in this process; call cupel.finish() before "
            "cupel.init(), or use `with cupel.init(…) as run:`"
        )
    name = name or Path(sys.argv[0] or "run").stem or "run"
    settings = dict(config or {})
    identity = _identity(name, settings)
    resume = os.environ.get("CUPEL_RESUME", resume)
    where = record_root(root)
    previous = _previous(where, project, identity, resume)
    if previous is not None:
        session = Session.resume(previous)
    else:
        session = Session.start(
            root=where,
            project=project,
            name=name,
            config=settings,
            identity=identity,
            tags=tags,
            notes=notes,
        )
    _current = Run(session, project=project, name=name, config=settings)
    _finish_at_exit()
    return _current


def log(metrics: Mapping[str, Any], *, step: int | None = None) -> None:
    """Log numbers to the current run; see `Run.log`. Raises UsageError when there is none."""
    _the_run("cupel.log()").log(metrics, step=step)


def finish() -> None:
    """Finish the current run. Raises UsageError when there is none."""
    _the_run("cupel.finish()").finish()


def _the_run(caller: str) -> Run:
    if _current is None:
        raise UsageError(f"{caller} needs a run; call cupel.init() first")
    return _current


def _previous(root: Path, project: str, identity: str, resume: str) -> Path | None:
    if resume == "never":
        return None
    if resume == "auto":
        found = find_unfinished(root, project, identity)
        return None if found is None else found.run_dir
    run_dir = find_run(root, resume)
    if RunRecord(run_dir).identity != identity:
        raise ResumeError(
            f"run {run_dir.name} was started with another name or config; give it the same, "
            'or start a new run with resume="never"'
        )
    return run_dir


def _identity(name: str, config: Mapping[str, Any]) -> str:
    try:
        canonical = json.dumps([name, config], sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"config must be plain data (numbers, strings, lists, dicts): {error}"
        ) from error
    return hashlib.sha256(canonical.encode()).hexdigest()


_hooked = False


def _finish_at_exit() -> None:
    """Once a process: end the current run truthfully when Python ends."""
    global _hooked
    if _hooked:
        return
    _hooked = True
    ordinary = sys.excepthook

    def failed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if _current is not None and not _current.finished:
            told = "".join(traceback.format_exception(kind, error, trace))
            stopped = issubclass(kind, KeyboardInterrupt)
            _current.finish("interrupted" if stopped else "failed", error=told)
        ordinary(kind, error, trace)

    def ended() -> None:
        if _current is not None and not _current.finished:
            _current.finish()

    sys.excepthook = failed
    atexit.register(ended)
