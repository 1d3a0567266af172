"""`cupel run RECIPE`: train a recipe, or go on with an unfinished run of it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel import beside, ranks
from cupel.cli.root import Root, runs_root
from cupel.cli.streams import printing, tell
from cupel.cli.tables import print_json, program
from cupel.errors import needing_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cupel.beside import Beside
    from cupel.config import Recipe
    from cupel.record.claims import Claim
    from cupel.workloads.training import Trained


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (gpt-tiny) or file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[A.B=VALUE]...", help="Settings to change: train.steps=500"),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="auto: go on with an unfinished run of this recipe; never: start a new run; "
            "or a run's id. Without it, a terminal asks.",
            metavar="auto|never|RUN",
        ),
    ] = None,
    root: Root = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="A few steps through every branch (evaluation, checkpoint, figure, "
            "sample) in a temporary folder.",
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Let a failing monitor or figure stop training.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Train what a recipe describes.

    Ctrl-C once writes a checkpoint and stops (exit code 75); the same command goes on from there,
    with the same losses as if it had never stopped. Ctrl-C twice aborts.

    \b
    cupel run gpt-tiny
    cupel run recipes/gpt-tiny.yaml data.path=my.txt train.steps=3000
    cupel run gpt-tiny --resume auto
    torchrun --nproc-per-node 2 -m cupel run gpt-tiny
    """
    # OpenMP threads that spin while they wait make a busy machine 5 to 25 times slower. This
    # must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cupel.config import load

    ranks.place()  # what is wrong with it is told before PyTorch is loaded
    loaded = load(recipe, overrides or [])
    if dry_run:
        _dry_run(loaded, debug=debug)
        return
    where = runs_root(root)
    chosen = _which_run(loaded, where, resume)
    command = shlex.join([recipe, *(overrides or []), *(["--root", root] if root else [])])
    trained = train_shown(loaded, where, chosen, debug=debug, watched=beside.start(where))
    _end(trained, command, as_json=json)


def _which_run(recipe: Recipe, root: Path, resume: str | None) -> Path | None:
    """The folder of the run to go on with, or None for a new one."""
    if resume == "never" or ranks.rank() > 0:
        return None  # ranks other than 0 follow rank 0 into its run
    from cupel.record.layout import find_run
    from cupel.record.reader import find_to_resume, find_unfinished

    if resume not in (None, "auto"):
        return find_run(root, str(resume))
    find = find_to_resume if resume == "auto" else find_unfinished
    unfinished = find(root, recipe.project, recipe.identity())
    if unfinished is None or resume == "auto":
        return None if unfinished is None else unfinished.run_dir
    told = f"run {unfinished.run_id} of this recipe is unfinished ({unfinished.status})"
    if sys.stdin.isatty() and sys.stderr.isatty():
        return (
            unfinished.run_dir if typer.confirm(f"{told}. Go on with it?", True, err=True) else None
        )
    tell(f"{told}; --resume auto goes on with it. Starting a new run.")
    return None


def train_shown(
    recipe: Recipe,
    root: Path,
    resume: Path | None,
    *,
    debug: bool = False,
    run_id: str | None = None,
    details: Mapping[str, Any] | None = None,
    claim: Claim | None = None,
    changes: Mapping[str, Any] | None = None,
    watched: Beside | None = None,
) -> Trained:
    """Train with a display; on ranks other than 0, without one. The rest is as for `train`.

    The display tells where the dashboard is, if this is `watched` on one.
    """
    from cupel.cli.progress import Progress

    progress = Progress()
    quiet = ranks.rank() > 0
    if not quiet:
        progress.preparing(f"{recipe.name}: loading PyTorch")
        if watched is not None:
            watched.tell(progress.line)
    try:
        with needing_torch("training"):
            from cupel.cli.shown import Shown
            from cupel.workloads.training import train

        display = None if quiet else Shown(progress, recipe)
        return train(
            recipe,
            root=root,
            resume=resume,
            run_id=run_id,
            details=details,
            display=display,
            debug=debug,
            claim=claim,
            changes=changes,
        )
    finally:
        if watched is not None:
            watched.hush()
        progress.stop()


def _end(trained: Trained, command: str, *, as_json: bool) -> None:
    """What the run came to, where everything is, and what to type next."""
    from cupel.checkpoint.stop import EXIT_INTERRUPTED

    if trained.run_dir is None:  # a rank that writes nothing
        raise typer.Exit(EXIT_INTERRUPTED if trained.status == "interrupted" else 0)
    if trained.status == "interrupted":
        saved = f"after step {trained.step}; it is saved in {trained.run_dir}"
        told = saved if trained.step else "before the first step; nothing to save yet"
        tell(f"stopped by {trained.signal} {told}")
        tell(f"go on with: {program()} run {command} --resume auto")
        raise typer.Exit(EXIT_INTERRUPTED)
    with printing(then=f"; the run is finished, in {trained.run_dir}"):
        _show(trained, command, as_json=as_json)


def _show(trained: Trained, command: str, *, as_json: bool) -> None:
    assert trained.run_dir is not None
    if as_json:
        print_json({"run": trained.run_dir.name, **trained.results})
    else:
        from cupel.cli.summary import print_summary

        print_summary(trained, command=command)


def _dry_run(recipe: Recipe, *, debug: bool) -> None:
    """A few steps with every interval shrunk, in a folder that goes away."""
    import tempfile

    from cupel.cli.dry import shrunk

    small = shrunk(recipe)
    with tempfile.TemporaryDirectory(prefix="cupel-dry-run-") as folder:
        trained = train_shown(small, Path(folder), None, debug=debug)
        assert trained.run_dir is not None
        from cupel.record.reader import RunRecord

        events = [row["_event"] for row in RunRecord(trained.run_dir).events()]
        counts = {
            "steps": trained.step,
            "checkpoints": events.count("checkpoint_saved"),
            "figures": len(list((trained.run_dir / "figures").glob("*.svg"))),
            "samples": len(trained.results.get("samples", [])),
            "problems": trained.problems,
        }
    print("dry run passed: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
