"""`make bench-dashboard`: how soon the dashboard shows, what it costs, beside TensorBoard, trackio.

    run.py [all|first|long|live|clients|training|appends|table …] [--quick] [--write]

Each tool runs at a pinned version in an environment of its own (those of `make bench-record`), has
the same data through its own interface, and is looked at with the same Chromium; the tools take
turns, seven rounds, and medians count. An hour or so in all; `--quick` is one round of everything.
`--write` keeps what was measured in measured.json, beside what is kept of other parts, and shows
it in docs/benchmarks.md. Everything is made in a temporary folder, unless `--data` names one.
Machines are shared: read ratios, processor times, and the load that is printed with them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dashboard_tables import TITLES, tables

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "measured.json"
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- dashboard -->", "<!-- end of dashboard -->"
ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["all", *TITLES], default="all")
    parser.add_argument("--quick", action="store_true", help="one round, little of everything")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--data", type=Path, help="where data is made, and found again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep the numbers, and show them in docs"
    )
    given = parser.parse_args()
    parts = list(TITLES) if "all" in given.parts else [p for p in TITLES if p in given.parts]
    found: dict[str, Any] = {}
    with _place(given.data) as folder:
        for name in parts:
            machine = _machine(quick=given.quick)
            part = measured(name, folder, 1 if given.quick else given.rounds, quick=given.quick)
            machine["load_average_after"] = os.getloadavg()[0]
            found[name] = {"machine": machine, **part}
            if given.write:
                _keep(name, found[name])
    print(json.dumps(found, indent=2) if given.json else "\n".join(tables(found)))


def measured(name: str, folder: Path, rounds: int, *, quick: bool) -> dict[str, Any]:
    """One part of the measurement."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return _parts(playwright, folder, rounds, quick=quick)[name]()


def _parts(
    playwright: Any, folder: Path, rounds: int, *, quick: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    import first
    import lasting
    import live
    import long
    import training

    seconds = 10 if quick else 60
    return {
        "first": lambda: first.measure(playwright, folder / "first", rounds, _say),
        "long": lambda: long.measure(playwright, folder / "long", rounds, _say),
        "live": lambda: live.measure(playwright, seconds, _say),
        "clients": lambda: live.measure(playwright, seconds, _say, clients=12),
        "training": lambda: training.measure(
            playwright, 2 if quick else max(10, rounds), 2 if quick else 12, 400, _say
        ),
        "appends": lambda: lasting.appends(playwright, 6000 if quick else lasting.APPENDS, _say),
        "table": lambda: lasting.table(playwright, lasting.TABLE_RUNS, _say),
    }


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with the tables of a measurement between its two marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", *tables(found), f"\n{END}{after}"])


def _keep(name: str, part: dict[str, Any]) -> None:
    """Write one part down at once: the others take long, and may fail."""
    kept: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    kept[name] = part
    kept = {name: kept[name] for name in TITLES if name in kept}
    MEASURED.write_text(json.dumps(kept, indent=2) + "\n")
    PAGE.write_text(with_tables(PAGE.read_text(), kept))


@contextlib.contextmanager
def _place(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
        yield Path(place)


def _machine(*, quick: bool) -> dict[str, Any]:
    from chromium import CHROMIUM

    told = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=True)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "chromium": " ".join(told.stdout.split()[:2]),
        "quick": quick,
        "load_average_before": os.getloadavg()[0],
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
