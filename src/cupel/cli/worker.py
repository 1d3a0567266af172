"""One run of a study, in the process that `cupel study run` starts for it.

`train_run` is a real one, with a process of its own; `try_run` is one of a dry run, of which a
process makes several, so that torch is loaded once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import threading
import traceback
from typing import TYPE_CHECKING, Any

import typer

from cupel.errors import CupelError, needing_torch

if TYPE_CHECKING:
    from cupel.config import Recipe
    from cupel.record.claims import Claim
    from cupel.studies.manifest import Manifest, PlannedRun

Failure = tuple[int, str]  # the exit code that it is worth, and what to tell


def train_run(manifest: Manifest, run: PlannedRun) -> None:
    """Train one run of a study, or go on with it. Raises typer.Exit(75) when it was stopped.

    The session that a worker has claimed for it is named in the environment. Why it dies of an
    exception is written into that session's folder, for whoever judges it.
    """
    from cupel.checkpoint.stop import EXIT_INTERRUPTED
    from cupel.record import layout
    from cupel.record.claims import VARIABLE, Claim, read_lease

    run_dir = manifest.run_dir(run)
    told = os.environ.pop(VARIABLE, None)  # not for processes that this one starts
    claim = Claim.from_text(run_dir, told) if told else None
    _dump_stacks_on_request()
    try:
        from cupel.cli.run import train_shown

        trained = train_shown(
            _recipe(manifest, run),
            manifest.root,
            run_dir if (run_dir / layout.RUN).exists() else None,
            run_id=run.run_id,
            details=_details(manifest, run),
            claim=claim,
            changes=read_lease(run_dir, claim.number).get("changes") if claim else None,
        )
    except Exception as error:
        if claim is not None:
            write_failure(claim, error)
        raise
    if trained.status == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)


def write_failure(claim: Claim, error: BaseException) -> None:
    """Say why this process dies; what cannot be written is left to the log."""
    from cupel.jobs.attempts import FAILURE
    from cupel.record import files

    kind, frames = type(error), traceback.extract_tb(error.__traceback__)
    fields = {
        "schema": 1,
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "mro": [one.__name__ for one in kind.__mro__ if one is not object],
        "message": str(error)[:10_000],
        "where": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
        "begun": claim.adopted(),
    }
    with contextlib.suppress(OSError):
        files.write_json(claim.dir / FAILURE, fields)


def _dump_stacks_on_request() -> None:
    """SIGUSR2 prints what every thread is at: a worker asks for it before it ends a hung run."""
    import faulthandler

    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stderr; Windows
        faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)


def try_run(manifest: Manifest, run: PlannedRun, *, figures: bool) -> Failure | None:
    """Train one run without a display, with its figures or without; how it failed, if it did."""
    try:
        recipe = _recipe(manifest, run)
        with needing_torch("training"):
            from cupel.workloads.training import train
        trained = train(
            recipe if figures else recipe.with_changes({"figures.formats": []}),
            root=manifest.root,
            run_id=run.run_id,
            details=_details(manifest, run),
        )
    except CupelError as error:
        return error.exit_code, str(error)
    except Exception:  # a part of the user's own that breaks must not hide what others do
        return 1, traceback.format_exc()
    return None if trained.status == "finished" else (1, f"stopped by {trained.signal}")


def _recipe(manifest: Manifest, run: PlannedRun) -> Recipe:
    from cupel.config import from_config
    from cupel.studies.manifest import MANIFEST

    return from_config(manifest.config_of(run), where=str(manifest.folder / MANIFEST))


def _details(manifest: Manifest, run: PlannedRun) -> dict[str, Any]:
    details = {"study": manifest.name, "arm": run.arm, "point": run.point}
    return {**details, "tags": list(getattr(run, "tags", ()))}


def begin_trying() -> None:
    """Leave Ctrl-C to whoever started this process, and end when it ends, however that comes."""
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None, "begun by hand"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="cupel-parent", daemon=True).start()


def end_with_parent() -> None:
    """When the pipe that is our stdin ends, whoever started us is gone: stop like at a SIGTERM,
    with a checkpoint, instead of training on unseen."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def watch() -> None:
        # Not sys.stdin, whose lock a daemon thread would hold while Python ends.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="cupel-parent", daemon=True).start()
