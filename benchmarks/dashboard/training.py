"""What a dashboard costs the training beside it: open and live, stopped, killed, absent.

Each repetition trains four times the same, in another order each time, and each is compared with
the one of the same repetition that had no dashboard. `stopped` (SIGSTOP) and `killed` (SIGKILL)
befall a server whose page is open, as the steps begin. The intervals are Student's, 95 %. Of a
machine that others use, wall time says little; the training's own processor time says more.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import servers
from chromium import opened
from first import turned
from live import ended, go, line, quiet

HERE = Path(__file__).parent
CONDITIONS = ("absent", "live", "stopped", "killed")
WITHIN = 0.01


def measure(playwright: Any, rounds: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Of each condition the step's medians, and by how much it differs from none."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CONDITIONS}
    for number in range(rounds):
        for name in turned(CONDITIONS, number):
            say(f"training: round {number + 1} of {rounds}, {name}")
            taken[name].append(_trained(playwright, name, steps))
    return {
        "rounds": rounds,
        "steps": steps,
        "conditions": {
            name: {
                "wall_ms": statistics.median(one["wall_ms"] for one in many),
                "cpu_ms": statistics.median(one["cpu_ms"] for one in many),
                "server_cpu": statistics.median(one["server_cpu"] for one in many),
                **{
                    f"{kind}_differs": interval(
                        [one[kind] / none[kind] - 1 for one, none in
                         zip(many, taken["absent"], strict=True)]
                    )
                    for kind in ("wall_ms", "cpu_ms")
                },
            }
            for name, many in taken.items()
        },
    }  # fmt: skip


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of its 95 % interval by Student's t."""
    from scipy import stats

    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, -math.inf, math.inf]
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def _trained(playwright: Any, name: str, steps: int) -> dict[str, float]:
    """One training under one condition."""
    with (
        tempfile.TemporaryDirectory(prefix="cupel-bench-") as place,
        contextlib.ExitStack() as stack,
    ):
        root = Path(place) / "cupel"
        root.mkdir()
        process = subprocess.Popen(
            [sys.executable, str(HERE / "steps.py"), str(root), str(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet(),
        )
        stack.callback(ended, process)
        key = line(process)
        server, before = None, 0.0
        if name != "absent":
            server = stack.enter_context(servers.serving("cupel", root, [key], automatic=True))
            tab = stack.enter_context(opened(playwright))
            tab.settle()
            tab.page.goto(servers.run_page(server.address, key), wait_until="commit")
            tab.page.wait_for_selector(".card .chart canvas", timeout=60_000)
            tab.page.wait_for_timeout(1500)
            before = server.cpu()
        if server is not None and name != "live":
            server.kill(signal.SIGSTOP if name == "stopped" else signal.SIGKILL)
        go(process)
        found: dict[str, float] = json.loads(process.communicate(timeout=300)[0])
        used = server.cpu() - before if server is not None and name == "live" else 0.0
        return {**found, "server_cpu": used / (steps * found["wall_ms"] / 1e3)}
