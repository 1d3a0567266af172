"""`make bench`: what cupel costs beside a bare PyTorch loop, and what its single calls cost.

How the loops are compared: recipe gpt-tiny on one CPU thread; both loops make the same updates on
the same batches, made beforehand (in the end their weights are equal bit for bit, or this fails).
cupel's loop writes every step into a record on disk and runs the recipe's monitors; the bare one
only reads its loss. Evaluations, checkpoints, figures and the progress display are off in both.
They take turns of ten steps in one process; the ratio is that of each turn's CPU seconds to those
of the turn before it. Then the wave model beside the standard one, RGD, QFE, attention by length,
and RGD's Fourier transforms by shape. Takes five to eight minutes; `--json` prints all numbers.
"""

from __future__ import annotations

import os

# Before torch comes in: one thread, and none that spins.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loop_cost
import small_costs
import spectral_costs
import torch
import wave_costs

TARGET = 1.02  # CPU seconds of cupel's loop over those of the bare one
STEPS = 10  # in a turn: one measurement of throughput in each, of norms in every fifth


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--turns", type=int, default=100, help="turns of each loop")
    given = parser.parse_args()
    found = measure(turns=given.turns)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for line in table(found):
        print(line)


def measure(*, turns: int) -> dict[str, Any]:
    """Everything, with progress on stderr."""
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as folder:
        _say("starting cupel")
        starting = small_costs.starting()
        _say("single calls")
        log, parts = small_costs.log(Path(folder)), small_costs.step_parts(Path(folder))
        _say(f"{turns} turns of {STEPS} steps of both loops")
        loop = loop_cost.measure(Path(folder), turns=turns, steps=STEPS)
        _say("wave models beside the standard one")
        wave = wave_costs.measure(turns=max(8, turns // 3))
        _say("Fourier transforms by shape")
        spectral = spectral_costs.measure()
    return {
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "loop": loop,
        "wave": wave,
        "spectral": spectral,
        "step_parts_us": {**parts, "monitors": sum(loop["monitors_us_a_step"].values())},
        "log": log,
        "starting_cpu_s": starting,
    }


def table(found: dict[str, Any]) -> Iterator[str]:
    """The results, as lines to be read."""
    machine, loop = found["machine"], found["loop"]
    yield (
        f"gpt-tiny ({loop['parameters'] / 1e6:.2f} million parameters), torch {machine['torch']}, "
        f"1 thread; load {machine['load_average']:.1f} on {machine['cpus']} CPUs"
    )
    ratio, wall = loop["cpu_ratio"], loop["wall_ratio"]
    yield ""
    yield f"cupel's loop over a bare one, {loop['turns']} turns of {loop['steps_a_turn']} steps"
    verdict = "within" if ratio["median"] <= TARGET else "ABOVE"
    for name, one in (("CPU seconds", ratio), ("wall seconds", wall)):
        yield _row(
            name,
            f"{one['median']:.4f}",
            f"95 % of the median {one['low']:.4f} to {one['high']:.4f}, "
            f"half of the turns {one['quartile_1']:.3f} to {one['quartile_3']:.3f}",
        )
    yield _row("CPU seconds in total", f"{loop['cpu_ratio_of_totals']:.4f}", "")
    yield _row("cost", f"{100 * (ratio['median'] - 1):+.2f} %", f"{verdict} the target of 2 %")
    for name in ("bare", "cupel"):
        milliseconds = 1e3 * loop[f"{name}_cpu_s_a_step"]["median"]
        yield _row(
            f"{name} loop",
            f"{loop[f'{name}_tokens_per_cpu_s']:,.0f}",
            f"tokens a CPU second, {milliseconds:.2f} CPU ms a step",
        )
    yield ""
    yield "where it goes, CPU µs a step"
    for name, cost in found["step_parts_us"].items():
        yield _row(name, f"{cost:.1f}", "")
    yield ""
    yield "session.log of ten floats, wall µs"
    yield _row("median", f"{found['log']['median_us']:.1f}", "")
    yield _row("99th percentile", f"{found['log']['p99_us']:.1f}", "")
    yield ""
    yield "starting, CPU s"
    for name, seconds in found["starting_cpu_s"].items():
        yield _row(name, f"{seconds:.3f}", "")
    yield ""
    yield from wave_costs.table(found["wave"])
    yield ""
    yield from spectral_costs.table(found["spectral"])


def _row(name: str, value: str, more: str) -> str:
    return f"  {name:<26}{value:>10}  {more}".rstrip()


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
