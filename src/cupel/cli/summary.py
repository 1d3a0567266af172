"""What a finished run shows on the terminal: its curve, its numbers, a sample, where it all is.

A terminal too narrow for the curve goes without it.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from cupel.cli.curve import LEAST_WIDTH, terminal_curve
from cupel.cli.tables import printable, program
from cupel.record.reader import RunRecord
from cupel.workloads.training import Trained


def print_summary(trained: Trained) -> None:
    """Print the end of a run to stdout."""
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
    run = trained.run_dir.name
    cupel = program()
    print("\nNext")
    if results["samples"]:
        print(f"  {cupel} sample {run} --prompt 'class '")
    print(f"  {cupel} runs show {run}")
    print(f"  {cupel} run gpt-tiny data.path=YOUR.txt")


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
    rows += [(f"{name}, at the end", _nats(value)) for name, value in final.items()]
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


def _nats(value: float) -> str:
    return f"{value:.4f} nats ({value / math.log(2):.4f} bits)"
