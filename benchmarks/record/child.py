"""One process of a measurement, run in the environment of the tracker that it measures.

    child.py cost BACKEND FOLDER --calls N --seconds S      prints JSON
    child.py stream BACKEND FOLDER --seed K                 logs until it is killed
    child.py recover BACKEND FOLDER                         prints the steps that can be read

`stream` writes into FOLDER/returned how many calls have returned, through a memory map: what the
page cache holds survives the death of a process, so the count is neither early nor late by more
than the call under way.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import mmap
import os
import random
import struct
import time
from pathlib import Path

from backends import BACKENDS, QUIET

STARTED = time.perf_counter()  # nothing of a tracker is imported yet

NAMES = (  # ten that a training run logs; `last` is written last, and looked for
    *("loss", "val_loss", "lr", "weight_decay", "grad_norm/total", "weight_norm/total"),
    *("time/step_s", "perf/tokens_per_s", "epoch", "last"),
)
SCALARS = len(NAMES)
COUNTER = "returned"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["cost", "stream", "recover"])
    parser.add_argument("backend", choices=list(BACKENDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between calls")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ |= QUIET
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "cost":
        print(json.dumps(cost(given.backend, given.folder, given.calls, given.seconds)))
    elif given.what == "stream":
        stream(given.backend, given.folder, random.Random(given.seed), given.pace)
    else:
        print(json.dumps(sorted(BACKENDS[given.backend].recover(given.folder))))


def cost(name: str, folder: Path, calls: int, seconds: float) -> dict[str, object]:
    """Microseconds of each call with ten scalars, as the caller feels it, up to a cap."""
    backend = BACKENDS[name]()
    backend.open(folder)
    opened = time.perf_counter() - STARTED
    values = dict.fromkeys(NAMES, 0.0)
    draw = random.Random(0)
    for step in range(20):  # first calls create what is created once
        backend.log(values, step)
    taken: list[int] = []
    cpu, begun = time.process_time(), time.perf_counter()
    while len(taken) < calls and time.perf_counter() - begun < seconds:
        for key in values:
            values[key] = draw.random()
        step = 20 + len(taken)
        before = time.perf_counter_ns()
        backend.log(values, step)
        taken.append(time.perf_counter_ns() - before)
    cpu = time.process_time() - cpu
    closing = time.perf_counter()
    backend.close()
    closed = time.perf_counter() - closing
    taken.sort()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "version": importlib.metadata.version(backend.package),
        "calls": len(taken),
        "median_us": taken[len(taken) // 2] / 1000,
        "p99_us": taken[int(len(taken) * 0.99)] / 1000,
        "cpu_us": cpu / len(taken) * 1e6,
        "open_s": opened,
        "close_s": closed,
        "bytes_a_scalar": size / ((len(taken) + 20) * SCALARS),
    }


def stream(name: str, folder: Path, draw: random.Random, pace: float) -> None:
    """Calls of 1 to 40 scalars, without end; `last` is in each, and is written last."""
    backend = BACKENDS[name]()
    backend.open(folder)
    path = folder / COUNTER
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as returned:
        step = 0
        while True:
            values = {f"m{i}": draw.random() for i in range(draw.randrange(40))}
            step += 1
            backend.log({**values, "last": float(step)}, step)
            returned[:] = struct.pack("<q", step)  # at once; pack_into would set it to 0 first
            if pace:
                time.sleep(pace)


if __name__ == "__main__":
    main()
