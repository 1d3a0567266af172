"""What a dashboard costs the training beside it: open and live, stopped, killed, absent.

Each repetition is one training that goes through the conditions again and again, some hundred
steps in each, and it is compared with itself: two processes of the same code differ by several
percent here, and the machine has two speeds, of which it keeps one for seconds. A cycle is absent,
live and stopped (SIGSTOP, the page open) in turns, killed (the page open); its blocks are compared
with the mean of the absent ones before and after. Of a repetition the median over its cycles
counts; the intervals are Student's, 95 %, over repetitions. The browser runs all the time, in
`absent` with an empty page, and the training rests as long before each block: the one that followed
another at once was 3 % faster than any should be.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import servers
from chromium import Tab, opened
from live import ended, line, quiet

HERE = Path(__file__).parent
CONDITIONS = ("absent", "live", "stopped", "killed")
KINDS = ("wall_ms", "cpu_ms")
WITHIN = 0.01
PATIENCE_S = 300
REST_MS = 500  # before each block


def measure(
    playwright: Any, rounds: int, cycles: int, steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Of each condition the step's medians, and by how much it differs from none."""
    blocks: dict[str, list[dict[str, float]]] = {name: [] for name in CONDITIONS}
    differ: dict[str, dict[str, list[float]]] = {
        name: {kind: [] for kind in KINDS} for name in CONDITIONS
    }
    for number in range(rounds):
        say(f"training: round {number + 1} of {rounds}")
        taken = _training(playwright, cycles, steps)
        for name in CONDITIONS:
            blocks[name] += [cycle[name] for cycle in taken if name in cycle]
            for kind in KINDS:
                differ[name][kind].append(statistics.median(_more(taken, name, kind)))
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
            for name, many in blocks.items()
        },
    }


def _more(taken: Sequence[dict[str, dict[str, float]]], name: str, kind: str) -> list[float]:
    """By how much the steps of each cycle differ from those without a dashboard around them."""
    pairs = itertools.pairwise(taken)
    return [
        one[name][kind] / statistics.fmean((one["absent"][kind], after["absent"][kind])) - 1
        if name != "absent"
        else after["absent"][kind] / one["absent"][kind] - 1
        for one, after in pairs
    ]


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of its 95 % interval by Student's t."""
    from scipy import stats

    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, -math.inf, math.inf]
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def _training(playwright: Any, cycles: int, steps: int) -> list[dict[str, dict[str, float]]]:
    """One training through all conditions so many times, and once more without a dashboard: of
    each cycle its blocks of steps by condition."""
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
        tab.settle()
        taken = [_cycle(tab, process, root, key, steps, odd=n % 2 == 1) for n in range(cycles)]
        return [*taken, {"absent": _block(tab, process, steps)}]


def _cycle(
    tab: Tab, process: subprocess.Popen[str], root: Path, key: str, steps: int, *, odd: bool
) -> dict[str, dict[str, float]]:
    """A block of steps in each condition."""
    found = {"absent": _block(tab, process, steps)}
    with servers.serving("cupel", root, [key], automatic=True) as server:
        tab.page.goto(servers.run_page(server.address, key), wait_until="commit")
        tab.page.wait_for_selector(".card .chart canvas", timeout=60_000)
        tab.page.wait_for_timeout(1000)
        for name in ("stopped", "live") if odd else ("live", "stopped"):
            server.kill(signal.SIGSTOP if name == "stopped" else signal.SIGCONT)
            found[name] = _block(tab, process, steps, server)
        server.kill(signal.SIGKILL)
        found["killed"] = _block(tab, process, steps)
    tab.page.goto("about:blank")
    return found


def _block(
    tab: Tab, process: subprocess.Popen[str], steps: int, server: servers.Server | None = None
) -> dict[str, float]:
    """Some steps after a rest: what one took, all of them, and the server meanwhile."""
    assert process.stdin is not None
    assert process.stdout is not None
    tab.page.wait_for_timeout(REST_MS)
    before = server.cpu() if server else 0.0
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    late = threading.Timer(PATIENCE_S, process.kill)
    late.start()
    said = process.stdout.readline()
    late.cancel()
    if not said:
        raise SystemExit(f"the training ended before {steps} steps were made")
    told: dict[str, float] = json.loads(said)
    used = server.cpu() - before if server else 0.0
    return {**told, "server_cpu": used / told["seconds"]}
