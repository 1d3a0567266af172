"""What single calls cost: `session.log`, the dispatcher in a step, and starting cupel.

Taken directly, one call after the other, on whatever else the machine does: medians are to be
trusted, the 99th percentile belongs to the machine as much as to cupel.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cupel import registry
from cupel.config import load
from cupel.events import Dispatcher, Event
from cupel.record.session import Session

STEP_EVENTS = (Event.STEP_START, Event.AFTER_FORWARD, Event.AFTER_BACKWARD, Event.STEP_END)


def log(folder: Path, *, calls: int = 20_000) -> dict[str, float]:
    """`session.log` of ten floats into a file on disk: microseconds of wall time."""
    session = Session.start(root=folder, project="bench", name="log", config={}, identity="none")
    metrics = {f"metric/{name}": 1 / (name + 3) for name in range(10)}
    wall: list[int] = []
    for step in range(calls):
        began = time.perf_counter_ns()
        session.log(metrics, step=step)
        wall.append(time.perf_counter_ns() - began)
    session.finish("finished")
    percentiles = statistics.quantiles(wall, n=100)
    return {"median_us": percentiles[49] / 1e3, "p99_us": percentiles[98] / 1e3}


def step_parts(folder: Path) -> dict[str, float]:
    """What cupel does in each step besides training, but for the monitors' own work: CPU µs."""
    session = Session.start(root=folder, project="bench", name="parts", config={}, identity="none")
    metrics = {"loss": 3.14159, "lr": 1.9e-3, "grad_norm/total": 0.7182818}
    dispatcher = Dispatcher()
    for name, chosen in load("gpt-tiny").monitors.items():
        dispatcher.add_monitor(name, registry.resolve("monitor", name)(chosen))
    for name in ("figures", "display"):  # as many listeners as `cupel run` has
        dispatcher.add_listener(name, lambda event, payload: None, Event)

    def dispatch() -> None:
        for event in STEP_EVENTS:
            dispatcher.watches(event, 7)
        dispatcher.tell(Event.STEP_START, {"step": 7})
        dispatcher.tell(Event.STEP_END, {"step": 7, **metrics})

    costs = {
        "log": _cpu_us(lambda: session.log(metrics, step=7)),
        "dispatcher": _cpu_us(dispatch),
    }
    session.finish("finished")
    return costs


def starting() -> dict[str, float]:
    """CPU seconds of a fresh process, the least of seven; an empty Python for comparison."""
    return {
        "python": _cpu_s_of("-c", "pass"),
        "import cupel": _cpu_s_of("-c", "import cupel"),
        "import cupel, start a run": _cpu_s_of("-c", "import cupel; cupel.init"),
        "cupel --help": _cpu_s_of("-m", "cupel", "--help"),
    }


def _cpu_us(call: Callable[[], Any], *, calls: int = 2000, times: int = 9) -> float:
    """The median over several times of the mean of many calls."""
    means = []
    for _ in range(times):
        began = time.process_time()
        for _ in range(calls):
            call()
        means.append((time.process_time() - began) / calls * 1e6)
    return statistics.median(means)


def _cpu_s_of(*arguments: str) -> float:
    taken = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)
