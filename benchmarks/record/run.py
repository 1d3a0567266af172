"""`make bench-record`: what the record costs, keeps and how fast it reads, beside its peers.

Each tracker runs in an environment of its own at a pinned version, in a process of its own; all
take turns, three rounds, and the median round counts. The first run makes the environments.
Machines are shared: read ratios, and the load that is printed with them. About 30 minutes with
200 kills; `--write` keeps the numbers in measured.json and the tables in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import environments
import kills
import reading
from backends import BACKENDS
from tables import tables

HERE = Path(__file__).parent
CHILD = HERE / "child.py"
MEASURED = HERE / "measured.json"
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
ROUNDS = 3
PEER_PACE = 0.01  # seconds between calls of a peer's writers: as fast as steps of small models


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="of cupel's writers")
    parser.add_argument("--peer-kills", type=int, default=10, help="of each peer's writers")
    parser.add_argument("--only", nargs="*", choices=list(BACKENDS), help="these trackers")
    parts = ["log", "kills", "reading", "checkpoint"]
    parser.add_argument("--skip", nargs="*", choices=parts, default=[])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep the numbers, and show them in docs"
    )
    given = parser.parse_args()
    if given.write and (given.skip or given.only):
        parser.error("--write keeps a whole measurement; leave out --skip and --only")
    chosen, told = _installed(given.only or list(BACKENDS))
    found: dict[str, Any] = {"machine": _machine(), "left out": told}
    if "log" not in given.skip:
        found["log"] = log_costs(chosen)
    if "kills" not in given.skip:
        found["kills"] = lost_calls(chosen, given.kills, given.peer_kills)
    if "reading" not in given.skip:
        found["reading"] = reading.measure(_say)
    if "checkpoint" not in given.skip:
        _say("checkpoint: 100,000,000 parameters")
        found["checkpoint"] = _answer(
            [sys.executable, str(HERE / "checkpoint_cost.py"), "--one-line"]
        )
    found["machine"]["load_average_after"] = os.getloadavg()[0]
    if given.write:
        MEASURED.write_text(json.dumps(found, indent=2) + "\n")
        PAGE.write_text(with_tables(PAGE.read_text(), found))
    print(json.dumps(found, indent=2) if given.json else "\n".join(tables(found)))


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with the tables of a measurement between its two marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", *tables(found), f"\n{END}{after}"])


def log_costs(chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Medians over rounds of what `child.py cost` tells of each tracker."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for number in range(ROUNDS):
        for name in chosen:
            _say(f"log: round {number + 1} of {ROUNDS}, {name}")
            with tempfile.TemporaryDirectory(prefix="cupel-bench-") as folder:
                command = [environments.python_of(name), str(CHILD), "cost", name, folder]
                rounds[name].append(_answer(command))
    return {
        name: {
            key: value if isinstance(value, str) else statistics.median(one[key] for one in many)
            for key, value in many[0].items()
        }
        for name, many in rounds.items()
    }


def lost_calls(chosen: Sequence[str], own: int, others: int) -> dict[str, dict[str, Any]]:
    """What `kill -9` loses: cupel's writers as fast as they can, and everybody's at a pace."""
    found = {}
    for name in chosen:
        if name == "cupel sync":
            continue
        trials = own if name == "cupel" else others
        _say(f"kills: {name}, {trials} times")
        python = environments.python_of(name)
        if name == "cupel":
            found["cupel, as fast as it can"] = asdict(
                kills.measure(name, python, -(-trials // 3), writers=3)
            )
            trials = others
        found[name] = asdict(kills.measure(name, python, trials, writers=1, pace=PEER_PACE))
    return found


def _installed(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The trackers that can be measured here, and why others cannot."""
    chosen, told = [], {}
    for name in names:
        _say(f"environment of {name}")
        problem = environments.make(name)
        if problem is None:
            chosen.append(name)
        else:
            told[name] = problem
    return chosen, told


def _answer(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
