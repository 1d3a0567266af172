"""`cupel study run`: trains what is left of a study, then compares and writes it up.

The parent imports no torch. It is a worker of the study's queue with a display: it claims runs and
starts a process for each (`cupel study work`, hidden), a few at a time; how they stand is read in
their records. Killed at any moment, the same command goes on: what is accepted is never trained
again. Any number of these, and of `cupel jobs work`, may share a study.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel import beside
from cupel.cli.placing import (
    Account,
    Address,
    BackendName,
    Container,
    Gres,
    Pack,
    Partition,
    Place,
    Sbatch,
    Throttle,
    check_place,
    placer_of,
    shown_script,
    typed_place,
)
from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell
from cupel.cli.study_status import OnAlert, Webhook, check_hook_options, counted
from cupel.cli.tables import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cupel.beside import Beside
    from cupel.jobs.backend import Job
    from cupel.jobs.control import Control
    from cupel.jobs.queue import Claimed
    from cupel.jobs.stopping import Stopping
    from cupel.jobs.worker import Change, Worker
    from cupel.studies.manifest import Manifest, PlannedRun
    from cupel.studies.state import RunState

_LOOK_S = 5.0  # between two looks for alerts
# What a training process imports: with --warm once for all runs of a study. torch imports its
# compiler when an optimizer is made, whether it compiles or not: 1.6 CPU seconds a run.
PRELOAD = (
    "torch", "torch._dynamo", "torch.utils.flop_counter", "rich.console", "cupel.cli.app",
    "cupel.studies.manifest", "cupel.workloads.training",
)  # fmt: skip

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A study's recipe: name or file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[A.B=VALUE]...", help="Settings of all arms, or study.seeds=[1,2]."),
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="A.B=V1,V2", help="A further axis; may be repeated."),
]
Arms = Annotated[list[str] | None, typer.Option("--arm", help="This arm only; may be repeated.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tags", help="A tag for the runs; may be repeated.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs at a time; else study.workers.")]
Warm = Annotated[
    bool,
    typer.Option(
        "--warm", help="Load PyTorch once, and fork each run from there: for runs of seconds."
    ),
]


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    workers: Workers = None,
    warm: Warm = False,
    param: Params = None,
    arm: Arms = None,
    tags: Tags = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that failed in themselves.")
    ] = False,
    code_changed: Annotated[
        str | None,
        typer.Option(
            metavar="keep|rerun|stop",
            help="What to do with runs of other code: keep them, train them anew (the old ones "
            "go to the trash), or stop. Else study.code_changed.",
        ),
    ] = None,
    backend: BackendName = "local",
    pack: Pack = 1,
    address: Address = None,
    account: Account = None,
    partition: Partition = None,
    gres: Gres = None,
    throttle: Throttle = None,
    container: Container = None,
    sbatch: Sbatch = None,
    webhook: Webhook = None,
    on_alert: OnAlert = None,
    root: Root = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="A few steps of every arm with two seeds, compared and reported, in a temporary "
            "folder; with --backend slurm, show the script and submit nothing.",
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it; then compare its arms and write the report.

    The first time its plan is frozen in RUNS/PROJECT/studies/NAME. Ctrl-C once has every run write
    a checkpoint and stops (exit code 75); the same command goes on. A run that diverged has that as
    its result. Exit code 1 when runs failed, 2 when none could begin, or none has the metric.

    \b
    cupel study run quickstart
    cupel study run mine.yaml train.steps=500 --workers 4
    """
    from cupel.cli.dry import dry_study
    from cupel.errors import UsageError
    from cupel.studies.manifest import MANIFEST, freeze
    from cupel.studies.points import middle
    from cupel.studies.power import check_plan
    from cupel.studies.search import advance
    from cupel.studies.spec import plan_study

    place = Place(
        backend, pack, address, account, partition, gres, throttle, container, tuple(sbatch or ())
    )
    check_place(place, workers=workers, warm=warm)
    check_hook_options(webhook, on_alert)
    _check_rule(code_changed)
    if dry_run and arm and backend != "slurm":
        raise UsageError("--dry-run tries every arm; leave out --arm")
    extra: dict[str, Any] = {"root": runs_root(root), "params": param or (), "tags": tags or ()}
    planned = plan_study(recipe, overrides or [], **extra)
    only = chosen_runs(planned, arm)
    slots = workers or planned.study.workers
    if dry_run and backend == "slurm":
        print(shown_script(planned, place, only), end="")
        return
    if dry_run:
        if planned.study.search:
            asked = [middle(planned.study.search)]
            planned = plan_study(recipe, overrides or [], asked=asked, **extra)
        dry_study(planned, slots)
        return
    if not (planned.folder / MANIFEST).exists():
        check_plan(planned)
    rule = code_changed or planned.study.code_changed
    if rule == "stop":  # before anything is written
        settle_code(planned, rule, only)
    if backend == "local" and _is_placed(planned):
        _check_it_fits(planned, only)
    manifest = freeze(planned, widen=True) if planned.study.search is None else None
    further: Manifest | None = manifest or advance(recipe, overrides or [], manifest=None, **extra)
    assert further is not None, "a search begins with some cells"
    settle_code(further, rule, chosen_runs(further, arm))
    options = [
        *(f"--param={one}" for one in param or ()),
        *(f"--arm={one}" for one in arm or ()),
        *(f"--tags={one}" for one in tags or ()),
        *([f"--workers={workers}"] if workers else []),
        *(["--warm"] if warm else []),
        *typed_place(place),
    ]
    stopped: str | None = None
    failures: dict[str, Change] = {}
    watched = beside.start(extra["root"])
    while further is not None and stopped is None:  # once, unless a search goes on from here
        manifest, only = further, chosen_runs(further, arm)
        _require_metric(manifest)
        stopped, failed = _supervised(
            manifest,
            slots,
            place,
            warm=warm,
            retry_failed=retry_failed,
            only=only,
            hooks=(webhook, on_alert),
            watched=watched,
        )
        failures |= failed
        _require_metric(manifest)
        further = None
        if manifest.study.search is not None and stopped is None:
            further = advance(recipe, overrides or [], manifest=manifest, **extra)
    assert manifest is not None
    again = typed("run", recipe, overrides, root, options)
    _end(manifest, stopped, failures, only=only, again=again)


def chosen_runs(planned: Manifest, arms: Sequence[str] | None) -> list[PlannedRun] | None:
    """The runs that were asked for; None for all. Raises UnknownName."""
    from cupel.studies.narrowing import select

    return select(planned, arms=tuple(arms)) if arms else None


def work(
    folder: Annotated[Path, typer.Argument(help="The study's folder.")],
    run_id: Annotated[str, typer.Argument(help="The run's id.")],
) -> None:
    """Train one run of a frozen study, or go on with it; started by a worker."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `cupel run` does
    from cupel.cli.worker import end_with_parent, train_run
    from cupel.record import layout
    from cupel.studies.manifest import load_manifest

    end_with_parent()
    manifest = load_manifest(folder)
    chosen = manifest.run(run_id)
    if not (manifest.run_dir(chosen) / layout.RESULTS).exists():
        train_run(manifest, chosen)


# ---- the parent --------------------------------------------------------------------------------


def worker_of(
    manifest: Manifest,
    slots: int,
    stop: Stopping,
    *,
    runs: Sequence[PlannedRun] | None = None,
    warm: bool = False,
    most: int | None = None,
    waits: bool = True,
) -> Worker:
    """A worker for a study on this machine."""
    from cupel.jobs.local import LocalBackend
    from cupel.jobs.packing import machine
    from cupel.jobs.warm import Warm as Zygote
    from cupel.jobs.worker import Worker
    from cupel.studies.tasks import queue_of

    def make_job(claimed: Claimed, placed: Mapping[str, str]) -> Job:
        return job_of(manifest, claimed, placed)

    threads = environment_of(manifest, manifest.runs[0])
    zygote = Zygote(preload=PRELOAD, environment=threads)
    return Worker(
        queue_of(manifest, runs),
        LocalBackend(warm=zygote if warm else None),
        make_job,
        slots,
        stop,
        ledger=machine() if _is_placed(manifest) else None,
        most=most,
        waits=waits,
        hung_s=manifest.study.hung_s,
    )


def _is_placed(manifest: Manifest) -> bool:
    """Whether anything was said about what a run needs: without, slots alone decide."""
    return manifest.study.resources != type(manifest.study.resources)()


def _check_it_fits(planned: Manifest, only: Sequence[PlannedRun] | None) -> None:
    """Raises UsageError where runs are to be trained that want more than this machine has."""
    from cupel.jobs.packing import machine
    from cupel.record import layout
    from cupel.studies.tasks import resources_of

    runs = planned.runs if only is None else only
    left = any(not (planned.run_dir(run) / layout.RESULTS).exists() for run in runs)
    if left or planned.study.search is not None:
        machine().check(f"a run of {planned.name}", resources_of(planned))


def job_of(manifest: Manifest, claimed: Claimed, placed: Mapping[str, str]) -> Job:
    """The process that trains a claimed run."""
    from cupel.jobs.backend import Job
    from cupel.record.claims import VARIABLE
    from cupel.studies.state import log_of

    run = manifest.run(claimed.task.name)
    folder = str(manifest.folder.absolute())
    command = (sys.executable, "-m", "cupel", "study", "work", folder, run.run_id)
    told = {VARIABLE: claimed.claim.as_text(), **environment_of(manifest, run), **placed}
    return Job(run.run_id, command, log_of(manifest, run).absolute(), told, claimed.resources)


def environment_of(manifest: Manifest, run: PlannedRun) -> dict[str, str]:
    """Threads must be known before torch is imported, and must not spin while they wait."""
    threads = manifest.config_of(run)["train"]["threads"]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {"OMP_WAIT_POLICY": "PASSIVE", **(limits if threads is not None else {})}


def _supervised(
    manifest: Manifest,
    slots: int,
    place: Place,
    *,
    warm: bool,
    retry_failed: bool,
    only: Sequence[PlannedRun] | None,
    hooks: tuple[str | None, str | None],
    watched: Beside | None,
) -> tuple[str | None, dict[str, Change]]:
    """Run what is left to run; what stopped it, if anything did, and how runs failed.

    It stops when there are results and none of them can decide the study.
    """
    from cupel.cli.board import Board
    from cupel.cli.study_status import alert_line
    from cupel.jobs.stopping import Stopping
    from cupel.studies.state import unknown_metric
    from cupel.studies.watching import Watcher, overview

    board = Board(manifest)
    watcher = Watcher(manifest, webhook=hooks[0], command=hooks[1], on_problem=board.line)
    left = _left_to_run(manifest, retry_failed=retry_failed, only=only)
    here = slots if place.backend == "local" else None  # a cluster's workers say it themselves
    failures: dict[str, Change] = {}
    if left:
        where = f"{slots} at a time" if place.backend == "local" else f"on {place.backend}"
        board.line(f"{counted(len(left), 'run')}, {where}; {manifest.folder}")
        if watched is not None:
            watched.tell(board.line)
    with Stopping(leaving=True) as stop:
        board.start()
        look_at = time.monotonic() + _LOOK_S
        try:
            if place.backend == "local":
                changes = worker_of(manifest, slots, stop, runs=left, warm=warm).changes()
            else:
                changes = placer_of(manifest, place, stop, runs=left).changes()
            for change in changes:
                if change is None:
                    board.tick()
                    if time.monotonic() >= look_at:
                        look_at = time.monotonic() + _LOOK_S
                        for alert in watcher.check(overview(board.look, slots=here)):
                            board.line(alert_line(alert))
                    continue
                board.change(change)
                if change.kind in ("failed", "refused", "diverged"):
                    failures[change.name] = change
                elif change.kind == "finished" and unknown_metric(manifest):
                    stop.ask("no run has the primary metric")
        finally:
            if watched is not None:
                watched.hush()
            board.stop()
            watcher.close()
        return stop.name, failures


def _left_to_run(
    manifest: Manifest, *, retry_failed: bool, only: Sequence[PlannedRun] | None
) -> list[PlannedRun]:
    """The runs that are neither accepted nor settled otherwise; says how many are left out."""
    from cupel.cli.board import label
    from cupel.jobs import control
    from cupel.studies.state import study_state

    _release_by_breaker(manifest)
    states = _of(study_state(manifest), only)
    done = [state for state in states if state.status == "finished"]
    failed = [state for state in states if state.status == "failed"]
    refused = [state.run.run_id for state in states if state.status == "refused"]
    diverged = [state for state in states if state.status == "diverged"]
    if done:
        are = "run is" if len(states) == 1 else "runs are"
        tell(f"{manifest.name}: {len(done)} of {len(states)} {are} accepted already")
    if failed and retry_failed:
        names = [state.run.run_id for state in failed]
        control.forgive(manifest.folder, _folders(manifest, names), why="--retry-failed")
        failed = []
    if refused:  # unasked: what kept them may be mended
        control.forgive(
            manifest.folder, _folders(manifest, refused), why="it could not begin; tried again"
        )
    tries = f"--retry-failed tries {'it' if len(failed) == 1 else 'them'} again"
    result = f"{'its' if len(diverged) == 1 else 'their'} result"
    for told, bad in (
        (f"{counted(len(failed), 'run')} failed before; {tries}:", failed),
        (f"{counted(len(diverged), 'run')} diverged, which is {result}:", diverged),
    ):
        if bad:
            tell(told)
            _tell_reasons({label(state.run): state.reason or "" for state in bad})
    damaged = [state for state in states if state.status == "damaged"]
    if damaged:
        them, is_ = ("it", "is") if len(damaged) == 1 else ("them", "are")
        told = f"{counted(len(damaged), 'run')} {is_} damaged, and left alone"
        tell(f"{told}; after cupel runs rm this trains {them} anew:")
        _tell_reasons({label(state.run): state.reason or "" for state in damaged})
    bad = failed + diverged + damaged
    settled = {state.run.run_id for state in (*done, *bad)}
    settled |= {state.run.run_id for state in states if state.status == "cancelled"}
    return [state.run for state in states if state.run.run_id not in settled]


def _of(states: Sequence[RunState], only: Sequence[PlannedRun] | None) -> list[RunState]:
    """The states of the runs that were asked for."""
    names = None if only is None else {run.run_id for run in only}
    return [state for state in states if names is None or state.run.run_id in names]


def _folders(manifest: Manifest, names: Sequence[str]) -> dict[str, Path]:
    return {name: manifest.run_dir(manifest.run(name)) for name in names}


def _release_by_breaker(manifest: Manifest) -> None:
    """Let go of what was held because other runs failed alike, or here: it may be mended."""
    import socket

    from cupel.jobs import control

    asked, here = control.Control.of(manifest.folder), socket.gethostname()
    if any(host == here for host, _ in asked.quarantined):
        control.append(manifest.folder, "release", [], why="tried again", host=here)
    words = [asked.everyone, *asked.runs.values()]
    if any(word.by_breaker for word in words):
        control.append(manifest.folder, "release", None, why="tried again", breaker=True)


def _check_rule(rule: str | None) -> None:
    from cupel.errors import UsageError, did_you_mean

    rules = ("keep", "rerun", "stop")
    if rule is not None and rule not in rules:
        raise UsageError(
            f"--code-changed {rule}{did_you_mean(rule, rules)}; it must be keep, rerun or stop"
        )


def settle_code(manifest: Manifest, rule: str, only: Sequence[PlannedRun] | None = None) -> None:
    """Do what was asked about runs, all or some, that other code has trained.

    Raises UsageError for `stop`, and for `rerun` while somebody trains one of them.
    """
    from cupel.errors import UsageError
    from cupel.record.trash import remove
    from cupel.studies.code import runs_of_other_code

    changed = runs_of_other_code(manifest, only)
    if not changed:
        return
    commits = sorted(set(changed.values()))
    shown = ", ".join(commits[:3]) + (", …" if len(commits) > 3 else "")
    told = f"{counted(len(changed), 'run')} of this study began with other code ({shown})"
    them, they = ("it", "it is") if len(changed) == 1 else ("them", "they are")
    if rule == "stop":
        raise UsageError(
            f"{told}; --code-changed keep goes on with {them}, rerun trains {them} anew"
        )
    if rule == "keep":
        tell(f"{told}; {they} kept (--code-changed rerun trains {them} anew)")
        return
    if busy := _in_training(manifest, list(changed)):
        raise UsageError(
            f"{told}, and somebody trains {busy[0]}"
            f"{f' and {len(busy) - 1} more' if len(busy) > 1 else ''} now; wait, or end that first"
        )
    for run in changed:
        remove(manifest.root, manifest.run_dir(run))
    tell(f"{told}; {they} in the trash now (cupel runs restore) and trained anew")


def _in_training(manifest: Manifest, runs: Sequence[PlannedRun]) -> list[str]:
    """The ids of those that somebody trains, or may be training."""
    from cupel.studies.state import study_state

    alive = ("running", "starting", "silent")
    return [s.run.run_id for s in _of(study_state(manifest), runs) if s.status in alive]


def _require_metric(manifest: Manifest) -> None:
    """Raises UsageError when there are results and none of them can decide the study."""
    from cupel.errors import UsageError
    from cupel.studies.state import unknown_metric

    if told := unknown_metric(manifest):
        raise UsageError(told)


def _end(
    manifest: Manifest,
    stopped: str | None,
    failures: Mapping[str, Change],
    *,
    only: Sequence[PlannedRun] | None,
    again: str,
) -> None:
    """What the study came to, and what to type next."""
    from cupel.jobs.control import Control
    from cupel.jobs.worker import INTERRUPTED
    from cupel.studies.state import study_state

    everything = study_state(manifest)
    states = _of(everything, only)
    accepted = sum(state.status == "finished" for state in states)
    if stopped is not None and accepted < len(states):
        are = "run is" if len(states) == 1 else "runs are"
        tell(f"stopped by {stopped}; {accepted} of {len(states)} {are} accepted")
        tell(f"go on with: {again}")
        raise typer.Exit(INTERRUPTED)
    if accepted:
        _compare(manifest)
    if accepted < len(states):
        have = "run has" if len(states) == 1 else "runs have"
        tell(f"{len(states) - accepted} of {len(states)} {have} no accepted results:")
        asked = Control.of(manifest.folder)
        _tell_reasons(_reasons(states, failures, asked))
        for (host, device), why in asked.quarantined.items():
            where = f"{host} {device}".strip()
            tell(f"nothing begins on {where} for an hour ({why}); the same command lets go of it")
        begun = any(state.status not in ("planned", "refused", "held") for state in states)
        refused = all(change.kind == "refused" for change in failures.values())
        if not all(state.status in ("finished", "diverged") for state in states):
            raise typer.Exit(2 if refused and not begun else 1)
    if left := sum(state.status != "finished" for state in everything) - (len(states) - accepted):
        others = "1 run of another arm is" if left == 1 else f"{left} runs of other arms are"
        tell(f"{others} not done yet; the same command without --arm does what is left")


def _reasons(
    states: Sequence[RunState], failures: Mapping[str, Change], asked: Control
) -> dict[str, str]:
    """Why each run has no accepted results."""
    from cupel.cli.board import label

    reasons = {}
    for state in states:
        if state.status != "finished":
            change = failures.get(state.run.run_id)
            why = change.detail if change else state.reason
            by_person = not asked.word(state.run.run_id).by_breaker  # whose holds end by themselves
            if why and by_person and state.status in ("held", "cancelled"):
                undo = {"held": "release", "cancelled": "retry"}[state.status]
                why = f"{state.status}: {why} (to undo: cupel jobs {undo})"
            unknown = "not started" if state.status == "planned" else state.status
            reasons[label(state.run)] = why or unknown
    return reasons


def _tell_reasons(reasons: Mapping[str, str]) -> None:
    """A line for each reason, with the runs that it stopped."""
    for reason in dict.fromkeys(reasons.values()):
        tell(f"  {', '.join(run for run, why in reasons.items() if why == reason)}: {reason}")


def _compare(manifest: Manifest) -> None:
    """The comparison and the report, as far as there are results; without the packages for them,
    what to install."""
    from cupel.cli.compare import print_comparison
    from cupel.cli.report import write_report
    from cupel.errors import MissingDependency

    try:
        print_comparison(manifest)
        print()
        write_report(manifest, manifest.folder / "report")
    except MissingDependency as missing:
        tell(f"the runs are accepted; {missing}")


def typed(
    command: str,
    recipe: str,
    overrides: Sequence[str] | None,
    root: str | None,
    options: Sequence[str] = (),
) -> str:
    """The command that a person types for a study, whole."""
    rest = [recipe, *(overrides or []), *options, *(["--root", root] if root else [])]
    return f"{program()} study {command} {shlex.join(rest)}"
