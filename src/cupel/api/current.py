"""The run of this process: `cupel.init`, and the calls that go to the run it opened.

One run at a time is *current*; `init` makes it so. A script that ends without `finish` leaves a
finished run behind, one that dies of an exception a failed one with its traceback; a script that
is killed leaves a run that reads as crashed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cupel import beside
from cupel.api import rendezvous
from cupel.api.arguments import (
    check,
    check_reinit,
    filtered,
    mode_of,
    take_wandbs,
    understood,
)
from cupel.api.config import Config, plain
from cupel.api.disabled import DisabledRun
from cupel.api.ending import end_with_python
from cupel.api.facts import Metric
from cupel.api.opening import Asked, Opened, joined, merged, opened
from cupel.api.run import Run
from cupel.api.summary import Summary
from cupel.api.told import tell_once
from cupel.errors import RecordError, UsageError
from cupel.record.layout import record_root
from cupel.record.reader import RunRecord

_current: Run | None = None
_beside: list[Run] = []  # open, but not current: those of event writers


class NoRun(UsageError, AttributeError):
    """There is no current run. An AttributeError too, as `cupel.config` is an attribute."""


def init(
    project: str | None = "default",
    name: str | None = None,
    config: Any = None,
    *,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    resume: str | bool | None = None,
    id: str | None = None,
    root: str | Path | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    job_type: str | None = None,
    reinit: bool | str | None = None,
    **wandbs: Any,
) -> Run:
    """Start a run, or a new session of one, and make it the current run.

    `name` is by default the script's. `config` is a dict or a namespace of plain data.
    `resume="auto"` goes on with the newest unfinished run of the same project, name and config; a
    run's id goes on with that run; "never", the default, starts a new one. With `id`, "allow" and
    "must" mean what they do in wandb. $CUPEL_RESUME overrules `resume`, so that a scheduler can
    restart a script without editing it. The record goes to `root`, else $CUPEL_ROOT, else ./runs.

    `mode="disabled"` (or $CUPEL_MODE) records nothing; "online" and "offline" both mean here.
    `settings` say how the run is recorded; see `Recording`. Of the processes that torchrun starts
    only rank 0 records, and the others get a disabled run, unless settings={"ranks": "all"}.
    Further arguments of wandb's `init` are accepted, and what becomes of each is told.

    Raises ResumeError when the run cannot be resumed, RecordError when nothing can be written,
    UsageError for arguments that cannot be used and when a run is open already.
    """
    global _current
    take_wandbs(wandbs)
    check_reinit(reinit)
    if (previous := _open_already(reinit)) is not None:
        return previous
    _current = open_run(
        project=project,
        name=name,
        config=config,
        tags=tags,
        notes=notes,
        group=group,
        resume=resume,
        id=id,
        root=root,
        mode=mode,
        settings=settings,
        job_type=job_type,
        wandbs=wandbs,
    )
    return _current


def open_run(
    *,
    project: str | None = None,
    name: str | None = None,
    config: Any = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    resume: str | bool | None = None,
    id: str | None = None,
    root: str | Path | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    job_type: str | None = None,
    wandbs: Mapping[str, Any] | None = None,
    current: bool = True,
) -> Run:
    """A run as `init` opens it; with `current=False` one beside the current run."""
    project = "default" if project is None else project
    name, notes = name or "", notes or ""
    tags = () if tags is None else tags
    resume = _word(resume)
    check(tags, root, group, project=project, name=name, notes=notes, resume=resume, id=id or "")
    asked = Asked(
        root=record_root(root),
        project=project,
        name=name or _script_name(),
        config=filtered(plain(config), wandbs or {}),
        tags=list(tags),
        notes=notes,
        group=group,
        id=id or (rendezvous.told_id() if current else None),
        resume=os.environ.get("CUPEL_RESUME") or str(resume),
        recording=understood(settings),
        details={} if job_type is None else {"job_type": str(job_type)},
    )
    run = _made(asked, disabled=mode_of(mode, settings) == "disabled", current=current)
    if not current:
        _beside[:] = [*(one for one in _beside if not one.finished), run]
    end_with_python(_open_runs)
    return run


def _made(asked: Asked, *, disabled: bool, current: bool) -> Run:
    facts: dict[str, Any] = {
        "project": asked.project,
        "name": asked.name,
        "tags": asked.tags,
        "notes": asked.notes,
        "group": asked.group,
        "job_type": asked.details.get("job_type"),
        "settings": asdict(asked.recording),
        "checkpoint": asked.recording.checkpoint,
    }
    if disabled:
        return DisabledRun(config=asked.config, **facts)
    rank = rendezvous.rank()
    if rank and asked.recording.ranks == "zero":

        def leader() -> tuple[Path, int]:
            return rendezvous.rank_zeros_session(asked.root, asked.project)

        return DisabledRun(config=asked.config, leader=leader, **facts)
    found = joined(asked, rank=rank) if current else None
    if found is not None:
        return Run(found.session, config=asked.config, leads=False, **facts)
    found = opened(asked)
    if (watched := beside.start(asked.root)) is not None:
        watched.tell(lambda line: tell_once(f"dashboard of {asked.root}", line))
    return _leading(asked, found, facts, current=current)


def _leading(asked: Asked, found: Opened, facts: Mapping[str, Any], *, current: bool) -> Run:
    """The run that saves checkpoints, and that its ranks and children find."""
    session = found.session
    config, changes = asked.config, dict[str, Any]()
    if session.resumed:
        with contextlib.suppress(RecordError):
            config, changes = merged(RunRecord(session.run_dir).config, config)
    run = Run(session, config=config, **facts)
    if session.resumed:
        run.take_over(RunRecord(session.run_dir).run)
    if changes:
        run.config.record(changes)
    if found.goes_on_after is not None:
        run.go_on_after(found.goes_on_after)
    if current:
        rendezvous.tell_children(session)
        rendezvous.announce(asked.root, asked.project, session)
        run.at_end(lambda: rendezvous.tell_no_more(asked.root, session))
    return run


def _open_already(reinit: bool | str | None) -> Run | None:
    """The open run, when it is to be gone on with. Raises UsageError when it stands in the way."""
    run = _current
    if run is None or run.finished or run.pid != os.getpid():  # a fork's parent has its own
        return None
    if reinit in (True, "finish_previous"):
        run.finish()
        return None
    if reinit == "return_previous":
        return run
    if reinit == "create_new":
        _beside.append(run)
        return None
    raise UsageError(
        f"run {run.id} is still open in this process; call cupel.finish() before "
        "cupel.init(), or use `with cupel.init(…) as run:`"
    )


def _word(resume: Any) -> Any:
    """wandb's True means auto; nothing means never."""
    if resume is True:
        return "auto"
    return "never" if resume in (None, False) else resume


def _open_runs() -> Iterator[Run]:
    """All runs that this process has not finished, the current one last."""
    runs = [*_beside] if _current is None else [*_beside, _current]
    yield from (run for run in runs if not run.finished)


def _script_name() -> str:
    script = Path(sys.argv[0])
    return script.stem if script.suffix == ".py" else "run"  # at a prompt, or python -c


def the_run(caller: str) -> Run:
    """The current run, which may be finished. Raises NoRun."""
    if _current is None:
        raise NoRun(f"{caller} needs a run; call cupel.init() first")
    return _current


def current_run() -> Run | None:
    """What `cupel.run` is: the current run while it is open."""
    return None if _current is None or _current.finished else _current


def current_config() -> Config:
    """What `cupel.config` is. Raises NoRun."""
    return the_run("cupel.config").config


def current_summary() -> Summary:
    """What `cupel.summary` is. Raises NoRun."""
    return the_run("cupel.summary").summary


def log(
    metrics: Mapping[str, Any] | None = None,
    step: int | None = None,
    commit: bool | None = None,
    sync: bool | None = None,
    *,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Log numbers to the current run; see `Run.log`. Raises UsageError when there is none."""
    the_run("cupel.log()").log(metrics, step, commit, sync, data=data)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """Finish the current run; see `Run.finish`. Without one there is nothing to do, as in wandb."""
    if _current is not None:
        _current.finish(exit_code=exit_code)


def login(*_: Any, **__: Any) -> bool:
    """wandb's log in; there is no account, so it has nothing to do."""
    tell_once("login", "login() has nothing to do: there are no accounts")
    return True


def define_metric(name: str, *given: Any, **named: Any) -> Metric:
    """Say how a metric of the current run is meant; see `Run.define_metric`."""
    return the_run("cupel.define_metric()").define_metric(name, *given, **named)


def watch(model: Any, *given: Any, **named: Any) -> None:
    """Watch a model in the current run; see `Run.watch`."""
    the_run("cupel.watch()").watch(model, *given, **named)


def unwatch(model: Any = None) -> None:
    """Watch no longer; see `Run.unwatch`."""
    the_run("cupel.unwatch()").unwatch(model)


def alert(title: str, *given: Any, **named: Any) -> None:
    """Record an alert in the current run; see `Run.alert`."""
    the_run("cupel.alert()").alert(title, *given, **named)


def register(**parts: Any) -> None:
    """Name what the current run's checkpoints hold; see `Run.register`."""
    the_run("cupel.register()").register(**parts)


def steps(total: int, *, save_every: int | None = None) -> Iterator[int]:
    """The steps still to make in the current run; see `Run.steps`."""
    return the_run("cupel.steps()").steps(total, save_every=save_every)


def save_checkpoint(*given: Any, **named: Any) -> Any:
    """Save a checkpoint of the current run; see `Run.save_checkpoint`."""
    return the_run("cupel.save_checkpoint()").save_checkpoint(*given, **named)


def load_checkpoint(*given: Any, **named: Any) -> Any:
    """Restore the current run's newest checkpoint; see `Run.load_checkpoint`."""
    return the_run("cupel.load_checkpoint()").load_checkpoint(*given, **named)


def log_artifact(artifact_or_path: Any, *given: Any, **named: Any) -> Path | None:
    """Keep a file or folder with the current run; see `Run.log_artifact`."""
    return the_run("cupel.log_artifact()").log_artifact(artifact_or_path, *given, **named)


def log_model(path: Any, *given: Any, **named: Any) -> Path | None:
    """Keep a model's files with the current run; see `Run.log_model`."""
    return the_run("cupel.log_model()").log_model(path, *given, **named)


def save(glob_str: Any, *given: Any, **named: Any) -> list[str]:
    """Keep files with the current run; see `Run.save`."""
    return the_run("cupel.save()").save(glob_str, *given, **named)


def log_image(key: str, image: Any, **named: Any) -> None:
    """Log a picture to the current run; see `Run.log_image`."""
    the_run("cupel.log_image()").log_image(key, image, **named)


def log_figure(key: str, figure: Any, **named: Any) -> None:
    """Log a figure to the current run; see `Run.log_figure`."""
    the_run("cupel.log_figure()").log_figure(key, figure, **named)


def log_text(key: str, text: str, **named: Any) -> None:
    """Log a text to the current run; see `Run.log_text`."""
    the_run("cupel.log_text()").log_text(key, text, **named)


def log_table(key: str, *given: Any, **named: Any) -> None:
    """Log a table to the current run; see `Run.log_table`."""
    the_run("cupel.log_table()").log_table(key, *given, **named)


def log_histogram(key: str, values: Any, **named: Any) -> None:
    """Log a histogram to the current run; see `Run.log_histogram`."""
    the_run("cupel.log_histogram()").log_histogram(key, values, **named)
