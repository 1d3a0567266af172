"""The drills behind `cupel verify`: real processes, a real SIGKILL, and a comparison of records.

Each process writes to a record root of its own, so nothing of the user's runs is touched.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cupel.analysis.exactness import Comparison, compare
from cupel.config import load
from cupel.errors import CupelError, UsageError
from cupel.record.reader import RunRecord, list_runs


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a drill found: `equal`, the lines to show, and the numbers behind them."""

    equal: bool
    lines: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drill:
    """One command, ready to be run in several folders. `steps` is known for recipes only."""

    command: list[str]
    folder: Path
    steps: int | None

    @classmethod
    @contextmanager
    def prepare(
        cls, target: str, overrides: Sequence[str], *, steps: int, keep: Path | None
    ) -> Iterator[Drill]:
        """The command for a recipe (checked first, and cut to `steps`) or for a script."""
        if target.endswith(".py"):
            if not Path(target).is_file():
                raise UsageError(f"no script at {target}; give a .py file or a recipe's name")
            command, known = [sys.executable, target, *overrides], None
        else:
            settings = [*overrides, *_shortened(overrides, steps)]
            load(target, settings)  # mistakes are told here, once
            command = [sys.executable, "-m", "cupel", "run", target, *settings]
            known = steps
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            yield cls(command, Path(tempfile.mkdtemp(prefix="verify-", dir=keep)), known)
            return
        with tempfile.TemporaryDirectory(prefix="cupel-verify-") as folder:
            yield cls(command, Path(folder), known)

    def start(self, name: str, *extra: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start the command with a record root of its own."""
        root = self.folder / name
        surroundings = {
            **os.environ,
            "CUPEL_ROOT": str(root),
            "CUPEL_RESUME": "auto",
            "OMP_WAIT_POLICY": "PASSIVE",
            **environment,
        }
        resume = ["--resume", "auto"] if self.steps is not None else []
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.command, *resume, *extra],
                env=surroundings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> RunRecord:
        """Wait for a process and read its run. Raises CupelError with the end of its output."""
        code = process.wait()
        if code != 0:
            tail = (self.folder / f"{name}.log").read_text(errors="replace").strip()
            last = tail.splitlines()[-1] if tail else "it printed nothing"
            raise CupelError(f"the {name} run ended with exit code {code}: {last}")
        return self.record(name)

    def record(self, name: str) -> RunRecord:
        """The one run in a record root. Raises UsageError when there is none or several."""
        runs = list_runs(self.folder / name)
        if len(runs) != 1:
            raise UsageError(
                f"the {name} run left {len(runs)} runs in its record, not 1; a script must call "
                "cupel.init() once, with one name and config, and log through it"
            )
        return runs[0]


def verify_resume(drill: Drill, *, kill_at: int | None) -> Verdict:
    """An undisturbed run beside one that is killed and resumed."""
    _say("training undisturbed")
    undisturbed = drill.finish("undisturbed", drill.start("undisturbed"))
    history = undisturbed.history()
    if not history:
        raise UsageError("the run logged no numbers, so there is nothing to compare")
    last = history[-1]["_step"]
    first = _first_checkpoint(undisturbed, last)
    target = kill_at if kill_at is not None else _kill_step(first, last)
    if not first < target < last:
        raise UsageError(
            f"--kill-at {target}: choose a step after the first checkpoint ({first}) and before "
            f"the last step ({last})"
        )
    _say(f"training again, to be killed after step {target} of {last}")
    killed_at = kill_after(drill, after=target, saved=True)
    _say("resuming in a new process")
    return resumed_like(drill, undisturbed, killed_at=killed_at)


def resumed_like(drill: Drill, undisturbed: RunRecord, *, killed_at: int) -> Verdict:
    """The second half of `verify_resume`: go on with the run that was killed, and compare."""
    resumed = drill.finish("killed", drill.start("killed"))
    session, went_on = resumed.sessions[-1].number, resumed.sessions[-1].start_step
    comparison = compare(undisturbed, resumed)
    lines = [f"killed with SIGKILL after step {killed_at}"]
    if session > 1 and went_on:
        lines.append(f"session {session} went on from the checkpoint of step {went_on}")
    elif session > 1:
        lines.append("NOTHING RESTORED: there was no checkpoint yet; choose a later --kill-at")
    else:
        lines.append("NOT RESUMED: the second process found no run to go on with")
    equal = comparison.equal and session > 1 and bool(went_on)
    lines += _lines(comparison, "the undisturbed run", "the resumed run")
    lines.append("resume is exact" if equal else "resume is NOT exact")
    facts = {
        "steps": undisturbed.history()[-1]["_step"],
        "killed_at": killed_at,
        "resumed_from": went_on,
    }
    return Verdict(equal, lines, {**facts, **_facts(comparison)})


def verify_monitors(drill: Drill) -> Verdict:
    """One run with every monitor on, one with every monitor off."""
    on, off = _monitor_switches(drill)
    _say("training with monitors on")
    watched = drill.finish("watched", drill.start("watched", *on))
    _say("training with monitors off")
    unwatched = drill.finish("unwatched", drill.start("unwatched", *off, CUPEL_MONITORS="off"))
    comparison = compare(watched, unwatched, only_common=True)
    results = watched.results or {}
    costs = results.get("monitors", {})
    total = results.get("last_session", {}).get("cpu_s")
    lines = _lines(comparison, "with monitors", "without")
    for name, cost in costs.items():
        share = f", {100 * cost['cpu_s'] / total:.2f} % of the run" if total else ""
        lines.append(
            f"{name}: {cost['calls']} calls, {1e3 * cost['cpu_s'] / max(1, cost['calls']):.2f} "
            f"CPU ms each{share}"
        )
    idle = [name for name, cost in costs.items() if cost["calls"] <= cost["failures"]]
    if idle or not costs:
        lines.append(f"NEVER MEASURED: {', '.join(idle) or 'any monitor'}; nothing is proven of it")
    equal = comparison.equal and not idle and bool(costs)
    if not comparison.equal:
        lines.append("monitors DISTURB the training")
    else:
        lines.append("monitors do not disturb" if equal else "not every monitor is proven harmless")
    return Verdict(equal, lines, {"monitors": costs, **_facts(comparison)})


def _shortened(overrides: Sequence[str], steps: int) -> list[str]:
    """A run of a few steps that has checkpoints and evaluations in it, unless told otherwise."""
    quarter = max(1, steps // 4)
    wanted = {
        "train.steps": steps,
        "train.evaluate_every": quarter,
        "train.log_every": 1,
        "checkpoint.every": max(1, quarter - 1),
        "figures.formats": "[]",
    }
    given = {text.split("=")[0] for text in overrides}
    return [f"{name}={value}" for name, value in wanted.items() if name not in given]


def _first_checkpoint(undisturbed: RunRecord, last: int) -> int:
    """The step of the first checkpoint that a killed run can go on from."""
    saved = [e["step"] for e in undisturbed.events() if e["_event"] == "checkpoint_saved"]
    first = min(saved, default=last)
    if first >= last - 1:
        raise UsageError(
            f"the run saves no checkpoint before step {last - 1} of {last}, so a killed one has "
            "nothing to go on from; save more often (checkpoint.every), or give it more --steps"
        )
    return first


def _kill_step(first: int, last: int) -> int:
    """A random step after the first checkpoint, and before the last quarter, else a fast run might
    have ended."""
    return random.SystemRandom().randint(first + 1, max(first + 1, 3 * last // 4))


def kill_after(drill: Drill, *, after: int, saved: bool = False) -> int:
    """Start a run and SIGKILL it when its record shows that step; the last step on record.

    With `saved` also a checkpoint must be on the disk: those of cupel's loop are written while it
    goes on, so the step alone does not tell.
    """
    process = drill.start("killed")
    runs: list[RunRecord] = []
    while process.poll() is None:
        runs = runs or list_runs(drill.folder / "killed")
        if runs and _last_step(runs[0]) >= after and (not saved or _has_saved(runs[0])):
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.002)
    if process.returncode == 0 or (runs and runs[0].status == "finished"):
        raise UsageError(
            "the run had ended before it could be killed; give it more --steps, or an earlier "
            "--kill-at"
        )
    if process.returncode != -signal.SIGKILL:
        drill.finish("killed", process)
    return _last_step(drill.record("killed"))


def _has_saved(record: RunRecord) -> bool:
    # One that a thread wrote is an event only when the script next saves, steps or ends.
    if record.checkpoints():
        return True
    return any(event["_event"] == "checkpoint_saved" for event in record.events())


def _last_step(record: RunRecord) -> int:
    rows = record.history(["loss"]) or record.history()
    return int(rows[-1]["_step"]) if rows else 0


def _monitor_switches(drill: Drill) -> tuple[list[str], list[str]]:
    """Overrides that switch on, and off, every monitor of a recipe; a script has its variable."""
    if drill.steps is None:
        return [], []
    from cupel import registry

    recipe = load(drill.command[4], drill.command[5:])
    names = [*recipe.monitors, *(n for n in registry.names("monitor") if n not in recipe.monitors)]
    every = max(1, drill.steps // 10)
    on = json.dumps({name: {"every": every} for name in names})
    return [f"monitors={on}"], ["monitors=off"]


def _lines(comparison: Comparison, here: str, there: str) -> list[str]:
    parts = comparison.compared_parts
    lines = [
        f"compared {comparison.numbers} numbers of {comparison.steps} steps, and the state of "
        f"{len(parts)} parts ({', '.join(parts) or 'none was registered'})"
    ]
    if comparison.first is not None:
        step, key, one, two = comparison.first
        lines.append(
            f"FIRST DIFFERENCE at step {step}: {key} is {one!r} in {here}, {two!r} in {there}"
        )
    if comparison.parts:
        lines.append(f"DIFFERENT STATE at the end: {', '.join(comparison.parts)}")
    return lines


def _facts(comparison: Comparison) -> dict[str, Any]:
    return {
        "numbers": comparison.numbers,
        "first_difference": comparison.first,
        "different_parts": comparison.parts,
        "parts": comparison.compared_parts,
    }


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)
