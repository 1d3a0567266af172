"""`make bench-notes`: CPU seconds of `cupel notes` on 200 KB of notes, in one process.

The notes are copies of those of Titans under other names, the last one cut to size by whole
equations; so half of them build on nothing and none is trivial. Each measurement is the median of
several, after one that is not counted; importing is measured in fresh processes. `--json` prints
all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cupel.notes.graph import graph_of
from cupel.notes.lint import check
from cupel.notes.load import together
from cupel.notes.plan import plan
from cupel.notes.plan_scope import scope_of
from cupel.notes.reader import read
from cupel.notes.svg import as_svg

TITANS = Path(__file__).parents[2] / "notes" / "titans.context.md"
SIZE = 200_000  # bytes
TARGET = 0.3  # CPU seconds of lint and graph together
TIMES = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = measure()
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for line in table(found):
        print(line)


def measure() -> dict[str, Any]:
    """Everything, in CPU seconds."""
    texts = list(copies())
    readings = [read(text, path) for path, text in texts]
    notes = together(readings)
    assert not notes.serious, notes.serious[:3]
    scope = scope_of(notes.papers)
    return {
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "bytes": sum(len(text.encode()) for _, text in texts),
        "papers": len(texts),
        "equations": sum(len(paper.equations) for paper in notes.papers),
        "cpu_s": {
            "read": cpu(lambda: [read(text, path) for path, text in texts]),
            "check": cpu(lambda: check(readings)),
            "graph": cpu(
                lambda: [graph_of(notes.papers, k).levels() for k in ("equations", "modules")]
            ),
            "plan": cpu(lambda: plan(scope)),
            "svg": cpu(lambda: as_svg(graph_of(notes.papers))),
            "import": importing(),
        },
    }


def copies() -> Iterator[tuple[str, str]]:
    """Notes of Titans under other names until there are enough bytes."""
    text = TITANS.read_text(encoding="utf-8")
    made = number = 0
    while made < SIZE:
        number += 1
        name = f"copy{number}"
        one = text.replace("paper_id: titans", f"paper_id: {name}", 1)
        made += len(one.encode())
        yield f"{name}.context.md", one


def cpu(call: Callable[[], Any]) -> float:
    """The median of several times, in CPU seconds."""
    call()
    taken = []
    for _ in range(TIMES):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def importing() -> float:
    """CPU seconds of a fresh process that imports what lint needs, less those of an empty one."""

    def of(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    whole = min(of("import cupel.notes.load") for _ in range(5))
    return whole - min(of("pass") for _ in range(5))


def table(found: dict[str, Any]) -> Iterator[str]:
    """The results, as lines to be read."""
    machine, seconds = found["machine"], found["cpu_s"]
    yield (
        f"{found['bytes']:,} bytes of notes: {found['papers']} papers, {found['equations']} "
        f"equations; Python {machine['python']}, load {machine['load_average']:.1f} on "
        f"{machine['cpus']} CPUs"
    )
    for name, value in seconds.items():
        yield f"  {name:<8} {1000 * value:7.1f} ms CPU"
    whole = seconds["read"] + seconds["check"] + seconds["graph"]
    verdict = "within" if whole <= TARGET else "ABOVE"
    yield f"lint and graph: {whole:.3f} s CPU, {verdict} the target of {TARGET} s"


if __name__ == "__main__":
    main()
