"""`cupel jobs …`: see and steer the runs of a study, and work on them from further machines.

Steering appends a line to the study's `control.jsonl`, which every worker reads within a second; so
it works from any host that sees the folder, and nothing has to be running.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.jobs_deviate import deviate
from cupel.cli.jobs_probe import probe
from cupel.cli.root import Root, runs_root
from cupel.cli.study_status import counted, status
from cupel.cli.tables import cell, print_json, print_table, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cupel.jobs.control import Do
    from cupel.jobs.queue import Standing
    from cupel.studies.manifest import Manifest, PlannedRun
    from cupel.studies.state import Look, RunState

app = typer.Typer(
    help="See and steer the runs of a study: queue, priorities, attempts, workers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("status")(status)
app.command("deviate")(deviate)
app.command("probe")(probe)

Study = Annotated[str, typer.Argument(help="A study's name, project/name or folder.")]
Run = Annotated[str, typer.Argument(help="A run's id, or a part that only one has.")]
Runs = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids, or unique parts of them.")
]
All = Annotated[bool, typer.Option("--all", help="All runs of the study.")]
Arm = Annotated[list[str] | None, typer.Option("--arm", help="All runs of an arm.")]
Tag = Annotated[list[str] | None, typer.Option("--tags", help="All runs with a tag.")]
Why = Annotated[str, typer.Option("--why", help="A reason, kept beside it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def ls(
    study: Study,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only these: planned, running, waiting, failed, accepted, …"),
    ] = None,
    arm: Arm = None,
    tags: Tag = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List the runs of a study, the most urgent first.

    \b
    cupel jobs ls quickstart
    cupel jobs ls mine --state failed --state waiting --json
    """
    from cupel.errors import UnknownName

    names = _state_names()
    for name in state or ():
        if name not in names:
            raise UnknownName("state of a run", name, names)
    with _looking(study, root) as look:
        chosen = look.states(_chosen(look.manifest, arm, tags))
        rows = [_row(look, one) for one in chosen]
    rows.sort(key=lambda row: -row["priority"])
    if state:
        rows = [row for row in rows if row["state"] in state]
    if json:
        print_json({"study": look.manifest.name, "runs": rows})
    elif rows:
        print_table(_shown(rows), drop=("loss", "attempts", "tags", "priority"), cut="reason")
    else:
        print("no such runs")


@app.command()
def show(study: Study, run: Run, root: Root = None, json: Json = False) -> None:
    """Show one run: its state, every attempt with its reason, and the end of its log.

    \b
    cupel jobs show quickstart wave-s1
    """
    from dataclasses import asdict

    from cupel.jobs.local import tail
    from cupel.studies.state import log_of
    from cupel.studies.tasks import tasks_of

    with _looking(study, root) as look:
        (chosen,) = named_runs(look.manifest, [run])
        row = _row(look, look.state(chosen))
        (task,) = tasks_of(look.manifest, [chosen])
        attempts = [asdict(attempt) for attempt in look.queue.attempts(task)]
    log = log_of(look.manifest, chosen)
    if json:
        print_json({**row, "folder": str(task.run_dir), "log": str(log), "attempt_list": attempts})
        return
    (facts,) = _shown([row])
    for name, value in {**facts, "folder": task.run_dir, "log": log}.items():
        if value is not None:
            print(f"{name:<10}{cell(value)}")
    if attempts:
        print()
        print_table(_attempt_rows(attempts), drop=("host", "device", "time"), cut="detail")
    if text := tail(log, lines=10):
        print(f"\n{printable(text)}")


@app.command()
def logs(
    study: Study,
    run: Run,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many.")] = 100,
    root: Root = None,
) -> None:
    """Print the end of what a run's processes printed, over all of its attempts."""
    from cupel.errors import RecordError
    from cupel.jobs.local import tail
    from cupel.studies.state import log_of

    manifest = _manifest(study, root)
    (chosen,) = named_runs(manifest, [run])
    log = log_of(manifest, chosen)
    if not log.exists():
        raise RecordError(f"{chosen.run_id} has printed nothing yet: there is no {log}")
    print(printable(tail(log, lines=lines)))


@app.command()
def cancel(
    study: Study, runs: Runs = None, all_runs: All = False, arm: Arm = None, tags: Tag = None,
    why: Why = "", root: Root = None,
) -> None:  # fmt: skip
    """Cancel runs: those that run are ended, none of them is tried again until `retry`.

    \b
    cupel jobs cancel mine wave-s3
    cupel jobs cancel mine --arm adamw --why "too slow"
    """
    _steer("cancel", study, runs, root, all_runs=all_runs, arm=arm, tags=tags, why=why)


@app.command()
def hold(
    study: Study, runs: Runs = None, all_runs: All = False, arm: Arm = None, tags: Tag = None,
    why: Why = "", root: Root = None,
) -> None:  # fmt: skip
    """Hold runs: none of them is begun until `release`; what runs goes on."""
    _steer("hold", study, runs, root, all_runs=all_runs, arm=arm, tags=tags, why=why)


@app.command()
def release(
    study: Study, runs: Runs = None, all_runs: All = False, arm: Arm = None, tags: Tag = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Use this host's quarantined devices again.")
    ] = None,
    why: Why = "", root: Root = None,
) -> None:  # fmt: skip
    """Let held runs begin, or let a quarantined host work again."""
    if host is not None:
        if runs or all_runs or arm or tags:
            from cupel.errors import UsageError

            raise UsageError("--host releases a host, not runs; leave out one of them")
        _release_host(_manifest(study, root), host, why)
        return
    _steer("release", study, runs, root, all_runs=all_runs, arm=arm, tags=tags, why=why)


@app.command()
def boost(
    study: Study, runs: Runs = None,
    priority: Annotated[
        int,
        typer.Option(
            "--priority", "-p", min=-(10**9), max=10**9, help="Higher first; the plan's is 100."
        ),
    ] = 1000,
    all_runs: All = False, arm: Arm = None, tags: Tag = None, why: Why = "", root: Root = None,
) -> None:  # fmt: skip
    """Set the priority of runs.

    \b
    cupel jobs boost mine --arm wave --priority 500
    """
    _steer(
        "boost", study, runs, root, all_runs=all_runs, arm=arm, tags=tags, why=why,
        priority=priority,
    )  # fmt: skip


@app.command()
def retry(
    study: Study, runs: Runs = None, all_runs: All = False, arm: Arm = None, tags: Tag = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    why: Why = "", root: Root = None,
) -> None:  # fmt: skip
    """Try runs again that failed or were cancelled; their earlier attempts are forgiven."""
    if failed:
        if runs or all_runs or arm or tags:
            from cupel.errors import UsageError

            raise UsageError("--failed names the runs itself; leave out ids, --arm, --tags, --all")
        with _looking(study, root) as look:
            runs = [s.run.run_id for s in look.states() if s.status in ("failed", "refused")]
        if not runs:
            from cupel.cli.streams import tell

            tell(f"no run of {look.manifest.name} has failed")
            return
    _steer("retry", study, runs, root, all_runs=all_runs, arm=arm, tags=tags, why=why)


@app.command()
def recover(
    study: Study,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, help="Seconds without a sign; else the study's lease."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show runs whose process is gone or silent. Workers take them over by themselves; this tells
    which, and what is quarantined or held, so that nothing waits unseen."""
    with _looking(study, root) as look:
        rows = [
            _row(look, state)
            for state in (_if_silent(one, threshold) for one in look.states())
            if state.status in ("crashed", "silent", "waiting", "held")
        ]
        bad = look.queue.control.quarantined
    if json:
        places = [{"host": h, "device": d or None, "why": why} for (h, d), why in bad.items()]
        print_json({"study": look.manifest.name, "runs": rows, "quarantined": places})
        return
    if rows:
        kept = ("run", "state", "attempts", "reason")
        print_table([{name: row[name] for name in kept} for row in _shown(rows)], cut="reason")
    for (host, device), why in bad.items():
        where = f"{host} {device}".strip()
        print(f"quarantined: {where}: {why} (cupel jobs release {study} --host {host})")
    if not rows and not bad:
        print("nothing to recover: no run is crashed, silent, waiting or held")


@app.command()
def workers(study: Study, root: Root = None, json: Json = False) -> None:
    """Show who works on a study, on which host, and on what."""
    from cupel.jobs.workers import workers_of

    manifest = _manifest(study, root)
    rows = workers_of(manifest.folder)
    if json:
        print_json({"study": manifest.name, "workers": rows})
    elif rows:
        print_table(rows, drop=("pid", "host"), cut="running")
    else:
        print(f"nobody works on {manifest.name}; begin with: cupel jobs work {manifest.name}")


@app.command()
def work(
    study: Study,
    slots: Annotated[
        int | None, typer.Option("--workers", min=1, help="Runs at a time; else study.workers.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only this run; may be repeated.")
    ] = None,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Leave after so many.")] = None,
    placed: Annotated[
        bool,
        typer.Option(
            "--placed", help="Leave runs that need another host or more memory to who placed us."
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stay while others train what is left.")
    ] = False,
    warm: Annotated[
        bool, typer.Option("--warm", help="Load PyTorch once, and fork each run from there.")
    ] = False,
    root: Root = None,
) -> None:
    """Work on a study that was begun: claim runs and train them, until none is left.

    Start it on any machine that sees the folder; workers need no service and complete no run twice.
    Exit code 0 when what it could do is done, 75 when it was stopped.

    \b
    cupel jobs work mine
    cupel jobs work /shared/runs/default/studies/mine --workers 4 --warm
    """
    from cupel.cli.streams import tell
    from cupel.cli.study_run import worker_of
    from cupel.jobs.stopping import Stopping
    from cupel.jobs.worker import INTERRUPTED

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    manifest = _manifest(study, root)
    chosen = named_runs(manifest, run) if run else None
    with Stopping(leaving=True) as stop:
        worker = worker_of(
            manifest, slots or manifest.study.workers, stop, runs=chosen, warm=warm, most=most,
            waits=wait,
        )  # fmt: skip
        tasks = {task.name: task for task in worker.queue.tasks}
        worker.only = frozenset(tasks) if placed else None
        changed = False
        for change in worker.changes():
            if change is not None:
                changed = True
                detail = f": {change.detail}" if change.detail else ""
                tell(f"{change.kind:<11} {change.name}{detail}")
                if worker.only is not None and change.kind == "again":
                    standing = worker.queue.standing(tasks[change.name])
                    if _needs_another_place(standing, worker.queue.host):
                        tell(f"{'left':<11} {change.name}: it needs more, or another host")
                        worker.only -= {change.name}
        if stop.name is not None:
            if stop.name == "SIGUSR1" and not worker.queue.is_settled():
                _queue_again()
            raise typer.Exit(INTERRUPTED)
        bad = worker.queue.control.is_quarantined(worker.queue.host)
        if bad is not None:
            release = f"cupel jobs release {study} --host {worker.queue.host}"
            tell(f"nothing begins on {worker.queue.host} for an hour ({bad}); {release} ends that")
        elif not changed:
            tell(f"nothing to do: no run of {manifest.name} that was meant can begin now")


def _needs_another_place(standing: Standing, host: str) -> bool:
    """Whether a run is to go on elsewhere, or with more memory than it was given here."""
    decision = standing.decision
    if decision is None or not standing.attempts:
        return False
    given = standing.attempts[-1].resources.get("memory_mb") or 0
    return decision.resources.get("memory_mb", 0) > given or any(
        place[0] == host for place in decision.avoid
    )


def _queue_again() -> None:
    """In a task of Slurm that nears its time limit: have Slurm queue it again, under its id."""
    from pathlib import Path

    from cupel.cli.streams import tell
    from cupel.errors import JobsError
    from cupel.jobs.backend import Handle, Job
    from cupel.jobs.slurm import SlurmBackend
    from cupel.jobs.slurm_script import SlurmSettings

    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if not array or not index:
        return
    task = Handle(Job("", (), Path(os.devnull)), f"{array}_{index}")
    try:
        SlurmBackend(SlurmSettings(folder=Path.cwd())).requeue([task], patience_s=0)
        tell(f"{task.id} is queued again")
    except JobsError as error:
        tell(f"Slurm did not queue it again: {error}; the same command submits what is left")


# ---- which runs --------------------------------------------------------------------------------


def _state_names() -> list[str]:
    """What runs can be called, to people."""
    from typing import get_args

    from cupel.cli.study_status import STATES
    from cupel.studies.state import State

    return sorted({STATES.get(name, name) for part in get_args(State) for name in get_args(part)})


def _manifest(study: str, root: str | None) -> Manifest:
    from cupel.studies.manifest import find_study, load_manifest

    return load_manifest(find_study(runs_root(root), study))


def _looking(study: str, root: str | None) -> Any:
    from contextlib import closing

    from cupel.studies.state import Look

    return closing(Look(_manifest(study, root)))


def _chosen(
    manifest: Manifest, arm: Sequence[str] | None, tags: Sequence[str] | None
) -> list[PlannedRun]:
    from cupel.studies.narrowing import select

    return select(manifest, arms=tuple(arm or ()), tags=tuple(tags or ()))


def named_runs(manifest: Manifest, texts: Sequence[str]) -> list[PlannedRun]:
    """The runs meant by texts: an id, a label, or what only one id contains, between dashes or
    anywhere: `wave-s1` is none of `wave-s10`'s."""
    from cupel.cli.board import label
    from cupel.errors import UnknownName, UsageError

    found: dict[PlannedRun, None] = {}
    for text in texts:
        exact = [run for run in manifest.runs if text in (run.run_id, label(run))]
        inside = [run for run in manifest.runs if text and text in run.run_id]
        near = exact or [run for run in inside if f"-{text}-" in f"-{run.run_id}-"] or inside
        if not near:
            raise UnknownName("run of this study", text, [run.run_id for run in manifest.runs])
        if len(near) > 1:
            listed = ", ".join(run.run_id for run in near[:4]) + (", …" if len(near) > 4 else "")
            raise UsageError(f"'{text}' could be any of {len(near)} runs: {listed}; type more")
        found[near[0]] = None
    return list(found)


def _steer(
    do: Do,
    study: str,
    runs: Sequence[str] | None,
    root: str | None,
    *,
    all_runs: bool,
    arm: Sequence[str] | None,
    tags: Sequence[str] | None,
    why: str,
    **facts: Any,
) -> None:
    """Append a line about the runs that were named, or all; says of how many."""
    from cupel.cli.streams import tell
    from cupel.errors import UsageError
    from cupel.jobs import control

    manifest = _manifest(study, root)
    given = [bool(runs), all_runs, bool(arm or tags)]
    if sum(given) != 1:
        found = "there are none" if not any(given) else "there is more than one of these"
        failed = ", or --failed" if do == "retry" else ""
        raise UsageError(
            f"cupel jobs {do} needs runs, and {found}: type ids, or --arm and --tags, or --all"
            f"{failed}"
        )
    names = None
    if runs:
        names = [run.run_id for run in named_runs(manifest, runs)]
    elif not all_runs:
        names = [run.run_id for run in _chosen(manifest, arm, tags)]
    if do == "retry":
        chosen = manifest.runs if names is None else [manifest.run(name) for name in names]
        control.forgive(
            manifest.folder, {run.run_id: manifest.run_dir(run) for run in chosen}, why=why
        )
    else:
        control.append(manifest.folder, do, names, why=why, **facts)
    n = len(manifest.runs) if names is None else len(names)
    tell(f"{do}: {counted(n, 'run')} of {manifest.name}")


def _release_host(manifest: Manifest, host: str, why: str) -> None:
    from cupel.cli.streams import tell
    from cupel.errors import UnknownName
    from cupel.jobs import control

    known = {place[0] for place in control.Control.of(manifest.folder).quarantined}
    if host not in known:
        raise UnknownName("host in quarantine", host, known)
    control.append(manifest.folder, "release", [], why=why, host=host)
    tell(f"release: {host} may work on {manifest.name} again")


def _if_silent(state: RunState, threshold: float | None) -> RunState:
    """The state, as silent when it runs and has given no sign for longer than the threshold."""
    from msgspec.structs import replace

    from cupel.cli.progress import duration

    if threshold is None or state.status != "running" or state.signed is None:
        return state
    silent_s = time.time() - state.signed
    if silent_s <= threshold:
        return state
    return replace(state, status="silent", reason=f"no sign of life for {duration(silent_s)}")


# ---- what is shown -----------------------------------------------------------------------------


def _row(look: Look, state: RunState) -> dict[str, Any]:
    run = state.run
    asked = look.queue.control.word(run.run_id).priority
    return {
        "run": run.run_id,
        "state": "accepted" if state.status == "finished" else state.status,
        "priority": run.priority if asked is None else asked,
        "attempts": state.sessions,
        "step": state.step,
        "steps": state.steps,
        "loss": state.loss,
        "tags": list(run.tags),
        "reason": state.reason,
    }


def _shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows for people: without tags and reasons where no run has any."""
    shown = []
    for row in rows:
        one = {**row, "step": f"{row['step']}/{row['steps']}", "tags": row["tags"] or None}
        del one["steps"]
        shown.append({**one, "reason": row["reason"] if row["reason"] != row["state"] else None})
    return _without_empty(shown, ("tags", "reason"))


def _attempt_rows(attempts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    from cupel.cli.progress import duration

    rows = [
        {
            "attempt": attempt["session"],
            "outcome": attempt["outcome"],
            "steps": f"{attempt['first_step']}–{attempt['last_step']}",
            "time": duration(max(0.0, attempt["ended"] - attempt["started"])),
            "host": attempt["host"] or None,
            "device": attempt["device"] or None,
            "changes": [f"{name}={value}" for name, value in attempt["changes"].items()] or None,
            "detail": attempt["detail"] or None,
        }
        for attempt in attempts
    ]
    return _without_empty(rows, ("device", "changes", "detail"))


def _without_empty(rows: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows without those columns that no row has anything in."""
    empty = {name for name in names if all(row[name] is None for row in rows)}
    return [{name: row[name] for name in row if name not in empty} for row in rows]
