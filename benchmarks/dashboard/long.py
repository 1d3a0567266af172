"""One run of 10,000,000 points: the overview, cold and warm, and twenty zooms into it.

A zoom is asked for as the page's own controls do it, by its address. It is done when the first
drawing after the server's answer has been painted; `answer` is from the page's question until the
answer was there, so it is what the server takes and the way.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import servers
from chromium import first_view, opened
from peers import neighbour

POINTS = 10_000_000
ZOOMS = 20
HOOKS = Path(__file__).with_name("hooks.js").read_text()

# Ends when the first drawing that follows the answer has been painted.
_ZOOM = """
([low, high]) => new Promise((done) => {
  const note = window.__note;
  const began = note.wall();
  let answered = 0;
  note.onChart = (at) => { answered ||= at; };
  note.onDrawn = () => {
    if (!answered) return;
    note.onDrawn = note.onChart = null;
    const asked = note.askedAt;
    note.afterFrame((at) => done([answered - asked, at - began]));
  };
  const address = new URL(location.href);
  address.searchParams.set("from", low);
  address.searchParams.set("to", high);
  history.replaceState(null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
})"""


def measure(
    playwright: Any, folder: Path, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of the first chart, and milliseconds of zooms; medians over rounds, and the worst."""
    root = folder / "cupel"
    key = _written(root, say)
    cold, warm, restarted, answers, drawn = [], [], [], [], []
    for number in range(rounds):
        say(f"10,000,000 points: round {number + 1} of {rounds}")
        servers.forget("cupel", root)
        with servers.serving("cupel", root, [key]) as server:
            cold.append(first_view(playwright, "cupel", servers.run_page(server.address, key)))
            warm.append(first_view(playwright, "cupel", servers.run_page(server.address, key)))
        with servers.serving("cupel", root, [key]) as server:
            restarted.append(first_view(playwright, "cupel", servers.run_page(server.address, key)))
            took = _zooms(playwright, servers.run_page(server.address, key), random.Random(number))
            answers += [answer for answer, _ in took]
            drawn += [ms for _, ms in took]
            rss = server.rss_mb()
    return {
        "rounds": rounds,
        "points": POINTS,
        "cold_s": statistics.median(one["chart_s"] for one in cold),
        "warm_s": statistics.median(one["chart_s"] for one in warm),
        "restarted_s": statistics.median(one["chart_s"] for one in restarted),
        "warm_bytes": statistics.median(one["bytes"] for one in warm),
        "zooms": len(drawn),
        "answer_ms": statistics.median(answers),
        "answer_worst_ms": max(answers),
        "drawn_ms": statistics.median(drawn),
        "drawn_worst_ms": max(drawn),
        "rss_mb": rss,
    }


def _zooms(playwright: Any, url: str, draw: random.Random) -> list[tuple[float, float]]:
    with opened(playwright, HOOKS) as tab:
        tab.settle()
        tab.page.goto(url, wait_until="commit")
        tab.page.wait_for_selector(".card .chart canvas")
        tab.page.wait_for_timeout(1000)
        found = []
        for low, high in views(draw):
            found.append(tuple(tab.page.evaluate(_ZOOM, [low, high])))
            tab.page.wait_for_timeout(150)
        return found


def views(draw: random.Random) -> list[tuple[int, int]]:
    """Twenty stretches, from half of all points down to a hundred."""
    found = []
    for number in range(ZOOMS):
        width = int(POINTS / 2 * (200 / POINTS) ** (number / (ZOOMS - 1)))
        low = draw.randrange(POINTS - width)
        found.append((low, low + width))
    draw.shuffle(found)
    return found


def _written(root: Path, say: Callable[[str], None]) -> str:
    if not list(root.glob("bench/*")):
        say(f"writing {POINTS:,} points, line by line as a session does")
        neighbour("reading").make_run(root, points=POINTS)
    (run,) = root.glob("bench/*")
    return f"bench/{run.name}"
