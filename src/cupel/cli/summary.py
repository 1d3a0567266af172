"""What a finished run shows on the terminal: its curve, its numbers, a sample, where it all is.

A terminal too narrow for the curve goes without it.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from cupel.cli.curve import LEAST_WIDTH, terminal_curve
from cupel.cli.tables import printable, program
from cupel.record.reader import RunRecord
from cupel.workloads.training import Trained


def print_summary(trained: Trained, *, command: str) -> None:
    """Print the end of a run to stdout; `command` is the recipe with its overrides, as typed."""
    assert trained.run_dir is not None
    record, results = RunRecord(trained.run_dir), trained.results
    print()
    width = min(100, shutil.get_terminal_size().columns)
    if width >= LEAST_WIDTH:
        print(_curve(record, trained.references, width=width), end="\n\n")
    for name, value in _numbers(results, trained.references):
        print(f"  {name:<22} {value}")
    for sample in results["samples"]:
        print("\nWhat it writes now:\n")
        text = printable(sample["prompt"] + sample["text"]).strip("\n")
        print("\n".join(f"  │ {line}" for line in text.split("\n")))
    print(f"\nRecord   {trained.run_dir}")
    for figure in trained.figures:
        if figure.suffix == ".png" and ".light." in figure.name:
            print(f"Figure   {figure}")
    if trained.problems:
        print(f"Problems {trained.problems}; see {trained.run_dir}/sessions")
    print("\nNext")
    for line in _next(record, command, samples=bool(results["samples"])):
        print(f"  {program()} {line}")


def _next(record: RunRecord, command: str, *, samples: bool) -> list[str]:
    """What to type after this run: look at it, and the same recipe once more with one change."""
    seed, data = record.config.get("seed", 1), record.config.get("data")
    on_python = isinstance(data, Mapping) and data.get("path", "") is None
    name, value = ("data.path", "YOUR.txt") if on_python else ("seed", seed + 1)
    typed = [word for word in shlex.split(command) if not word.startswith(f"{name}=")]
    prompt = "--prompt 'class '" if on_python else "--tokens 500"
    return [
        *([f"sample {record.run_id} {prompt}"] if samples else []),
        f"runs show {record.run_id}",
        f"run {shlex.join([*typed, f'{name}={value}'])}",
    ]


def _curve(record: RunRecord, references: Mapping[str, float], *, width: int) -> str:
    rows = record.history(["loss", "val_loss"])
    train = [(row["_step"], row["loss"]) for row in rows if "loss" in row]
    val = [(row["_step"], row["val_loss"]) for row in rows if "val_loss" in row]
    return terminal_curve(
        [step for step, _ in train],
        [loss for _, loss in train],
        val=([step for step, _ in val], [loss for _, loss in val]),
        references=dict(references),
        width=width,
        colour=sys.stdout.isatty(),
        encoding=sys.stdout.encoding or "ascii",
    )


def _numbers(results: Mapping[str, Any], references: Mapping[str, float]) -> list[tuple[str, str]]:
    """Rows of name and value; every loss in nats and bits, beside the corpus's own lines."""
    final, best, last = results["final"], results["best"], results["last_session"]
    rows = [("steps", str(results["step"]))]
    rows += [(f"{name}, at the end", _told(name, value)) for name, value in final.items()]
    rows.append(("val_loss, lowest", f"{_nats(best['val_loss'])} at step {best['step']}"))
    rows += [(f"{name} entropy", _nats(value)) for name, value in references.items()]
    rows.append(("this session", f"{last['wall_s']:.1f} s, {last['cpu_s']:.1f} CPU s"))
    for key, value in last.items():
        if key.endswith("_per_cpu_s") and value is not None:
            unit = key.removesuffix("_per_cpu_s")
            rows.append(
                (f"{unit} a second", f"{last[f'{unit}_per_s']:,.0f}; {value:,.0f} a CPU second")
            )
    trained_s = max(last["cpu_s"], 1e-9)
    for name, cost in results["monitors"].items():
        rows.append((f"monitor {name}", f"{100 * cost['cpu_s'] / trained_s:.2f} % of the CPU time"))
    return rows


def _told(name: str, value: float) -> str:
    """A loss in nats and bits; any other number as it is."""
    is_loss = name.removesuffix("_ema").rpartition("/")[2] in ("loss", "val_loss")
    return _nats(value) if is_loss else f"{value:.4f}"


def _nats(value: float) -> str:
    return f"{value:.4f} nats ({value / math.log(2):.4f} bits)"
