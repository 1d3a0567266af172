"""`cupel jobs deviate`: train a run of a study once more with other settings, beside the study.

A run that diverged is a result. Its rerun with a lower learning rate is another run: it is marked
as a deviation of the planned one, listed apart, and never counted in the planned run's cell.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell

if TYPE_CHECKING:
    from cupel.config import Recipe
    from cupel.studies.manifest import Manifest, PlannedRun


def deviate(
    study: Annotated[str, typer.Argument(help="A study's name, project/name or folder.")],
    run: Annotated[str, typer.Argument(help="The planned run's id, or a unique part of it.")],
    overrides: Annotated[
        list[str], typer.Argument(metavar="A.B=VALUE...", help="What is to be otherwise.")
    ],
    root: Root = None,
) -> None:
    """Train a planned run with other settings, as a run of its own that the study does not count.

    Ctrl-C writes a checkpoint (exit code 75); the same command goes on.

    \b
    cupel jobs deviate mine hot-s1 train.optimizer.lr=1e-3
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cupel.checkpoint.stop import EXIT_INTERRUPTED
    from cupel.cli.jobs import named_runs
    from cupel.cli.run import train_shown
    from cupel.errors import UsageError
    from cupel.record import layout
    from cupel.studies.manifest import find_study, load_manifest

    manifest = load_manifest(find_study(runs_root(root), study))
    (planned,) = named_runs(manifest, [run])
    recipe = deviating(manifest, planned, overrides)
    run_id = deviation_id(planned, recipe)
    run_dir = manifest.root / manifest.project / run_id
    if (run_dir / layout.RESULTS).exists():
        raise UsageError(f"{run_id} is finished already; give other settings")
    trained = train_shown(
        recipe,
        manifest.root,
        run_dir if (run_dir / layout.RUN).exists() else None,
        run_id=run_id,
        details=_details(manifest, planned),
    )
    if trained.status == "interrupted":
        tell(f"stopped after step {trained.step}; the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED)
    tell(f"{run_id} is finished; it is a deviation of {planned.run_id}, and not counted with it")


def deviating(manifest: Manifest, planned: PlannedRun, overrides: list[str]) -> Recipe:
    """The planned run's recipe with what was typed. Raises UsageError when that changes nothing."""
    from cupel.config import from_config
    from cupel.errors import UsageError

    recipe = from_config(manifest.config_of(planned), where=str(manifest.folder))
    changed = recipe.with_overrides(overrides)
    if changed.identity() == recipe.identity():
        raise UsageError(
            f"{' '.join(overrides)} changes nothing that {planned.run_id} depends on; "
            "give it another value, or retry the run: cupel jobs retry"
        )
    if changed.project != recipe.project:
        raise UsageError("project: a deviation lies beside the runs of its study")
    return changed


def deviation_id(planned: PlannedRun, recipe: Recipe) -> str:
    """`<planned run>-d<hash8>`: the same settings are the same run."""
    mark = hashlib.sha256(f"{planned.run_id}\n{recipe.identity()}".encode()).hexdigest()[:8]
    return f"{planned.run_id[:100]}-d{mark}"


def _details(manifest: Manifest, planned: PlannedRun) -> dict[str, Any]:
    return {
        "study": manifest.name,
        "arm": planned.arm,
        "point": planned.point,
        "deviation_of": planned.run_id,
    }
