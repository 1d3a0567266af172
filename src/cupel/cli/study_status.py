"""`cupel study status`, `cupel jobs status`: how a study's runs stand, once or again and again."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell
from cupel.cli.tables import print_json, print_table, program, terminal_width

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cupel.jobs.alerts import Alert
    from cupel.jobs.eta import Eta
    from cupel.studies.manifest import Manifest
    from cupel.studies.state import Look, RunState
    from cupel.studies.watching import Overview, Watcher

STATES = {"finished": "accepted"}  # to people, as everywhere else in a study
_MOST_ROWS = 60
_LESS = ("sessions", "time", "val_loss", "loss")  # left out first on a narrow terminal
_EVERY_S = 2.0
_OVER = ("finished", "failed", "diverged", "refused", "cancelled", "damaged", "held")

Webhook = Annotated[
    str | None, typer.Option("--webhook", metavar="URL", help="Post each alert there, as JSON.")
]
OnAlert = Annotated[
    str | None,
    typer.Option("--on-alert", metavar="COMMAND", help="Run this with each alert on its stdin."),
]


def status(
    study: Annotated[str, typer.Argument(help="A study's name, project/name or folder.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until every run has ended; Ctrl-C leaves.")
    ] = False,
    webhook: Webhook = None,
    on_alert: OnAlert = None,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how every run of a study stands, how fast they go, and when they will be done.

    \b
    cupel study status quickstart
    cupel study status mine --watch --on-alert "notify-send cupel"
    cupel study status default/quickstart --json
    """
    from cupel.errors import UsageError
    from cupel.studies.manifest import find_study, load_manifest
    from cupel.studies.state import Look
    from cupel.studies.watching import Watcher, overview

    if watch and json:
        raise UsageError("--watch and --json do not go together; leave one of them out")
    check_hook_options(webhook, on_alert)
    manifest = load_manifest(find_study(runs_root(root), study))
    watcher = Watcher(manifest, webhook=webhook, command=on_alert, on_problem=tell)
    look = Look(manifest)
    try:
        if watch:
            _watch(manifest, look, watcher, again=_again(study, root))
            return
        seen = overview(look)
        watcher.check(seen)
        if json:
            print_json(facts(manifest, seen, watcher.raised))
        else:
            _print(manifest, seen, watcher.raised)
    finally:
        look.close()
        watcher.close()


def check_hook_options(webhook: str | None, on_alert: str | None) -> None:
    """Raises UsageError, by the names of the options, for what could never be told of alerts."""
    from cupel.errors import UsageError
    from cupel.jobs.hooks import check_hooks

    try:
        check_hooks(webhook=webhook, command=on_alert)
    except UsageError as error:
        told = str(error).replace("study.alerts.webhook", "--webhook")
        told = told.replace("study.alerts.command", "--on-alert").removesuffix(", or null")
        raise UsageError(told) from None


def _again(study: str, root: str | None) -> str:
    import shlex

    rest = [study, "--watch", *(["--root", root] if root else [])]
    return f"{program()} study status {shlex.join(rest)}"


def _watch(manifest: Manifest, look: Look, watcher: Watcher, *, again: str) -> None:
    """Draw again and again; on a log, a line when a run changed its state, or one in a hundred
    steps was made."""
    from cupel.studies.watching import overview

    live, before = sys.stdout.isatty(), None
    try:
        while True:
            seen = overview(look)
            told = watcher.check(seen)
            if before is None:
                told = watcher.raised  # also what was raised before
            now = seen.counts, _percent(seen)
            if live:
                print("\x1b[H\x1b[2J", end="")
                _print(manifest, seen, watcher.raised)
            elif now != before:
                print(summary_line(seen), flush=True)
            before = now
            for alert in told:
                if not (live and alert.raised):  # those stand below the table
                    tell(alert_line(alert))
            if all(state.status in _OVER for state in seen.states):
                return
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        tell(f"{manifest.name} is no longer watched; look again with: {again}")


def heading(manifest: Manifest) -> dict[str, Any]:
    """Which study it is, for machines."""
    return {
        "study": manifest.name,
        "project": manifest.project,
        "folder": str(manifest.folder),
        "question": manifest.study.question,
    }


def facts(manifest: Manifest, seen: Overview, alerts: Iterable[Alert]) -> dict[str, Any]:
    """All that `--json` prints."""
    from dataclasses import asdict

    forecast = None if seen.eta is None else asdict(seen.eta)
    return {
        **heading(manifest),
        "counts": seen.counts,
        "steps": seen.steps,
        "of_steps": seen.of_steps,
        "throughput": asdict(seen.throughput),
        "eta": forecast,
        "eta_unknown": seen.unknown or None,
        "alerts": [asdict(alert) for alert in alerts],
        "workers": list(seen.workers),
        "runs": [_state_facts(state) for state in seen.states],
    }


def _print(manifest: Manifest, seen: Overview, alerts: Iterable[Alert]) -> None:
    print(f"{manifest.name}: {manifest.study.question}\n")
    states = list(seen.states)
    if len(states) > _MOST_ROWS:
        _print_some(_by_cell(states), "cells", drop=("point",))
        shown = [one for one in states if one.status in ("running", "failed", "silent")]
        if shown:
            print()
            _print_some([_row(state) for state in shown], "runs", drop=_LESS)
    else:
        print_table([_row(state) for state in states], drop=_LESS)
    if reasons := list(_reasons(states)):
        print("", *reasons, sep="\n")
    print()
    print(*_wrapped(f"{summary_line(seen)}; {manifest.folder}"), sep="\n")
    for alert in alerts:
        print(alert_line(alert))


def _print_some(rows: list[dict[str, Any]], name: str, *, drop: tuple[str, ...]) -> None:
    print_table(rows[:_MOST_ROWS], drop=drop)
    if len(rows) > _MOST_ROWS:
        print(f"… and {len(rows) - _MOST_ROWS} more {name}; cupel jobs ls lists every run")


def _reasons(states: Iterable[RunState]) -> Iterator[str]:
    """A line for each reason, with the runs that it is of."""
    found: dict[str, list[str]] = {}
    for state in states:
        if state.reason and state.reason != state.status != "finished":
            found.setdefault(state.reason, []).append(state.run.run_id)
    for reason, runs in found.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        yield f"{runs[0]}{more}: {reason}"


def summary_line(seen: Overview) -> str:
    """`216 runs: 80 accepted, 2 running; 37 % of the steps; 512 runs an hour; done 15:32 (…)`."""
    return "; ".join(_summary(seen))


def _summary(seen: Overview) -> Iterator[str]:
    listed = ", ".join(f"{count} {STATES.get(name, name)}" for name, count in seen.counts.items())
    yield f"{counted(len(seen.states), 'run')}: {listed}"
    if 0 < seen.steps < seen.of_steps:
        yield f"{_percent(seen)} % of the steps"
    if all(state.status in _OVER for state in seen.states):
        return
    if rate := seen.throughput.runs_per_hour:
        number = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        yield f"{number} run{'' if number == '1' else 's'} an hour"
    yield eta_text(seen.eta, seen.t) or f"done: unknown ({seen.unknown})"


def _percent(seen: Overview) -> int:
    return int(100 * seen.steps / seen.of_steps) if seen.of_steps else 0


def counted(count: int, name: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def _wrapped(text: str) -> list[str]:
    """The text on lines as long as the terminal is wide."""
    import textwrap

    most = terminal_width()
    if most is None:
        return [text]
    return textwrap.wrap(text, most, break_long_words=False, break_on_hyphens=False)


def eta_text(eta: Eta | None, now: float) -> str:
    """`done about 15:32 (15:28 to 15:41)`; with the date when it is not today."""
    if eta is None:
        return ""
    day = "%H:%M" if eta.high - now < 12 * 3600 else "%Y-%m-%d %H:%M"
    at, low, high = (time.strftime(day, time.localtime(one)) for one in (eta.at, eta.low, eta.high))
    return f"done about {at}" + (f" ({low} to {high})" if low != high else "")


def alert_line(alert: Alert) -> str:
    """One alert for people."""
    return f"{alert.severity if alert.raised else 'over'}: {alert.text}"


def _by_cell(states: Iterable[RunState]) -> list[dict[str, Any]]:
    """A row a cell: how many of its runs stand how."""
    cells: dict[tuple[str, str], dict[str, int]] = {}
    for state in states:
        found = cells.setdefault((state.run.arm, state.run.point), {})
        name = STATES.get(state.status, state.status)
        found[name] = found.get(name, 0) + 1
    names = list(dict.fromkeys(name for found in cells.values() for name in found))
    return [
        {"arm": arm, "point": point or None, **{name: found.get(name) for name in names}}
        for (arm, point), found in cells.items()
    ]


def _state_facts(state: RunState) -> dict[str, Any]:
    from msgspec.structs import asdict

    facts = asdict(state)
    return {**asdict(facts.pop("run")), **facts}


def _row(state: RunState) -> dict[str, Any]:
    from cupel.cli.progress import duration

    return {
        "run": state.run.run_id,
        "state": STATES.get(state.status, state.status),
        "step": f"{state.step}/{state.steps}",
        "loss": state.loss,
        "val_loss": state.val_loss,
        "sessions": state.sessions,
        "time": duration(state.seconds),
    }
