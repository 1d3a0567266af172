"""The run of this process: `cupel.init`, `cupel.log`, `cupel.finish`.

One run at a time is *current*; `init` makes it so. A script that ends without `finish` leaves a
finished run behind, one that dies of an exception a failed one with its traceback; a script that
is killed leaves a run that reads as crashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cupel.api.ending import end_with_python
from cupel.api.run import Run
from cupel.errors import RecordError, ResumeError, UsageError
from cupel.record.layout import find_run, record_root
from cupel.record.reader import RunRecord, find_to_resume
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

    `name` is by default the script's. `config` is plain data (what json can hold).
    `resume="auto"` goes on with the newest unfinished run of the same project, name and config; a
    run's id goes on with that run; "never" starts a new one. $CUPEL_RESUME overrules `resume`, so
    that a scheduler can restart a script without editing it. The record goes to `root`, else
    $CUPEL_ROOT, else ./runs.

    Raises ResumeError when the run cannot be resumed, RecordError when nothing can be written,
    UsageError for arguments that cannot be used and when a run is open already.
    """
    global _current
    if _current is not None and not _current.finished:
        raise UsageError(
            f"run {_current.id} is still open in this process; call cupel.finish() before "
            "cupel.init(), or use `with cupel.init(…) as run:`"
        )
    name = "" if name is None else name
    _check(tags, root, project=project, name=name, notes=notes, resume=resume)
    name = name or _script_name()
    settings = _plain(config)
    identity = _identity(name, settings)
    where = record_root(root)
    resume = os.environ.get("CUPEL_RESUME") or resume
    previous = (
        None if resume == "never" else _previous(where, project, name, settings, identity, resume)
    )
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
    end_with_python(lambda: _current)
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


def _check(tags: Any, root: Any, **texts: Any) -> None:
    """What is wrong is told before there is a folder."""
    for argument, given in texts.items():
        if not isinstance(given, str):
            raise UsageError(f"{argument} must be text, not {_kind(given)}")
    if isinstance(tags, str):
        raise UsageError(f"tags must be a list of texts; type tags=[{tags!r}]")
    if not isinstance(tags, Sequence) or not all(isinstance(tag, str) for tag in tags):
        raise UsageError("tags must be a list of texts, as ['night']")
    if not isinstance(root, str | os.PathLike | None):
        raise UsageError(f"root must be a path, not {_kind(root)}")


def _kind(given: Any) -> str:
    return "None" if given is None else type(given).__name__


def _script_name() -> str:
    script = Path(sys.argv[0])
    return script.stem if script.suffix == ".py" else "run"  # at a prompt, or python -c


def _plain(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config as reading it from JSON would give it."""
    if config is not None and not isinstance(config, Mapping):
        raise UsageError(
            f"config must be a dict, not a {type(config).__name__}; for argparse type "
            "config=vars(args)"
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(config or {})))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"config must be plain data (numbers, strings, lists, dicts): {error}"
        ) from error
    return plain


def _identity(name: str, config: Mapping[str, Any]) -> str:
    canonical = json.dumps([name, config], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _previous(
    root: Path, project: str, name: str, config: Mapping[str, Any], identity: str, resume: str
) -> Path | None:
    """The folder of the run to go on with; None when `auto` finds none."""
    if resume == "auto":
        found = find_to_resume(root, project, identity)
        return None if found is None else found.run_dir
    record = RunRecord(find_run(root, resume))
    if record.problem:
        raise RecordError(record.problem)
    if record.identity != identity or record.run_dir.parent.name != project:
        raise ResumeError(
            f"run {record.run_id} was started with other settings "
            f"({_changes(record, project, name, config)}); give it the same ones, or start a new "
            'run with resume="never"'
        )
    return record.run_dir


def _changes(record: RunRecord, project: str, name: str, config: Mapping[str, Any]) -> str:
    from cupel.config import differences

    before = {"project": record.run_dir.parent.name, "name": record.run.get("name")}
    changed = differences(
        {**before, "config": record.config}, {"project": project, "name": name, "config": config}
    )
    return "; ".join(changed[:4]) + ("; …" if len(changed) > 4 else "")
