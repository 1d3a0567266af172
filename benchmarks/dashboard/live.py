"""From the return of `log()` to the frame in which the value is seen: ten runs, ten times a second.

Ten processes log a metric that counts, and a page shows all ten in one chart. Both clocks are the
machine's: a page's time is `performance.timeOrigin + performance.now()`. A value is seen when the
drawing that followed its message has been painted. With more clients, the others are programs that
subscribe to the same chart and read all they are sent; of them it counts when a message came.
"""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import servers
from chromium import opened, spent
from long import HOOKS

RUNS, HZ = 10, 10
HERE = Path(__file__).parent

_RECORD = """
(() => {
  const note = window.__note;
  note.log = [];
  let pending = null;
  note.onChart = (at, data, values) => {
    pending = { ...pending, ...values(data).newest };
  };
  note.onDrawn = () => {
    if (!pending) return;
    const newest = pending;
    pending = null;
    note.afterFrame((at) => note.log.push([at, newest]));
  };
})()"""


def measure(
    playwright: Any, seconds: float, say: Callable[[str], None], *, clients: int = 1
) -> dict[str, Any]:
    """Milliseconds from a call to its painting: percentiles, and what server and page used."""
    say(f"live: {RUNS} runs, {HZ} a second, {clients} clients, {seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
        root = Path(place) / "cupel"
        root.mkdir()
        with writers(root, seconds) as started, servers.serving("cupel", root, []) as server:
            keys = [key for _, key in started]
            url = servers.page_of("cupel", server.address, keys)
            with (
                opened(playwright, HOOKS) as tab,
                listeners(server.address, keys, clients - 1, seconds + 4) as others,
            ):
                tab.settle()
                tab.page.goto(url, wait_until="commit")
                tab.page.wait_for_selector(".card .chart canvas", timeout=60_000)
                tab.page.wait_for_timeout(1500)
                tab.page.evaluate(_RECORD)
                before, served = tab.cpu(), server.cpu()
                for writer, _ in started:
                    go(writer)
                tab.page.wait_for_timeout((seconds + 1) * 1e3)
                page_cpu, server_cpu = spent(before, tab.cpu()), server.cpu() - served
                seen = tab.page.evaluate("window.__note.log")
                heard = json.loads(others.communicate(timeout=60)[0]) if others else []
            returned = {
                key: json.loads(writer.communicate(timeout=60)[0]) for writer, key in started
            }
    page = latencies(returned, seen)
    others_ms = [ms for log in heard for ms in latencies(returned, log)]
    return {
        "seconds": seconds,
        "clients": clients,
        "values": len(page),
        "of": RUNS * int(HZ * seconds),
        "frames": len(seen),
        "p50_ms": percentile(page, 50),
        "p95_ms": percentile(page, 95),
        "worst_ms": max(page),
        "others_p50_ms": percentile(others_ms, 50),
        "others_p95_ms": percentile(others_ms, 95),
        "server_cpu": server_cpu / (seconds + 1),
        "page_cpu": page_cpu / (seconds + 1),
    }


def latencies(
    returned: dict[str, list[tuple[int, float]]], seen: Sequence[tuple[float, dict[str, float]]]
) -> list[float]:
    """Of each call how long until its value, or a later one of its run, was seen."""
    found = []
    for key, calls in returned.items():
        times, steps = [], []
        for at, newest in seen:
            if newest.get(key, -1) > (steps[-1] if steps else -1):
                times.append(at)
                steps.append(newest[key])
        for step, at in calls:
            place = bisect.bisect_left(steps, step)
            if place < len(steps):
                found.append(times[place] - at)
    return found


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which so many are; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


@contextmanager
def writers(
    root: Path, seconds: float, *, count: int = RUNS, pace: float = HZ
) -> Iterator[list[tuple[subprocess.Popen[str], str]]]:
    """Processes that are about to log, and the keys of their runs."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ticking.py"), str(root), f"live-{n}", str(pace),
             str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet(),
        )
        for n in range(count)
    ]  # fmt: skip
    try:
        yield [(process, line(process)) for process in processes]
    finally:
        for process in processes:
            ended(process)


@contextmanager
def listeners(
    address: str, keys: Sequence[str], count: int, seconds: float
) -> Iterator[subprocess.Popen[str] | None]:
    """A process of clients that subscribe to the chart of some runs and note what comes."""
    if not count:
        yield None
        return
    told = [address, servers.TOKEN, str(count), str(seconds), *keys]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "listening.py"), *told],
        stdout=subprocess.PIPE,
        text=True,
        env=quiet(),
    )
    try:
        yield process
    finally:
        ended(process)


def quiet() -> dict[str, str]:
    """An environment in which no dashboard starts by itself, and nothing takes both cores."""
    return {**os.environ, "CUPEL_DASHBOARD": "0", "OMP_NUM_THREADS": "1"}


def line(process: subprocess.Popen[str]) -> str:
    """The key that a process of ours says first."""
    assert process.stdout is not None
    key = process.stdout.readline().strip()
    assert "/" in key, f"a writer said {key!r}"
    return key


def go(process: subprocess.Popen[str]) -> None:
    """Let a process begin that waits for it."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> None:
    """End a process, however it stands, and what it was connected by."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
