"""Ten runs of 100,000 points: how soon the first chart is seen, and what browser and server pay.

Each tool has the same curves, written through its own interface. `cold` is a server that has just
been started, of ours without what it had made of the record before; `warm` is the next browser,
which has no cache either. TensorBoard answers before it has read its files and tells a page that is
open nothing of what comes later, so its page is opened when it has; `opened_s` has that wait in it,
as if somebody had opened the page when the server first answered.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import servers
from chromium import first_view
from peers import PEERS, made, python_of, version_of

RUNS, POINTS = 10, 100_000
WRITE = Path(__file__).with_name("write.py")


def measure(
    playwright: Any, folder: Path, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Medians over rounds, in which the tools take turns."""
    left_out = {tool: told for tool in PEERS if (told := made(tool)) is not None}
    tools = ["cupel", *(tool for tool in PEERS if tool not in left_out)]
    runs = {tool: written(tool, folder, say) for tool in tools}
    taken: dict[str, list[dict[str, float]]] = {f"{t}, {how}": [] for t in tools for how in HOW}
    for number in range(rounds):
        for tool in turned(tools, number):
            say(f"first view: round {number + 1} of {rounds}, {tool}")
            for name, found in _round(playwright, tool, folder / tool, runs[tool]).items():
                taken[name].append(found)
    return {
        "rounds": rounds,
        "versions": {tool: version_of(tool) for tool in tools},
        "left out": left_out,
        "views": {name: medians(many) for name, many in taken.items()},
    }


HOW = ("cold", "warm")


def written(
    tool: str, folder: Path, say: Callable[[str], None], runs: int = RUNS, points: int = POINTS
) -> list[str]:
    """The names of a tool's runs, written now unless they are there."""
    done = folder / f"{tool}.json"
    if not done.exists():
        say(f"writing {runs} × {points:,} points with {tool}")
        folder.mkdir(parents=True, exist_ok=True)
        command = [python_of(tool), str(WRITE), tool, str(folder / tool), str(runs), str(points)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            raise SystemExit(f"{tool} could not write:\n{told.stderr[-3000:]}")
        done.write_text(told.stdout.splitlines()[-1])
    found: list[str] = json.loads(done.read_text())["runs"]
    return found


def turned(items: Sequence[str], number: int) -> list[str]:
    """The items in another order each time, so that nobody is always first."""
    at = number % len(items)
    return [*items[at:], *items[:at]]


def medians(many: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each number."""
    return {key: statistics.median(one[key] for one in many) for key in many[0]}


def _round(
    playwright: Any, tool: str, folder: Path, runs: Sequence[str]
) -> Iterable[tuple[str, dict[str, float]]] | Any:
    servers.forget(tool, folder)
    found = {}
    with servers.serving(tool, folder, runs) as server:
        begun = server.cpu()
        for how in HOW:
            before = server.cpu()
            view = first_view(playwright, tool, servers.page_of(tool, server.address, runs))
            after = server.cpu()
            cold = how == "cold"
            found[f"{tool}, {how}"] = {
                **view,
                "serving_s": server.serving_s,
                "data_s": server.data_s,
                "server_cpu_s": after - before + (begun if cold else 0.0),
                "opened_s": view["chart_s"] + (server.data_s - server.serving_s if cold else 0.0),
                "from_start_s": server.data_s + view["chart_s"] if cold else view["chart_s"],
                "rss_mb": server.rss_mb(),
            }
    return found
