"""What a dashboard costs the training beside it: open and live, stopped, killed, absent.

Each repetition is one training that goes through the four conditions again and again, in another
order each time, some hundred steps in each; it is compared with itself, since two processes of the
same code differ by several percent here, and so does one machine a minute later. A repetition's
difference is the mean over its cycles of how much the median step differs from the one without a
dashboard; the intervals over repetitions are Student's, 95 %. `stopped` (SIGSTOP) and `killed`
(SIGKILL) befall a server whose page is open. The browser runs in all four, with an empty page in
`absent`. Of a machine that others use, wall time says less than the training's processor time.
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
from chromium import Tab, opened
from first import turned
from live import ended, line, quiet

HERE = Path(__file__).parent
CONDITIONS = ("absent", "live", "stopped", "killed")
KINDS = ("wall_ms", "cpu_ms")
WITHIN = 0.01


def measure(
    playwright: Any, rounds: int, cycles: int, steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Of each condition the step's medians, and by how much it differs from none."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CONDITIONS}
    differ: dict[str, dict[str, list[float]]] = {
        name: {kind: [] for kind in KINDS} for name in CONDITIONS
    }
    for number in range(rounds):
        say(f"training: round {number + 1} of {rounds}")
        found = _training(playwright, cycles, steps, number)
        for name, blocks in found.items():
            taken[name] += blocks
            for kind in KINDS:
                pairs = zip(blocks, found["absent"], strict=True)
                more = [one[kind] / none[kind] - 1 for one, none in pairs]
                differ[name][kind].append(statistics.fmean(more))
    return {
        "rounds": rounds,
        "cycles": cycles,
        "steps": steps,
        "conditions": {
            name: {
                **{kind: statistics.median(one[kind] for one in many) for kind in KINDS},
                "server_cpu": statistics.median(one["server_cpu"] for one in many),
                **{f"{kind}_differs": interval(differ[name][kind]) for kind in KINDS},
            }
            for name, many in taken.items()
        },
    }


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of its 95 % interval by Student's t."""
    from scipy import stats

    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, -math.inf, math.inf]
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def _training(
    playwright: Any, cycles: int, steps: int, shift: int
) -> dict[str, list[dict[str, float]]]:
    """One training through all conditions so many times: its blocks of steps by condition."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONDITIONS}
    with (
        tempfile.TemporaryDirectory(prefix="cupel-bench-") as place,
        contextlib.ExitStack() as stack,
    ):
        root = Path(place) / "cupel"
        root.mkdir()
        process = subprocess.Popen(
            [sys.executable, str(HERE / "steps.py"), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet(),
        )
        stack.callback(ended, process)
        key = line(process)
        tab = stack.enter_context(opened(playwright))
        for cycle in range(cycles):
            for name in turned(CONDITIONS, cycle + shift):
                found[name].append(_block(tab, process, root, key, name, steps))
    return found


def _block(
    tab: Tab, process: subprocess.Popen[str], root: Path, key: str, name: str, steps: int
) -> dict[str, float]:
    """Some steps under one condition, which is over afterwards."""
    with contextlib.ExitStack() as stack:
        stack.callback(tab.page.goto, "about:blank")
        tab.settle()
        server, before = None, 0.0
        if name != "absent":
            server = stack.enter_context(servers.serving("cupel", root, [key], automatic=True))
            tab.page.goto(servers.run_page(server.address, key), wait_until="commit")
            tab.page.wait_for_selector(".card .chart canvas", timeout=60_000)
            tab.page.wait_for_timeout(1500)
            before = server.cpu()
        if server is not None and name != "live":
            server.kill(signal.SIGSTOP if name == "stopped" else signal.SIGKILL)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        told: dict[str, float] = json.loads(process.stdout.readline())
        used = server.cpu() - before if server is not None and name == "live" else 0.0
        return {**told, "server_cpu": used / told["seconds"]}
