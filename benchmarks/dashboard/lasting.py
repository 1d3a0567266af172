"""What lasts: half an hour of appends, and a table of 10,000 runs that is scrolled from end to end.

18,000 appends are half an hour at ten a second. Here the server sends as fast as it can (its pace
is a constant, set higher before it starts; nothing else differs), and a page that shows the chart
takes each. After every thousand the heap is measured, garbage collected before.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import servers
from chromium import opened, spent
from live import go, percentile, writers
from long import HOOKS
from peers import neighbour

APPENDS, EVERY = 18_000, 1000
SETTLED = 2  # thousands, until everything that is made once is made
FASTER = "import cupel.dashboard.hub as hub; hub.HZ = 500; hub.TICK_S = 0.002"
PACE = 250  # calls of log a second
TABLE_RUNS = 10_000

_FRAMES = """
() => {
  const found = (window.__frames = { deltas: [], tasks: [], on: true });
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) found.tasks.push(one.duration);
  }).observe({ type: "longtask" });
  let last = 0;
  const frame = (at) => {
    if (last) found.deltas.push(at - last);
    last = at;
    if (found.on) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""

_ROWS_SEEN = """
(() => {
  const look = () => {
    if (document.querySelectorAll("SELECTOR").length > 5) window.tellRows(performance.now());
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()"""
ROW = "main tbody tr, main [role=row]"


def appends(playwright: Any, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """MB of heap after every thousand appends, and the slope of a line through them."""
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
        root = Path(place) / "cupel"
        root.mkdir()
        seconds = count / 10  # at the most; it is ended when enough has come
        with (
            writers(root, seconds, count=1, pace=PACE) as ((writer, key),),
            servers.serving("cupel", root, [key], code=FASTER) as server,
            opened(playwright, HOOKS) as tab,
        ):
            tab.settle()
            tab.page.goto(servers.run_page(server.address, key), wait_until="commit")
            tab.page.wait_for_selector(".card .chart canvas", timeout=60_000)
            go(writer)
            before, served, heaps, took = tab.cpu(), server.cpu(), [], 0
            rss = [server.rss_mb()]
            for number in range(count // EVERY):
                while tab.page.evaluate("window.__note.chart") < (number + 1) * EVERY:
                    if writer.poll() is not None:
                        raise SystemExit(f"the writer ended after {number * EVERY} appends")
                    tab.page.wait_for_timeout(200)
                used, backing = tab.heap()
                heaps.append([used, backing])
                rss.append(server.rss_mb())
                say(f"appends: {(number + 1) * EVERY:,}, heap {used:.2f} + {backing:.2f} MB")
            took = tab.page.evaluate("window.__note.chart")
            drawn = tab.page.evaluate("window.__note.drawn")
            page_cpu, server_cpu = spent(before, tab.cpu()), server.cpu() - served
    return {
        "appends": took,
        "drawn": drawn,
        "heap_mb": heaps,
        "rss_mb": rss,
        "slope_mb": slope([used + backing for used, backing in heaps][SETTLED:]),
        "rss_slope_mb": slope(rss[SETTLED:]),
        "page_cpu_ms": page_cpu / took * 1e3,
        "server_cpu_ms": server_cpu / took * 1e3,
    }


def slope(values: Sequence[float]) -> float | None:
    """What is added from one value to the next, by least squares; None of fewer than three."""
    if len(values) < 3:
        return None
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    above = sum((n - middle) * (value - mean) for n, value in enumerate(values))
    return above / sum((n - middle) ** 2 for n in range(len(values)))


def table(playwright: Any, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """How soon a table of so many runs is seen, and its frames while it is scrolled through."""
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
        root = Path(place) / "cupel"
        say(f"table: making {runs:,} runs")
        neighbour("reading").make_runs(root, runs)
        found: dict[str, Any] = {"runs": runs}
        with servers.serving("cupel", root, []) as server:
            for how in ("cold", "warm"):
                say(f"table: {how}")
                found[how] = _scrolled(playwright, f"{server.address}/#t={servers.TOKEN}")
            found["rss_mb"] = server.rss_mb()
    return found


def _scrolled(playwright: Any, url: str) -> dict[str, Any]:
    with opened(playwright, _ROWS_SEEN.replace("SELECTOR", ROW)) as tab:
        told = tab.heard("tellRows")
        tab.settle()
        tab.wire.listen(tab.session)
        before = tab.cpu()
        tab.page.goto(url, wait_until="commit")
        rows_ms = tab.wait(told, 120)
        tab.page.wait_for_timeout(1000)
        opened_cpu, sent = spent(before, tab.cpu(), "renderer", "GPU"), tab.wire.all_bytes
        tab.page.mouse.move(700, 600)
        tab.page.evaluate(_FRAMES)
        still, turns = 0, 0
        last = None
        while still < 5 and turns < 2000:
            tab.page.mouse.wheel(0, 1500)
            tab.page.wait_for_timeout(16)
            turns += 1
            if turns % 10 == 0:
                at = tab.page.evaluate(_PLACE)
                still = still + 1 if at == last else 0
                last = at
        tab.page.wait_for_timeout(300)
        frames = json.loads(
            tab.page.evaluate("(window.__frames.on = false, JSON.stringify(window.__frames))")
        )
        heap, _ = tab.heap()
        return {
            "rows_s": rows_ms / 1e3,
            "cpu_s": opened_cpu,
            "bytes": sent,
            "scrolled_to": last,
            "frames": len(frames["deltas"]),
            "longest_frame_ms": max(frames["deltas"]),
            "p99_frame_ms": percentile(frames["deltas"], 99),
            "longest_task_ms": max(frames["tasks"], default=0.0),
            "heap_mb": heap,
        }


# How far down whatever scrolls has been scrolled.
_PLACE = """
Math.round(
  Math.max(
    scrollY,
    ...[...document.querySelectorAll("main, main div")].map((one) => one.scrollTop),
  ),
)
"""
