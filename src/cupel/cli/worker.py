"""One run of a study, in the process that `cupel study run` starts for it."""

from __future__ import annotations

import os
import signal
import stat
import threading
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cupel.studies.manifest import Manifest, PlannedRun


def train_run(manifest: Manifest, run: PlannedRun) -> None:
    """Train one run of a study, or go on with it. Raises typer.Exit(75) when it was stopped."""
    from cupel.checkpoint.stop import EXIT_INTERRUPTED
    from cupel.cli.run import train_shown
    from cupel.config import from_config
    from cupel.record import layout
    from cupel.studies.manifest import MANIFEST

    recipe = from_config(manifest.config_of(run), where=str(manifest.folder / MANIFEST))
    run_dir = manifest.run_dir(run)
    trained = train_shown(
        recipe,
        manifest.root,
        run_dir if (run_dir / layout.RUN).exists() else None,
        run_id=run.run_id,
        details={"study": manifest.name, "arm": run.arm, "point": run.point},
    )
    if trained.status == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)


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
