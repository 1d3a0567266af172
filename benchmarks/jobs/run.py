"""`make bench-jobs`: what a job costs beside what it does, here and with peers.

Each runs in an environment of its own at a pinned version; all take turns, some rounds, and the
median round counts. The first run makes the environments. Machines are shared: read ratios, and the
load that is printed with them. `run.py faults` torments a sweep instead (tests/jobs/faults.py), and
`run.py disturbed` breaks the runs of a whole study, and compares its data with one left alone.
`--write` keeps the numbers in measured.json and the tables in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs_tables import tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MEASURED = HERE / "measured.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- jobs -->", "<!-- end of jobs -->"
HOME = ROOT / ".bench" / "peers"
PINS = {
    "submitit": ("submitit==1.5.4",),
    "hydra": ("hydra-core==1.3.8", "hydra-joblib-launcher==1.2.0"),
    "optuna": ("optuna==5.0.0",),
    "huey": ("huey==3.5.0",),
}
OURS = ("cupel warm", "cupel cold")
ALL = (*OURS, "pool", *PINS)
JOBS, SECONDS = 216, 0.05
FEWER = {"hydra": 24, "submitit": 24}  # a second or more a job: scaled, and said so
ROUNDS = 3
SETTLED_S = 61.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", "faults", "disturbed"), default="all")
    parser.add_argument("--only", nargs="*", choices=ALL)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--runs", type=int, default=100_000, help="of the long plan; 0 for none")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep the numbers, and show them in docs"
    )
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write keeps a whole measurement; leave out --only")
    found: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    if given.what == "faults":
        found["faults"] = {**faults(), **_machine()}
    elif given.what == "disturbed":
        found["disturbed"] = {**_machine(), **disturbed()}
    else:
        found = {name: found[name] for name in ("faults", "disturbed") if name in found}
        machine = _machine()
        found["versions"] = {name: ", ".join(pins) for name, pins in PINS.items()}
        found["jobs"], found["left out"] = compared(given.only or ALL, given.rounds)
        if given.runs:
            _say(f"a plan of {given.runs:,} runs")
            found["large"] = _large(given.runs)
        found["machine"] = {**machine, "load_average_after": os.getloadavg()[0]}
    if given.write:
        MEASURED.write_text(json.dumps(found, indent=2) + "\n")
        PAGE.write_text(with_tables(PAGE.read_text(), found))
    print(json.dumps(found, indent=2) if given.json else "\n".join(tables(found)))


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with the tables of a measurement between its two marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}", *tables(found), f"\n{END}{after}"])


def compared(names: Sequence[str], rounds: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Medians over rounds, in which all take turns; and why some were left out."""
    left_out = {name: told for name in names if (told := _made(name)) is not None}
    chosen = [name for name in names if name not in left_out]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    # ext4 without a journal looks past all inodes that were deleted in the last minute, one by one,
    # so whoever makes most files pays for what others have deleted (SQLite a file a transaction).
    # So nothing is deleted before the end, and ours begin a minute after the last peer.
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as place:
        for number, name in itertools.product(range(rounds), chosen):
            _say(f"jobs: round {number + 1} of {rounds}, {name}")
            folder = Path(tempfile.mkdtemp(dir=place))
            if name == chosen[0] and name in OURS:
                time.sleep(SETTLED_S)
            taken[name].append(_once(name, FEWER.get(name, JOBS), folder))
    medians = {
        name: {key: statistics.median(one[key] for one in many) for key in many[0]}
        for name, many in taken.items()
    }
    return medians, left_out


def _once(name: str, jobs: int, folder: Path) -> dict[str, float]:
    """One sweep: wall and CPU seconds of all its processes, the load when it began."""
    if name in OURS:
        command = [sys.executable, str(HERE / "ours.py"), name.split()[1]]
    else:
        python = sys.executable if name == "pool" else str(HOME / name / "bin" / "python")
        command = [python, str(HERE / "peers.py"), name]
    root = folder / "root"
    root.mkdir()
    load = os.getloadavg()[0]
    before, began = _cpu(), time.perf_counter()
    done = subprocess.run(
        [*command, str(root), str(jobs), str(SECONDS)],
        capture_output=True,
        text=True,
        cwd=folder,  # no repository, for anybody
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    wall = time.perf_counter() - began
    cpu = _cpu() - before
    if done.returncode or json.loads(done.stdout.splitlines()[-1])["done"] != jobs:
        raise SystemExit(f"{name} did not do its jobs:\n{done.stdout[-500:]}{done.stderr[-3000:]}")
    return {"jobs": jobs, "wall_s": wall, "cpu_s": cpu, "load": load}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _large(runs: int) -> Any:
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as folder:
        paths = os.pathsep.join((str(HERE), str(ROOT / "tests")))
        done = subprocess.run(
            [sys.executable, str(HERE / "large.py"), f"{folder}/runs", str(runs)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the long plan failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def faults() -> dict[str, Any]:
    """The full fault test; what was done and what was found."""
    _say("600 runs, 640 kills, 100 pauses: two minutes or so")
    harness = ROOT / "tests" / "jobs" / "faults.py"
    done = subprocess.run(
        [sys.executable, str(harness)], stdout=subprocess.PIPE, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def disturbed() -> dict[str, Any]:
    """A study in which everything goes wrong beside one that is left alone."""
    paths = os.pathsep.join((str(ROOT / "tests"), str(ROOT / "tests" / "exact")))
    done = subprocess.run(
        [sys.executable, str(HERE / "disturbed.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _made(name: str) -> str | None:
    """Make a peer's environment unless it is there; what went wrong, or None."""
    if name not in PINS:
        return None
    folder, pins = HOME / name, "\n".join(PINS[name])
    done = folder / "pins.txt"
    if done.exists() and done.read_text() == pins:
        return None
    _say(f"environment of {name}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "install", "--quiet", *PINS[name]], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        return f"it cannot be installed: {installed.stderr.strip().splitlines()[-1]}"
    done.write_text(pins)
    return None


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
